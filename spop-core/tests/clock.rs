//! Clocks that jump: after a jump backwards time stands still, and a jump forwards is a long pause.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // It is a test.

extern crate alloc;

#[allow(dead_code, unreachable_pub)] // Not all tests need all of it.
#[path = "../src/testing/transcript/inbox.rs"]
mod inbox;

use std::{sync::Arc, time::Duration};

use inbox::Inbox;
use proptest::{collection, prelude::*, sample::select};
use spop_core::{
    Action, Actions, AgentReactor, ConnectionId, EngineConfig, EngineReactor, Interest, MessageList, Scope,
    Status, Ticket, Timestamp,
    link::{Progress, Timer},
    notation,
};

#[derive(Clone, Debug)]
enum Input {
    /// The peer sends one of the frames.
    Frame(usize),
    /// The peer sends half of one.
    Half(usize),
    Ask,
    Answer,
    Timeout,
    Sent(usize),
    ReadBlocked,
    Shut,
    Drain,
    Disconnect,
}

const TO_AGENT: [&str; 6] = [
    "NOTIFY fin 1 1 m a=int32:1",
    "NOTIFY fin 2 1 m a=int32:1",
    "NOTIFY - 3 1 m",
    "UNSET fin 3 1",
    "NOTIFY fin 4 1 m",
    "HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye",
];
const TO_ENGINE: [&str; 6] = [
    "ACK fin 0 1 set txn a=int32:1",
    "ACK fin 1 1",
    "ACK - 2 1 hex:01",
    "UNSET fin,abort 2 1",
    "ACK fin 3 1",
    "AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye",
];

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        10 => (0_usize..5).prop_map(Input::Frame),
        1 => Just(Input::Frame(5)),
        2 => (0_usize..5).prop_map(Input::Half),
        8 => Just(Input::Ask),
        6 => Just(Input::Answer),
        6 => Just(Input::Timeout),
        6 => select(vec![1_usize, 10, 10_000]).prop_map(Input::Sent),
        2 => Just(Input::ReadBlocked),
        1 => Just(Input::Shut),
        1 => Just(Input::Drain),
        1 => Just(Input::Disconnect),
    ]
}

/// Times of the clock, in milliseconds: most are a little later than the last, some earlier, some a year later.
fn times() -> impl Strategy<Value = Vec<u64>> {
    let step = prop_oneof![
        20 => (0_i64..300).boxed(),
        4 => (-60_000_i64..0).boxed(),
        2 => (1_000_i64..40_000).boxed(),
        1 => Just(365 * 86_400_000).boxed(),
        1 => Just(-365 * 86_400_000).boxed(),
    ];
    collection::vec(step, 60).prop_map(|steps| {
        let mut now = 400 * 86_400_000;
        let moved = |step| {
            now = u64::saturating_add_signed(now, step);
            now
        };
        steps.into_iter().map(moved).collect()
    })
}

/// The times, without those that lie in the past.
fn forwards(times: &[u64]) -> Vec<u64> {
    times
        .iter()
        .scan(0, |latest, time| {
            *latest = (*latest).max(*time);
            Some(*latest)
        })
        .collect()
}

/// Both reactors, as one test drives them.
trait Reactor {
    const FRAMES: [&str; 6];
    fn input(&mut self, now: Timestamp, input: &Input, inbox: &mut Inbox, log: &mut Vec<String>);
    fn outgoing(&self) -> &[u8];
    fn follows(&self) -> (Interest, Option<(Timestamp, Timer)>);
}

struct Agent(AgentReactor, Vec<Ticket>);

impl Agent {
    fn note(&mut self, action: Action, log: &mut Vec<String>) -> bool {
        let ends_input = action.ends_input();
        log.push(format!("{action:?}"));
        if let Action::RunMessages(notify) = action {
            self.1.push(notify.ticket);
        }
        !ends_input
    }
}

impl Reactor for Agent {
    const FRAMES: [&str; 6] = TO_AGENT;

    fn input(&mut self, now: Timestamp, input: &Input, inbox: &mut Inbox, log: &mut Vec<String>) {
        let mut action = match input {
            Input::Frame(_) | Input::Half(_) | Input::Ask => inbox.feed(|input| self.0.on_bytes(now, input)),
            Input::Answer => {
                let Some(ticket) = self.1.pop() else {
                    let _ = self.0.on_sent(now, 0).unwrap();
                    return;
                };
                let mut actions = Actions::new();
                actions.set_var(Scope::Session, "a", 1_i32);
                log.push(format!("{:?}", self.0.acknowledge(now, ticket, &actions)));
                return;
            }
            Input::Timeout => self.0.on_timeout(now),
            Input::Sent(n) => self.0.on_sent(now, self.0.outgoing().len().min(*n)).unwrap(),
            Input::ReadBlocked => self.0.on_read_blocked(now),
            Input::Shut => match self.0.on_write_shut(now, Progress::Done) {
                Ok(action) => action,
                Err(misuse) => return log.push(format!("{misuse:?}")),
            },
            Input::Drain => return self.0.drain(now),
            Input::Disconnect => {
                self.0.disconnect(now, Status(7), "enough");
                inbox.feed(|input| self.0.on_bytes(now, input))
            }
        };
        while self.note(action, log) {
            action = if let Input::Timeout = input {
                self.0.on_timeout(now)
            } else {
                inbox.feed(|input| self.0.on_bytes(now, input))
            };
        }
    }

    fn outgoing(&self) -> &[u8] {
        self.0.outgoing()
    }

    fn follows(&self) -> (Interest, Option<(Timestamp, Timer)>) {
        (self.0.interest(), self.0.deadline())
    }
}

struct Engine(EngineReactor);

impl Reactor for Engine {
    const FRAMES: [&str; 6] = TO_ENGINE;

    fn input(&mut self, now: Timestamp, input: &Input, inbox: &mut Inbox, log: &mut Vec<String>) {
        let mut action = match input {
            Input::Frame(_) | Input::Half(_) | Input::Answer => {
                inbox.feed(|input| self.0.on_bytes(now, input))
            }
            Input::Ask => {
                let mut list = MessageList::new();
                list.message("m");
                log.push(format!("{:?}", self.0.notify(now, None, &list)));
                return;
            }
            Input::Timeout => self.0.on_timeout(now),
            Input::Sent(n) => self.0.on_sent(now, self.0.outgoing().len().min(*n)).unwrap(),
            Input::ReadBlocked => self.0.on_read_blocked(now),
            Input::Shut => match self.0.on_write_shut(now, Progress::Done) {
                Ok(action) => action,
                Err(misuse) => return log.push(format!("{misuse:?}")),
            },
            Input::Drain => {
                self.0.drain(now);
                inbox.feed(|input| self.0.on_bytes(now, input))
            }
            Input::Disconnect => {
                self.0.disconnect(now, Status(7));
                inbox.feed(|input| self.0.on_bytes(now, input))
            }
        };
        loop {
            log.push(format!("{action:?}"));
            if action.ends_input() {
                return;
            }
            action = if let Input::Timeout = input {
                self.0.on_timeout(now)
            } else {
                inbox.feed(|input| self.0.on_bytes(now, input))
            };
        }
    }

    fn outgoing(&self) -> &[u8] {
        self.0.outgoing()
    }

    fn follows(&self) -> (Interest, Option<(Timestamp, Timer)>) {
        (self.0.interest(), self.0.deadline())
    }
}

/// Runs the inputs at these times. Returns the actions and the sent bytes.
fn run<R: Reactor>(mut reactor: R, hello: &str, inputs: &[Input], times: &[u64]) -> Vec<String> {
    let mut log = Vec::new();
    let mut inbox = Inbox::from(&notation::parse_bytes(hello).unwrap()[..]);
    let mut latest = Timestamp::from_millis(times[0]);
    reactor.input(latest, &Input::Frame(0), &mut inbox, &mut log);
    for (input, millis) in inputs.iter().zip(times) {
        let now = Timestamp::from_millis(*millis);
        latest = latest.max(now);
        if let Input::Frame(index) | Input::Half(index) = input {
            let bytes = notation::parse_bytes(R::FRAMES[*index]).unwrap();
            let half = if matches!(input, Input::Half(_)) { bytes.len() / 2 } else { bytes.len() };
            inbox.extend_from_slice(&bytes[..half]);
        }
        reactor.input(now, input, &mut inbox, &mut log);
        log.push(format!("{:?} {:?}", reactor.follows(), reactor.outgoing()));
        if let (Input::Timeout, (_, Some((at, timer)))) = (input, reactor.follows()) {
            assert!(at > latest, "{timer:?} comes again at {at}, and it is {latest}");
        }
    }
    // A year later the connection has ended, or awaits the driver's shut and close.
    for _ in 0..20 {
        latest = latest + Duration::from_secs(365 * 86_400);
        let sent = reactor.outgoing().len();
        reactor.input(latest, &Input::Sent(sent), &mut inbox, &mut log);
        reactor.input(latest, &Input::Timeout, &mut inbox, &mut log);
        if reactor.follows().0.shut.is_some() {
            reactor.input(latest, &Input::Shut, &mut inbox, &mut log);
        }
    }
    let (interest, deadline) = reactor.follows();
    assert!(interest.close && deadline.is_none(), "{interest:?} {deadline:?}");
    log
}

fn same(jumped: &[String], stood: &[String]) {
    for (index, (jumped, stood)) in jumped.iter().zip(stood).enumerate() {
        assert_eq!(jumped, stood, "the {index}. thing said");
    }
    assert_eq!(jumped.len(), stood.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn backwards_is_standing_still_for_an_agent(inputs in collection::vec(input(), 1..60), times in times()) {
        let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:256 \
                     capabilities=string:pipelining,fragmentation";
        let agent = || {
            let start = Timestamp::from_millis(times[0]);
            Agent(AgentReactor::new(Arc::default(), ConnectionId(1), start), Vec::new())
        };
        let jumped = run(agent(), hello, &inputs, &times);
        same(&jumped, &run(agent(), hello, &inputs, &forwards(&times)));
    }

    #[test]
    fn backwards_is_standing_still_for_an_engine(
        profile in 0..3,
        inputs in collection::vec(input(), 1..60),
        times in times(),
    ) {
        let hello = "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:256 \
                     capabilities=string:pipelining,fragmentation";
        let mut config = match profile {
            0 => EngineConfig::default(),
            1 => EngineConfig::haproxy_2_6(),
            _ => EngineConfig::haproxy_3_1(),
        };
        config.timeouts.message = Some(Duration::from_secs(2));
        config.timeouts.hello = Some(Duration::from_secs(5));
        config.timeouts.idle = Some(Duration::from_secs(30));
        config.timeouts.write = Some(Duration::from_secs(30));
        let config = Arc::new(config.checked().unwrap());
        let engine = || {
            let start = Timestamp::from_millis(times[0]);
            Engine(EngineReactor::new(Arc::clone(&config), ConnectionId(1), start))
        };
        let jumped = run(engine(), hello, &inputs, &times);
        same(&jumped, &run(engine(), hello, &inputs, &forwards(&times)));
    }
}
