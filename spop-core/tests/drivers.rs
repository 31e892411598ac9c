//! Cases that a transcript cannot express: misuse by drivers and applications, and exact figures.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // It is a test.

extern crate alloc;

#[allow(dead_code, unreachable_pub)] // Not all tests need all of it.
#[path = "../src/testing/transcript/inbox.rs"]
mod inbox;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use inbox::Inbox;
use spop_core::{
    AckError, Action, Actions, AgentConfig, AgentReactor, ConnectionId, Misuse, Notify, Scope, Settled,
    Status, Step, Ticket, Timer, Timestamp, Value,
    agent::{NotWaiting, PipeliningPolicy},
    link::{Interest, Phase, Progress},
    notation,
};

const NOW: Timestamp = Timestamp::from_millis(1_000);
const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async";

fn frame(line: &str) -> Vec<u8> {
    notation::parse_bytes(line).unwrap()
}

fn established(config: AgentConfig, connection: u64) -> (AgentReactor, Inbox) {
    let mut reactor = AgentReactor::new(Arc::new(config.checked().unwrap()), ConnectionId(connection), NOW);
    let mut inbox = Inbox::from(&frame(HELLO)[..]);
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::Established(_)));
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::SendFrames));
    let n = reactor.outgoing().len();
    let _ = reactor.on_sent(NOW, n);
    (reactor, inbox)
}

fn ticket(reactor: &mut AgentReactor, inbox: &mut Inbox, line: &str) -> Ticket {
    inbox.extend_from_slice(&frame(line));
    match inbox.feed(|input| reactor.on_bytes(NOW, input)) {
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
    let (mut reactor, mut inbox) = (AgentReactor::new(Arc::default(), ConnectionId(1), NOW), Inbox::new());
    inbox.extend_from_slice(&frame(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:256 \
         capabilities=string:\"pipelining,fragmentation\"",
    ));
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::Established(_)));
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
        assert_eq!(reactor.release(NOW, first.id()), Ok(()));
        assert_eq!(reactor.release(NOW, first.id()), Err(NotWaiting(first.id())));
        let mut long = Actions::new();
        long.set_var(Scope::Request, "y", Value::Binary(&[0; 300]));
        assert_eq!(reactor.acknowledge(NOW, second, &long), Ok(Settled::Queued));
        let out = reactor.outgoing().to_vec();
        let _ = reactor.on_sent(NOW, out.len());
        // A peer that has received a part gets an ABORT.
        assert_eq!(out.starts_with(&frame("UNSET fin,abort 5 1")), begun);
        assert!(!reactor.is_waiting(first.id()) && reactor.outgoing_bytes() == 0);
        assert!(matches!(reactor.deadline(), Some((_, Timer::Idle | Timer::Memory))));
        assert_eq!(reactor.acknowledge(NOW, first, &part), Ok(Settled::Dropped));
    }
}

#[test]
fn an_endless_time_to_close_never_ends() {
    let mut config = AgentConfig::default();
    config.timeouts.linger = Duration::MAX;
    let (mut reactor, _) = established(config, 1);
    reactor.disconnect(NOW, Status::NORMAL, "bye");
    assert!(reactor.interest().resume);
    assert!(matches!(reactor.on_bytes(NOW, &[]).action, Action::Close(_)));
    assert!(matches!(reactor.deadline(), Some((at, Timer::Linger)) if at == NOW + Duration::MAX));
}

#[test]
fn a_ticket_is_not_its_namesake_though_its_slot_is_used_again() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    let first = ticket(&mut reactor, &mut inbox, "NOTIFY fin 5 1 m");
    inbox.extend_from_slice(&frame("NOTIFY fin 5 1 m"));
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::CancelMessages(_)));
    let Action::RunMessages(second) = inbox.feed(|input| reactor.on_bytes(NOW, input)) else { panic!() };
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
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::CancelMessages(_)));
    let Action::RunMessages(Notify { ticket: newer, .. }) = inbox.feed(|input| reactor.on_bytes(NOW, input))
    else {
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
        match inbox.feed(|input| reactor.on_bytes(NOW, input)) {
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
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::Paused));
    reactor.drain(NOW);
    let _ = reactor.acknowledge(NOW, first, &Actions::new());
    // A drain holds answers back, but not while backpressure waits for them to be sent.
    assert_eq!(reactor.deadline(), Some((NOW, Timer::Drain)));
    assert!(matches!(reactor.on_timeout(NOW), Action::SendFrames));
    let n = reactor.outgoing().len();
    let _ = reactor.on_sent(NOW, n);
    // The driver has not acted on `resume` yet.
    assert!(reactor.interest().resume);
    let _ = reactor.on_read_blocked(NOW);
    assert_eq!(reactor.phase(), Phase::Established);
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::RunMessages(_)));
}

#[test]
fn the_lowest_limits_let_one_through_at_a_time() {
    let mut config = AgentConfig::default();
    (config.limits.max_in_flight, config.limits.max_outgoing) = (1, 1);
    let config = Arc::new(config.checked().unwrap());
    let mut reactor = AgentReactor::new(Arc::clone(&config), ConnectionId(1), NOW);
    assert_eq!(Arc::strong_count(&config), 2, "a connection shares its configuration");
    let mut inbox = Inbox::from(&*frame(HELLO));
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::Established(_)));
    for stream in 0..3 {
        let n = reactor.outgoing().len();
        let _ = reactor.on_sent(NOW, n);
        let asked = ticket(&mut reactor, &mut inbox, &format!("NOTIFY fin {stream} 1 m"));
        inbox.extend_from_slice(&frame("NOTIFY fin 9 9 m"));
        assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::Paused));
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
    assert!(matches!(reactor.on_sent(later, 0), Ok(Action::SendFrames)));
    assert_eq!(reactor.deadline(), deadline);
    reactor.disconnect(later, Status::NORMAL, "");
    let deadline = reactor.deadline();
    let _ = reactor.on_sent(later + Duration::from_millis(500), 0);
    assert_eq!(reactor.deadline(), deadline);
}

#[test]
fn the_defaults_are_the_decided_ones() {
    let AgentConfig {
        max_frame_size,
        capabilities,
        pipelining,
        limits,
        timeouts,
        processing,
        drain_timing,
        ..
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
    let timing = drain_timing.unwrap();
    assert_eq!((timing.hold, timing.silence, timing.idle), [15, 5, 100].map(Duration::from_millis).into());
}

#[test]
fn needless_calls_are_harmless() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    let before = (reactor.interest(), reactor.deadline());
    let action = inbox.feed(|input| reactor.on_bytes(NOW, input));
    assert!(matches!(action, Action::WantBytes { at_least: 4 }));
    assert!(matches!(reactor.on_timeout(NOW), Action::WantBytes { .. }));
    assert!(matches!(reactor.on_read_blocked(NOW), Action::WantBytes { .. }));
    assert!(matches!(reactor.on_sent(NOW, 0), Ok(Action::WantBytes { .. })));
    assert_eq!((reactor.interest(), reactor.deadline()), before);
}

#[test]
fn reports_of_what_cannot_have_happened_are_misuses_and_change_nothing() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    let first = ticket(&mut reactor, &mut inbox, "NOTIFY fin 5 1 m");
    let _ = reactor.acknowledge(NOW, first, &Actions::new());
    let (outgoing, before) = (reactor.outgoing().len(), (reactor.interest(), reactor.deadline()));
    let misuse = reactor.on_sent(NOW, outgoing + 1).unwrap_err();
    assert_eq!(misuse, Misuse::SentTooMuch { sent: outgoing + 1, outgoing });
    assert_eq!(
        misuse.to_string(),
        format!("{} bytes were reported as sent, but {outgoing} were outgoing", outgoing + 1)
    );
    assert_eq!(reactor.on_write_shut(NOW, Progress::Done).unwrap_err(), Misuse::ShutNotRequested);
    assert_eq!((reactor.interest(), reactor.deadline()), before);
    assert!(matches!(reactor.on_sent(NOW, outgoing), Ok(Action::WantBytes { .. })));
    // A shut that was asked for and is reported too late has no effect.
    reactor.disconnect(NOW, Status::NORMAL, "");
    let _ = reactor.on_bytes(NOW, &[]);
    let bye = reactor.outgoing().len();
    let _ = reactor.on_sent(NOW, bye).unwrap();
    assert_eq!(
        reactor.on_write_shut(NOW, Progress::Done).unwrap_err(),
        Misuse::ShutNotRequested,
        "the close is awaited"
    );
    let _ = reactor.on_input_eof(NOW, &[]);
    assert!(reactor.interest().shut.is_some());
    let _ = reactor.on_transport_error(NOW);
    assert!(reactor.on_write_shut(NOW, Progress::Done).is_ok());
}

#[test]
fn a_drain_does_not_cut_an_answer_in_fragments_short() {
    for capabilities in ["fragmentation", "fragmentation,pipelining,async"] {
        let mut now = NOW;
        let mut reactor = AgentReactor::new(Arc::default(), ConnectionId(1), now);
        let hello = format!(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:256 \
             capabilities=string:\"{capabilities}\""
        );
        let _ = reactor.on_bytes(now, &frame(&hello));
        let hello = reactor.outgoing().len();
        let _ = reactor.on_sent(now, hello);
        reactor.drain(now);
        let notify = frame("NOTIFY fin 5 1 m");
        let Action::RunMessages(notify) = reactor.on_bytes(now, &notify).action else { panic!() };
        let mut long = Actions::new();
        long.set_var(Scope::Request, "y", Value::Binary(&[7; 5_000]));
        assert_eq!(reactor.acknowledge(now, notify.ticket, &long), Ok(Settled::Queued));
        let mut sent = Vec::new();
        let closed = loop {
            if let Action::Close(closed) = reactor.on_read_blocked(now) {
                break closed;
            }
            sent.extend_from_slice(reactor.outgoing());
            let n = reactor.outgoing().len();
            let _ = reactor.on_sent(now, n).unwrap();
            if reactor.outgoing().is_empty() {
                now = reactor.deadline().unwrap().0;
                while !reactor.on_timeout(now).ends_input() {}
            }
        };
        assert_eq!(closed.to_string(), "drained", "{capabilities}");
        assert_eq!(sent.split(|byte| *byte == 7).count(), 5_001, "{capabilities}");
    }
}

#[test]
fn the_end_of_a_session_uses_all_input() {
    let (mut reactor, _) = established(AgentConfig::default(), 1);
    let bytes = [frame("UNSET fin 5 1"), frame("NOTIFY fin 7 1 m"), vec![1]].concat();
    let step = reactor.on_bytes(NOW, &bytes);
    assert!(matches!(step.action, Action::Close(_)) && step.action.ends_input());
    assert_eq!(step.consumed, bytes.len(), "a driver with a full buffer could not read on");
}

#[test]
fn the_end_is_told_once_and_what_comes_after_it_is_thrown_away() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    inbox.extend_from_slice(&frame("UNSET fin 5 1"));
    inbox.extend_from_slice(&frame("NOTIFY fin 7 1 m"));
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::Close(_)));
    assert!(matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::SendFrames));
    assert!(inbox.is_empty());
    assert!(matches!(reactor.on_transport_error(NOW), Action::WantBytes { .. }));
    assert!(reactor.outgoing().is_empty());
    assert_eq!(reactor.interest(), Interest { close: true, ..Interest::default() });
    assert!(matches!(reactor.on_timeout(NOW + Duration::from_secs(9)), Action::WantBytes { .. }));
    assert!(matches!(inbox.feed(|input| reactor.on_input_eof(NOW, input)), Action::WantBytes { .. }));
}

#[test]
fn a_notify_borrows_the_input_and_nothing_happens_when_it_is_dropped_or_leaked() {
    let (mut reactor, _) = established(AgentConfig::default(), 1);
    let bytes =
        [frame("NOTIFY fin 5 1 m a=string:first"), frame("NOTIFY fin 6 1 m a=string:second")].concat();
    let Step { consumed, action } = reactor.on_bytes(NOW, &bytes);
    let Action::RunMessages(Notify { ticket, payload }) = action else { panic!() };
    let messages = payload.messages();
    assert!(bytes.as_ptr_range().contains(&messages.payload().as_ptr()), "it was copied");
    assert_eq!(messages.arg("a"), Ok("first"));
    assert_eq!(reactor.acknowledge(NOW, ticket, &Actions::new()), Ok(Settled::Queued));
    let step = reactor.on_bytes(NOW, &bytes[consumed..]);
    assert_eq!(consumed + step.consumed, bytes.len());
    // The first may still be looked at.
    assert_eq!(messages.arg("a"), Ok("first"));
    std::mem::forget(payload);
    // One that is leaked unseen is still owed an answer, and is not seen again.
    std::mem::forget(step.action);
    assert!(matches!(reactor.on_bytes(NOW, &[]).action, Action::SendFrames));
    assert_eq!(reactor.in_flight(), 1);
}

#[test]
fn messages_can_be_kept_while_the_input_goes_on() {
    let (mut reactor, mut inbox) = established(AgentConfig::default(), 1);
    let input = Bytes::from(frame("NOTIFY fin 5 1 m a=string:first"));
    let Action::RunMessages(Notify { ticket: first, payload }) = reactor.on_bytes(NOW, &input).action else {
        panic!()
    };
    let kept = [payload.clone().into_owned(), payload.into_owned_in(&input)];
    let shared: Vec<_> =
        kept.iter().map(|kept| input.as_ptr_range().contains(&kept.payload().as_ptr())).collect();
    assert_eq!(shared, [false, true]);
    for n in 0..100 {
        let line = format!("NOTIFY fin {} 2 m a=string:other", 100 + n);
        let other = ticket(&mut reactor, &mut inbox, &line);
        let _ = reactor.acknowledge(NOW, other, &Actions::new());
        let n = reactor.outgoing().len();
        let _ = reactor.on_sent(NOW, n);
    }
    for kept in &kept {
        assert_eq!(kept.arg("a"), Ok("first"));
    }
    let _ = reactor.acknowledge(NOW, first, &Actions::new());
}
