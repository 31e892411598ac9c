//! An agent: its server, its connections, its handler.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use spop_core::{
    AgentConfig, AgentReactor, CloseReason, ConnectionId, Timestamp,
    accept::{AcceptConfig, ExpectProxy, Peer},
    agent::FailureKind,
    frame::Capabilities,
    link::{Phase, Timer},
};
use spop_server::{Agent, Entrance, ReadBuffer, ServerConfig, Stage, Subscription, Turn};

use crate::{
    app::{App, actions},
    drive::Drive,
    engine::Engine,
    frames::Account,
    hostile::HOSTILE,
    invariants::Before,
    kept::Store,
    ledger::{Decision, Ledger},
    logs::Drained,
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
    pub recorder: Recorder,
    buffer: ReadBuffer,
    stage_changed: Arc<Flag>,
    _subscription: Subscription,
    pub stage: Stage,
    /// The clock has jumped while it lived.
    pub has_jumped: bool,
    /// Its connections begin with a PROXY header.
    pub entrance: Option<Arc<Entrance>>,
    pub limits: Limits,
    /// The engine of each connection that it has had.
    pub engines_of: BTreeMap<ConnectionId, usize>,
    /// Connections that were refused.
    pub refused: u64,
    /// What a drain or a stop has cut.
    pub cut: Drained,
    /// Connections that are to be dropped as soon as a sibling has sent something to them, and those that are to be dropped now.
    pub doomed: Vec<ConnectionId>,
    pub dropped: Vec<ConnectionId>,
}

/// A connection of the server.
pub struct Link {
    pub driver: Drive,
    pub engine: usize,
    pub opened: Timestamp,
    /// When its last turn was.
    pub last_turn: Timestamp,
    /// When its handler was called last.
    pub asked: Option<Timestamp>,
    woken: Arc<Flag>,
    /// Its turn was over before it had nothing to do.
    again: bool,
    /// When its transport was closed: since then it waits for the answers of orphans.
    pub detached: Option<Timestamp>,
    /// The end of its session was seen.
    pub ended: bool,
    counted: bool,
    account: Account,
}

/// How long a request may take.
pub const MESSAGE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    pub of_source: usize,
    pub in_flight: Option<usize>,
    pub buffered: usize,
    /// Queued answers of a connection.
    pub outgoing: usize,
}

impl Node {
    pub fn new(id: usize, ledger: &Rc<RefCell<Ledger>>, mut rng: Rng, decisions: &[Decision]) -> Self {
        let mut config = AgentConfig::default();
        config.capabilities |= Capabilities::ASYNC;
        config.processing = Some(Duration::from_secs(2));
        config.watch_fragments = true;
        config.timeouts.hello = Some(Duration::from_millis(1_500));
        config.timeouts.message = Some(MESSAGE);
        config.timeouts.drain = Duration::from_secs(4);
        config.limits.max_in_flight = rng.pick(&[20, 256]);
        config.limits.max_outgoing = rng.pick(&[8_192, 1 << 20]);
        let max_requests = 2 * config.limits.max_in_flight + 256;
        let limits = Limits {
            connections: rng.pick(&[6, 20, 100]),
            of_source: rng.pick(&[3, 12, 40]),
            in_flight: rng.pick(&[Some(8), Some(400), None]),
            buffered: rng.pick(&[128 << 10, 512 << 10]),
            outgoing: config.limits.max_outgoing,
        };
        let max_bytes = rng.pick(&[96 << 10, 128 << 20]);
        let mut config = ServerConfig::from(config);
        config.max_connections = limits.connections;
        config.max_connections_per_source = Some(limits.of_source);
        config.max_in_flight = limits.in_flight;
        config.max_buffered_bytes = limits.buffered;
        config.max_request_bytes = max_bytes;
        config.lame_duck = rng.pick(&[Duration::ZERO, Duration::from_millis(250)]);
        let entrance = rng.permille(300).then(|| AcceptConfig::new().with(ExpectProxy::new()).unwrap());
        let entrance = entrance.map(|config| Arc::new(Entrance::new(config).unwrap()));
        let recorder = Recorder::default();
        let agent = recorder.server(config).unwrap();
        let stage_changed = Arc::<Flag>::default();
        let subscription = agent.subscribe(&Waker::from(Arc::clone(&stage_changed)));
        let store = Store { kept: Vec::new(), max_bytes, max_requests };
        let mut app = App::new(id, ledger, rng, decisions, store);
        app.short_queue = limits.outgoing < 1 << 16;
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
            has_jumped: false,
            entrance,
            limits,
            engines_of: BTreeMap::new(),
            refused: 0,
            cut: Drained::default(),
            doomed: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Whether its listeners are open.
    pub fn listens(&self) -> bool {
        self.stage < Stage::Drain
    }

    pub fn accept(&mut self, now: Timestamp, engine: usize) -> Option<ConnectionId> {
        let peer = match engine {
            // With a long name for the log.
            HOSTILE => Peer::Other("hostile".repeat(100).into()),
            engine => Engine::address(engine, &mut self.app.rng).into(),
        };
        let may = self.may_accept(engine);
        let accepted = self.agent.accept(now, peer, self.entrance.as_ref());
        assert_eq!(accepted.is_some(), may, "a connection of {engine} is accepted against the limits");
        let Some(mut conn) = accepted else {
            self.refused += 1;
            return None;
        };
        let id = conn.id();
        let woken = Arc::<Flag>::default();
        conn.set_waker(&Waker::from(Arc::clone(&woken)));
        let driver = Drive::new(conn, &mut self.app.rng);
        let link = Link {
            driver,
            engine,
            opened: now,
            last_turn: Timestamp::ZERO,
            asked: None,
            woken,
            again: true,
            detached: None,
            ended: false,
            counted: false,
            account: Account { lossy: engine == HOSTILE, ..Account::default() },
        };
        self.conns.insert(id, link);
        self.engines_of.insert(id, engine);
        Some(id)
    }

    pub fn next_event(&self) -> Option<Timestamp> {
        let deadlines = self.conns.values().filter_map(|link| link.driver.protocol().deadline());
        deadlines.chain(self.app.next_due()).chain(self.agent.shutdown_deadline()).min()
    }

    /// The clock has jumped: timers expire at which queued answers are lost.
    pub fn jumped(&mut self) {
        self.has_jumped = true;
        self.conns.values_mut().for_each(|link| link.account.lossy = true);
    }

    /// Answers that are due, and the stage of a shutdown.
    pub fn advance(&mut self, now: Timestamp) {
        self.app.replied.clear();
        self.app.advance(now);
        self.answer_kept(now);
        if self.stage_changed.take() || self.agent.shutdown_deadline().is_some_and(|at| at <= now) {
            self.stage = self.agent.poll_shutdown(now);
        }
    }

    /// Answers requests that their handler has kept, on the thread of their connection.
    fn answer_kept(&mut self, now: Timestamp) {
        for index in 0..self.app.store.kept.len() {
            let kept = &mut self.app.store.kept[index];
            let Some(n) = kept.take_answer(now) else { continue };
            let (conn, request) = (kept.conn, kept.id);
            if let Some(link) = self.conns.get_mut(&conn) {
                self.app.ledger.borrow_mut().replied(n, now);
                self.app.given += 1;
                let counted = counted(&self.agent, &self.app);
                link.driver.protocol_mut().on_answer(now, &mut self.app, request, actions(n).into());
                link.account.counted += self::counted(&self.agent, &self.app) - counted;
                link.again = true;
            }
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
        let ids: Vec<_> = self.conns.keys().copied().collect();
        for id in ids {
            let free_sibling = self.has_free_sibling(id);
            let Some(link) = self.conns.get_mut(&id) else { continue };
            let mut wire = wires.get_mut(&(self.id, id));
            let told = link.driver.protocol().is_woken() && !self.app.replied.contains(&id);
            if told && self.doomed.contains(&id) {
                self.dropped.push(id);
                self.doomed.retain(|doomed| *doomed != id);
                any = true;
                continue;
            }
            let ready = wire.as_mut().map_or((false, false), |wire| wire.take_ready(AGENT));
            let due = link.driver.protocol().deadline().is_some_and(|at| at <= now);
            let woken = link.woken.take();
            if !woken && ready == (false, false) && !due && !std::mem::take(&mut link.again) {
                continue;
            }
            any = true;
            let refused = self.agent.stats().failures.of(FailureKind::Overloaded);
            let before = Before::new(link, &self.app, wire.as_deref(), free_sibling && !woken && !due);
            let calls = self.app.calls;
            link.last_turn = now;
            let gone = link.detached.map(|_| state_after_close(link, &self.agent, &self.app));
            let mut end =
                wire.filter(|_| link.detached.is_none()).map(|wire| End { wire, rng: &mut *rng, now });
            let counted = counted(&self.agent, &self.app);
            let turn = link.driver.turn(now, ready, end.as_mut(), &mut self.buffer, &mut self.app);
            assert!(
                gone.is_none_or(|state| state == state_after_close(link, &self.agent, &self.app)),
                "connection {} has received after its close, or counted an answer",
                id.0
            );
            // After its close a transport has operations to end.
            link.again = matches!(turn, Turn::Again | Turn::Closed);
            if self.app.calls > before.calls {
                link.asked = Some(now);
            }
            link.account.counted += self::counted(&self.agent, &self.app) - counted;
            if let Some(end) = end {
                link.account.lossy |= end.wire.is_lossy() || self.stage == Stage::Stop;
                link.account.check(link.driver.protocol(), &end.wire.frames);
                before.check(link, &self.app, end.wire);
                if matches!(turn, Turn::Closed | Turn::Over) {
                    end.wire.close(AGENT, now);
                    link.detached = Some(now);
                }
            }
            if !link.counted
                && let Some(closed) = link.driver.protocol().closed()
            {
                link.counted = true;
                if self.stage == Stage::Stop || closed.reason == CloseReason::Timeout(Timer::Drain) {
                    self.cut.cut += 1;
                    self.cut.lost += closed.lost.messages as u64;
                }
            }
            if turn == Turn::Over {
                self.conns.remove(&id);
            }
            if self.agent.stats().failures.of(FailureKind::Overloaded) > refused {
                self.check_overload(self.app.calls - calls);
            }
        }
        any
    }
}

/// What the answers of a server have counted so far: see [`Account`].
fn counted(agent: &Agent, app: &App) -> u64 {
    let stats = agent.stats();
    stats.answered + stats.failures.total() + stats.oversized + app.refused
}

/// What must not change after the transport of a connection was closed: it receives and sends nothing.
fn state_after_close(link: &Link, agent: &Agent, app: &App) -> (Option<Phase>, [u64; 3]) {
    let stats = agent.stats();
    let phase = link.driver.protocol().reactor().map(AgentReactor::phase);
    (phase, [stats.rejected, stats.probes, counted(agent, app)])
}
