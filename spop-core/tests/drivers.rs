//! What a transcript cannot say: drivers and applications that err, and numbers that are exact.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // It is a test.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use spop_core::{
    AckError, Action, Actions, AgentConfig, AgentReactor, ConnectionId, Notify, Scope, Settled, Status,
    Ticket, Timer, Timestamp, Value,
    agent::PipeliningPolicy,
    link::{Interest, Phase, Progress},
    notation,
};

const NOW: Timestamp = Timestamp::from_millis(1_000);
const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async";

fn frame(line: &str) -> Vec<u8> {
    notation::parse_bytes(line).unwrap()
}

fn established(config: AgentConfig, connection: u64) -> (AgentReactor, BytesMut) {
    let mut reactor = AgentReactor::new(Arc::new(config), ConnectionId(connection), NOW);
    let mut inbox = BytesMut::from(&frame(HELLO)[..]);
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::Established(_)));
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::SendFrames));
    let n = reactor.outgoing().len();
    let _ = reactor.on_sent(NOW, n);
    (reactor, inbox)
}

fn ticket(reactor: &mut AgentReactor, inbox: &mut BytesMut, line: &str) -> Ticket {
    inbox.extend_from_slice(&frame(line));
    match reactor.on_bytes(NOW, inbox) {
        Action::RunMessages(notify) => notify.ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ticket_of_another_connection_comes_back_and_nothing_changes() {
    let (mut home, mut inbox) = established(AgentConfig::default(), 1);
    let (mut other, _) = established(AgentConfig::default(), 2);
    let actions = Actions::new();
    let mine = ticket(&mut home, &mut inbox, "NOTIFY fin 5 1 m");
    let id = mine.id();
    let returned = |error: AckError| {
        assert!(matches!(error, AckError::WrongConnection { connection: ConnectionId(2), .. }));
        error.into_ticket()
    };
    let mine = returned(other.acknowledge(NOW, mine, &actions).unwrap_err());
    let mine = returned(other.acknowledge_part(NOW, mine, &actions).unwrap_err());
    let mine = returned(other.abort_answer(NOW, mine).unwrap_err());
    let mine = returned(other.fail(NOW, mine).unwrap_err());
    assert!(other.outgoing().is_empty());
    assert!(home.is_waiting(id));
    assert_eq!(home.acknowledge(NOW, mine, &actions), Ok(Settled::Queued));
    assert!(!home.is_waiting(id));
}

#[test]
fn an_answer_that_is_released_after_a_part_of_it_holds_up_no_other() {
    let (mut reactor, mut inbox) = (AgentReactor::new(Arc::default(), ConnectionId(1), NOW), BytesMut::new());
    inbox.extend_from_slice(&frame(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:256 \
         capabilities=string:\"pipelining,fragmentation\"",
    ));
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::Established(_)));
    let mut part = Actions::new();
    part.set_var(Scope::Request, "x", Value::Binary(&[0; 100]));
    let n = reactor.outgoing().len();
    let _ = reactor.on_sent(NOW, n);
    for begun in [false, true] {
        let first = ticket(&mut reactor, &mut inbox, "NOTIFY fin 5 1 m");
        let second = ticket(&mut reactor, &mut inbox, "NOTIFY fin 7 1 m");
        let mut first = reactor.acknowledge_part(NOW, first, &part).unwrap();
        for _ in 0..if begun { 3 } else { 0 } {
            first = reactor.acknowledge_part(NOW, first, &part).unwrap();
        }
        assert_eq!(reactor.outgoing().is_empty(), !begun);
        let n = reactor.outgoing().len();
        let _ = reactor.on_sent(NOW, n);
        assert!(reactor.release(NOW, first.id()));
        assert!(!reactor.release(NOW, first.id()));
        let mut long = Actions::new();
        long.set_var(Scope::Request, "y", Value::Binary(&[0; 300]));
        assert_eq!(reactor.acknowledge(NOW, second, &long), Ok(Settled::Queued));
        let out = reactor.outgoing().to_vec();
        let _ = reactor.on_sent(NOW, out.len());
        // The peer learns that the rest does not come, if it has got a part.
        assert_eq!(out.starts_with(&frame("UNSET fin,abort 5 1")), begun);
        assert!(!reactor.is_waiting(first.id()) && reactor.outgoing_bytes() == 0);
        assert!(matches!(reactor.deadline(), Some((_, Timer::Idle))));
        assert_eq!(reactor.acknowledge(NOW, first, &part), Ok(Settled::Dropped));
    }
}

#[test]
fn an_endless_time_to_close_never_ends() {
    let mut config = AgentConfig::default();
    config.timeouts.linger = Duration::MAX;
    let (mut reactor, _) = established(config, 1);
    let _ = reactor.disconnect(NOW, Status::NORMAL, "bye");
    assert!(matches!(reactor.deadline(), Some((at, Timer::Linger)) if at == NOW + Duration::MAX));
}

#[test]
fn a_ticket_is_not_its_namesake_though_its_slot_is_used_again() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    let first = ticket(&mut reactor, &mut inbox, "NOTIFY fin 5 1 m");
    inbox.extend_from_slice(&frame("NOTIFY fin 5 1 m"));
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::CancelMessages(_)));
    let Action::RunMessages(second) = reactor.on_bytes(NOW, &mut inbox) else { panic!() };
    assert_ne!(first.id(), second.ticket.id());
    assert_eq!(reactor.acknowledge(NOW, first, &Actions::new()), Ok(Settled::Dropped));
    assert!(reactor.outgoing().is_empty());
    assert_eq!(reactor.acknowledge(NOW, second.ticket, &Actions::new()), Ok(Settled::Queued));
}

#[test]
fn a_ticket_outlives_the_memory_given_back() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    let tickets: Vec<_> =
        (0..20).map(|n| ticket(&mut reactor, &mut inbox, &format!("NOTIFY fin {n} 1 m"))).collect();
    inbox.extend_from_slice(&frame("NOTIFY fin 0 1 m"));
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::CancelMessages(_)));
    let Action::RunMessages(Notify { ticket: newer, .. }) = reactor.on_bytes(NOW, &mut inbox) else {
        panic!()
    };
    let mut tickets = tickets.into_iter();
    let cancelled = tickets.next().unwrap();
    for ticket in tickets.chain([newer]) {
        assert_eq!(reactor.acknowledge(NOW, ticket, &Actions::new()), Ok(Settled::Queued));
    }
    let n = reactor.outgoing().len();
    let _ = reactor.on_sent(NOW, n);
    let _ = reactor.on_read_blocked(NOW);
    let again = ticket(&mut reactor, &mut inbox, "NOTIFY fin 0 1 m");
    assert_eq!(reactor.acknowledge(NOW, cancelled, &Actions::new()), Ok(Settled::Dropped));
    assert!(reactor.is_waiting(again.id()));
    let _ = reactor.acknowledge(NOW, again, &Actions::new());
}

#[test]
fn at_least_is_exactly_what_is_missing() {
    let bytes = frame("NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7");
    for have in 0..bytes.len() {
        let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
        inbox.extend_from_slice(&bytes[..have]);
        let missing = if have < 4 { 4 } else { bytes.len() } - have;
        match reactor.on_bytes(NOW, &mut inbox) {
            Action::WantBytes { at_least } => assert_eq!(at_least, missing),
            other => panic!("{other:?}"),
        }
        assert_eq!(inbox.len(), have, "what is not a frame yet stays");
    }
}

#[test]
fn a_drain_does_not_end_what_a_limit_left_in_the_inbox() {
    let mut config = AgentConfig::default();
    config.limits.max_in_flight = 1;
    let (mut reactor, mut inbox) = established(config, 1);
    let first = ticket(&mut reactor, &mut inbox, "NOTIFY fin 5 1 m");
    inbox.extend_from_slice(&frame("NOTIFY fin 7 1 m"));
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::Paused));
    reactor.drain(NOW);
    let _ = reactor.acknowledge(NOW, first, &Actions::new());
    // A drain holds answers back, but not when reading waits for them to leave.
    assert_eq!(reactor.deadline(), Some((NOW, Timer::Drain)));
    assert!(matches!(reactor.on_timeout(NOW), Action::SendFrames));
    let n = reactor.outgoing().len();
    let _ = reactor.on_sent(NOW, n);
    // The driver has not obeyed `resume` yet.
    assert!(reactor.interest().resume);
    let _ = reactor.on_read_blocked(NOW);
    assert_eq!(reactor.phase(), Phase::Established);
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::RunMessages(_)));
}

#[test]
fn limits_of_nothing_let_one_through_at_a_time() {
    let mut config = AgentConfig::default();
    (config.limits.max_in_flight, config.limits.max_outgoing) = (0, 0);
    let config = Arc::new(config);
    // Others may use the same configuration.
    let mut reactor = AgentReactor::new(Arc::clone(&config), ConnectionId(1), NOW);
    assert_eq!(config.limits.max_in_flight, 0);
    let mut inbox = BytesMut::from(&*frame(HELLO));
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::Established(_)));
    for stream in 0..3 {
        let n = reactor.outgoing().len();
        let _ = reactor.on_sent(NOW, n);
        let asked = ticket(&mut reactor, &mut inbox, &format!("NOTIFY fin {stream} 1 m"));
        inbox.extend_from_slice(&frame("NOTIFY fin 9 9 m"));
        assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::Paused));
        inbox.clear();
        assert_eq!(reactor.acknowledge(NOW, asked, &Actions::new()), Ok(Settled::Queued));
    }
}

#[test]
fn a_write_of_no_bytes_is_no_progress() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    let first = ticket(&mut reactor, &mut inbox, "NOTIFY fin 5 1 m");
    let _ = reactor.acknowledge(NOW, first, &Actions::new());
    let deadline = reactor.deadline();
    assert_eq!(deadline, Some((NOW + Duration::from_secs(30), Timer::Write)));
    let later = NOW + Duration::from_secs(29);
    assert!(matches!(reactor.on_sent(later, 0), Action::SendFrames));
    assert_eq!(reactor.deadline(), deadline);
    let _ = reactor.disconnect(later, Status::NORMAL, "");
    let deadline = reactor.deadline();
    let _ = reactor.on_sent(later + Duration::from_millis(500), 0);
    assert_eq!(reactor.deadline(), deadline);
}

#[test]
fn the_defaults_are_the_decided_ones() {
    let AgentConfig {
        max_frame_size, capabilities, pipelining, limits, timeouts, processing, farewell, ..
    } = AgentConfig::default();
    assert_eq!(max_frame_size, 1 << 20);
    assert_eq!(capabilities.to_string(), "fragmentation,pipelining");
    assert_eq!(pipelining, PipeliningPolicy::Auto, "only with peers that cannot be HAProxy 3.1 or later");
    assert_eq!(processing, Some(Duration::from_millis(500)));
    assert_eq!(limits.max_in_flight, 256);
    assert_eq!(limits.max_payload, 1 << 20);
    assert_eq!(limits.max_payloads, 16, "more open payloads than the limit (16) are 11");
    assert_eq!(limits.max_refused, 256, "refused ids that are still under way: the last 256 are remembered");
    assert_eq!(timeouts.hello, Some(Duration::from_secs(5)));
    assert_eq!(timeouts.frame, Some(Duration::from_secs(10)));
    assert_eq!(timeouts.idle, Some(Duration::from_secs(600)));
    assert_eq!(timeouts.message, Some(Duration::from_secs(30)));
    assert_eq!(timeouts.drain, Duration::from_secs(10));
    let farewell = farewell.unwrap();
    let farewell = (farewell.hold, farewell.silence, farewell.idle);
    assert_eq!(farewell, [15, 5, 100].map(Duration::from_millis).into());
}

#[test]
fn needless_calls_are_harmless() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    let before = (reactor.interest(), reactor.deadline());
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::WantBytes { at_least: 4 }));
    assert!(matches!(reactor.on_timeout(NOW), Action::WantBytes { .. }));
    assert!(matches!(reactor.on_write_shut(NOW, Progress::Done), Action::WantBytes { .. }));
    assert!(matches!(reactor.on_sent(NOW, 1_000), Action::WantBytes { .. }), "more than there was");
    assert!(matches!(reactor.on_read_blocked(NOW), Action::WantBytes { .. }));
    assert_eq!((reactor.interest(), reactor.deadline()), before);
}

#[test]
fn the_end_is_told_once_and_what_comes_after_it_is_thrown_away() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    inbox.extend_from_slice(&frame("UNSET fin 5 1"));
    inbox.extend_from_slice(&frame("NOTIFY fin 7 1 m"));
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::Close(_)));
    assert!(matches!(reactor.on_bytes(NOW, &mut inbox), Action::SendFrames));
    assert!(inbox.is_empty());
    assert!(matches!(reactor.on_transport_error(NOW), Action::WantBytes { .. }));
    assert!(reactor.outgoing().is_empty());
    assert_eq!(reactor.interest(), Interest { close: true, ..Interest::default() });
    assert!(matches!(reactor.on_timeout(NOW + Duration::from_secs(9)), Action::WantBytes { .. }));
    assert!(matches!(reactor.on_input_eof(NOW, &mut inbox), Action::WantBytes { .. }));
}

#[test]
fn a_notify_lies_in_the_inbox_until_it_is_dropped() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    for line in ["NOTIFY fin 5 1 m a=string:first", "NOTIFY fin 6 1 m a=string:second"] {
        inbox.extend_from_slice(&frame(line));
    }
    let second = frame("NOTIFY fin 6 1 m a=string:second");
    let bytes = inbox.as_ptr_range();
    let Action::RunMessages(Notify { ticket, messages }) = reactor.on_bytes(NOW, &mut inbox) else {
        panic!()
    };
    assert!(bytes.contains(&messages.payload().as_ptr()), "it was copied");
    assert_eq!(messages.iter().next().unwrap().get("a").unwrap().as_str(), Some("first"));
    // Its answer does not wait for that, nor the other way round.
    assert_eq!(reactor.acknowledge(NOW, ticket, &Actions::new()), Ok(Settled::Queued));
    drop(messages);
    assert_eq!(inbox[..], second);
    // One that is dropped unseen is still owed an answer.
    drop(reactor.on_bytes(NOW, &mut inbox));
    assert!(inbox.is_empty());
    assert_eq!(reactor.in_flight(), 1);
}

#[test]
fn messages_can_be_kept_while_the_inbox_goes_on() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    inbox.extend_from_slice(&frame("NOTIFY fin 5 1 m a=string:first"));
    let Action::RunMessages(Notify { ticket: first, messages }) = reactor.on_bytes(NOW, &mut inbox) else {
        panic!()
    };
    let kept = messages.keep();
    for n in 0..100 {
        let line = format!("NOTIFY fin {} 2 m a=string:other", 100 + n);
        let other = ticket(&mut reactor, &mut inbox, &line);
        let _ = reactor.acknowledge(NOW, other, &Actions::new());
        let n = reactor.outgoing().len();
        let _ = reactor.on_sent(NOW, n);
    }
    let message = kept.get("m").unwrap();
    assert_eq!(message.get("a").unwrap().as_str(), Some("first"));
    let _ = reactor.acknowledge(NOW, first, &Actions::new());
}
