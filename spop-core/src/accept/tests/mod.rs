//! Each handler, their orders, and every cut of what they read.

mod monitors;
#[cfg(feature = "proxy")]
mod properties;
#[cfg(feature = "proxy")]
mod proxy;

use alloc::{
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{net::SocketAddr, time::Duration};

use bytes::BytesMut;

use super::*;
use crate::{Timestamp, config::Checked};

const FRAME: &[u8] = b"\0\0\0\x81\x01\0\0\0\x01\0\0";
const NOW: Timestamp = Timestamp::from_millis(1_000);

fn peer(address: &str) -> Peer {
    Peer::Ip(SocketAddr::new(address.parse().unwrap(), 4711))
}

fn list<const N: usize>(steps: [Step; N]) -> Arc<Checked<AcceptConfig>> {
    let config = steps.into_iter().fold(AcceptConfig::new(), |config, step| config.with(step).unwrap());
    Arc::new(config.checked().unwrap())
}

fn ping() -> Step {
    Monitor::new("ping\n", "pong\n").into()
}

fn deny(network: &str) -> Step {
    SourceRules::new(Policy::Allow).deny(network.parse().unwrap()).into()
}

/// Everything that one connection came to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Story {
    /// The actions, but for those that ask for more bytes or to go on sending.
    actions: Vec<Accept>,
    /// What a monitor was answered.
    sent: Vec<u8>,
    /// What is left for the session, with all that the handlers did not want to see.
    rest: Vec<u8>,
}

impl Story {
    fn end(&self) -> &Accept {
        self.actions.last().expect("nothing came of it")
    }

    fn refusal(&self) -> &RefuseReason {
        let Accept::Refuse(refusal) = self.end() else { panic!("not refused: {self:?}") };
        &refusal.reason
    }

    /// What the refusal says.
    fn says(&self) -> String {
        let Accept::Refuse(refusal) = self.end() else { panic!("not refused: {self:?}") };
        refusal.to_string()
    }

    fn origin(&self) -> &Origin {
        let Accept::Ready(origin) = self.end() else { panic!("no session: {self:?}") };
        origin
    }
}

/// Drives a connection whose bytes come in `pieces`. TLS is done as soon as it starts and leaves the bytes as they are; of
/// an answer one byte leaves at a time.
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
    // What a refused connection held is nobody's.
    if matches!(story.actions.last(), Some(Accept::Ready(_))) {
        story.rest.extend_from_slice(&inbox);
        story.rest.extend(pieces.flatten());
    }
    story
}

/// Drives a connection whole, byte by byte, and cut in two at each place: the story is one.
fn tell(config: &Arc<Checked<AcceptConfig>>, from: &Peer, bytes: &[u8], eof: bool) -> Story {
    let story = drive(config, from, [bytes], eof);
    assert_eq!(drive(config, from, bytes.chunks(1), eof), story, "byte by byte");
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(drive(config, from, [head, tail], eof), story, "cut at {cut}");
    }
    story
}

#[test]
fn without_handlers_a_connection_is_a_session_at_once() {
    let mut acceptor = Acceptor::new(list([]), Peer::unnamed(), NOW);
    assert_eq!(acceptor.on_bytes(NOW, &mut BytesMut::new()), Accept::Ready(Origin::new(Peer::unnamed())));
    let story = tell(&list([]), &peer("192.0.2.1"), FRAME, false);
    assert_eq!(story.rest, FRAME);
    assert_eq!(story.origin().to_string(), "192.0.2.1:4711");
}

#[test]
fn a_rule_on_the_source_refuses() {
    let config = list([
        deny("10.0.0.0/8"),
        SourceRules::new(Policy::Deny).allow("192.0.2.0/24".parse().unwrap()).into(),
    ]);
    assert_eq!(
        tell(&config, &peer("10.1.1.1"), FRAME, false).says(),
        "10.1.1.1 is denied by the rule for 10.0.0.0/8"
    );
    assert_eq!(
        tell(&config, &peer("::ffff:10.1.1.1"), b"", false).says(),
        "10.1.1.1 is denied by the rule for 10.0.0.0/8"
    );
    assert_eq!(
        tell(&config, &peer("2001:db8::1"), b"", false).says(),
        "2001:db8::1 is denied: no rule allows it"
    );
    assert_eq!(tell(&config, &peer("192.0.2.1"), FRAME, false).rest, FRAME);
    assert_eq!(tell(&config, &Peer::unnamed(), FRAME, false).rest, FRAME);
    let network = "10.0.0.0/8".parse().ok();
    let denied = RefuseReason::Denied { announced: None, network };
    assert_eq!(tell(&config, &peer("10.1.1.1"), b"", true).refusal(), &denied);
    let mut rules = SourceRules::new(Policy::Allow);
    rules.unix = Policy::Deny;
    assert_eq!(tell(&list([rules.into()]), &Peer::unnamed(), FRAME, false).says(), "a unix socket is denied");
}

#[test]
fn tls_is_done_by_somebody_else() {
    let config = list([ping(), Step::Tls, ping()]);
    let mut acceptor = Acceptor::new(config.clone(), peer("192.0.2.1"), NOW);
    let mut inbox = BytesMut::from("\x16\x03\x01");
    assert_eq!(acceptor.on_bytes(NOW, &mut inbox), Accept::StartTls);
    assert_eq!(inbox, b"\x16\x03\x01"[..]);
    assert_eq!(acceptor.on_bytes(NOW, &mut inbox), Accept::Paused);
    assert_eq!(acceptor.deadline(), Some(NOW + config.timeout));
    let mut decrypted = BytesMut::from("pi");
    assert_eq!(acceptor.on_tls_done(NOW, &mut decrypted), Accept::WantBytes { at_least: 1 });
    assert_eq!(acceptor.on_tls_done(NOW, &mut decrypted), Accept::WantBytes { at_least: 1 });
    decrypted.extend_from_slice(b"e");
    let Accept::Ready(origin) = acceptor.on_bytes(NOW, &mut decrypted) else { panic!() };
    assert_eq!((origin.to_string(), &decrypted[..]), ("192.0.2.1:4711 over TLS".into(), &b"pie"[..]));
}

#[test]
fn a_peer_that_leaves_before_tls_is_done_is_named() {
    let config = list([Step::Tls]);
    let mut acceptor = Acceptor::new(config.clone(), peer("192.0.2.1"), NOW);
    assert_eq!(acceptor.on_bytes(NOW, &mut BytesMut::new()), Accept::StartTls);
    let Accept::Refuse(refusal) = acceptor.on_input_eof(NOW, &mut BytesMut::new()) else { panic!() };
    assert_eq!(refusal.to_string(), "192.0.2.1 closed the connection before TLS was done");
    let mut late = Acceptor::new(config, peer("192.0.2.1"), NOW);
    let Accept::Refuse(refusal) = late.on_input_eof(NOW, &mut BytesMut::from("\x16")) else { panic!() };
    assert_eq!(refusal.reason, RefuseReason::Eof { during: Waiting::Tls, got: 1 });
}

#[test]
fn the_time_is_one_for_all_handlers() {
    let end = NOW + AcceptConfig::new().timeout;
    let cases: [(_, &[u8], _); 3] = [
        (ping(), b"pin", "neither a probe nor a session from 192.0.2.1 within 5s"),
        (Step::Tls, b"", "TLS with 192.0.2.1 was not done within 5s"),
        (ping(), b"ping\n", "192.0.2.1 did not read the monitor's answer within 5s"),
    ];
    for (step, bytes, says) in cases {
        let mut acceptor = Acceptor::new(list([step]), peer("192.0.2.1"), NOW);
        let mut inbox = BytesMut::from(bytes);
        let action = acceptor.on_bytes(NOW, &mut inbox);
        let early = acceptor.on_timeout(Timestamp::ZERO);
        assert!(early == action || action == Accept::StartTls && early == Accept::Paused);
        assert_eq!(acceptor.deadline(), Some(end));
        let Accept::Refuse(refusal) = acceptor.on_timeout(end) else { panic!() };
        assert_eq!(refusal.to_string(), says);
        assert_eq!((acceptor.deadline(), acceptor.outgoing()), (None, &[][..]));
        assert_eq!(acceptor.on_timeout(end), Accept::Paused);
        assert_eq!(acceptor.on_tls_done(end, &mut inbox), Accept::Paused);
        assert_eq!(acceptor.on_sent(end, 1), Accept::Paused);
        assert_eq!(acceptor.on_input_eof(end, &mut inbox), Accept::Paused);
    }
}

#[test]
fn an_opening_ends_in_its_session_or_says_what_it_waited_for() {
    let addresses = Addresses { source: peer("203.0.113.9"), destination: peer("192.0.2.1") };
    let config =
        OpenConfig { proxy: Some(ProxyVersion::V2), tls: true, ..OpenConfig::default() }.checked().unwrap();
    let end = NOW + config.timeout;
    let mut opening = Opening::new(&config, Some(&addresses), NOW);
    assert_eq!(opening.on_tls_done(NOW), Open::SendHeader);
    assert_eq!(opening.on_sent(NOW, 27), Open::SendHeader);
    assert_eq!(opening.outgoing().len(), 1);
    let mut slow = opening.clone();
    assert_eq!(slow.on_timeout(NOW), Open::SendHeader);
    let Open::Fail(error) = slow.on_timeout(end) else { panic!() };
    assert_eq!(error.to_string(), "sending the PROXY header was not done within 5s");
    assert_eq!((slow.deadline(), slow.outgoing()), (None, &[][..]));
    assert_eq!(opening.on_sent(NOW, 1), Open::StartTls);
    let mut cut = opening.clone();
    let Open::Fail(error) = cut.on_input_eof(NOW) else { panic!() };
    assert_eq!(error.to_string(), "the peer closed the connection before TLS was done");
    assert_eq!(opening.deadline(), Some(end));
    assert_eq!(opening.on_sent(NOW, 0), Open::Paused);
    assert_eq!(opening.on_tls_done(NOW), Open::Ready);
    assert_eq!(opening.deadline(), None);
    assert_eq!(opening.on_timeout(end), Open::Paused);
    assert_eq!(opening.on_input_eof(end), Open::Paused);

    assert_eq!(Opening::new(&Checked::default(), None, NOW).on_connected(NOW), Open::Ready);
}
