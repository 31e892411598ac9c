//! The accept stage: what comes before the first frame.

#[path = "../../../spop-core/src/accept/tests/drive.rs"]
mod drive;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use self::drive::{NOW, check, drive};
use crate::{input::Input, random::Random};
use spop_core::{
    Timestamp,
    accept::{
        Accept, AcceptConfig, AcceptHandler, Acceptor, Addresses, ExpectProxy, MAX_HANDLERS, Monitor, Origin,
        Peer, Policy, ProxyVersion, SourceRules, encode_proxy_header,
    },
    config::Checked,
    testing::Inbox,
};

/// The result does not depend on how the bytes are cut; no order of events panics; and the PROXY header of an accepted
/// origin can be written and read again.
pub fn accept(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut config, mut proxy) = (AcceptConfig::new(), ExpectProxy::new());
    proxy.max_len = 200;
    for _ in 0..usize::from(input.byte()) % (MAX_HANDLERS + 1) {
        let handler = match input.byte() % 7 {
            0 | 1 => AcceptHandler::from(proxy.clone()),
            2 => AcceptHandler::from(Monitor::new("ping\n", "pong\n")),
            3 => AcceptHandler::Tls,
            5 => AcceptHandler::from(Monitor::for_all("up\n").lame_duck("drain\n")),
            4 => AcceptHandler::from(
                SourceRules::new(Policy::Allow).deny("10.0.0.0/9".parse().expect("a network")),
            ),
            _ => AcceptHandler::from(Monitor::new("PROXY TCP4 1", "no")),
        };
        // A handler that may not come twice, or not here, is left out.
        config = config.clone().with(handler).unwrap_or(config);
    }
    let config = Arc::new(config.checked().expect("a configuration that can work"));
    let mode = input.byte();
    let address = if mode & 2 == 0 { "10.200.0.1:4711" } else { "10.1.0.1:4711" };
    let peer = Peer::from(address.parse::<SocketAddr>().expect("an address"));
    if mode & 4 == 0 {
        let eof = mode & 1 == 1;
        let bytes = input.rest();
        let whole = drive(&config, &peer, [bytes], eof);
        assert_eq!(drive(&config, &peer, bytes.chunks(1), eof), whole, "byte by byte");
        let mut random = Random::seeded(bytes.len() as u64);
        let (mut pieces, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(random.piece(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        assert_eq!(drive(&config, &peer, pieces, eof), whole, "at random");
        if let Some(Accept::Ready(origin)) = whole.actions.last() {
            write_again(origin);
        }
    } else {
        any_order(config, peer, &mut input);
    }
}

fn any_order(config: Arc<Checked<AcceptConfig>>, peer: Peer, input: &mut Input<'_>) {
    let mut acceptor = Acceptor::new(config, peer, NOW);
    let mut inbox = Inbox::new();
    let mut over = false;
    while !input.is_empty() {
        let what = input.byte();
        let now = Timestamp::ZERO + Duration::from_secs(u64::from(what >> 4));
        let action = match what & 7 {
            0..=2 => {
                inbox.extend_from_slice(input.bytes());
                inbox.feed(|input| acceptor.on_bytes(now, input))
            }
            3 => inbox.feed(|input| acceptor.on_input_eof(now, input)),
            4 => {
                let action = acceptor.on_timeout(now);
                assert!(acceptor.deadline().is_none_or(|deadline| deadline > now));
                action
            }
            5 => {
                acceptor.set_lame_duck(what & 8 == 8);
                if acceptor.on_tls_done(now).is_err() {
                    continue;
                }
                inbox.feed(|input| acceptor.on_bytes(now, input))
            }
            _ => {
                let (outgoing, n) = (acceptor.outgoing().len(), input.byte().into());
                let sent = acceptor.on_sent(now, n);
                assert_eq!(sent.is_err(), n > outgoing, "{n} of {outgoing}");
                let Ok(action) = sent else { continue };
                action
            }
        };
        check(&acceptor, &action, &mut over);
    }
}

/// Writes the PROXY header of an origin, as a proxy would, and reads it.
fn write_again(origin: &Origin) {
    let addresses = origin.announced();
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut bytes = Vec::new();
        encode_proxy_header(version, addresses, &mut bytes);
        let config = AcceptConfig::new().with(ExpectProxy::new()).expect("one handler");
        let mut acceptor = Acceptor::new(
            Arc::new(config.checked().expect("a configuration that can work")),
            Peer::unnamed(),
            NOW,
        );
        let mut inbox = Inbox::from(&bytes[..]);
        let action = inbox.feed(|input| acceptor.on_bytes(NOW, input));
        let Accept::Ready(again) = action else { panic!("{action:?} of {}", bytes.escape_ascii()) };
        assert!(inbox.is_empty());
        if let Some(Addresses { source, destination }) = addresses
            && source.ip().is_some_and(|ip| destination.ip().is_some_and(|to| ip.is_ipv4() == to.is_ipv4()))
        {
            // An IPv4-mapped address is written as the IPv4 address that it is.
            let mapped = |peer: &Peer| peer.ip().is_some_and(|ip| ip != ip.to_canonical());
            if mapped(source) || mapped(destination) {
                let canonical = |addresses: Option<&Addresses>| {
                    let addresses = addresses.expect("addresses");
                    [&addresses.source, &addresses.destination]
                        .map(|peer| peer.ip().map(|ip| ip.to_canonical()))
                };
                assert_eq!(canonical(again.announced()), canonical(addresses));
            } else {
                assert_eq!(again.announced(), addresses);
            }
        }
    }
}
