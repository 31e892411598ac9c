//! Requests.

use std::{
    cell::Cell,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::BytesMut;
use spop_core::{
    Actions, Session, Timestamp,
    accept::{Peer, ProxyHeader},
    agent::TicketId,
    frame::{ArgError, FromValue, Ids, Message, Messages, NotifyPayload, OwnedMessages},
};

use crate::{
    Agent, Background, Began, Cancellation, Connection, Outcome, RequestPermit, Responder, SharedPermit,
    Work, inbox::Message as Sent,
};

/// One NOTIFY: the messages of one event, to be answered together.
///
/// It borrows the input, unless it is `'static`: [`into_owned`](Self::into_owned) makes it so.
pub struct Request<'a>(Source<'a>);

/// A reference or a box: a request is moved several times, through the futures of a handler for instance.
enum Source<'a> {
    Received(&'a Incoming<'a>),
    Owned(Owned),
}

/// A request whose handler is called.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) payload: NotifyPayload<'a>,
    pub(crate) id: TicketId,
    pub(crate) ids: Ids,
    pub(crate) arrived: Timestamp,
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) agent: &'a Agent,
    pub(crate) began: Began,
    pub(crate) permit: RequestPermit,
    /// The handler has made the request its own, and with it the guard.
    pub(crate) claimed: AtomicBool,
    /// A responder has the obligation to answer, whatever the handler returns.
    pub(crate) deferred: AtomicBool,
}

/// A request that a handler keeps, or a part of one.
struct Owned {
    connection: Arc<Connection>,
    id: TicketId,
    /// `None` while it is dropped.
    kept: Option<Box<Kept>>,
}

struct Kept {
    messages: OwnedMessages,
    ids: Ids,
    deadline: Option<Instant>,
    /// It is a part of a request that is counted: its bytes may outlive that.
    is_part: bool,
    permit: SharedPermit,
    guard: RequestGuard,
    /// Where it is memory for requests to come: the next, and how many follow.
    next: Option<Box<Self>>,
    followers: u32,
}

/// How many requests of a thread leave their memory, of some 130 bytes, to later ones.
const SPARE: u32 = 32;

thread_local! {
    /// The memory of requests that were dropped, for the next ones of this thread.
    static MEMORY: Cell<Option<Box<Kept>>> = const { Cell::new(None) };
}

impl Owned {
    #[inline]
    fn new(connection: &Arc<Connection>, id: TicketId, kept: Kept) -> Self {
        if kept.is_part {
            connection.requests.add(kept.bytes());
        }
        let memory = MEMORY.try_with(|spare| {
            let mut memory = spare.take()?;
            spare.set(memory.next.take());
            Some(memory)
        });
        let kept = match memory {
            Ok(Some(mut memory)) => {
                *memory = kept;
                memory
            }
            _ => Box::new(kept),
        };
        Self { connection: Arc::clone(connection), id, kept: Some(kept) }
    }
}

impl Drop for Owned {
    #[inline]
    fn drop(&mut self) {
        let Some(mut kept) = self.kept.take() else { return };
        if kept.is_part {
            self.connection.requests.subtract(kept.bytes());
        } else {
            self.connection.request_dropped(self.id, kept.bytes());
        }
        kept.messages = OwnedMessages::default();
        kept.permit = SharedPermit::default();
        kept.guard = RequestGuard::default();
        // A thread that ends needs no memory.
        let _ = MEMORY.try_with(|spare| {
            let next = spare.take();
            let followers = next.as_ref().map_or(0, |next| next.followers + 1);
            if followers < SPARE {
                kept.next = next;
                kept.followers = followers;
                spare.set(Some(kept));
            } else {
                spare.set(next);
            }
        });
    }
}

/// What a request counts for in addition to its payload: the memory of a call or a responder.
pub(crate) const REQUEST_OVERHEAD: usize = 1024;

impl Kept {
    #[inline]
    fn messages(&self) -> Messages<'_> {
        self.messages.view()
    }

    #[inline]
    fn bytes(&self) -> usize {
        self.messages.payload().len() + if self.is_part { 0 } else { REQUEST_OVERHEAD }
    }
}

impl Incoming<'_> {
    /// What the request counts for when its handler keeps it.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.payload.messages().payload().len() + REQUEST_OVERHEAD
    }

    fn deadline(&self) -> Option<Instant> {
        self.agent.clock.instant(self.arrived + self.agent.config.timeouts.message?)
    }

    /// The handler makes the request its own.
    #[inline]
    fn claim(&self) -> RequestGuard {
        // Before it is claimed: a recorder of metrics may panic, and then the handler does not have the request.
        let work = self.agent.metrics.work_since(self.began, self.payload.messages());
        self.claimed.store(true, Ordering::Relaxed);
        RequestGuard { permit: self.permit.share(), work }
    }
}

/// Counts a request as in progress until it is dropped: for
/// [`ServerConfig::max_in_flight`](crate::ServerConfig::max_in_flight) and the metrics.
#[derive(Debug, Default)]
#[must_use = "the request is in progress as long as the guard lives"]
pub struct RequestGuard {
    #[allow(dead_code)] // Held for its drop.
    permit: SharedPermit,
    #[allow(dead_code)] // Held for its drop.
    work: Work,
}

impl<'a> Request<'a> {
    #[inline]
    pub(crate) const fn new(incoming: &'a Incoming<'a>) -> Self {
        Self(Source::Received(incoming))
    }

    /// The messages, in order.
    #[inline]
    pub fn messages(&self) -> Messages<'_> {
        match &self.0 {
            Source::Received(incoming) => incoming.payload.messages(),
            Source::Owned(owned) => owned.kept.as_deref().map_or_else(Messages::default, Kept::messages),
        }
    }

    /// The first message of this name.
    pub fn message(&self, name: &str) -> Option<Message<'_>> {
        self.messages().get(name)
    }

    /// The first argument of this name of the first message, as a `T`: for handlers that expect one message.
    ///
    /// # Errors
    /// [`ArgError`] names the message and the argument. An `Option<T>` takes an absent argument and NULL for `None`.
    pub fn arg<'r, T: FromValue<'r>>(&'r self, name: &str) -> Result<T, ArgError> {
        self.messages().arg(name)
    }

    /// The arguments of the first message as a `T`, as [`Message::deserialize`]: for handlers that expect one message.
    ///
    /// # Errors
    /// [`ArgsError`](spop_core::frame::ArgsError) names the message and the argument.
    #[cfg(feature = "serde")]
    pub fn deserialize<'r, T: serde::Deserialize<'r>>(&'r self) -> Result<T, spop_core::frame::ArgsError> {
        self.messages().deserialize()
    }

    /// Identifies the request among those of its connection. Never reused.
    #[inline]
    pub const fn id(&self) -> TicketId {
        match &self.0 {
            Source::Received(incoming) => incoming.id,
            Source::Owned(owned) => owned.id,
        }
    }

    /// STREAM-ID and FRAME-ID. HAProxy may reuse them.
    pub const fn ids(&self) -> Ids {
        match &self.0 {
            Source::Received(incoming) => incoming.ids,
            Source::Owned(Owned { kept: Some(kept), .. }) => kept.ids,
            Source::Owned(_) => Ids::new(0, 0),
        }
    }

    /// STREAM-ID: HAProxy's number of the stream; with HAProxy 3.1 and later it counts requests on the connection.
    pub const fn stream_id(&self) -> u64 {
        self.ids().stream
    }

    /// FRAME-ID: counts the requests of a stream.
    pub const fn frame_id(&self) -> u64 {
        self.ids().frame
    }

    /// When the request will time out, if [`Timeouts::message`](spop_core::config::Timeouts::message) is set. HAProxy does not
    /// announce its own `timeout processing`.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.0 {
            Source::Received(incoming) => incoming.deadline(),
            Source::Owned(owned) => owned.kept.as_ref()?.deadline,
        }
    }

    /// The connection that the request arrived on.
    #[inline]
    pub fn connection(&self) -> &Connection {
        self.shared_connection()
    }

    #[inline]
    pub(crate) fn shared_connection(&self) -> &Arc<Connection> {
        match &self.0 {
            Source::Received(incoming) => incoming.connection,
            Source::Owned(owned) => &owned.connection,
        }
    }

    /// As [`Connection::session`].
    pub fn session(&self) -> &Session {
        self.connection().session()
    }

    /// As [`Connection::engine_id`].
    pub fn engine_id(&self) -> Option<&[u8]> {
        self.connection().engine_id()
    }

    /// As [`Connection::peer`].
    pub fn peer(&self) -> &Peer {
        self.connection().peer()
    }

    /// As [`Connection::source`].
    pub fn source(&self) -> Option<SocketAddr> {
        self.connection().source()
    }

    /// As [`Connection::destination`].
    pub fn destination(&self) -> Option<SocketAddr> {
        self.connection().destination()
    }

    /// As [`Connection::proxy_header`].
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.connection().proxy_header()
    }

    /// As [`Connection::tls`].
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&crate::tls::TlsPeer> {
        self.connection().tls()
    }

    /// A token that tells work outside of the handler when the answer is not needed any more.
    pub fn cancellation(&self) -> Cancellation {
        let cancellation = self.connection().inbox.watch(self.id());
        if matches!(self.0, Source::Owned(_)) {
            // It may have ended before: its connection knows.
            let _ = self.connection().inbox.send(Sent::Watch(self.id()));
        }
        cancellation
    }

    /// Permission for work that goes on after the answer: a copy to another service, a record. The server counts it until it is
    /// dropped, and waits for it when it drains (see [`Background`]). `None` if there is too much of it already
    /// ([`ServerConfig::max_background`](crate::ServerConfig::max_background)): leave the work undone.
    ///
    /// ```
    /// use std::thread;
    /// use spop_core::Actions;
    /// use spop_server::Request;
    ///
    /// fn record(request: Request<'_>) -> Actions {
    ///     let line = format!("{:?}", request.messages());
    ///     if let Some(background) = request.background() {
    ///         thread::spawn(move || {
    ///             println!("{line}");
    ///             drop(background);
    ///         });
    ///     }
    ///     Actions::new()
    /// }
    /// ```
    pub fn background(&self) -> Option<Background> {
        self.connection().shutdown.enter_background()
    }

    /// Sends a part of the answer now. The handler's answer is the last part.
    ///
    /// The peer must accept fragments, which no HAProxy does; otherwise, or if its send backlog is at
    /// [`max_outgoing`](spop_core::config::Limits::max_outgoing), the request fails. After the first part the whole answer takes
    /// the connection that the request arrived on, even with `async`; if that has ended, the request is cancelled.
    pub fn send_part(&self, actions: Actions) {
        // A connection that has ended needs no answer.
        let _ = self.connection().inbox.send(Sent::Part(self.id(), actions));
    }

    /// The request with its own bytes: a payload that borrows the input is copied.
    ///
    /// A handler that keeps it returns [`Outcome::Later`], and owes the answer. The request counts under
    /// [`max_in_flight`](crate::ServerConfig::max_in_flight) and
    /// [`max_request_bytes`](crate::ServerConfig::max_request_bytes) until it is dropped.
    pub fn into_owned(self) -> Request<'static> {
        self.owned_by(NotifyPayload::into_owned)
    }

    /// As [`into_owned`](Self::into_owned), copied to memory that is reused: see [`NotifyPayload::into_owned_with`].
    #[inline]
    pub fn into_owned_with(self, buffer: &mut BytesMut) -> Request<'static> {
        self.owned_by(|payload| payload.into_owned_with(buffer))
    }

    #[inline]
    fn owned_by(self, copy: impl FnOnce(NotifyPayload<'a>) -> OwnedMessages) -> Request<'static> {
        let incoming = match self.0 {
            Source::Received(incoming) => incoming,
            Source::Owned(owned) => return Request(Source::Owned(owned)),
        };
        let messages = copy(incoming.payload.clone());
        let guard = incoming.claim();
        let kept = Kept {
            messages,
            ids: incoming.ids,
            deadline: incoming.deadline(),
            is_part: false,
            permit: guard.permit.clone(),
            guard,
            next: None,
            followers: 0,
        };
        Request(Source::Owned(Owned::new(incoming.connection, incoming.id, kept)))
    }

    /// Answers later, from any thread: `keep` stores the responder, which has the request.
    ///
    /// ```
    /// use std::sync::mpsc::Sender;
    /// use spop_server::{Outcome, Request, Responder};
    ///
    /// fn lookup(request: Request<'_>, pool: &Sender<Responder>) -> Outcome {
    ///     // If the pool is gone, the responder is dropped here, and the request fails.
    ///     request.defer(|responder| drop(pool.send(responder)))
    /// }
    /// ```
    pub fn defer(self, keep: impl FnOnce(Responder)) -> Outcome {
        let received = match &self.0 {
            Source::Received(incoming) => Some(*incoming),
            Source::Owned(_) => None,
        };
        let cancellation = match received {
            // While its handler runs, it has not ended.
            Some(incoming) => incoming.connection.inbox.watch(incoming.id),
            None => self.cancellation(),
        };
        let responder = Responder::new(self.into_owned(), cancellation);
        // Only now: a recorder of metrics may have panicked, and then there is no responder.
        if let Some(incoming) = received {
            incoming.deferred.store(true, Ordering::Relaxed);
        }
        keep(responder);
        Outcome::Later
    }
}

impl Request<'static> {
    /// Takes the guard that counts the request as in progress, for an adapter whose handler may drop the request early.
    pub fn take_guard(&mut self) -> RequestGuard {
        match &mut self.0 {
            Source::Owned(Owned { kept: Some(kept), .. }) => std::mem::take(&mut kept.guard),
            _ => RequestGuard::default(),
        }
    }

    /// A request that no connection has received.
    #[cfg(feature = "testing")]
    pub(crate) fn by_hand(
        messages: OwnedMessages,
        id: TicketId,
        ids: Ids,
        deadline: Option<Instant>,
        connection: &Arc<Connection>,
    ) -> Self {
        let (permit, guard) = (SharedPermit::default(), RequestGuard::default());
        let kept = Kept { messages, ids, deadline, is_part: false, permit, guard, next: None, followers: 0 };
        connection.count_kept(kept.bytes());
        Self(Source::Owned(Owned::new(connection, id, kept)))
    }

    /// A request for each message, for handlers by name.
    pub fn each(&self) -> impl Iterator<Item = Self> + use<'_> {
        let (kept, connection, id) = match &self.0 {
            Source::Owned(owned) => (owned.kept.as_deref(), &owned.connection, owned.id),
            Source::Received(incoming) => (None, incoming.connection, incoming.id),
        };
        let each: Vec<_> = kept.map(|kept| kept.messages.each().collect()).unwrap_or_default();
        let (ids, deadline) = (self.ids(), kept.and_then(|kept| kept.deadline));
        each.into_iter().map(move |messages| {
            let (permit, guard) = (SharedPermit::default(), RequestGuard::default());
            let part =
                Kept { messages, ids, deadline, is_part: true, permit, guard, next: None, followers: 0 };
            Self(Source::Owned(Owned::new(connection, id, part)))
        })
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("ids", &self.ids())
            .field("messages", &self.messages())
            .field("peer", self.peer())
            .finish_non_exhaustive()
    }
}
