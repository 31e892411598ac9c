//! What holds of a server: in each turn, whenever nothing is left to do, and at its end.

use std::{collections::BTreeMap, time::Duration};

use spop_core::{AgentReactor, CloseReason, ConnectionId, Status, Timestamp, hub::SIBLINGS, link::Phase};
use spop_server::Stage;

use crate::{
    app::App,
    hostile::HOSTILE,
    logs::Logs,
    node::{Link, MESSAGE, Node},
    wire::Wire,
    world::WireId,
};

/// What a connection may hold although the total is exceeded, with the step in which it is counted.
const SPARED: usize = 48 << 10;

/// What a connection that was ended because the total is exceeded may still hold.
const SPARED_AT_THE_END: usize = 32 << 10;

/// What one turn may cost, so that others have theirs: bytes, and frames.
const TURN: usize = 128 << 10;
const FRAMES_OF_A_TURN: usize = 320;

/// A connection before its turn.
pub struct Before {
    pub calls: usize,
    at_once: usize,
    released: usize,
    skipped: u64,
    backlog: usize,
    read: usize,
    writes: usize,
    /// The peer has not read what was sent, and a sibling could send at once.
    held_up: bool,
}

impl Before {
    /// `others`: a sibling has nothing to send, and no message tells this connection to send something.
    pub fn new(link: &Link, app: &App, wire: Option<&Wire>, others: bool) -> Self {
        let reactor = link.driver.protocol().reactor();
        let backlog = reactor.map_or(0, AgentReactor::outgoing_bytes);
        let sends = reactor.is_some_and(|it| it.phase() == Phase::Established && !it.is_draining());
        Self {
            calls: app.calls,
            at_once: app.at_once,
            released: app.released,
            skipped: reactor.map_or(0, AgentReactor::skipped_frames),
            backlog,
            read: wire.map_or(0, |wire| wire.agent_read),
            writes: wire.map_or(0, |wire| wire.agent_writes),
            held_up: others && sends && backlog > 0,
        }
    }

    /// After the turn.
    pub fn check(self, link: &Link, app: &App, wire: &Wire) {
        let Self { calls, at_once, released, skipped, backlog, read, writes, held_up } = self;
        let Some(reactor) = link.driver.protocol().reactor() else { return };
        let read = wire.agent_read - read;
        assert!(read <= TURN, "{read} bytes in one turn");
        let calls = app.calls - calls;
        let frames = calls + (reactor.skipped_frames() - skipped) as usize;
        assert!(frames <= FRAMES_OF_A_TURN, "{frames} frames in one turn");
        // Memory is released after each of the first two sends.
        let early = wire.agent_writes.min(2) - writes.min(2);
        assert!(app.released - released >= early, "memory was kept after a send");
        let at_once = app.at_once - at_once;
        if held_up && wire.agent_writes == writes && calls > 0 && calls == at_once {
            let now = reactor.outgoing_bytes();
            assert!(now <= backlog, "an answer waits behind {backlog} bytes, and a sibling is free");
        }
    }
}

impl Node {
    /// Whether another connection of the engine has nothing to send.
    pub fn has_free_sibling(&self, id: ConnectionId) -> bool {
        let Some(link) = self.conns.get(&id) else { return false };
        let engine = |link: &Link| link.driver.protocol().reactor()?.session()?.shared_engine().cloned();
        let Some(own) = engine(link) else { return false };
        let siblings = self.conns.values().filter(|link| engine(link).as_ref() == Some(&own)).count() - 1;
        // One that was full is not asked again soon, and of many only some are asked.
        self.limits.outgoing > 1 << 16
            && siblings <= SIBLINGS
            && self.conns.iter().any(|(other, link)| {
                let reactor = link.driver.protocol().reactor();
                *other != id
                    && reactor.is_some_and(|it| it.send_backlog() == Some(0) && !it.is_draining())
                    && engine(link).as_ref() == Some(&own)
            })
    }

    /// Whether the limits allow one more connection.
    pub fn may_accept(&self, engine: usize) -> bool {
        let mut places: BTreeMap<ConnectionId, usize> =
            self.conns.iter().map(|(id, link)| (*id, link.engine)).collect();
        // Those that have ended count while handlers keep requests of them.
        let kept = self.app.store.kept.iter().filter(|it| it.has_request()).map(|it| it.conn);
        for conn in kept.chain(self.app.pending.iter().map(|it| it.responder.connection().id())) {
            if let Some(engine) = self.engines_of.get(&conn) {
                places.insert(conn, *engine);
            }
        }
        let of_source = places.values().filter(|it| **it == engine).count();
        places.len() < self.limits.connections && (engine == HOSTILE || of_source < self.limits.of_source)
    }

    /// A request was refused in a turn with so many calls: a limit was reached.
    pub fn check_overload(&self, calls: usize) {
        let (pending, kept) = (self.app.pending.len(), self.app.store.kept.len());
        let requests = pending + kept + calls;
        let store = &self.app.store;
        // What is kept of a short time is not known: only a high limit says something.
        let reached = self.limits.in_flight.is_some_and(|max| requests >= max)
            || store.max_bytes < 1 << 20
            || requests >= store.max_requests;
        assert!(reached, "a request was refused, and {requests} are kept");
    }

    /// The handler of a request that was superseded by one on another connection of its engine is stopped.
    fn check_superseded(&self) {
        let mut seen = BTreeMap::new();
        for pending in self.app.pending.iter().filter(|it| !it.responder.is_cancelled()) {
            let Some(engine) = pending.responder.session().shared_engine() else { continue };
            let other = seen.insert((engine.clone(), pending.responder.ids()), pending.n);
            assert!(other.is_none(), "{} and {other:?} have the same identifiers", pending.n);
        }
    }

    /// What holds when nothing is left to do at this time.
    pub fn check(&self, now: Timestamp, wires: &BTreeMap<WireId, Wire>, timely: bool) {
        for (id, link) in &self.conns {
            let wire = wires.get(&(self.id, *id)).filter(|wire| !wire.faulty && !wire.partitioned);
            self.check_connection(*id, link, now, wire.is_some() && timely);
        }
        let reactors = self.conns.values().filter_map(|link| link.driver.protocol().reactor());
        let held: usize = reactors.map(|it| it.unfinished_bytes() + it.outgoing_bytes()).sum();
        let most = self.limits.buffered + self.conns.len() * SPARED;
        assert!(held <= most, "connections hold {held} bytes, at most {most}");
        // Handlers that work, and requests that they have.
        let (pending, kept) = (self.app.pending.len(), &self.app.store.kept);
        let count = pending + kept.iter().filter(|it| it.works() || it.has_request()).count();
        assert!(self.limits.in_flight.is_none_or(|max| count <= max), "{count} requests in flight");
        assert!(self.app.ended.iter().all(spop_server::Cancellation::is_cancelled), "a request has ended");
        self.check_superseded();
        let stats = self.agent.stats();
        assert_eq!((stats.open, stats.refused), (self.conns.len() as u64, self.refused));
        self.recorder.check_stats(&stats);
    }

    fn check_connection(&self, id: ConnectionId, link: &Link, now: Timestamp, timely: bool) {
        let conn = link.driver.protocol();
        let reactor = conn.reactor();
        let phase = reactor.map(AgentReactor::phase);
        if timely && link.engine != HOSTILE && now.since(link.opened) > Duration::from_millis(1_500) {
            assert!(phase > Some(Phase::Connected), "connection {} has no session: {phase:?}", id.0);
        }
        assert!(!conn.is_woken(), "connection {} of agent {} was not woken", id.0, self.id);
        assert!(conn.deadline().is_none_or(|at| at > now), "connection {} has a past deadline", id.0);
        let waits = link.detached.map_or(Duration::ZERO, |since| now.since(since));
        assert!(
            waits <= MESSAGE || self.has_jumped,
            "connection {} waits for its orphans since {waits:?}",
            id.0
        );
        if let Some(reactor) = reactor.filter(|_| self.stage == Stage::Drain) {
            let drains = reactor.is_draining() || phase == Some(Phase::Closing) || conn.closed().is_some();
            assert!(drains, "connection {} does not drain", id.0);
        }
        if let Some(closed) = conn.closed() {
            let held = reactor.map_or(0, AgentReactor::outgoing_bytes);
            assert!(
                closed.reason != CloseReason::Disconnect(Status::RESOURCE) || held <= SPARED_AT_THE_END,
                "connection {} was ended to free memory, and holds {held} bytes",
                id.0
            );
        }
    }

    /// An idle connection has asked nothing for so long.
    pub fn check_idle(&self, now: Timestamp) {
        for info in self.agent.open_connections(now) {
            let link = &self.conns[&ConnectionId(info.id)];
            let least = link.asked.map(|at| now.since(at) + Duration::from_secs(2));
            assert!(least.is_none_or(|least| info.idle <= least), "{} is idle for {:?}", info.id, info.idle);
        }
    }

    /// All connections are gone: everything was returned.
    pub fn check_end(mut self, now: Timestamp, logs: &Logs) {
        assert!(self.conns.is_empty());
        let stats = self.agent.stats();
        assert_eq!(stats.open, 0, "{stats:?}");
        assert!(self.agent.handle().connections().is_empty());
        for pending in &self.app.pending {
            assert!(pending.responder.is_cancelled(), "the handler of {} still works", pending.n);
        }
        let most = self.app.given - self.app.crossed;
        assert!(stats.answered <= most as u64, "{} answers count, of {most}", stats.answered);
        let stage = self.agent.poll_shutdown(now);
        assert!(stage < Stage::Drain || self.agent.has_ended(now), "{stage:?}, and no end");
        self.agent.ended(now);
        let drained = logs.take_drained();
        assert_eq!(drained.unwrap_or_default(), self.cut, "what the drain has cut");
        self.app.pending.clear();
        self.app.store.kept.clear();
        self.recorder.check();
    }
}
