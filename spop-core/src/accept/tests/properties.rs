//! Random input, cut at random.

use alloc::string::String;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{drive::check, *};

/// Bytes that get somewhere: whole headers, probes and frames one after another, some of them damaged.
fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let header = (any::<bool>(), any::<Option<(SocketAddr, SocketAddr)>>()).prop_map(|(binary, ends)| {
        let version = if binary { ProxyVersion::V2 } else { ProxyVersion::V1 };
        let addresses = ends.map(|(source, destination)| Addresses {
            source: source.into(),
            destination: destination.into(),
        });
        let mut bytes = Vec::new();
        encode_proxy_header(version, addresses.as_ref(), &mut bytes);
        bytes
    });
    let binary = (prop_oneof![Just(0x20_u8), Just(0x21), any::<u8>()], any::<u8>(), vec(any::<u8>(), 0..300))
        .prop_map(|(command, family, body)| {
            [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &(body.len() as u16).to_be_bytes(), &body]
                .concat()
        });
    let part = prop_oneof![
        4 => header,
        2 => binary,
        1 => "PROXY (TCP4|TCP6|UNKNOWN)[ 0-9a-f.:+\r\n]{0,110}".prop_map(String::into_bytes),
        1 => Just(b"ping\n".to_vec()),
        1 => Just(FRAME.to_vec()),
        1 => vec(any::<u8>(), 0..40),
    ];
    (vec(part, 0..4), vec((any::<Index>(), any::<u8>()), 0..2)).prop_map(|(parts, damage)| {
        let mut bytes = parts.concat();
        for (place, byte) in damage {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        bytes
    })
}

fn configs() -> impl Strategy<Value = Arc<Checked<AcceptConfig>>> {
    let expect = ExpectProxy { max_len: 200, ..ExpectProxy::new() };
    let handler = prop_oneof![
        Just(AcceptHandler::from(expect)),
        Just(ping()),
        Just(AcceptHandler::Tls),
        Just(deny("10.0.0.0/9")),
        Just(AcceptHandler::from(Monitor::new("PROXY TCP4 1", "no"))),
        Just(AcceptHandler::from(Monitor::for_all("up\n").lame_duck("drain\n"))),
    ];
    // A handler that may not come twice, or not there, is left out.
    vec(handler, 0..=MAX_HANDLERS).prop_map(|handlers| {
        let config = handlers
            .into_iter()
            .fold(AcceptConfig::new(), |config, handler| config.clone().with(handler).unwrap_or(config));
        Arc::new(config.checked().unwrap())
    })
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_the_cuts(
        config in configs(),
        bytes in traffic(),
        cuts in vec(any::<Index>(), 0..6),
        eof: bool,
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces.push(&bytes[from..]);
        let whole = drive(&config, &peer("10.200.0.1"), [&bytes[..]], eof);
        prop_assert_eq!(&drive(&config, &peer("10.200.0.1"), pieces, eof), &whole);
        prop_assert_eq!(drive(&config, &peer("10.200.0.1"), bytes.chunks(1), eof), whole);
    }

    #[test]
    fn no_order_of_events_panics(
        config in configs(),
        inputs in vec((0_u8..6, 0_u64..8, traffic()), 0..20),
    ) {
        let mut acceptor = Acceptor::new(config, Peer::unnamed(), NOW);
        let mut inbox = Inbox::new();
        let mut over = false;
        for (input, seconds, bytes) in inputs {
            let now = Timestamp::ZERO + Duration::from_secs(seconds);
            let action = match input {
                0 => {
                    inbox.extend_from_slice(&bytes);
                    inbox.feed(|input| acceptor.on_bytes(now, input))
                }
                1 => inbox.feed(|input| acceptor.on_input_eof(now, input)),
                2 => {
                    let action = acceptor.on_timeout(now);
                    prop_assert!(acceptor.deadline().is_none_or(|deadline| deadline > now));
                    action
                }
                3 if acceptor.on_tls_done(now).is_err() => continue,
                3 => inbox.feed(|input| acceptor.on_bytes(now, input)),
                4 => {
                    acceptor.set_lame_duck(bytes.len() % 2 == 1);
                    inbox.feed(|input| acceptor.on_bytes(now, input))
                }
                _ => {
                    let outgoing = acceptor.outgoing().len();
                    let sent = acceptor.on_sent(now, bytes.len());
                    prop_assert_eq!(sent.is_err(), bytes.len() > outgoing);
                    let Ok(action) = sent else { continue };
                    action
                }
            };
            check(&acceptor, &action, &mut over);
        }
    }
}
