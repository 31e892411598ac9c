//! Requests.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
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
    Began, Cancellation, Connection, HoldPermit, Metrics, Outcome, Responder, Work, WorkPermit,
    remote::Message as Sent,
};

/// One NOTIFY: the messages of one event, to be answered together.
///
/// It borrows the input, unless it is `'static`: [`into_owned`](Self::into_owned) makes it so.
pub struct Request<'a> {
    messages: Payload<'a>,
    id: TicketId,
    ids: Ids,
    deadline: Option<Timestamp>,
    connection: ConnectionRef<'a>,
    call: Call<'a>,
}

enum Payload<'a> {
    Received(NotifyPayload<'a>),
    Owned(OwnedMessages),
}

enum ConnectionRef<'a> {
    Borrowed(&'a Arc<Connection>),
    Owned(Held),
}

/// Counts a request that its owner keeps, until it is dropped.
struct Held {
    connection: Arc<Connection>,
    bytes: usize,
    is_part: bool,
    #[allow(dead_code)] // Held for its drop.
    permit: HoldPermit,
}

/// What a request counts for in addition to its payload: the memory of a call or a responder.
pub(crate) const REQUEST_OVERHEAD: usize = 1024;

impl Held {
    #[inline]
    fn new(connection: Arc<Connection>, payload: &OwnedMessages, permit: HoldPermit) -> Self {
        let bytes = payload.payload().len() + REQUEST_OVERHEAD;
        connection.requests.add(bytes);
        connection.held.fetch_add(1, Ordering::Relaxed);
        Self { connection, bytes, is_part: false, permit }
    }

    /// A part of a request that is counted: its bytes may outlive that.
    fn part(connection: Arc<Connection>, payload: &OwnedMessages) -> Self {
        let bytes = payload.payload().len();
        connection.requests.add(bytes);
        Self { connection, bytes, is_part: true, permit: HoldPermit::default() }
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        self.connection.requests.subtract(self.bytes);
        if !self.is_part {
            self.connection.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What is counted while a request is worked on.
enum Call<'a> {
    /// The handler runs, and the connection has the guard.
    Running(&'a mut Running, &'a Metrics),
    /// The request has it.
    Claimed(RequestGuard),
    /// Nothing: it is a part of another request, or the guard was taken.
    None,
}

/// A request whose handler runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// The guard, before it was taken.
    pub(crate) unclaimed: Option<Unclaimed>,
    /// A responder has the obligation to answer, whatever the handler returns.
    pub(crate) deferred: bool,
}

impl Running {
    /// The handler makes the request its own.
    fn claim(&mut self, metrics: &Metrics) -> Option<RequestGuard> {
        let Unclaimed { permit, began } = self.unclaimed.take()?;
        Some(RequestGuard { permit, work: metrics.work_since(began) })
    }
}

#[derive(Debug)]
pub(crate) struct Unclaimed {
    pub(crate) permit: WorkPermit,
    pub(crate) began: Began,
}

/// Counts a request as in progress until it is dropped: for
/// [`ServerConfig::max_in_flight`](crate::ServerConfig::max_in_flight) and the metrics.
#[derive(Debug, Default)]
#[must_use = "the request is in progress as long as the guard lives"]
pub struct RequestGuard {
    #[allow(dead_code)] // Held for its drop.
    permit: WorkPermit,
    #[allow(dead_code)] // Held for its drop.
    work: Work,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        payload: NotifyPayload<'a>,
        id: TicketId,
        ids: Ids,
        deadline: Option<Timestamp>,
        connection: &'a Arc<Connection>,
        running: &'a mut Running,
        metrics: &'a Metrics,
    ) -> Self {
        Self {
            messages: Payload::Received(payload),
            id,
            ids,
            deadline,
            connection: ConnectionRef::Borrowed(connection),
            call: Call::Running(running, metrics),
        }
    }

    /// The messages, in order.
    #[inline]
    pub fn messages(&self) -> Messages<'_> {
        match &self.messages {
            Payload::Received(payload) => payload.messages(),
            Payload::Owned(messages) => messages.view(),
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
        self.id
    }

    /// STREAM-ID and FRAME-ID. HAProxy may reuse them.
    pub const fn ids(&self) -> Ids {
        self.ids
    }

    /// STREAM-ID: HAProxy's number of the stream; with HAProxy 3.1 and later it counts requests on the connection.
    pub const fn stream_id(&self) -> u64 {
        self.ids.stream
    }

    /// FRAME-ID: counts the requests of a stream.
    pub const fn frame_id(&self) -> u64 {
        self.ids.frame
    }

    /// When the request will time out, if [`Timeouts::message`](spop_core::config::Timeouts::message) is set. HAProxy does not
    /// announce its own `timeout processing`.
    pub fn deadline(&self) -> Option<Instant> {
        self.connection().clock.instant(self.deadline?)
    }

    /// The connection that the request arrived on.
    #[inline]
    pub fn connection(&self) -> &Connection {
        match &self.connection {
            ConnectionRef::Borrowed(connection) => connection,
            ConnectionRef::Owned(held) => &held.connection,
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
        let cancellation = self.connection().watched.watch(self.id);
        if matches!(self.connection, ConnectionRef::Owned(_)) {
            // It may have ended before: its connection knows.
            let _ = self.connection().remote.send(Sent::Watch(self.id));
        }
        cancellation
    }

    /// Sends a part of the answer now. The handler's answer is the last part.
    ///
    /// The peer must accept fragments, which no HAProxy does; otherwise, or if its send backlog is at
    /// [`max_outgoing`](spop_core::config::Limits::max_outgoing), the request fails. After the first part the whole answer takes
    /// the connection that the request arrived on, even with `async`; if that has ended, the request is cancelled.
    pub fn send_part(&self, actions: Actions) {
        // A connection that has ended needs no answer.
        let _ = self.connection().remote.send(Sent::Part(self.id, actions));
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
        let Self { messages, id, ids, deadline, connection, call } = self;
        let messages = match messages {
            Payload::Received(payload) => copy(payload),
            Payload::Owned(messages) => messages,
        };
        let call = match call {
            Call::Running(running, metrics) => running.claim(metrics).map_or(Call::None, Call::Claimed),
            Call::Claimed(guard) => Call::Claimed(guard),
            Call::None => Call::None,
        };
        let held = match connection {
            ConnectionRef::Borrowed(connection) => {
                let permit = if let Call::Claimed(guard) = &call {
                    guard.permit.hold()
                } else {
                    HoldPermit::default()
                };
                Held::new(Arc::clone(connection), &messages, permit)
            }
            ConnectionRef::Owned(held) => held,
        };
        let (messages, connection) = (Payload::Owned(messages), ConnectionRef::Owned(held));
        Request { messages, id, ids, deadline, connection, call }
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
    pub fn defer(mut self, keep: impl FnOnce(Responder)) -> Outcome {
        // While its handler runs, it has not ended.
        let cancellation = if let Call::Running(running, _) = &mut self.call {
            running.deferred = true;
            self.connection().watched.watch(self.id)
        } else {
            self.cancellation()
        };
        keep(Responder::new(self.into_owned(), cancellation));
        Outcome::Later
    }
}

impl Request<'static> {
    /// Takes the guard that counts the request as in progress, for an adapter whose handler may drop the request early.
    pub fn take_guard(&mut self) -> RequestGuard {
        match std::mem::replace(&mut self.call, Call::None) {
            Call::Claimed(guard) => guard,
            Call::Running(..) | Call::None => RequestGuard::default(),
        }
    }

    /// A request for each message, for handlers by name.
    pub fn each(&self) -> impl Iterator<Item = Self> + use<'_> {
        let messages = match &self.messages {
            Payload::Owned(messages) => messages.clone(),
            Payload::Received(payload) => payload.clone().into_owned(),
        };
        let each: Vec<_> = messages.each().collect();
        each.into_iter().map(move |one| {
            let connection = match &self.connection {
                ConnectionRef::Owned(held) => &held.connection,
                ConnectionRef::Borrowed(connection) => *connection,
            };
            Self {
                // It is a part of a request that is counted. Its bytes may outlive that.
                connection: ConnectionRef::Owned(Held::part(Arc::clone(connection), &one)),
                messages: Payload::Owned(one),
                id: self.id,
                ids: self.ids,
                deadline: self.deadline,
                call: Call::None,
            }
        })
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("ids", &self.ids)
            .field("messages", &self.messages())
            .field("peer", self.peer())
            .finish_non_exhaustive()
    }
}
