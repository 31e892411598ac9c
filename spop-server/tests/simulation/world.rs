//! Engines, agents and the network between them, in virtual time.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use spop_core::{
    ConnectionId, Scope, Timestamp, Value,
    engine::{EngineError, pool::PoolAction},
    frame::AckAction,
};
use spop_server::Stage;

use crate::{
    engine::Engine,
    hostile::Hostile,
    ledger::{Decision, Ledger},
    logs::Logs,
    node::Node,
    rng::Rng,
    wire::{AGENT, ENGINE, Wire},
};

/// How much is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weather {
    /// Latency, cuts, short stalls, handlers that fail.
    Calm,
    /// Also: agents are restarted.
    Restarts,
    /// Connections are lost, and siblings answer their requests.
    Losses,
    /// Everything: also partitions, agents that stop, a clock that jumps. Much of it explains any failure.
    Storm,
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub steps: u64,
    pub asked: u64,
    pub answered: u64,
    pub empty: u64,
    pub failed: u64,
    pub rescued: u64,
    pub restarts: u64,
}

impl Summary {
    /// What both have come to.
    pub fn add(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            asked: self.asked + other.asked,
            answered: self.answered + other.answered,
            empty: self.empty + other.empty,
            failed: self.failed + other.failed,
            rescued: self.rescued + other.rescued,
            restarts: self.restarts + other.restarts,
        }
    }
}

pub type WireId = (usize, ConnectionId);

pub struct World {
    pub(crate) now: Timestamp,
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    pub(crate) ledger: Rc<RefCell<Ledger>>,
    pub(crate) engines: Vec<Engine>,
    /// By number; those that have ended are gone.
    pub(crate) nodes: BTreeMap<usize, Node>,
    /// The agent at each address.
    pub(crate) slots: Vec<Option<usize>>,
    /// Addresses whose agent starts again.
    pub(crate) starting: Vec<(Timestamp, usize)>,
    pub(crate) wires: BTreeMap<WireId, Wire>,
    decisions: Vec<Decision>,
    next_node: usize,
    /// When the clock has jumped last.
    pub(crate) jumped: Timestamp,
    /// No agent starts again.
    ending: bool,
    pub(crate) summary: Summary,
    /// Hostile peers connect.
    pub(crate) hostile: bool,
    pub(crate) hostiles: Vec<Hostile>,
    /// The server of a connection that has just been opened, and is about to be hit by a fault before it reads.
    pub(crate) surprised: Option<usize>,
    logs: Logs,
    settled: u64,
}

impl World {
    pub fn new(seed: u64, weather: Weather) -> Self {
        let mut rng = Rng::new(seed);
        let now = Timestamp::from_millis(1);
        let mut decisions = vec![Decision::Now; 40];
        decisions.extend([Decision::Later; 40]);
        decisions.extend([Decision::Fail, Decision::Panic, Decision::PanicLater]);
        decisions.extend([Decision::Dropped, Decision::Abort, Decision::Never, Decision::Slow]);
        decisions.extend([Decision::FailWith, Decision::FailLong]);
        decisions.extend([Decision::Parts, Decision::Keep, Decision::Guard].repeat(4));
        decisions.extend([Decision::Copy, Decision::Long].repeat(8));
        if weather > Weather::Calm {
            decisions.extend([Decision::Disconnect; 2]);
        }
        if weather == Weather::Losses {
            decisions.extend([Decision::Later; 40]);
            decisions.extend([Decision::Never; 8]);
            decisions.extend([Decision::Disconnect; 4]);
        }
        let agents = 1 + rng.below(3);
        let engines = 1 + rng.below(3);
        let engines =
            (0..engines).map(|number| Engine::new(&mut rng, weather, number, agents, now)).collect();
        let mut world = Self {
            now,
            rng,
            weather,
            ledger: Rc::default(),
            engines,
            nodes: BTreeMap::new(),
            slots: vec![None; agents],
            starting: Vec::new(),
            wires: BTreeMap::new(),
            decisions,
            next_node: 0,
            jumped: Timestamp::ZERO,
            ending: false,
            summary: Summary::default(),
            hostile: seed.is_multiple_of(3),
            hostiles: Vec::new(),
            surprised: None,
            logs: Logs::new(),
            settled: 0,
        };
        (0..agents).for_each(|slot| world.start(slot));
        world
    }

    fn start(&mut self, slot: usize) {
        let id = self.next_node;
        self.next_node += 1;
        let rng = Rng::new(self.rng.next());
        self.nodes.insert(id, Node::new(id, &self.ledger, rng, &self.decisions));
        self.slots[slot] = Some(id);
    }

    /// Requests for some seconds, then an orderly end.
    pub fn run(mut self, requests: usize) -> Summary {
        // Some runs last long enough for requests to time out.
        let hasty = self.engines.iter().any(|engine| engine.hasty);
        let long = self.rng.permille(if hasty { 700 } else { 330 });
        let pause = Duration::from_millis(if long { 60 } else { 1 } + self.rng.below(40) as u64);
        if long {
            self.decisions.extend([Decision::Slow; 8].repeat(if hasty { 4 } else { 1 }));
            self.nodes.values_mut().for_each(|node| node.app.decisions.clone_from(&self.decisions));
        }
        for _ in 0..requests {
            self.run_for(pause);
            for _ in 0..=self.rng.below(3) {
                self.ask();
            }
            self.disturb();
        }
        self.end();
        let ledger = self.ledger.borrow();
        let Ledger { asked, answered, empty, failed, rescued, .. } = *ledger;
        Summary { asked, answered, empty, failed, rescued, ..self.summary }
    }

    pub(crate) fn ask(&mut self) {
        let index = self.rng.below(self.engines.len());
        let engine = &mut self.engines[index];
        // Some in fragments, where the engine sends them.
        let long = self.rng.permille(80);
        let most = if long { engine.longest } else { 200 };
        let (mut name, mut length) = ("m", self.rng.below(most));
        if long && engine.longest > 20_000 && self.rng.permille(600) {
            (name, length) = (self.rng.pick(&["refuse", "boom"]), engine.longest);
        }
        let n = self.ledger.borrow_mut().ask(index, self.now);
        let reused = engine.reusable();
        if !engine.ask(self.now, &mut self.rng, n, name, length) {
            self.ledger.borrow_mut().open.remove(&n);
        } else if let Some(asked) = self.ledger.borrow_mut().open.get_mut(&n) {
            // The empty answer to an older request with its identifiers may be on its way.
            asked.excused = name == "refuse" || engine.reusable() < reused;
        }
    }

    /// All requests end, then all connections, then all agents.
    fn end(&mut self) {
        self.run_for(Duration::from_secs(12));
        assert!(self.ledger.borrow().open.is_empty(), "never ended: {:?}", self.ledger.borrow().open);
        for engine in &mut self.engines {
            engine.pool.drain(self.now);
        }
        self.run_for(Duration::from_secs(12));
        for node in self.nodes.values() {
            node.agent.handle().drain();
            node.agent.handle().drain();
        }
        self.starting.clear();
        self.ending = true;
        self.run_for(Duration::from_secs(30));
        for engine in &self.engines {
            assert_eq!(engine.pool.connections(), 0);
        }
        assert!(self.nodes.is_empty(), "agents have not ended: {:?}", self.nodes.keys());
        assert!(self.wires.is_empty());
    }

    fn next_event(&self) -> Option<Timestamp> {
        let wires = self.wires.values().filter_map(Wire::next_event);
        let nodes = self.nodes.values().filter_map(Node::next_event);
        let engines = self.engines.iter().filter_map(Engine::next_event);
        let hostiles = self.hostiles.iter().map(|it| it.next_event(self.now));
        let starting = self.starting.iter().map(|(at, _)| *at);
        wires.chain(nodes).chain(engines).chain(hostiles).chain(starting).min()
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut at_once = 0;
        self.settle();
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            at_once = if at > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 1_000, "something is due at {at}, and is not done");
            self.now = self.now.max(at);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Everything that can happen at this time.
    fn settle(&mut self) {
        let now = self.now;
        self.start_due();
        for wire in self.wires.values_mut() {
            wire.advance(now);
        }
        for node in self.nodes.values_mut() {
            node.advance(now);
        }
        self.open_due();
        for round in 0.. {
            assert!(round < 10_000, "no rest at {now}");
            self.summary.steps += 1;
            let mut any = false;
            for index in 0..self.engines.len() {
                any |= self.engines[index].drive(now, &mut self.wires, &mut self.rng);
                self.collect(index);
            }
            let Self { hostiles, wires, rng, .. } = self;
            hostiles.retain_mut(|hostile| {
                let driven = hostile.drive(now, wires, rng);
                any |= driven != Some(false);
                driven.is_some()
            });
            for node in self.nodes.values_mut() {
                any |= node.drive(now, &mut self.wires, &mut self.rng);
            }
            self.see_ends();
            if !any {
                break;
            }
        }
        self.retire();
        self.wires.retain(|_, wire| !(wire.is_closed(AGENT) && wire.is_closed(ENGINE)));
        self.nodes.values().for_each(|node| node.check(now, &self.wires, self.weather < Weather::Storm));
        self.nodes.values_mut().for_each(|node| node.app.ended.clear());
        assert!(self.ledger.borrow().faults.is_empty(), "{:?}", self.ledger.borrow().faults);
        self.settled += 1;
        if self.settled.is_multiple_of(16) {
            self.nodes.values().for_each(|node| node.check_idle(now));
        }
        self.note_trouble();
    }

    fn start_due(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.starting.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, slot) in due {
            self.start(slot);
        }
    }

    /// Connections that engines open.
    fn open_due(&mut self) {
        let now = self.now;
        for (index, engine) in self.engines.iter_mut().enumerate() {
            let due: Vec<_> = engine.opening.extract_if(.., |(at, ..)| *at <= now).collect();
            for (_, connection, slot) in due {
                let node =
                    self.slots[slot].and_then(|id| self.nodes.get_mut(&id)).filter(|node| node.listens());
                let accepted = node
                    .and_then(|node| Some(((node.id, node.accept(now, index)?), node.entrance.is_some())));
                if let Some((wire, proxy)) = accepted {
                    let mut line = Wire::new(&mut self.rng, engine.cuts);
                    let mut header = if proxy { &b"PROXY UNKNOWN\r\n"[..] } else { &[] };
                    while !header.is_empty() {
                        let sent = line.write(ENGINE, now, &mut self.rng, header).unwrap();
                        header = &header[sent..];
                    }
                    if proxy && self.rng.permille(300) {
                        // Everything arrives at once, and late.
                        line.freeze(now + self.rng.up_to(Duration::from_millis(400)));
                    } else if self.weather == Weather::Storm && self.rng.permille(50) {
                        line.widen();
                        line.stall(AGENT, now + Duration::from_millis(200));
                        self.surprised = Some(wire.0);
                    }
                    self.wires.insert(wire, line);
                    tell!("{now} engine {index} opens {wire:?}");
                    engine.opened(now, connection, wire);
                } else {
                    self.ledger.borrow_mut().trouble = Some(now);
                    engine.pool.on_transport_error(now, connection);
                    engine.pool.on_closed(now, connection);
                }
            }
        }
    }

    /// The outcomes of an engine.
    fn collect(&mut self, index: usize) {
        let engine = &mut self.engines[index];
        for action in engine.actions(self.now, &mut self.rng) {
            let mut ledger = self.ledger.borrow_mut();
            match &action {
                PoolAction::Answered { request, .. } => {
                    let n = engine.end(*request, false);
                    let mut answer = None;
                    for set in action.actions().iter().flatten() {
                        if let AckAction::SetVar {
                            scope: Scope::Transaction,
                            name: b"n",
                            value: Value::Uint64(value),
                        } = set
                        {
                            answer = Some(value);
                        }
                    }
                    let home = ledger.open.get(&n).and_then(|asked| asked.handled);
                    if answer.is_some()
                        && let Some(home) = home
                        && self.wires.get(&(home.node, home.conn)).is_none_or(|wire| wire.reset)
                    {
                        ledger.rescued += 1;
                    }
                    ledger.answer(n, answer);
                }
                PoolAction::Failed { request, error, .. } => {
                    let n = engine.end(*request, *error == EngineError::Timeout);
                    tell!("{} {n} failed: {error:?}, {:?}", self.now, ledger.open.get(&n));
                    ledger.fail(n, *error, self.now);
                }
                _ => {}
            }
        }
    }

    /// Agents that have shut down, and have no connection any more.
    fn retire(&mut self) {
        let gone = |node: &Node| !node.listens() && node.conns.is_empty();
        let over: Vec<_> = self.nodes.values().filter(|node| gone(node)).map(|node| node.id).collect();
        for id in over {
            if let Some(node) = self.nodes.remove(&id) {
                node.check_end(self.now, &self.logs);
            }
            for slot in 0..self.slots.len() {
                if self.slots[slot] == Some(id) {
                    self.slots[slot] = None;
                    if self.ending {
                        continue;
                    }
                    let pause = self.rng.up_to(Duration::from_millis(300));
                    self.starting.push((self.now + pause, slot));
                }
            }
        }
    }

    /// While an agent is not in service, requests that reach no handler may fail.
    fn note_trouble(&mut self) {
        let serves = |id: &Option<usize>| {
            id.is_some_and(|id| self.nodes.get(&id).is_some_and(|it| it.stage == Stage::Serve))
        };
        if !self.slots.iter().all(serves)
            || self.nodes.values().any(|node| node.stage > Stage::Serve)
            || self.wires.values().any(|wire| wire.faulty)
        {
            self.ledger.borrow_mut().trouble = Some(self.now);
        }
    }
}
