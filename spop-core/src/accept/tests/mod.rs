//! Each handler, their order in the list, and every way to cut their input.

mod drive;
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

use self::drive::{NOW, Trace, drive};
use super::*;
use crate::{
    Timestamp,
    config::Checked,
    link::{Misuse, Step},
    testing::Inbox,
};

const FRAME: &[u8] = b"\0\0\0\x81\x01\0\0\0\x01\0\0";

fn peer(address: &str) -> Peer {
    Peer::Ip(SocketAddr::new(address.parse().unwrap(), 4711))
}

fn list<const N: usize>(handlers: [AcceptHandler; N]) -> Arc<Checked<AcceptConfig>> {
    let config =
        handlers.into_iter().fold(AcceptConfig::new(), |config, handler| config.with(handler).unwrap());
    Arc::new(config.checked().unwrap())
}

fn ping() -> AcceptHandler {
    Monitor::new("ping\n", "pong\n").into()
}

fn deny(network: &str) -> AcceptHandler {
    SourceRules::new(Policy::Allow).deny(network.parse().unwrap()).into()
}

impl Trace {
    fn end(&self) -> &Accept {
        self.actions.last().expect("no action")
    }

    fn refusal(&self) -> &RefuseReason {
        let Accept::Refuse(refusal) = self.end() else { panic!("not refused: {self:?}") };
        &refusal.reason
    }

    /// The message of the refusal.
    fn message(&self) -> String {
        let Accept::Refuse(refusal) = self.end() else { panic!("not refused: {self:?}") };
        refusal.to_string()
    }

    fn origin(&self) -> &Origin {
        let Accept::Ready(origin) = self.end() else { panic!("no session: {self:?}") };
        origin
    }
}

/// Drives a connection whose bytes come at once, one by one, and cut in two at each place. The trace is the same.
fn drive_cut(config: &Arc<Checked<AcceptConfig>>, from: &Peer, bytes: &[u8], eof: bool) -> Trace {
    let trace = drive(config, from, [bytes], eof);
    assert_eq!(drive(config, from, bytes.chunks(1), eof), trace, "byte by byte");
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(drive(config, from, [head, tail], eof), trace, "cut at {cut}");
    }
    trace
}

#[test]
fn without_handlers_a_connection_is_a_session_at_once() {
    let mut acceptor = Acceptor::new(list([]), Peer::unnamed(), NOW);
    assert_eq!(acceptor.on_bytes(NOW, &[]).action, Accept::Ready(Origin::new(Peer::unnamed())));
    let trace = drive_cut(&list([]), &peer("192.0.2.1"), FRAME, false);
    assert_eq!(trace.rest, FRAME);
    assert_eq!(trace.origin().to_string(), "192.0.2.1:4711");
}

#[test]
fn a_rule_on_the_source_refuses() {
    let config = list([
        deny("10.0.0.0/8"),
        SourceRules::new(Policy::Deny).allow("192.0.2.0/24".parse().unwrap()).into(),
    ]);
    assert_eq!(
        drive_cut(&config, &peer("10.1.1.1"), FRAME, false).message(),
        "10.1.1.1 is denied by the rule for 10.0.0.0/8"
    );
    assert_eq!(
        drive_cut(&config, &peer("::ffff:10.1.1.1"), b"", false).message(),
        "10.1.1.1 is denied by the rule for 10.0.0.0/8"
    );
    assert_eq!(
        drive_cut(&config, &peer("2001:db8::1"), b"", false).message(),
        "2001:db8::1 is denied: no rule allows it"
    );
    assert_eq!(drive_cut(&config, &peer("192.0.2.1"), FRAME, false).rest, FRAME);
    assert_eq!(drive_cut(&config, &Peer::unnamed(), FRAME, false).rest, FRAME);
    let network = "10.0.0.0/8".parse().ok();
    let denied = RefuseReason::Denied { announced: None, network };
    assert_eq!(drive_cut(&config, &peer("10.1.1.1"), b"", true).refusal(), &denied);
    let mut rules = SourceRules::new(Policy::Allow);
    rules.unix = Policy::Deny;
    assert_eq!(
        drive_cut(&list([rules.into()]), &Peer::unnamed(), FRAME, false).message(),
        "a unix socket is denied"
    );
}

#[test]
fn tls_is_done_by_the_driver() {
    let config = list([ping(), AcceptHandler::Tls, ping()]);
    let mut acceptor = Acceptor::new(config.clone(), peer("192.0.2.1"), NOW);
    let first = Step { consumed: 0, action: Accept::StartTls };
    assert_eq!(acceptor.on_bytes(NOW, b"\x16\x03\x01"), first, "the ClientHello belongs to TLS");
    let paused = Step { consumed: 0, action: Accept::Paused };
    assert_eq!(acceptor.on_bytes(NOW, b"\x16\x03\x01"), paused);
    assert_eq!(acceptor.deadline(), Some(NOW + config.timeout));
    acceptor.on_tls_done(NOW).unwrap();
    let wants = Step { consumed: 0, action: Accept::WantBytes { at_least: 1 } };
    assert_eq!(acceptor.on_bytes(NOW, b"pi"), wants);
    let step = acceptor.on_bytes(NOW, b"pie");
    let Accept::Ready(origin) = step.action else { panic!() };
    assert_eq!((step.consumed, origin.to_string()), (0, "192.0.2.1:4711 over TLS".into()));
}

#[test]
fn a_peer_that_leaves_before_tls_is_done_is_named() {
    let config = list([AcceptHandler::Tls]);
    let mut acceptor = Acceptor::new(config.clone(), peer("192.0.2.1"), NOW);
    assert_eq!(acceptor.on_bytes(NOW, &[]).action, Accept::StartTls);
    let Accept::Refuse(refusal) = acceptor.on_input_eof(NOW, &[]).action else { panic!() };
    assert_eq!(refusal.to_string(), "192.0.2.1 closed the connection before TLS was done");
    let mut late = Acceptor::new(config, peer("192.0.2.1"), NOW);
    let Accept::Refuse(refusal) = late.on_input_eof(NOW, b"\x16").action else { panic!() };
    assert_eq!(refusal.reason, RefuseReason::Eof { during: Waiting::Tls, got: 1 });
}

#[test]
fn the_time_is_one_for_all_handlers() {
    let end = NOW + AcceptConfig::new().timeout;
    let cases: [(_, &[u8], _); 3] = [
        (ping(), b"pin", "neither a probe nor a session from 192.0.2.1 within 5s"),
        (AcceptHandler::Tls, b"", "TLS with 192.0.2.1 was not done within 5s"),
        (ping(), b"ping\n", "192.0.2.1 did not read the monitor's answer within 5s"),
    ];
    for (handler, bytes, message) in cases {
        let mut acceptor = Acceptor::new(list([handler]), peer("192.0.2.1"), NOW);
        let mut inbox = Inbox::from(bytes);
        let action = inbox.feed(|input| acceptor.on_bytes(NOW, input));
        let early = acceptor.on_timeout(Timestamp::ZERO);
        assert!(early == action || action == Accept::StartTls && early == Accept::Paused);
        assert_eq!(acceptor.deadline(), Some(end));
        let Accept::Refuse(refusal) = acceptor.on_timeout(end) else { panic!() };
        assert_eq!(refusal.to_string(), message);
        assert_eq!((acceptor.deadline(), acceptor.outgoing()), (None, &[][..]));
        assert_eq!(acceptor.on_timeout(end), Accept::Paused);
        assert_eq!(acceptor.on_sent(end, 0), Ok(Accept::Paused));
        assert_eq!(inbox.feed(|input| acceptor.on_input_eof(end, input)), Accept::Paused);
    }
}

#[test]
fn an_opening_ends_in_its_session_or_says_what_it_waited_for() {
    let addresses = Addresses { source: peer("203.0.113.9"), destination: peer("192.0.2.1") };
    let config =
        OpenConfig { proxy: Some(ProxyVersion::V2), tls: true, ..OpenConfig::default() }.checked().unwrap();
    let end = NOW + config.timeout;
    let mut opening = Opening::new(&config, Some(&addresses), NOW);
    assert_eq!(opening.on_sent(NOW, 27), Ok(Open::SendHeader));
    assert_eq!(opening.outgoing().len(), 1);
    let mut slow = opening.clone();
    assert_eq!(slow.on_timeout(NOW), Open::SendHeader);
    let Open::Fail(error) = slow.on_timeout(end) else { panic!() };
    assert_eq!(error.to_string(), "sending the PROXY header was not done within 5s");
    assert_eq!((slow.deadline(), slow.outgoing()), (None, &[][..]));
    assert_eq!(opening.on_sent(NOW, 1), Ok(Open::StartTls));
    let mut cut = opening.clone();
    let Open::Fail(error) = cut.on_input_eof(NOW) else { panic!() };
    assert_eq!(error.to_string(), "the peer closed the connection before TLS was done");
    assert_eq!(opening.deadline(), Some(end));
    assert_eq!(opening.on_sent(NOW, 0), Ok(Open::Paused));
    assert_eq!(opening.on_tls_done(NOW), Ok(Open::Ready));
    assert_eq!(opening.deadline(), None);
    assert_eq!(opening.on_timeout(end), Open::Paused);
    assert_eq!(opening.on_input_eof(end), Open::Paused);

    assert_eq!(Opening::new(&Checked::default(), None, NOW).on_connected(NOW), Open::Ready);
}

#[test]
fn misuse_is_an_error_and_changes_nothing() {
    let too_much = |sent, outgoing| Err::<Accept, _>(Misuse::SentTooMuch { sent, outgoing });
    let mut acceptor = Acceptor::new(list([ping(), AcceptHandler::Tls]), peer("192.0.2.1"), NOW);
    assert_eq!(acceptor.on_sent(NOW, 1), too_much(1, 0));
    assert_eq!(acceptor.on_tls_done(NOW), Err(Misuse::TlsNotRequested));
    let mut probe = acceptor.clone();
    assert_eq!(probe.on_bytes(NOW, b"ping\n"), Step { consumed: 5, action: Accept::SendReply });
    assert_eq!(probe.on_sent(NOW, 6), too_much(6, 5));
    assert_eq!(probe.on_tls_done(NOW), Err(Misuse::TlsNotRequested));
    assert_eq!(probe.outgoing(), b"pong\n");
    assert_eq!(probe.on_sent(NOW, 5), Ok(Accept::ShutWrite));
    assert_eq!(acceptor.on_bytes(NOW, FRAME).action, Accept::StartTls);
    assert_eq!(acceptor.on_sent(NOW, 1), too_much(1, 0));
    assert_eq!(acceptor.on_tls_done(NOW), Ok(()));
    assert_eq!(acceptor.on_tls_done(NOW), Err(Misuse::TlsNotRequested));
    assert!(matches!(acceptor.on_bytes(NOW, b"").action, Accept::Ready(_)));
    assert_eq!(acceptor.on_tls_done(NOW), Err(Misuse::TlsNotRequested));

    let config =
        OpenConfig { proxy: Some(ProxyVersion::V1), tls: true, ..OpenConfig::default() }.checked().unwrap();
    let mut opening = Opening::new(&config, None, NOW);
    assert_eq!(opening.on_sent(NOW, 16), Err(Misuse::SentTooMuch { sent: 16, outgoing: 15 }));
    assert_eq!(opening.on_tls_done(NOW), Err(Misuse::TlsNotRequested));
    assert_eq!((opening.outgoing().len(), opening.on_sent(NOW, 15)), (15, Ok(Open::StartTls)));
    assert_eq!(opening.on_sent(NOW, 1), Err(Misuse::SentTooMuch { sent: 1, outgoing: 0 }));
    assert_eq!(opening.on_tls_done(NOW), Ok(Open::Ready));
    assert_eq!(opening.on_tls_done(NOW), Err(Misuse::TlsNotRequested));
}

#[test]
fn the_rest_of_the_input_belongs_to_what_comes_next() {
    for (handlers, bytes, consumed, action) in [
        (list([ping()]), FRAME, 0, Accept::Ready(Origin::new(peer("192.0.2.1")))),
        (list([ping(), AcceptHandler::Tls]), b"\x16\x03\x01", 0, Accept::StartTls),
        (list([ping()]), b"ping\nand more", 13, Accept::SendReply),
    ] {
        let mut acceptor = Acceptor::new(handlers, peer("192.0.2.1"), NOW);
        assert_eq!(acceptor.on_bytes(NOW, bytes), Step { consumed, action });
    }
}
