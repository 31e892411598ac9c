//! What is known of a connection, by its requests and by other threads.

use std::{
    cell::Cell,
    net::SocketAddr,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use spop_core::{
    AgentReactor, ConnectionId, Session, Timestamp,
    accept::{Addresses, Origin, Peer, ProxyHeader},
    agent::TicketId,
    hub::FULL,
    link::Phase,
};
use tracing::Span;

use crate::{ConnectionInfo, Entrance, Share, inbox::Inbox, shutdown::Shutdown, spans};

/// The connection that a request arrived on.
#[derive(Debug)]
pub struct Connection {
    pub(crate) id: ConnectionId,
    peer: Peer,
    /// The listener that accepted it.
    pub(crate) entrance: Option<Arc<Entrance>>,
    /// Boxed: disabled, as a rule.
    span: Option<Box<Span>>,
    pub(crate) inbox: Inbox,
    /// What a shutdown waits for.
    pub(crate) shutdown: Arc<Shutdown>,
    established: OnceLock<Established>,
    /// What its requests hold that handlers keep.
    pub(crate) requests: Share,
    /// How many requests of it handlers keep. Negative for a moment, when one is dropped before it is counted.
    pub(crate) held: AtomicI32,
    /// The send backlog for siblings, `IS_FULL`, or `SENDS_NOTHING` if the connection can send no answer.
    backlog: AtomicU32,
    // The state for a status page. Written by the connection only, with relaxed ordering.
    in_flight: AtomicU32,
    outgoing: AtomicU32,
    phase: AtomicU8,
    /// NOTIFYs.
    requests_total: AtomicU64,
    /// NOTIFYs less the answers that were sent here: those to requests of siblings may outnumber them.
    unanswered: AtomicI32,
    /// When it began, in seconds.
    since: u32,
    /// When a request last came or was answered, in seconds.
    active: AtomicU32,
    /// The transport is closed.
    closed: AtomicBool,
}

thread_local! {
    /// The call of a handler that runs on this thread: the address of its connection, and its request.
    static CALL: Cell<Option<(usize, TicketId)>> = const { Cell::new(None) };
}

/// The calls of handlers, to count the requests that handlers keep.
///
/// A request counts from the end of its call. One that is dropped within its call, on the same thread, is not counted: so are
/// most, and the count is memory that threads share.
impl Connection {
    /// A handler is called; returns what [`end_call`](Self::end_call) needs: a handler may drive another connection.
    #[inline]
    pub(crate) fn begin_call(&self, request: TicketId) -> Option<(usize, TicketId)> {
        CALL.replace(Some((self.address(), request)))
    }

    /// The call has ended. If the handler made the request its own (`claimed`) and has not dropped it here, it is counted.
    #[inline]
    pub(crate) fn end_call(&self, outer: Option<(usize, TicketId)>, claimed: bool, bytes: usize) {
        if CALL.replace(outer).is_some() && claimed {
            self.count_kept(bytes);
        }
    }

    #[inline(never)]
    pub(crate) fn count_kept(&self, bytes: usize) {
        self.requests.add(bytes);
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that a handler made its own was dropped, on any thread.
    #[inline]
    pub(crate) fn request_dropped(&self, request: TicketId, bytes: usize) {
        let call = Some((self.address(), request));
        // As long as the request exists, no other connection has this address.
        if CALL.try_with(|current| current.get() == call && current.replace(None).is_some()) != Ok(true) {
            self.discount_kept(bytes);
        }
    }

    #[inline(never)]
    fn discount_kept(&self, bytes: usize) {
        self.requests.subtract(bytes);
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// What is known since the handshake.
#[derive(Debug)]
struct Established {
    session: Arc<Session>,
    accepted: Option<Box<Accepted>>,
}

const SENDS_NOTHING: u32 = u32::MAX;
/// [`FULL`].
const IS_FULL: u32 = SENDS_NOTHING - 1;

/// What the accept stage found out about a connection.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) origin: Origin,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::TlsPeer>,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        peer: Peer,
        since: Timestamp,
        entrance: Option<Arc<Entrance>>,
        requests: Share,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self {
            id,
            span: Some(spans::connection(&peer, id)).filter(|span| !span.is_disabled()).map(Box::new),
            peer,
            entrance,
            since: seconds(since),
            inbox: Inbox::default(),
            shutdown,
            established: OnceLock::new(),
            requests,
            held: AtomicI32::new(0),
            backlog: AtomicU32::new(SENDS_NOTHING),
            in_flight: AtomicU32::new(0),
            outgoing: AtomicU32::new(0),
            phase: AtomicU8::new(Phase::Connected as u8),
            requests_total: AtomicU64::new(0),
            unanswered: AtomicI32::new(0),
            active: AtomicU32::new(seconds(since)),
            closed: AtomicBool::new(false),
        }
    }

    /// The handshake is complete.
    pub(crate) fn set_established(&self, session: Arc<Session>, accepted: Option<Box<Accepted>>) {
        // A connection has one handshake.
        let _ = self.established.set(Established { session, accepted });
    }

    /// The span of the connection.
    #[inline]
    pub(crate) fn span(&self) -> &Span {
        static DISABLED: Span = Span::none();
        self.span.as_deref().unwrap_or(&DISABLED)
    }

    // ---- what other threads read ----

    /// Publishes that the transport is closed.
    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Its session has ended, and what it leaves was counted.
    pub(crate) fn has_session_ended(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Closing as u8 || self.is_closed()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Publishes the state of the connection.
    #[inline]
    pub(crate) fn publish(&self, reactor: &AgentReactor) {
        self.phase.store(reactor.phase() as u8, Ordering::Relaxed);
        self.in_flight.store(to_u32(reactor.in_flight()), Ordering::Relaxed);
        self.outgoing.store(to_u32(reactor.outgoing_bytes()), Ordering::Relaxed);
    }

    /// Adds what was counted in a turn.
    #[inline]
    pub(crate) fn count(&self, now: Timestamp, requests: u32, answered: u32) {
        // It has one writer.
        let total = self.requests_total.load(Ordering::Relaxed) + u64::from(requests);
        self.requests_total.store(total, Ordering::Relaxed);
        let unanswered = self
            .unanswered
            .load(Ordering::Relaxed)
            .saturating_add(requests.cast_signed())
            .saturating_sub(answered.cast_signed());
        self.unanswered.store(unanswered, Ordering::Relaxed);
        self.active.store(seconds(now), Ordering::Relaxed);
    }

    /// Its requests, and those that were answered.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let requests = self.requests_total.load(Ordering::Relaxed);
        let unanswered = i64::from(self.unanswered.load(Ordering::Relaxed));
        (requests, requests.saturating_add_signed(-unanswered))
    }

    /// Its unanswered requests at the end of its last turn.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed) as usize
    }

    /// Publishes the send backlog for siblings; `None` if the connection can send no answer.
    #[inline]
    pub(crate) fn set_backlog(&self, backlog: Option<usize>) {
        let backlog = match backlog {
            None => SENDS_NOTHING,
            Some(FULL) => IS_FULL,
            Some(bytes) => to_u32(bytes).min(IS_FULL - 1),
        };
        self.backlog.store(backlog, Ordering::Relaxed);
    }

    pub(crate) fn backlog(&self) -> Option<usize> {
        match self.backlog.load(Ordering::Relaxed) {
            SENDS_NOTHING => None,
            IS_FULL => Some(FULL),
            bytes => Some(bytes as usize),
        }
    }

    /// The state for a status page.
    pub(crate) fn info(&self, now: Timestamp) -> ConnectionInfo {
        let phase = self.phase.load(Ordering::Relaxed);
        let phases = [Phase::Connected, Phase::Greeted, Phase::Established, Phase::Closing];
        ConnectionInfo {
            id: self.id.0,
            listener: self.entrance.as_ref().and_then(|entrance| entrance.listener.clone()),
            tls: self.entrance.as_ref().is_some_and(|entrance| entrance.config.has_tls()),
            peer: self.peer.clone(),
            source: self.established.get().and_then(|_| self.source()),
            engine_id: self.engine_id().map(|id| id.escape_ascii().to_string()),
            phase: phases.into_iter().find(|known| *known as u8 == phase).unwrap_or(Phase::Closing),
            in_flight: self.in_flight(),
            outgoing: self.outgoing.load(Ordering::Relaxed) as usize,
            requests: self.totals().0,
            age: whole_seconds(now, self.since),
            idle: whole_seconds(now, self.active.load(Ordering::Relaxed)),
        }
    }

    // ---- for requests ----

    fn accepted(&self) -> Option<&Accepted> {
        self.established.get()?.accepted.as_deref()
    }

    /// Its identifier, as in the log and in [`ConnectionInfo`](crate::ConnectionInfo). Unique within the server.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The session, as negotiated in the handshake.
    pub fn session(&self) -> &Session {
        // Requests come after the handshake.
        static NONE: LazyLock<Session> = LazyLock::new(Session::default);
        self.established.get().map_or(&NONE, |established| &established.session)
    }

    /// The engine-id, if the peer announced one that is not empty. HAProxy 2.6 and 3.0 have one for each thread.
    pub fn engine_id(&self) -> Option<&[u8]> {
        self.session().engine_id.as_ref().map(|id| &***id)
    }

    /// The peer of the transport: HAProxy, not its client.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The source address of the connection: what a PROXY header announced, otherwise that of the [`peer`](Self::peer), if it
    /// has one.
    pub fn source(&self) -> Option<SocketAddr> {
        self.addresses().map_or(self.peer(), |addresses| &addresses.source).socket_addr()
    }

    /// The destination address of the connection, if a PROXY header announced it.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.addresses()?.destination.socket_addr()
    }

    /// The PROXY header of the connection, if its listener expects one.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.accepted()?.origin.proxy.as_ref()
    }

    /// The TLS peer, if the connection is inside TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&crate::tls::TlsPeer> {
        self.accepted()?.tls.as_ref()
    }

    fn addresses(&self) -> Option<&Addresses> {
        self.proxy_header()?.addresses.as_ref()
    }
}

/// The seconds of a timestamp: enough for 136 years.
#[inline]
fn seconds(at: Timestamp) -> u32 {
    (at.as_nanos() / 1_000_000_000) as u32
}

/// The time since then.
fn whole_seconds(now: Timestamp, since: u32) -> Duration {
    Duration::from_secs(u64::from(seconds(now).saturating_sub(since)))
}

/// For a status page and for comparisons, where 4 GiB are as good as more.
#[inline]
fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
