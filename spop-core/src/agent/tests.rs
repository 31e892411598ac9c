//! Timers under any configuration, and the last read before a DISCONNECT.

use alloc::{format, string::ToString, sync::Arc, vec, vec::Vec};
use core::time::Duration;

use proptest::{collection, option, prelude::*, sample::select};

use super::*;
use crate::{
    Actions, Scope, Status, Timer, Timestamp,
    frame::{Flags, FrameType, Header, Ids, put_frame},
    link::{CloseReason, Layers, Phase, Progress},
    notation,
    testing::Inbox,
};

const START: Timestamp = Timestamp::from_millis(1_000);

fn hello(capabilities: &str) -> Vec<u8> {
    notation::parse_bytes(&format!(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
         capabilities=string:\"{capabilities}\" engine-id=string:e"
    ))
    .unwrap()
}

fn notify(stream: u64, flags: Flags, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header { frame_type: FrameType::Notify, flags, ids: Ids::new(stream, 1) };
    put_frame(&mut bytes, header, payload);
    bytes
}

/// Passes all input to the reactor; returns the tickets.
fn feed(reactor: &mut AgentReactor, now: Timestamp, inbox: &mut Inbox) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    loop {
        match inbox.feed(|input| reactor.on_bytes(now, input)) {
            Action::RunMessages(notify) => tickets.push(notify.ticket),
            Action::SendFrames | Action::WantBytes { .. } | Action::Paused | Action::Close(_) => {
                return tickets;
            }
            _ => {}
        }
    }
}

fn send_all(reactor: &mut AgentReactor, now: Timestamp) {
    let n = reactor.outgoing().len();
    let _ = reactor.on_sent(now, n);
}

#[derive(Clone, Debug)]
enum Step {
    Input(Vec<u8>),
    Answer,
    Send(usize),
    ReadBlocked,
    Drain,
    Wait(Duration),
    /// Until the next deadline.
    Sleep,
}

fn duration() -> impl Strategy<Value = Duration> + Clone {
    let times = [1, 1_000_000, 5_000_000, 100_000_000, 1_000_000_000, u64::MAX];
    select(times.map(Duration::from_nanos).to_vec())
}

/// A duration that may be zero.
fn pause() -> impl Strategy<Value = Duration> + Clone {
    prop_oneof![1 => Just(Duration::ZERO), 5 => duration()]
}

prop_compose! {
    fn config()(
        timeouts in collection::vec(option::weighted(0.7, duration()), 9),
        linger in duration(),
        times in collection::vec(pause(), 5),
        counts in collection::vec(1_usize..4, 2),
        outgoing in select(vec![1_usize, 20, 200, 1 << 20]),
        always: bool,
        timed: bool,
    ) -> AgentConfig {
        let mut config = AgentConfig {
            processing: timeouts[0],
            max_age: timeouts[1],
            drain_after_refusal: timeouts[2].and(Some(times[1])),
            max_waiting_frames: counts[0],
            drain_timing: timed.then_some(DrainTiming { hold: times[2], silence: times[3], idle: times[4] }),
            ..AgentConfig::default()
        };
        config.limits.max_in_flight = counts[1];
        config.limits.max_outgoing = outgoing;
        config.limits.max_payload = 40;
        config.timeouts.hello = timeouts[3];
        config.timeouts.frame = timeouts[4];
        config.timeouts.idle = timeouts[5];
        config.timeouts.write = timeouts[6];
        config.timeouts.message = timeouts[7];
        config.timeouts.linger = linger;
        // `checked` refuses zero together with `max_age`.
        config.timeouts.drain = if config.max_age.is_some() { linger } else { times[0] };
        if always {
            config.pipelining = PipeliningPolicy::Always;
        }
        config
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..6).prop_map(|stream| Step::Input(notify(stream, Flags::FIN, b"\x01m\x00"))),
        1 => (0_u64..6).prop_map(|stream| Step::Input(notify(stream, Flags::FIN, b""))),
        1 => (0_u64..4, 0_usize..50)
            .prop_map(|(stream, len)| Step::Input(notify(stream, Flags::NONE, &vec![1; len]))),
        1 => (1_usize..10).prop_map(|n| Step::Input(vec![0; n.min(3)])),
        2 => Just(Step::Answer),
        2 => (0_usize..200).prop_map(Step::Send),
        1 => Just(Step::ReadBlocked),
        1 => Just(Step::Drain),
        2 => duration().prop_filter("in time", |time| *time < Duration::MAX / 2).prop_map(Step::Wait),
        2 => Just(Step::Sleep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_a_timeout_the_next_deadline_is_later_whatever_the_configuration(
        config in config(),
        capabilities in select(vec!["", "pipelining", "pipelining,async", "fragmentation,pipelining"]),
        layers in select(vec![Layers::Plain, Layers::Data]),
        id: u64,
        steps in collection::vec(step(), 0..40),
    ) {
        let mut reactor = AgentReactor::new(Arc::new(config.checked().unwrap()), ConnectionId(id), START).with_layers(layers);
        let (mut now, mut inbox) = (START, Inbox::from(&hello(capabilities)[..]));
        let mut tickets = feed(&mut reactor, now, &mut inbox);
        for step in steps {
            match step {
                Step::Input(bytes) => inbox.extend_from_slice(&bytes),
                Step::Answer => {
                    if let Some(ticket) = tickets.pop() {
                        let _ = reactor.acknowledge(now, ticket, &Actions::new());
                    }
                }
                Step::Send(n) => {
                    let n = n.min(reactor.outgoing().len());
                    let _ = reactor.on_sent(now, n);
                }
                Step::ReadBlocked => drop(reactor.on_read_blocked(now)),
                Step::Drain => reactor.drain(now),
                Step::Wait(time) => now = (now + time).min(START + Duration::from_secs(1_000_000)),
                Step::Sleep => {
                    if let Some((at, _)) = reactor.deadline() {
                        now = now.max(at.min(now + Duration::from_secs(100)));
                    }
                }
            }
            let interest = reactor.interest();
            if interest.read || interest.resume {
                tickets.extend(feed(&mut reactor, now, &mut inbox));
            }
            while reactor.interest().shut.is_some() {
                let _ = reactor.on_write_shut(now, Progress::Done);
            }
            if reactor.deadline().is_some_and(|(at, _)| at <= now) {
                let mut left = 2_000;
                while !matches!(
                    reactor.on_timeout(now),
                    Action::SendFrames | Action::WantBytes { .. } | Action::Paused
                ) {
                    left -= 1;
                    prop_assert!(left > 0, "timeouts without end");
                }
                if let Some((at, timer)) = reactor.deadline() {
                    prop_assert!(at > now, "{timer:?} is due again");
                }
            }
        }
    }
}

#[test]
fn what_is_asked_and_answered_is_not_in_its_debug_output() {
    let config = AgentConfig { max_frame_size: 256, ..AgentConfig::default() };
    let mut reactor = AgentReactor::new(Arc::new(config.checked().unwrap()), ConnectionId(1), START);
    // Both as text and as a list of numbers.
    let secret = b"hunter2-hunter2";
    let forms = [secret.escape_ascii().to_string(), format!("{:?}", &secret[..]).replace(['[', ']'], "")];
    let hidden = |shown: &str| forms.iter().all(|form| !shown.contains(form));
    let mut inbox = Inbox::from(&hello("pipelining,fragmentation,async")[..]);
    let _ = feed(&mut reactor, START, &mut inbox);
    send_all(&mut reactor, START);
    let payload = [b"\x01m\x01\x01a\x08\x0f", &secret[..]].concat();
    inbox.extend_from_slice(&notify(1, Flags::FIN, &payload));
    inbox.extend_from_slice(&notify(2, Flags::FIN, &payload));
    inbox.extend_from_slice(&notify(3, Flags::NONE, &payload));
    let first = {
        let Action::RunMessages(first) = inbox.feed(|input| reactor.on_bytes(START, input)) else { panic!() };
        assert!(hidden(&format!("{first:?}")), "{first:?}");
        first.ticket
    };
    let second = feed(&mut reactor, START, &mut inbox).pop().unwrap();
    let mut actions = Actions::new();
    actions.set_var(Scope::Session, "v", &secret[..]);
    reactor.acknowledge(START, first, &actions).unwrap();
    // Too long for a frame: sent in fragments, only some of which are queued.
    for _ in 0..200 {
        actions.set_var(Scope::Session, "v", &secret[..]);
    }
    reactor.acknowledge(START, second, &actions).unwrap();
    assert!(reactor.reassembly_bytes() > 0 && reactor.outgoing_bytes() > reactor.outgoing().len());
    for shown in [format!("{reactor:?}"), format!("{reactor:#?}").replace(char::is_whitespace, " ")] {
        assert!(hidden(&shown), "{shown}");
        assert!(hidden(&shown.replace(' ', "").replace(',', ", ")), "{shown}");
    }
    reactor.disconnect(START, Status::NORMAL, "");
}

#[test]
fn a_connection_has_its_greatest_age_give_or_take_a_tenth() {
    let age = |age: Duration, id| {
        let mut config = AgentConfig { max_age: Some(age), ..AgentConfig::default() };
        config.timeouts.hello = None;
        config.timeouts.idle = None;
        let reactor = AgentReactor::new(Arc::new(config.checked().unwrap()), ConnectionId(id), START);
        let (at, timer) = reactor.deadline().unwrap();
        assert_eq!(timer, Timer::Age);
        at.since(START)
    };
    let ages: Vec<_> = (0..1_000).map(|id| age(Duration::from_secs(1_000), id).as_secs()).collect();
    assert!(ages.iter().all(|age| (900..=1_100).contains(age)), "{ages:?}");
    assert!(*ages.iter().min().unwrap() < 910 && *ages.iter().max().unwrap() > 1_090);
    assert!(age(Duration::MAX, 7) > Duration::from_secs(1 << 32));
}

#[test]
fn however_late_a_timer_is_a_drain_looks_for_input_once_more() {
    for late in [14, 16, 30] {
        let mut reactor = AgentReactor::new(Arc::default(), ConnectionId(1), START);
        let mut inbox = Inbox::from(&hello("pipelining,async")[..]);
        let _ = feed(&mut reactor, START, &mut inbox);
        let _ = feed(&mut reactor, START, &mut inbox);
        send_all(&mut reactor, START);
        inbox.extend_from_slice(&notify(1, Flags::FIN, b"\x01m\x00"));
        let ticket = feed(&mut reactor, START, &mut inbox).pop().unwrap();
        reactor.drain(START);
        reactor.acknowledge(START, ticket, &Actions::new()).unwrap();
        let now = START + Duration::from_millis(late);
        let _ = reactor.on_timeout(now);
        assert_eq!(reactor.phase(), Phase::Established, "{late} ms late");
        let closed = reactor.on_read_blocked(now);
        assert!(matches!(closed, Action::Close(_)), "{late} ms late: {closed:?}");
    }
}

#[test]
fn a_full_connection_that_was_idle_is_not_left() {
    let mut config = AgentConfig { processing: None, ..AgentConfig::default() };
    config.limits.max_in_flight = 1;
    config.timeouts.message = None;
    config.timeouts.drain = Duration::from_secs(10);
    let mut reactor = AgentReactor::new(Arc::new(config.checked().unwrap()), ConnectionId(1), START);
    let mut inbox = Inbox::from(&hello("pipelining,async")[..]);
    let _ = feed(&mut reactor, START, &mut inbox);
    send_all(&mut reactor, START);
    let idle = START + Duration::from_secs(600);
    let _ = reactor.on_timeout(idle);
    inbox.extend_from_slice(&notify(1, Flags::FIN, b"\x01m\x00"));
    let ticket = feed(&mut reactor, idle, &mut inbox).pop().unwrap();
    let later = idle + Duration::from_secs(60);
    let _ = reactor.on_timeout(later);
    assert!(reactor.acknowledge(later, ticket, &Actions::new()).is_ok());
    assert_eq!(reactor.phase(), Phase::Established);
    reactor.disconnect(later, Status::NORMAL, "");
}

#[test]
fn a_ticket_that_is_dropped_while_it_waits_is_noticed() {
    let mut reactor = AgentReactor::new(Arc::default(), ConnectionId(1), START);
    let mut inbox = Inbox::from(&hello("pipelining,async")[..]);
    for stream in 1..=4 {
        inbox.extend_from_slice(&notify(stream, Flags::FIN, b"\x01m\x00"));
    }
    inbox.extend_from_slice(&notify(4, Flags::FIN, b"\x01m\x00"));
    let [answered, released, forgotten, superseded, last]: [Ticket; 5] =
        feed(&mut reactor, START, &mut inbox).try_into().unwrap();
    reactor.acknowledge(START, answered, &Actions::new()).unwrap();
    reactor.release(START, released.id()).unwrap();
    drop((released, superseded));
    send_all(&mut reactor, START);
    assert_eq!(reactor.dropped_tickets(), 0);
    drop(forgotten);
    let _ = reactor.on_read_blocked(START);
    assert_eq!(reactor.dropped_tickets(), u64::from(cfg!(all(debug_assertions, feature = "std"))));
    reactor.disconnect(START, Status::NORMAL, "");
    drop(last);
    let _ = reactor.on_read_blocked(START);
    assert!(reactor.dropped_tickets() <= 1, "the session is over");
}

/// A reactor whose session is established, and which reports fragments.
fn watching() -> AgentReactor {
    let mut config = AgentConfig { watch_fragments: true, ..AgentConfig::default() };
    config.limits.max_messages = 10_000;
    let mut reactor = AgentReactor::new(Arc::new(config.checked().unwrap()), ConnectionId(1), START);
    let hello = hello("pipelining");
    assert!(matches!(reactor.on_bytes(START, &hello).action, Action::Established(_)));
    let len = reactor.outgoing().len();
    let _ = reactor.on_sent(START, len).unwrap();
    reactor
}

fn fragment(frame_type: FrameType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, Header { frame_type, flags: Flags::NONE, ids: Ids::new(1, 1) }, payload);
    bytes
}

#[test]
fn a_fragment_is_reported_with_what_is_new_and_an_empty_one_is_not() {
    let mut reactor = watching();
    let payload = b"\x03one\x02\x01a\x11\x01b\x11\x03two\x01\x01c\x11";
    let mut seen = Vec::new();
    for (frame_type, part) in [
        (FrameType::Notify, &payload[..0]),
        (FrameType::Unset, &payload[..9]),
        (FrameType::Unset, &payload[..0]),
        (FrameType::Unset, &payload[9..15]),
        (FrameType::Unset, &payload[15..18]),
    ] {
        let reported = matches!(
            reactor.on_bytes(START, &fragment(frame_type, part)).action,
            Action::FragmentArrived(ids) if ids == Ids::new(1, 1)
        );
        assert_eq!(reported, !part.is_empty());
        let arriving = reactor.arriving(Ids::new(1, 1)).unwrap();
        if reported {
            seen.push(format!("{:?}", arriving.new_messages().collect::<Vec<_>>()));
        }
    }
    assert_eq!(seen, [r#"[one {"a": Bool(true)}]"#, r#"[one {"b": Bool(true)}, two {}]"#, "[two {}]"]);
    assert_eq!(reactor.arriving(Ids::new(1, 1)).unwrap().incomplete(), b"\x01c");
}

#[cfg(feature = "std")]
#[test]
fn watching_reads_a_payload_once_however_many_fragments_it_has() {
    use crate::steps::steps_of;

    let payload = b"\x01m\x02\x00\x00\x00\x00".repeat(1_000);
    for size in [1, 2, 3, 50, payload.len()] {
        let (mut reactor, mut messages, mut arguments) = (watching(), 0, 0);
        let steps = steps_of(|| {
            let mut frame_type = FrameType::Notify;
            for part in payload.chunks(size) {
                let frame = fragment(frame_type, part);
                assert!(matches!(reactor.on_bytes(START, &frame).action, Action::FragmentArrived(_)));
                let arriving = reactor.arriving(Ids::new(1, 1)).unwrap();
                for message in arriving.new_messages() {
                    messages += 1;
                    arguments += message.args().count();
                }
                assert!(arriving.incomplete().len() < 2);
                frame_type = FrameType::Unset;
            }
        });
        assert_eq!(arguments, 2_000);
        assert!(messages >= 1_000);
        // A message is a name, a number and two arguments. Each is parsed by the reactor, for what is new, and for what is
        // incomplete; and each fragment has an end.
        let bound = 3 * 4 * 1_000 + 8 * payload.len().div_ceil(size);
        assert!(steps <= bound, "{steps} steps for fragments of {size} bytes, at most {bound}");
    }
}

#[test]
fn of_the_message_of_a_disconnect_the_beginning_is_kept() {
    let mut reactor =
        AgentReactor::new(Arc::new(AgentConfig::default().checked().unwrap()), ConnectionId(1), START);
    assert!(matches!(reactor.on_bytes(START, &hello("")).action, Action::Established(_)));
    let text = "x".repeat(10_000);
    let bye = format!("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:1 message=string:{text}");
    let Action::Close(closed) = reactor.on_bytes(START, &notation::parse_bytes(&bye).unwrap()).action else {
        panic!("open")
    };
    let CloseReason::PeerDisconnect { message, .. } = closed.reason else { panic!("{closed}") };
    assert_eq!(message, text.as_bytes()[..256]);
}
