//! Every interleaving of an engine and an agent, within bounds: no state is stuck, no answer is lost or given twice, every
//! close is reached, every limit holds.
//!
//! The search is depth-first over the events that may happen next, and stops at states that it has visited: a state is the
//! complete `Debug` output of the reactors. It backtracks by replaying the path. `SPOP_EXPLORE=2` adds a request and an early
//! timer to each scenario, and takes long.

#![allow(clippy::panic, clippy::indexing_slicing, clippy::unwrap_used)] // It is a test.

extern crate alloc;

#[allow(dead_code, unreachable_pub)] // Not all tests need all of it.
#[path = "../src/testing/transcript/inbox.rs"]
mod inbox;

use std::{
    collections::{HashMap, VecDeque, hash_map::DefaultHasher},
    env,
    fmt::{self, Write as _},
    hash::Hasher as _,
    sync::Arc,
    time::{Duration, Instant},
};

use inbox::Inbox;
use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, ConnectionId, EngineAction, EngineConfig, EngineReactor,
    MessageList, Notify, Scope, Settled, Status, Ticket, Timestamp, Value,
    engine::NotifyId,
    frame::{AckAction, Capabilities, Ids},
    link::{Phase, Progress},
};

/// An event that may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Ask(Size),
    EngineSends,
    AgentSends,
    /// One frame arrives, or the end of the input.
    EngineReceives,
    AgentReceives,
    /// The application answers the ticket at this index.
    Answer(usize, Reply),
    /// The application refuses a payload that is arriving.
    Refuse(Ids),
    ReadBlocked,
    DrainAgent,
    DrainEngine,
    DisconnectAgent,
    DisconnectEngine,
    Lose,
    /// The time advances to the next deadline.
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Short,
    /// More than a frame holds.
    Long,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Short,
    Long,
    /// A part; more follow.
    Part,
    Abort,
    Fail,
}

/// The events of a scenario, and how often each may happen.
#[derive(Clone)]
struct Scenario {
    name: &'static str,
    engine: EngineConfig,
    agent: AgentConfig,
    asks: Vec<Size>,
    replies: &'static [Reply],
    refusals: usize,
    /// Timers that fire while another event could happen.
    early: usize,
    /// Events that happen at most once.
    once: &'static [Op],
}

const LONG: usize = 500;
const PAYLOAD: usize = 900;
const OUTGOING: usize = 300;

struct World<'a> {
    scenario: &'a Scenario,
    now: Timestamp,
    engine: EngineReactor,
    agent: AgentReactor,
    engine_end: End,
    agent_end: End,
    tickets: Vec<(Ticket, usize)>,
    parts: usize,
    asked: Vec<NotifyId>,
    /// How each request has ended: with its answer, or otherwise.
    ends: Vec<Option<Outcome>>,
    /// Requests whose answers the agent has taken, and of these the answers that must arrive.
    queued: Vec<bool>,
    owed: Vec<bool>,
    arriving: Vec<Ids>,
    refusals: usize,
    early: usize,
    once: Vec<Op>,
    blocked: bool,
    /// No event has happened that may lose an answer.
    calm: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Answered,
    Failed,
}

/// One end, and its bytes in transit.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Independent facts.
struct End {
    inbox: Inbox,
    sent: VecDeque<u8>,
    /// Its write side is shut.
    shut: bool,
    /// It has read EOF.
    eof: bool,
    closed: bool,
    told: bool,
}

impl End {
    /// One frame, or the part of it that was sent.
    fn piece(&mut self) -> Vec<u8> {
        let mut prefix = [0; 4];
        for (byte, sent) in prefix.iter_mut().zip(&self.sent) {
            *byte = *sent;
        }
        let len = (4 + u32::from_be_bytes(prefix) as usize).min(self.sent.len());
        self.sent.drain(..len).collect()
    }

    fn arrives(&self) -> bool {
        !self.sent.is_empty() || self.shut
    }
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let now = Timestamp::ZERO;
        let mut world = Self {
            scenario,
            now,
            engine: EngineReactor::new(
                Arc::new(scenario.engine.clone().checked().unwrap()),
                ConnectionId(0),
                now,
            ),
            agent: AgentReactor::new(
                Arc::new(scenario.agent.clone().checked().unwrap()),
                ConnectionId(0),
                now,
            ),
            engine_end: End::default(),
            agent_end: End::default(),
            tickets: Vec::new(),
            parts: 0,
            asked: Vec::new(),
            ends: Vec::new(),
            queued: Vec::new(),
            owed: Vec::new(),
            arriving: Vec::new(),
            refusals: scenario.refusals,
            early: scenario.early,
            once: scenario.once.to_vec(),
            blocked: false,
            calm: true,
        };
        for op in [Op::EngineSends, Op::AgentReceives, Op::AgentSends, Op::EngineReceives] {
            world.apply(op);
        }
        assert_eq!((world.engine.phase(), world.agent.phase()), (Phase::Established, Phase::Established));
        world
    }

    /// The events that happen without a decision of an application.
    fn progress(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        if !self.engine_end.closed {
            let interest = self.engine.interest();
            if interest.write {
                ops.push(Op::EngineSends);
            }
            if interest.read && !self.engine_end.eof && self.agent_end.arrives() {
                ops.push(Op::EngineReceives);
            }
        }
        if !self.agent_end.closed {
            let interest = self.agent.interest();
            if interest.write {
                ops.push(Op::AgentSends);
            }
            if interest.read && !self.agent_end.eof && self.engine_end.arrives() {
                ops.push(Op::AgentReceives);
            } else if interest.read && !self.blocked && self.agent.is_draining() {
                ops.push(Op::ReadBlocked);
            }
        }
        for place in 0..self.tickets.len() {
            for reply in self.scenario.replies {
                let part = *reply == Reply::Part;
                if !part || self.parts == 0 {
                    ops.push(Op::Answer(place, *reply));
                }
            }
        }
        ops
    }

    /// All possible events except the time.
    fn ops(&self) -> Vec<Op> {
        let mut ops = self.progress();
        if self.engine.is_ready() && !self.engine_end.closed && self.asked.len() < self.scenario.asks.len() {
            ops.push(Op::Ask(self.scenario.asks[self.asked.len()]));
        }
        if self.refusals > 0 && !self.agent_end.closed {
            let arriving = self.arriving.iter().filter(|ids| self.agent.arriving(**ids).is_some());
            ops.extend(arriving.map(|ids| Op::Refuse(*ids)));
        }
        let (engine, agent) = (!self.engine_end.closed, !self.agent_end.closed);
        ops.extend(self.once.iter().copied().filter(|op| match op {
            Op::DrainEngine | Op::DisconnectEngine => engine,
            Op::DrainAgent | Op::DisconnectAgent => agent,
            _ => engine && agent,
        }));
        ops
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let engine = self.engine.deadline().filter(|_| !self.engine_end.closed);
        let agent = self.agent.deadline().filter(|_| !self.agent_end.closed);
        [engine, agent].into_iter().flatten().map(|(at, _)| at).min()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Ask(size) => self.ask(size),
            Op::EngineSends => {
                let bytes = self.engine.outgoing().to_vec();
                self.engine_end.sent.extend(&bytes);
                let action = self.engine.on_sent(self.now, bytes.len()).unwrap();
                self.engine_says(action);
            }
            Op::AgentSends => {
                let bytes = self.agent.outgoing().to_vec();
                self.agent_end.sent.extend(&bytes);
                let action = self.agent.on_sent(self.now, bytes.len()).unwrap();
                self.agent_says(action);
            }
            Op::EngineReceives => self.engine_hears(),
            Op::AgentReceives => self.agent_hears(),
            Op::Answer(place, reply) => self.answer(place, reply),
            Op::Refuse(ids) => {
                self.refusals -= 1;
                self.refused(ids);
                assert!(self.agent.abort(self.now, ids).is_ok());
            }
            Op::ReadBlocked => {
                self.blocked = true;
                let action = self.agent.on_read_blocked(self.now);
                self.agent_says(action);
            }
            Op::DrainAgent => {
                self.agent.drain(self.now);
                self.blocked = false;
            }
            Op::DrainEngine => self.engine.drain(self.now),
            Op::DisconnectAgent => {
                self.calm = false;
                self.agent.disconnect(self.now, Status(99), "enough");
            }
            Op::DisconnectEngine => {
                self.calm = false;
                self.engine.disconnect(self.now, Status::NORMAL);
            }
            Op::Lose => self.lose(),
            Op::Time => self.time(),
        }
        self.once.retain(|once| *once != op);
        if op != Op::ReadBlocked {
            self.blocked = false;
        }
        self.obey();
        self.check();
    }

    fn ask(&mut self, size: Size) {
        let mut list = MessageList::new();
        let mut message = list.message("m");
        message.arg("n", self.asked.len() as u64);
        if size == Size::Long {
            message.arg("body", Value::Binary(&[b'q'; LONG]));
        }
        let id = self.engine.notify(self.now, None, &list).unwrap();
        assert!(!self.asked.contains(&id));
        self.arriving.push(id.ids());
        self.asked.push(id);
        self.ends.push(None);
        self.queued.push(false);
        self.owed.push(false);
    }

    fn answer(&mut self, place: usize, reply: Reply) {
        let (ticket, number) = self.tickets.remove(place);
        let mut actions = Actions::new();
        if reply != Reply::Part {
            actions.set_var(Scope::Transaction, "n", number as u64);
        }
        if matches!(reply, Reply::Long | Reply::Part) {
            actions.set_var(Scope::Transaction, "body", Value::Binary(&[b'a'; LONG]));
        }
        let settled = match reply {
            Reply::Short | Reply::Long => self.agent.acknowledge(self.now, ticket, &actions),
            Reply::Abort => self.agent.abort_answer(self.now, ticket),
            Reply::Part => match self.agent.acknowledge_part(self.now, ticket, &actions) {
                Ok(ticket) => {
                    self.parts += 1;
                    return self.tickets.push((ticket, number));
                }
                Err(error) => Err(error),
            },
            Reply::Fail => self.agent.fail(self.now, ticket),
        };
        match settled {
            Ok(settled) => {
                self.queued[number] |= settled != Settled::Dropped;
                self.owed[number] |=
                    settled == Settled::Queued && matches!(reply, Reply::Short | Reply::Long);
            }
            Err(error) => {
                // An answer that does not fit is a failure.
                let ticket = error.into_ticket();
                self.queued[number] |= self.agent.is_waiting(ticket.id());
                self.agent.fail(self.now, ticket).unwrap();
            }
        }
    }

    /// The agent sends an ABORT, which an engine treats as an answer once it has sent all of its request.
    fn refused(&mut self, ids: Ids) {
        let number = self.asked.iter().position(|asked| asked.ids() == ids).unwrap();
        self.queued[number] = true;
    }

    fn engine_hears(&mut self) {
        let piece = self.agent_end.piece();
        self.engine_end.eof = piece.is_empty();
        self.engine_end.inbox.extend_from_slice(&piece);
        self.engine_goes_on();
    }

    fn engine_goes_on(&mut self) {
        let mut inbox = std::mem::take(&mut self.engine_end.inbox);
        loop {
            let action = if self.engine_end.eof {
                inbox.feed(|input| self.engine.on_input_eof(self.now, input))
            } else {
                inbox.feed(|input| self.engine.on_bytes(self.now, input))
            };
            if !self.engine_says(action) {
                break;
            }
        }
        self.engine_end.inbox = inbox;
    }

    fn agent_hears(&mut self) {
        let piece = self.engine_end.piece();
        self.agent_end.eof = piece.is_empty();
        self.agent_end.inbox.extend_from_slice(&piece);
        self.agent_goes_on();
    }

    fn agent_goes_on(&mut self) {
        let mut inbox = std::mem::take(&mut self.agent_end.inbox);
        loop {
            let action = if self.agent_end.eof {
                inbox.feed(|input| self.agent.on_input_eof(self.now, input))
            } else {
                inbox.feed(|input| self.agent.on_bytes(self.now, input))
            };
            if !self.agent_says(action) {
                break;
            }
        }
        self.agent_end.inbox = inbox;
    }

    fn engine_says(&mut self, action: EngineAction) -> bool {
        match action {
            EngineAction::SendFrames | EngineAction::WantBytes { .. } => return false,
            EngineAction::Established(_) => {}
            EngineAction::Answered(answer) => {
                let number = self.end(answer.id, Outcome::Answered);
                assert!(self.queued[number], "an answer that nobody gave");
                for action in &answer.actions() {
                    if let AckAction::SetVar { name: b"n", value, .. } = action {
                        assert_eq!(value.as_integer(), Some(number as i128), "the answer to another request");
                    }
                }
            }
            EngineAction::Failed(failure) => {
                self.end(failure.id, Outcome::Failed);
            }
            EngineAction::Unclaimed(ack) => panic!("{ack:?}"),
            EngineAction::Close(ended) => {
                assert!(!self.engine_end.told, "a second Close");
                self.engine_end.told = true;
                for id in ended.unanswered {
                    self.end(id, Outcome::Failed);
                }
                return false;
            }
            other => panic!("{other:?}"),
        }
        true
    }

    fn end(&mut self, id: NotifyId, how: Outcome) -> usize {
        let number = self.asked.iter().position(|asked| *asked == id).unwrap();
        assert_eq!(self.ends[number], None, "request {number} ends twice");
        self.ends[number] = Some(how);
        number
    }

    fn agent_says(&mut self, action: Action) -> bool {
        match action {
            Action::SendFrames | Action::WantBytes { .. } | Action::Paused => return false,
            Action::RunMessages(Notify { ticket, payload }) => {
                let number =
                    payload.messages().get("m").and_then(|message| message.get("n")?.as_integer()).unwrap();
                self.tickets.push((ticket, usize::try_from(number).unwrap()));
            }
            Action::Close(closed) => {
                assert!(!self.agent_end.told, "a second Close");
                self.agent_end.told = true;
                assert!(!self.calm || closed.lost.messages == 0 || self.engine_end.told, "{closed:?}");
                return false;
            }
            Action::CancelMessages(cancelled) => {
                assert!(!self.agent.is_waiting(cancelled.ticket));
                self.refused(cancelled.ids);
            }
            Action::AbortFragment(aborted) => self.refused(aborted.ids),
            _ => {}
        }
        true
    }

    fn lose(&mut self) {
        self.calm = false;
        let action = self.engine.on_transport_error(self.now);
        self.engine_says(action);
        let action = self.agent.on_transport_error(self.now);
        self.agent_says(action);
        self.engine_end.sent.clear();
        self.agent_end.sent.clear();
    }

    fn time(&mut self) {
        let Some(at) = self.next_deadline() else { return };
        if !self.progress().is_empty() {
            self.early -= 1;
            self.calm = false;
        }
        self.now = self.now.max(at);
        if !self.engine_end.closed && self.engine.deadline().is_some_and(|(at, _)| at <= self.now) {
            while {
                let action = self.engine.on_timeout(self.now);
                self.engine_says(action)
            } {}
            assert!(
                self.engine.deadline().is_none_or(|(at, _)| at > self.now),
                "the engine's deadline stays"
            );
        }
        if !self.agent_end.closed && self.agent.deadline().is_some_and(|(at, _)| at <= self.now) {
            while {
                let action = self.agent.on_timeout(self.now);
                self.agent_says(action)
            } {}
            assert!(self.agent.deadline().is_none_or(|(at, _)| at > self.now), "the agent's deadline stays");
        }
    }

    /// The work that a driver does at once.
    fn obey(&mut self) {
        while !self.engine_end.closed {
            let interest = self.engine.interest();
            self.engine_end.closed = interest.close;
            self.engine_end.shut |= interest.close || interest.shut.is_some();
            if interest.resume {
                self.engine_goes_on();
            } else if interest.shut.is_some() {
                let action = self.engine.on_write_shut(self.now, Progress::Done).unwrap();
                self.engine_says(action);
            } else {
                break;
            }
        }
        while !self.agent_end.closed {
            let interest = self.agent.interest();
            self.agent_end.closed = interest.close;
            self.agent_end.shut |= interest.close || interest.shut.is_some();
            if interest.resume {
                self.agent_goes_on();
            } else if interest.shut.is_some() {
                let action = self.agent.on_write_shut(self.now, Progress::Done).unwrap();
                self.agent_says(action);
            } else {
                break;
            }
        }
    }

    fn check(&self) {
        let limits = &self.scenario.agent.limits;
        assert!(self.agent.in_flight() <= limits.max_in_flight);
        assert!(self.agent.reassembly_bytes() <= limits.max_payload_bytes);
        // An answer that is accepted below the limit may be sent in fragments beyond it; ABORTs and the DISCONNECT are short.
        assert!(self.agent.outgoing_bytes() <= limits.max_outgoing + 2 * LONG + 400);
        assert!(self.engine.in_flight() <= self.scenario.engine.max_waiting_frames);
        assert_eq!(self.ends.iter().filter(|end| end.is_none()).count(), self.engine.in_flight());
        if self.engine_end.closed {
            assert!(self.engine_end.told, "closed without a word");
        }
        if self.agent_end.closed {
            assert!(self.agent_end.told, "closed without a word");
        }
    }

    /// The invariants of a state where only time can pass, and then of one where no event is left.
    fn check_rest(&self) {
        if self.calm && self.agent.phase() == Phase::Established {
            assert_eq!(self.engine.in_flight(), 0, "a request waits for nothing but its timer");
        }
        if self.next_deadline().is_some() {
            return;
        }
        assert!(self.engine_end.closed && self.agent_end.closed, "stuck");
        assert!(self.ends.iter().all(Option::is_some), "a request without an end");
        for (number, owed) in self.owed.iter().enumerate() {
            let arrived = self.ends[number] == Some(Outcome::Answered);
            assert!(arrived || !self.calm || !owed, "the answer {number} is lost");
        }
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest(DefaultHasher::new());
        let World { now, engine, agent, engine_end, agent_end, tickets, .. } = self;
        write!(digest, "{now:?}{engine:?}{agent:?}{engine_end:?}{agent_end:?}{tickets:?}").unwrap();
        let World { parts, asked, ends, queued, owed, refusals, early, once, blocked, calm, .. } = self;
        write!(digest, "{parts}{asked:?}{ends:?}{queued:?}{owed:?}{refusals}{early}{once:?}{blocked}{calm}")
            .unwrap();
        digest.0.finish()
    }
}

struct Digest(DefaultHasher);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// A state on the path, and its possible events.
struct Place {
    digest: u64,
    ops: Vec<Op>,
    next: usize,
}

fn place(world: &World<'_>) -> Place {
    let mut ops = world.ops();
    let rest = world.progress().is_empty();
    if rest {
        world.check_rest();
    }
    if world.next_deadline().is_some() && (rest || world.early > 0) {
        ops.push(Op::Time);
    }
    Place { digest: world.digest(), ops, next: 0 }
}

/// Reports the path on which a check failed.
struct Path<'a>(&'a str, Vec<Op>);

impl Drop for Path<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in \"{}\", after {:?}", self.0, self.1);
        }
    }
}

fn explore(scenario: &Scenario) {
    let begun = Instant::now();
    let mut path = Path(scenario.name, Vec::new());
    let mut world = World::new(scenario);
    let mut stack = vec![place(&world)];
    // Whether a visited state is still on the path.
    let mut seen = HashMap::from([(stack[0].digest, true)]);
    let (mut steps, mut deepest, mut ends) = (0_u64, 0, 0_u64);
    let mut fresh = true;
    while let Some(top) = stack.last_mut() {
        let Some(op) = top.ops.get(top.next).copied() else {
            ends += u64::from(top.ops.is_empty());
            seen.insert(top.digest, false);
            stack.pop();
            path.1.pop();
            fresh = false;
            continue;
        };
        top.next += 1;
        if !fresh {
            world = World::new(scenario);
            for op in &path.1 {
                world.apply(*op);
            }
        }
        path.1.push(op);
        world.apply(op);
        steps += 1;
        let digest = world.digest();
        let idle = top.digest == digest;
        match seen.get(&digest) {
            Some(on_path) => {
                assert!(idle || !on_path, "in a circle");
                path.1.pop();
                fresh = false;
            }
            None => {
                seen.insert(digest, true);
                stack.push(place(&world));
                deepest = deepest.max(stack.len());
                fresh = true;
            }
        }
    }
    println!(
        "{}: {} states, {steps} steps, {ends} ends, at most {deepest} deep, {:.1} s",
        scenario.name,
        seen.len(),
        begun.elapsed().as_secs_f32()
    );
    assert!(ends > 0, "nothing ends");
}

fn scenario(name: &'static str, mut engine: EngineConfig) -> Scenario {
    let more = env::var("SPOP_EXPLORE").ok().and_then(|more| more.parse::<usize>().ok()).unwrap_or(1) - 1;
    engine.max_frame_size = 256;
    engine.timeouts.message = Some(Duration::from_secs(2));
    engine.timeouts.idle = Some(Duration::from_secs(60));
    engine.timeouts.hello = Some(Duration::from_secs(5));
    engine.timeouts.write = Some(Duration::from_secs(9));
    let mut agent = AgentConfig::default();
    agent.max_frame_size = 256;
    // Off: it holds answers back for some milliseconds, which would add states.
    agent.drain_timing = None;
    // Off: another deadline would double the states, and nothing depends on it.
    agent.timeouts.memory = None;
    agent.limits.max_payload = PAYLOAD;
    agent.limits.max_payload_bytes = 2 * PAYLOAD;
    agent.limits.max_outgoing = OUTGOING + LONG;
    agent.limits.max_in_flight = 2;
    Scenario {
        name,
        engine,
        agent,
        asks: vec![Size::Short; 2 + more],
        replies: &[Reply::Short],
        refusals: 0,
        early: more,
        once: &[],
    }
}

#[test]
fn whole_requests() {
    for (name, engine) in [
        ("whole, by the specification", EngineConfig::default()),
        ("whole, 2.6", EngineConfig::haproxy_2_6()),
        ("whole, 3.1", EngineConfig::haproxy_3_1()),
    ] {
        let mut scenario = scenario(name, engine);
        scenario.asks.push(Size::Short);
        scenario.once = &[Op::DrainAgent, Op::DrainEngine];
        explore(&scenario);
        scenario.asks.pop();
        scenario.replies = &[Reply::Short, Reply::Fail];
        scenario.agent.capabilities = Capabilities::NONE;
        scenario.early += 1;
        explore(&scenario);
    }
}

#[test]
fn fragments_in() {
    for (name, engine) in [
        ("fragments in, by the specification", EngineConfig::default()),
        ("fragments in, 2.6", EngineConfig::haproxy_2_6()),
    ] {
        let mut scenario = scenario(name, engine);
        scenario.asks[0] = Size::Long;
        scenario.refusals = 1;
        scenario.replies = &[Reply::Short, Reply::Abort];
        explore(&scenario);
        scenario.refusals = 0;
        scenario.early += 1;
        scenario.replies = &[Reply::Short];
        scenario.once = &[Op::DrainAgent];
        explore(&scenario);
        scenario.agent.limits.max_payload = LONG / 2;
        explore(&scenario);
    }
}

#[test]
fn fragments_out() {
    let mut scenario = scenario("fragments out", EngineConfig::default());
    scenario.replies = &[Reply::Short, Reply::Long];
    scenario.once = &[Op::DrainAgent];
    explore(&scenario);
    scenario.once = &[];
    scenario.replies = &[Reply::Long, Reply::Part, Reply::Abort, Reply::Fail];
    explore(&scenario);
}

#[test]
fn rude_ends() {
    for (name, engine) in [
        ("rude ends, by the specification", EngineConfig::default()),
        ("rude ends, 2.6", EngineConfig::haproxy_2_6()),
        ("rude ends, 3.1", EngineConfig::haproxy_3_1()),
    ] {
        let mut scenario = scenario(name, engine);
        scenario.once = &[Op::Lose, Op::DisconnectAgent, Op::DisconnectEngine];
        explore(&scenario);
        scenario.once = &[Op::DisconnectAgent, Op::DrainEngine];
        scenario.early += 1;
        explore(&scenario);
    }
}
