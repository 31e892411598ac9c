//! What the connections of a server share.

use std::{
    fmt, io,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    task::{Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use spop_core::{
    AgentConfig, Clock, ConnectionId, Timestamp, accept::Peer, config::Checked, excerpt::Shortened,
};
use tracing::{debug, error, info, warn};

use crate::{
    Admission, Conn, Connection, ConnectionInfo, Counters, Entrance, InFlight, Metrics, NameWarnings,
    REQUESTS_SPARED, ServerConfig, Sources, Stage, Stats, Subscription, Total,
    descriptors::raise_limit,
    drain::Drain,
    engines::Engines,
    log::Logs,
    registry::{Registry, Slot},
    request::REQUEST_OVERHEAD,
    shutdown::Shutdown,
};

/// What the connections of a server share: configuration, limits, counters, engines, and the stage of its shutdown.
///
/// It opens no socket and starts no thread. Its clock converts times, and is read only by [`ServerHandle`].
///
/// An adapter makes one for a server, and does the following:
///
/// 1. When its listeners are open, call [`ready`](Self::ready).
/// 2. For each connection that a listener accepts, call [`accept`](Self::accept), and drive the [`Conn`] it returns. If it returns
///    `None`, close the socket. [`accept_all`](Self::accept_all) does this for the backlog of a nonblocking listener.
/// 3. If an accept fails with an error that [is not about one connection](crate::is_of_connection), call
///    [`accept_failed`](Self::accept_failed), and wait before the next: without file descriptors, a listener stays readable.
/// 4. [Subscribe](Self::subscribe) a waker to the shutdown. When it was woken, and at
///    [`shutdown_deadline`](Self::shutdown_deadline), call [`poll_shutdown`](Self::poll_shutdown). When the returned [`Stage`] has
///    changed, give a turn to each connection that has no waker.
/// 5. In [`Stage::Drain`] accept the connections of the backlogs, and close the listeners.
/// 6. In [`Stage::Stop`] close the listeners at once, and have each connection write what can be written without waiting
///    ([`Conn::is_stopping`]) and drop it.
/// 7. The server has ended when [`has_ended`](Self::has_ended) says so; ask when the subscription was woken, and at
///    [`end_deadline`](Self::end_deadline). Then call [`ended`](Self::ended).
pub struct Agent {
    pub(crate) config: Arc<Checked<AgentConfig>>,
    pub(crate) max_connections: usize,
    lame_duck: Duration,
    pub(crate) clock: Clock,
    sources: Sources,
    pub(crate) in_flight: InFlight,
    /// How many requests of one connection handlers may keep, and the bytes that these may hold.
    max_held: i32,
    max_held_bytes: usize,
    /// The bytes of requests that handlers keep.
    pub(crate) requests: Total,
    /// Unused input and unsent output.
    pub(crate) buffered: Total,
    pub(crate) counters: Arc<Counters>,
    /// Of the recorder that is installed when the server begins to serve, which may be after the agent was made.
    pub(crate) metrics: LazyLock<Metrics>,
    pub(crate) logs: Logs,
    pub(crate) names: NameWarnings,
    pub(crate) engines: Arc<Engines>,
    pub(crate) shutdown: Arc<Shutdown>,
    /// When the lame duck stage ends.
    drain_at: Mutex<Option<Timestamp>>,
    pub(crate) drain: Drain,
    /// The service manager was notified of the shutdown.
    told: AtomicBool,
    next: AtomicU64,
    /// Locked when a connection begins or ends, and when the stage changes; never for a request.
    connections: Mutex<Registry>,
    /// Of requests, for tests.
    #[cfg(feature = "testing")]
    pub(crate) failures: crate::testing::FailureRecord,
}

/// How many requests of one connection handlers may keep beside twice what can be in flight: HAProxy abandons some while their
/// handlers work on, and asks others.
const CANCELLED: usize = 256;

impl Agent {
    /// The shared state of a server that has no connection yet. Timestamps are those of `clock`.
    ///
    /// # Errors
    /// The configuration cannot work: of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), with the
    /// [`ConfigError`](spop_core::config::ConfigError) inside, whose text names the field.
    pub fn new(config: impl Into<ServerConfig>, clock: Clock) -> io::Result<Arc<Self>> {
        let mut config = config.into();
        let sessions = std::mem::take(&mut config.agent).checked()?;
        Ok(Self::with_checked(sessions, &config, clock))
    }

    /// As [`new`](Self::new), with the default configuration.
    pub fn with_defaults(clock: Clock) -> Arc<Self> {
        Self::with_checked(Checked::default(), &ServerConfig::default(), clock)
    }

    fn with_checked(sessions: Checked<AgentConfig>, config: &ServerConfig, clock: Clock) -> Arc<Self> {
        let limits = &sessions.limits;
        let max_in_flight_bytes = limits
            .max_in_flight
            .saturating_mul(REQUEST_OVERHEAD)
            .saturating_add(limits.max_payload_bytes)
            .saturating_add(sessions.max_frame_size as usize);
        Arc::new(Self {
            max_connections: config.max_connections,
            lame_duck: config.lame_duck,
            clock,
            sources: Sources::new(config.max_connections_per_source),
            in_flight: InFlight::new(config.max_in_flight),
            max_held: limits
                .max_in_flight
                .saturating_mul(2)
                .saturating_add(CANCELLED)
                .try_into()
                .unwrap_or(i32::MAX),
            max_held_bytes: max_in_flight_bytes.saturating_mul(2),
            requests: Total::new(config.max_request_bytes),
            buffered: Total::new(config.max_buffered_bytes),
            counters: Arc::default(),
            metrics: LazyLock::new(Metrics::new),
            logs: Logs::default(),
            names: NameWarnings::default(),
            engines: Arc::default(),
            shutdown: Arc::new(Shutdown::new(config.max_background, clock)),
            drain_at: Mutex::default(),
            drain: Drain::default(),
            told: AtomicBool::new(false),
            next: AtomicU64::new(0),
            connections: Mutex::default(),
            #[cfg(feature = "testing")]
            failures: crate::testing::FailureRecord::default(),
            config: Arc::new(sessions),
        })
    }

    /// The configuration of the sessions.
    pub fn config(&self) -> &AgentConfig {
        &self.config
    }

    /// The clock of its timestamps.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Ends the server from outside, and returns its counters.
    pub fn handle(self: &Arc<Self>) -> ServerHandle {
        ServerHandle { agent: Arc::clone(self) }
    }

    /// A connection that a listener has accepted. `None` if it exceeds a limit: it was counted and logged; close it.
    /// `entrance` has the address and the accept stage of the listener.
    pub fn accept(
        self: &Arc<Self>,
        now: Timestamp,
        peer: Peer,
        entrance: Option<&Arc<Entrance>>,
    ) -> Option<Conn> {
        let Some(connection) = self.counters.open(self.max_connections) else {
            self.refuse(now, entrance, &format_args!("{peer}: too many connections"));
            return None;
        };
        let Some(source) = self.sources.enter(&peer) else {
            self.refuse(
                now,
                entrance,
                &format_args!(
                    "{peer}: too many connections from its source (an IPv4 address or an IPv6 /64)"
                ),
            );
            return None;
        };
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Some(Conn::new(self, now, peer, entrance, Admission::new(connection, source)))
    }

    /// A connection that did not come from a listener. It ends with the server, but is not counted in [`Stats`], nor under
    /// `max_connections` and `max_connections_per_source`.
    pub fn connection(self: &Arc<Self>, now: Timestamp, peer: Peer) -> Conn {
        Conn::new(self, now, peer, None, Admission::default())
    }

    #[cold]
    fn refuse(&self, now: Timestamp, entrance: Option<&Arc<Entrance>>, error: &dyn fmt::Display) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        self.metrics.of(entrance).refused();
        self.log_not_accepted(now, "connection_refused", error);
    }

    /// A call of accept has failed, for example because the process has no file descriptor left.
    #[cold]
    pub fn accept_failed(&self, now: Timestamp, error: &io::Error) {
        self.counters.failed_accepts.fetch_add(1, Ordering::Relaxed);
        self.log_not_accepted(now, "accept_failed", error);
    }

    /// The task of a connection has panicked, by a fault of this library: the panics of handlers are caught.
    #[cold]
    pub fn connection_panicked(&self, now: Timestamp, error: &dyn fmt::Display) {
        if let Some(suppressed) = self.logs.closed.pass(now) {
            error!(name: "connection_panicked", error = %Shortened(error), suppressed, "connection panicked");
        }
    }

    #[cold]
    pub(crate) fn log_not_accepted(&self, now: Timestamp, what: &'static str, error: &dyn fmt::Display) {
        let error = Shortened(error);
        if let Some(suppressed) = self.logs.accept.pass(now) {
            warn!(name: "not_accepted", what, %error, suppressed, "not accepted");
        } else {
            debug!(name: "not_accepted", what, %error, "not accepted");
        }
    }

    // ---- shutdown ----

    /// The server listens on these listeners. Logs their addresses, notifies the service manager, and raises the soft limit on open
    /// files (`RLIMIT_NOFILE`) if it is too low for `max_connections`. The recorder of its metrics must be installed before.
    pub fn ready<'a>(&self, listeners: impl IntoIterator<Item = &'a Arc<Entrance>>) {
        LazyLock::force(&self.metrics);
        self.shutdown.metrics.ready();
        let mut count = 0;
        for entrance in listeners {
            count += 1;
            self.metrics.of(Some(entrance));
            if let Some(listener) = &entrance.listener {
                let (tls, proxy) = (entrance.config.has_tls(), entrance.config.expects_proxy());
                info!(name: "listening", %listener, tls, proxy, "listening");
            }
        }
        raise_limit(self.max_connections, count);
        log_service_manager(crate::tell_ready(count));
    }

    /// Whether the server has ended, besides the connections that an adapter drives itself, which have deadlines of their own: it drains
    /// or stops, and no connection is left, nor [`Background`](crate::Background) work, for which a stop does not wait. At
    /// [`end_deadline`](Self::end_deadline) in any case.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        let stage = self.stage();
        fence(Ordering::SeqCst);
        // In this order: a connection may begin such work as long as it is there.
        let is_idle =
            || self.connections().is_empty() && (stage == Stage::Stop || self.shutdown.background() == 0);
        stage >= Stage::Drain && (is_idle() || self.end_deadline().is_some_and(|at| at <= now))
    }

    /// When a server that drains or stops waits no longer for connections without a listener and for work in the background: a second
    /// after [`Timeouts::drain`](spop_core::config::Timeouts::drain), or after the stop. `None` before
    /// [`poll_shutdown`](Self::poll_shutdown) has returned one of these stages.
    pub fn end_deadline(&self) -> Option<Timestamp> {
        self.drain.deadline(self.stage(), self.config.timeouts.drain)
    }

    /// Blocks the thread until the server has [ended](Self::has_ended): for adapters that are threads, when theirs have no
    /// connection left.
    pub fn wait_until_ended(&self) {
        self.park_until(
            |now| {
                self.poll_shutdown(now);
                self.has_ended(now)
            },
            || self.shutdown_deadline().or_else(|| self.end_deadline()),
        );
    }

    /// Blocks the thread until the condition holds. Checks it at each change of the shutdown, and at the deadline.
    fn park_until(&self, condition: impl Fn(Timestamp) -> bool, deadline: impl Fn() -> Option<Timestamp>) {
        struct Unpark(Thread);

        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }

        let _subscription = self.subscribe(&Arc::new(Unpark(thread::current())).into());
        while !condition(self.clock.now()) {
            thread::park_timeout(deadline().map_or(Duration::MAX, |at| at.since(self.clock.now())));
        }
    }

    /// The server has ended. Logs how long the drain took, and what it has cut.
    pub fn ended(&self, now: Timestamp) {
        let connections = self.connections();
        let left = connections.iter().filter(|connection| !connection.has_session_ended());
        let left: Vec<_> = left.map(|connection| connection.in_flight()).collect();
        drop(connections);
        self.drain.ended(now, &left, self.shutdown.background());
    }

    /// The stage of the shutdown. Adapters call it when their [subscription](Self::subscribe) was woken, and when
    /// [`shutdown_deadline`](Self::shutdown_deadline) has come: this call ends the lame duck stage.
    pub fn poll_shutdown(&self, now: Timestamp) -> Stage {
        let stage = self.stage();
        if stage > Stage::Serve && !self.told.swap(true, Ordering::AcqRel) {
            log_service_manager(crate::tell_stopping(self.counters.stats().open));
        }
        if stage == Stage::LameDuck {
            let mut drain_at = self.drain_at.lock().unwrap_or_else(PoisonError::into_inner);
            if *drain_at.get_or_insert(now + self.lame_duck) <= now {
                drop(drain_at);
                self.advance(Stage::Drain);
            }
        }
        let stage = self.stage();
        self.drain.entered(stage, now);
        stage
    }

    /// When to call [`poll_shutdown`](Self::poll_shutdown) next.
    pub fn shutdown_deadline(&self) -> Option<Timestamp> {
        (self.stage() == Stage::LameDuck)
            .then(|| *self.drain_at.lock().unwrap_or_else(PoisonError::into_inner))
            .flatten()
    }

    /// The stage of the shutdown. It may have advanced since [`poll_shutdown`](Self::poll_shutdown) was called.
    #[inline]
    pub fn stage(&self) -> Stage {
        self.shutdown.stage.get()
    }

    /// Advances the shutdown, and wakes all connections and subscribers.
    fn advance(&self, stage: Stage) {
        if self.shutdown.stage.advance(stage) {
            let connections: Vec<_> = self.connections().iter().cloned().collect();
            // Before they are woken: some end at once.
            let requests = connections.iter().map(|connection| connection.in_flight()).sum();
            Drain::log_stage(stage, self.lame_duck, connections.len(), requests);
            for connection in connections {
                connection.inbox.wake();
            }
            self.shutdown.wake();
        }
    }

    /// Registers a waker that is woken when the stage of the shutdown changes, and when the server may have
    /// [ended](Self::has_ended), as long as the subscription lives.
    pub fn subscribe(&self, waker: &Waker) -> Subscription {
        self.shutdown.subscribe(waker)
    }

    // ---- connections ----

    fn connections(&self) -> MutexGuard<'_, Registry> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether handlers would keep too much of the requests of a connection with one more of `payload` bytes: the total of all
    /// connections is exceeded and this one has 24 KiB or more, or it has more than twice what can be in flight, because requests
    /// were cancelled and not dropped.
    #[inline]
    pub(crate) fn is_overloaded(&self, connection: &Arc<Connection>, payload: usize) -> bool {
        let bytes = connection.requests.bytes() + payload;
        bytes >= REQUESTS_SPARED && (bytes > self.max_held_bytes || self.requests.is_exceeded_by(payload))
            || connection.held.load(Ordering::Relaxed) >= self.max_held
    }

    pub(crate) fn register(
        &self,
        peer: Peer,
        now: Timestamp,
        entrance: Option<Arc<Entrance>>,
    ) -> (Arc<Connection>, Slot) {
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        let shutdown = Arc::clone(&self.shutdown);
        let connection = Arc::new(Connection::new(id, peer, now, entrance, self.requests.share(), shutdown));
        let slot = self.connections().insert(Arc::clone(&connection));
        (connection, slot)
    }

    pub(crate) fn deregister(&self, slot: Slot) {
        let mut connections = self.connections();
        let removed = connections.remove(slot);
        if let Some(connection) = &removed {
            // With the lock: it is counted once at any time.
            let (requests, answered) = connection.totals();
            self.counters.requests.fetch_add(requests, Ordering::Relaxed);
            self.counters.answered.fetch_add(answered, Ordering::Relaxed);
        }
        let was_last = connections.is_empty();
        // Dropped without the lock.
        drop(connections);
        drop(removed);
        if was_last {
            self.shutdown.wake_if_ending();
        }
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let connections = self.connections();
        let mut stats = self.counters.stats();
        for connection in connections.iter() {
            let (requests, answered) = connection.totals();
            stats.requests += requests;
            stats.answered += answered;
        }
        drop(connections);
        (stats.background, stats.background_refused) = self.shutdown.background_counts();
        stats
    }

    /// The open connections.
    pub fn open_connections(&self, now: Timestamp) -> Vec<ConnectionInfo> {
        let connections = self.connections();
        let open = connections.iter().filter(|connection| !connection.is_closed());
        open.map(|connection| connection.info(now)).collect()
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("config", &self.config)
            .field("max_connections", &self.max_connections)
            .field("stage", &self.stage())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

fn log_service_manager(sent: io::Result<()>) {
    if let Err(error) = sent {
        warn!(name: "service_manager", %error, "the service manager was not told");
    }
}

/// Ends a server from outside, and returns its counters.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    agent: Arc<Agent>,
}

impl ServerHandle {
    /// Ends the server gracefully. First health checks and monitors are refused, for
    /// [`ServerConfig::lame_duck`]. Then the listeners close, and each connection is served until all its requests are answered, for
    /// [`Timeouts::drain`](spop_core::config::Timeouts::drain) at most. A second call ends the lame duck stage.
    pub fn drain(&self) {
        let lame_duck = !self.agent.lame_duck.is_zero() && self.agent.stage() == Stage::Serve;
        self.agent.advance(if lame_duck { Stage::LameDuck } else { Stage::Drain });
    }

    /// Ends the server at once: queued answers are sent as far as the sockets accept them, and unanswered requests are lost.
    pub fn stop(&self) {
        self.agent.advance(Stage::Stop);
    }

    /// Blocks the thread until the shutdown has reached a stage: for servers whose `accept` blocks.
    pub fn wait_for(&self, stage: Stage) {
        let agent = &self.agent;
        agent.park_until(|now| agent.poll_shutdown(now) >= stage, || agent.shutdown_deadline());
    }

    pub(crate) const fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.agent.stats()
    }

    /// The open connections, for a status page. Each is as of the end of its last turn.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.agent.open_connections(self.agent.clock.now())
    }
}
