//! Requests made by hand.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use spop_core::{
    Action, AgentReactor, Clock, ConnectionId, EngineConfig, EngineReactor, MessageList, Session, Timestamp,
    accept::{Addresses, Origin, Peer},
    agent::TicketId,
    frame::{Ids, OwnedMessages},
    notation,
};

use crate::{Cancelled, Connection, Request, ServerConfig, Total, connection::Accepted, shutdown::Shutdown};

/// A request made by hand, for a test that calls a handler without a connection.
///
/// ```
/// use std::time::{Duration, Instant};
/// use spop_server::{Request, testing::TestRequest};
///
/// let request: Request<'static> = TestRequest::new("check-ip ip=ipv4:203.0.113.7 ; log")
///     .source(([198, 51, 100, 1], 4711))
///     .engine_id("engine-1")
///     .deadline(Instant::now() + Duration::from_millis(80))
///     .into();
/// assert_eq!(request.messages().len(), 2);
/// assert_eq!(request.source(), Some(([198, 51, 100, 1], 4711).into()));
/// ```
#[derive(Clone, Debug)]
#[must_use = "it is to be handled"]
pub struct TestRequest {
    messages: OwnedMessages,
    ids: Ids,
    peer: Peer,
    addresses: Option<Addresses>,
    engine: EngineConfig,
    deadline: Option<Instant>,
    max_background: usize,
}

impl TestRequest {
    /// A request with these messages, in the [notation](spop_core::notation): `check-ip ip=ipv4:203.0.113.7 ; log`.
    ///
    /// # Panics
    /// If they do not parse: the error has the column.
    #[track_caller]
    #[expect(clippy::panic, reason = "a test has no other way to go on")]
    pub fn new(messages: &str) -> Self {
        match messages.parse() {
            Ok(messages) => Self::of(&messages),
            Err(error) => panic!("{messages}: {error}"),
        }
    }

    /// A request with these messages.
    #[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "a list is well-formed")]
    pub fn of(messages: &MessageList) -> Self {
        let payload = messages.as_bytes().to_vec().into();
        let mut engine = EngineConfig::haproxy_3_1();
        engine.engine_id = None;
        Self {
            messages: OwnedMessages::decode(payload).expect("a list is well-formed"),
            ids: Ids::new(1, 1),
            peer: Peer::unnamed(),
            addresses: None,
            engine,
            deadline: None,
            max_background: ServerConfig::default().max_background,
        }
    }

    /// Sets STREAM-ID and FRAME-ID. Default 1 and 1.
    pub const fn ids(mut self, stream: u64, frame: u64) -> Self {
        self.ids = Ids::new(stream, frame);
        self
    }

    /// Sets the peer of the transport. Default a unix socket without a path.
    pub fn peer(mut self, peer: impl Into<Peer>) -> Self {
        self.peer = peer.into();
        self
    }

    /// Sets the client's address, as a PROXY header announces it.
    pub fn source(mut self, source: impl Into<SocketAddr>) -> Self {
        let destination = self.peer.clone();
        self.addresses = Some(Addresses { source: source.into().into(), destination });
        self
    }

    /// Sets the address that the client connected to, as a PROXY header announces it beside the source.
    pub fn destination(mut self, destination: impl Into<SocketAddr>) -> Self {
        let source = self.addresses.map_or_else(|| self.peer.clone(), |addresses| addresses.source);
        self.addresses = Some(Addresses { source, destination: destination.into().into() });
        self
    }

    /// Sets the engine-id. Default none, as with HAProxy 3.1 and later.
    pub fn engine_id(mut self, id: &str) -> Self {
        self.engine.engine_id = Some(id.to_owned().into());
        self
    }

    /// Sets the engine that the session was negotiated with. Default HAProxy 3.1.
    pub fn engine(mut self, engine: EngineConfig) -> Self {
        self.engine = engine;
        self
    }

    /// Sets the time at which the request times out: [`Request::deadline`], and a limit for [`call`](super::call()).
    pub fn deadline(mut self, at: impl Into<Instant>) -> Self {
        self.deadline = Some(at.into());
        self
    }

    /// Sets how much work may go on after its answer: with 0, [`Request::background`] returns `None`. Default that of
    /// [`ServerConfig::max_background`].
    pub const fn max_background(mut self, max: usize) -> Self {
        self.max_background = max;
        self
    }

    /// The request, and what cancels it.
    ///
    /// ```
    /// use spop_server::{Cancelled, testing::TestRequest};
    ///
    /// let (request, canceller) = TestRequest::new("check-ip").cancellable();
    /// let cancellation = request.cancellation();
    /// canceller.cancel(Cancelled::Aborted);
    /// assert_eq!(cancellation.reason(), Some(Cancelled::Aborted));
    /// ```
    pub fn cancellable(self) -> (Request<'static>, Canceller) {
        let request = Request::from(self);
        let canceller =
            Canceller { connection: Arc::clone(request.shared_connection()), request: request.id() };
        (request, canceller)
    }
}

impl From<TestRequest> for Request<'static> {
    fn from(request: TestRequest) -> Self {
        let TestRequest { messages, ids, peer, addresses, engine, deadline, max_background } = request;
        let (session, id) = negotiate(engine);
        let accepted = addresses.map(|addresses| {
            let mut origin = Origin::new(peer.clone());
            origin.proxy = Some(addresses.into());
            Box::new(Accepted {
                origin,
                #[cfg(feature = "tls")]
                tls: None,
            })
        });
        let share = Total::new(usize::MAX).share();
        let (now, shutdown) = (Timestamp::ZERO, Arc::new(Shutdown::new(max_background, Clock::start())));
        let connection = Arc::new(Connection::new(ConnectionId(0), peer, now, None, share, shutdown));
        connection.set_established(session, accepted);
        Self::by_hand(messages, id, ids, deadline, &connection)
    }
}

/// The session of a handshake with this engine, and the identifier of its first request.
#[expect(clippy::panic, reason = "it cannot fail unless the configuration is invalid, which a test shows")]
fn negotiate(engine: EngineConfig) -> (Arc<Session>, TicketId) {
    let now = Timestamp::ZERO;
    let engine = engine.checked().unwrap_or_else(|error| panic!("the configuration of the engine: {error}"));
    let engine = EngineReactor::new(Arc::new(engine), ConnectionId(0), now);
    let mut agent = AgentReactor::new(Arc::default(), ConnectionId(0), now);
    let Action::Established(session) = agent.on_bytes(now, engine.outgoing()).action else {
        panic!("no session with this engine")
    };
    let notify = notation::parse_bytes("NOTIFY fin 1 1 m").unwrap_or_default();
    let Action::RunMessages(notify) = agent.on_bytes(now, &notify).action else { panic!("no request") };
    let id = notify.ticket.id();
    let _ = agent.fail(now, notify.ticket);
    (session, id)
}

/// Cancels a [`TestRequest`], as HAProxy or a timeout would.
#[derive(Clone, Debug)]
pub struct Canceller {
    connection: Arc<Connection>,
    request: TicketId,
}

impl Canceller {
    /// The answer is not needed any more: tells the [`Cancellation`](crate::Cancellation)s and the responder of the request, and
    /// ends a [`call`](super::call()). The first reason counts.
    pub fn cancel(&self, why: Cancelled) {
        self.connection.inbox.end_watched(self.request, why);
        // For those that are made later.
        self.connection.inbox.end_all_watched();
        self.connection.inbox.wake();
    }
}
