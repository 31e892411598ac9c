//! The accept stage, before the first frame.

use alloc::{sync::Arc, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use bytes::BytesMut;

use super::{input::Input, random::Random};
use crate::{
    Timestamp,
    accept::{
        Accept, AcceptConfig, Acceptor, Addresses, ExpectProxy, MAX_STEPS, Monitor, Origin, Peer, Policy,
        ProxyVersion, SourceRules, Step, encode_proxy_header,
    },
    config::Checked,
};

const NOW: Timestamp = Timestamp::from_millis(1_000);

/// The handlers do the same however the bytes are cut; no order of inputs panics; and the PROXY header of an accepted origin
/// round-trips.
pub fn accept(data: &[u8]) {
    let mut input = Input::new(data);
    let mut config = AcceptConfig::new();
    for _ in 0..usize::from(input.byte()) % (MAX_STEPS + 1) {
        let step = match input.byte() % 7 {
            0 | 1 => Step::from(ExpectProxy { max_len: 200, ..ExpectProxy::new() }),
            2 => Step::from(Monitor::new("ping\n", "pong\n")),
            3 => Step::Tls,
            5 => Step::from(Monitor::for_all("up\n").lame_duck("drain\n")),
            4 => Step::from(SourceRules::new(Policy::Allow).deny("10.0.0.0/9".parse().expect("a network"))),
            _ => Step::from(Monitor::new("PROXY TCP4 1", "no")),
        };
        // A handler that may not come twice, or not here, is left out.
        config = config.clone().with(step).unwrap_or(config);
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

/// The results of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Story {
    /// The actions, without those that ask for more bytes or for a write.
    actions: Vec<Accept>,
    /// The response to a monitor.
    sent: Vec<u8>,
    /// The bytes that are left for the session, those that the handlers did not read included.
    rest: Vec<u8>,
}

/// Drives a connection whose bytes arrive in `pieces`. TLS is done as soon as it starts and does not change the bytes; a
/// response is sent byte by byte.
fn drive<'a>(
    config: &Arc<Checked<AcceptConfig>>,
    from: &Peer,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    eof: bool,
) -> Story {
    let mut acceptor = Acceptor::new(config.clone(), from.clone(), NOW);
    let mut story = Story { actions: Vec::new(), sent: Vec::new(), rest: Vec::new() };
    let mut pieces = pieces.into_iter();
    let mut inbox = BytesMut::from(pieces.next().unwrap_or_default());
    let mut ended = false;
    let mut action = acceptor.on_bytes(NOW, &mut inbox);
    loop {
        match &action {
            Accept::WantBytes { at_least } => assert!(*at_least > 0, "asks for nothing"),
            Accept::SendReply => {}
            other => story.actions.push(other.clone()),
        }
        assert_eq!(acceptor.outgoing().is_empty(), action != Accept::SendReply);
        action = match action {
            Accept::StartTls => acceptor.on_tls_done(NOW, &mut inbox),
            Accept::SendReply => {
                story.sent.push(acceptor.outgoing()[0]);
                acceptor.on_sent(NOW, 1)
            }
            Accept::WantBytes { .. } | Accept::ShutWrite => match pieces.next() {
                Some(piece) => {
                    inbox.extend_from_slice(piece);
                    acceptor.on_bytes(NOW, &mut inbox)
                }
                None if eof && !ended => {
                    ended = true;
                    acceptor.on_input_eof(NOW, &mut inbox)
                }
                None => break,
            },
            Accept::Paused | Accept::Refuse(_) | Accept::Close(_) | Accept::Ready(_) => {
                assert_eq!(acceptor.deadline(), None);
                assert_eq!(acceptor.on_bytes(NOW, &mut inbox), Accept::Paused);
                break;
            }
        };
    }
    // The unread bytes of a refused connection do not count.
    if matches!(story.actions.last(), Some(Accept::Ready(_))) {
        story.rest.extend_from_slice(&inbox);
        story.rest.extend(pieces.flatten());
    }
    story
}

fn any_order(config: Arc<Checked<AcceptConfig>>, peer: Peer, input: &mut Input<'_>) {
    let mut acceptor = Acceptor::new(config, peer, NOW);
    let mut inbox = BytesMut::new();
    let mut over = false;
    while !input.is_empty() {
        let what = input.byte();
        let now = Timestamp::ZERO + Duration::from_secs(u64::from(what >> 4));
        let action = match what & 7 {
            0..=2 => {
                inbox.extend_from_slice(input.bytes());
                acceptor.on_bytes(now, &mut inbox)
            }
            3 => acceptor.on_input_eof(now, &mut inbox),
            4 => {
                let action = acceptor.on_timeout(now);
                assert!(acceptor.deadline().is_none_or(|deadline| deadline > now));
                action
            }
            5 => {
                acceptor.set_lame_duck(what & 8 == 8);
                acceptor.on_tls_done(now, &mut inbox)
            }
            _ => acceptor.on_sent(now, input.byte().into()),
        };
        assert!(!over || action == Accept::Paused, "{action:?} after the end");
        over |= matches!(action, Accept::Ready(_) | Accept::Refuse(_) | Accept::Close(_));
        assert_eq!(over, acceptor.deadline().is_none());
        assert_eq!(acceptor.outgoing().is_empty(), action != Accept::SendReply);
        if let Accept::Refuse(refusal) = action {
            assert!(!alloc::string::ToString::to_string(&refusal).is_empty());
        }
    }
}

/// Encodes the PROXY header of an origin, as the other side would, and decodes it.
fn write_again(origin: &Origin) {
    let addresses = origin.announced();
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut bytes = Vec::new();
        encode_proxy_header(version, addresses, &mut bytes);
        let config = AcceptConfig::new().with(ExpectProxy::new()).expect("one step");
        let mut acceptor = Acceptor::new(
            Arc::new(config.checked().expect("a configuration that can work")),
            Peer::unnamed(),
            NOW,
        );
        let mut inbox = BytesMut::from(&bytes[..]);
        let action = acceptor.on_bytes(NOW, &mut inbox);
        let Accept::Ready(again) = action else { panic!("{action:?} of {}", bytes.escape_ascii()) };
        assert!(inbox.is_empty());
        if let Some(Addresses { source, destination }) = addresses
            && source.ip().is_some_and(|ip| destination.ip().is_some_and(|to| ip.is_ipv4() == to.is_ipv4()))
        {
            assert_eq!(again.announced(), addresses);
        }
    }
}
