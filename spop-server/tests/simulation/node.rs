//! An agent: its server, its connections, its handler.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use spop_core::{
    AgentConfig, ConnectionId, Timestamp,
    accept::{AcceptConfig, ExpectProxy, Peer},
    frame::Capabilities,
    link::Phase,
};
use spop_server::{Agent, Conn, Driver, Entrance, ReadBuffer, ServerConfig, Stage, Subscription, Turn};

use crate::{
    app::App,
    ledger::{Decision, Ledger},
    recorder::Recorder,
    rng::Rng,
    wire::{AGENT, End, Wire},
};

/// Was woken.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Flag {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

pub struct Node {
    pub id: usize,
    pub agent: Arc<Agent>,
    pub app: App,
    pub conns: BTreeMap<ConnectionId, Link>,
    recorder: Recorder,
    buffer: ReadBuffer,
    stage_changed: Arc<Flag>,
    _subscription: Subscription,
    pub stage: Stage,
    /// The clock has jumped while it lived.
    pub jumped: bool,
    /// Its connections begin with a PROXY header.
    pub entrance: Option<Arc<Entrance>>,
    limits: Limits,
}

/// A connection of the server.
pub struct Link {
    pub driver: Driver<Conn>,
    pub engine: usize,
    opened: Timestamp,
    woken: Arc<Flag>,
    /// Its turn was over before it had nothing to do.
    again: bool,
    /// When its transport was closed: since then it waits for the answers of orphans.
    detached: Option<Timestamp>,
    /// The end of its session was seen.
    pub ended: bool,
}

/// How long a request may take.
const MESSAGE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy)]
struct Limits {
    connections: usize,
    in_flight: usize,
    unfinished: usize,
}

impl Node {
    pub fn new(id: usize, ledger: &Rc<RefCell<Ledger>>, mut rng: Rng, decisions: &[Decision]) -> Self {
        let mut config = AgentConfig::default();
        config.capabilities |= Capabilities::ASYNC;
        config.processing = Some(Duration::from_secs(2));
        config.timeouts.message = Some(MESSAGE);
        config.timeouts.drain = Duration::from_secs(4);
        let mut config = ServerConfig::from(config);
        let limits = Limits {
            connections: rng.pick(&[20, 100]),
            in_flight: rng.pick(&[8, 300]),
            unfinished: 512 << 10,
        };
        config.max_connections = limits.connections;
        config.max_in_flight = Some(limits.in_flight);
        config.max_buffered_bytes = limits.unfinished;
        config.lame_duck = rng.pick(&[Duration::ZERO, Duration::from_millis(250)]);
        let entrance = rng.permille(300).then(|| AcceptConfig::new().with(ExpectProxy::new()).unwrap());
        let entrance = entrance.map(|config| Arc::new(Entrance::new(config).unwrap()));
        let recorder = Recorder::default();
        let agent = recorder.server(config).unwrap();
        let stage_changed = Arc::<Flag>::default();
        let subscription = agent.subscribe(&Waker::from(Arc::clone(&stage_changed)));
        let app = App {
            node: id,
            ledger: Rc::clone(ledger),
            rng,
            now: Timestamp::ZERO,
            decisions: decisions.to_vec(),
            pending: Vec::new(),
            cancelled: 0,
            disconnects: Vec::new(),
            disconnected: BTreeSet::new(),
        };
        Self {
            id,
            agent,
            app,
            conns: BTreeMap::new(),
            recorder,
            buffer: ReadBuffer::new(),
            stage_changed,
            _subscription: subscription,
            stage: Stage::Serve,
            jumped: false,
            entrance,
            limits,
        }
    }

    /// Whether its listeners are open.
    pub fn listens(&self) -> bool {
        self.stage < Stage::Drain
    }

    pub fn accept(&mut self, now: Timestamp, engine: usize) -> Option<ConnectionId> {
        let mut conn = self.agent.accept(now, Peer::unnamed(), self.entrance.as_ref())?;
        let id = conn.id();
        let woken = Arc::<Flag>::default();
        conn.set_waker(&Waker::from(Arc::clone(&woken)));
        let driver = Driver::new(conn);
        self.conns.insert(
            id,
            Link { driver, engine, opened: now, woken, again: true, detached: None, ended: false },
        );
        Some(id)
    }

    pub fn next_event(&self) -> Option<Timestamp> {
        let deadlines = self.conns.values().filter_map(|link| link.driver.protocol().deadline());
        deadlines.chain(self.app.next_due()).chain(self.agent.shutdown_deadline()).min()
    }

    /// Answers that are due, and the stage of a shutdown.
    pub fn advance(&mut self, now: Timestamp) {
        self.app.advance(now);
        if self.stage_changed.take() || self.agent.shutdown_deadline().is_some_and(|at| at <= now) {
            self.stage = self.agent.poll_shutdown(now);
        }
    }

    /// Gives turns to the connections that have something to do. True if one had.
    pub fn drive(
        &mut self,
        now: Timestamp,
        wires: &mut BTreeMap<(usize, ConnectionId), Wire>,
        rng: &mut Rng,
    ) -> bool {
        let mut any = false;
        let mut over = Vec::new();
        for (id, link) in &mut self.conns {
            let mut wire = wires.get_mut(&(self.id, *id));
            let ready = wire.as_mut().map_or((false, false), |wire| wire.take_ready(AGENT));
            let due = link.driver.protocol().deadline().is_some_and(|at| at <= now);
            if !link.woken.take() && ready == (false, false) && !due && !std::mem::take(&mut link.again) {
                continue;
            }
            any = true;
            link.driver.ready(ready.0, ready.1);
            let mut end =
                wire.filter(|_| link.detached.is_none()).map(|wire| End { wire, rng: &mut *rng, now });
            let turn = link.driver.turn(now, end.as_mut(), &mut self.buffer, &mut self.app);
            link.again = turn == Turn::Again;
            if let Some(end) = end
                && matches!(turn, Turn::Closed | Turn::Over)
            {
                end.wire.close(AGENT, now);
                link.detached = Some(now);
            }
            if turn == Turn::Over {
                over.push(*id);
            }
        }
        for id in over {
            self.conns.remove(&id);
        }
        any
    }

    /// What holds when nothing is left to do at this time.
    pub fn check(&self, now: Timestamp, wires: &BTreeMap<(usize, ConnectionId), Wire>, timely: bool) {
        for (id, link) in &self.conns {
            let conn = link.driver.protocol();
            let wire = wires.get(&(self.id, *id)).filter(|wire| timely && !wire.faulty);
            if wire.is_some() && now.since(link.opened) > Duration::from_millis(1_500) {
                let phase = conn.reactor().map(spop_core::AgentReactor::phase);
                assert!(phase > Some(Phase::Connected), "connection {} has no session: {phase:?}", id.0);
            }
            assert!(!conn.is_woken(), "connection {} of agent {} was not woken", id.0, self.id);
            assert!(conn.deadline().is_none_or(|at| at > now), "connection {} has a past deadline", id.0);
            let waits = link.detached.map_or(Duration::ZERO, |since| now.since(since));
            assert!(
                waits <= MESSAGE || self.jumped,
                "connection {} waits for its orphans since {waits:?}",
                id.0
            );
        }
        let reactors = self.conns.values().filter_map(|link| link.driver.protocol().reactor());
        let unfinished: usize = reactors.map(spop_core::AgentReactor::unfinished_bytes).sum();
        let spared = self.conns.len() * (80 << 10);
        assert!(unfinished <= self.limits.unfinished + spared, "{unfinished} bytes of unfinished requests");
        let stats = self.agent.stats();
        assert_eq!(stats.open, self.conns.len() as u64);
        assert!(self.conns.len() <= self.limits.connections);
        assert!(
            self.app.pending.len() <= self.limits.in_flight,
            "{} requests in flight",
            self.app.pending.len()
        );
    }

    /// All connections are gone: everything was returned.
    pub fn check_end(mut self) {
        assert!(self.conns.is_empty());
        let stats = self.agent.stats();
        assert_eq!(stats.open, 0, "{stats:?}");
        assert!(self.agent.handle().connections().is_empty());
        for pending in &self.app.pending {
            assert!(pending.responder.is_cancelled(), "the handler of {} still works", pending.n);
        }
        self.app.pending.clear();
        self.recorder.check();
    }
}
