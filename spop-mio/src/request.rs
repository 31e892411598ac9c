//! What HAProxy asks.

use std::{fmt, net::SocketAddr, sync::Arc, time::Instant};

use spop_core::{
    Session, Ticket, Timestamp,
    accept::{Peer, ProxyHeader},
    frame::{ArgError, FromValue, Ids, Message, Messages, NotifyPayload},
};
use spop_server::{Began, Permit};

use crate::{
    Outcome, Responder,
    mail::Mailbox,
    passing::Whence,
    responder::{Job, Letter, Wanted},
    shared::Shared,
};

/// One NOTIFY: the messages of one event, to be answered together.
pub struct Request<'a> {
    pub(crate) payload: NotifyPayload<'a>,
    pub(crate) ids: Ids,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) call: &'a mut Call,
    pub(crate) session: &'a Session,
    pub(crate) whence: &'a Whence,
    pub(crate) mailbox: &'a Arc<Mailbox<Letter>>,
    pub(crate) shared: &'a Shared,
}

/// The ticket of a request, while its handler runs.
#[derive(Debug)]
pub(crate) struct Call {
    /// Taken by the handler that answers later.
    pub(crate) ticket: Option<Ticket>,
    /// Its place among all requests, and when it began.
    pub(crate) permit: Permit,
    pub(crate) began: Began,
    /// Then the flag that says whether anybody waits for that.
    pub(crate) cancelled: Option<Arc<Wanted>>,
}

impl Request<'_> {
    /// What is asked, in order.
    #[inline]
    pub fn messages(&self) -> Messages<'_> {
        self.payload.messages()
    }

    /// The first message of this name.
    pub fn message(&self, name: &str) -> Option<Message<'_>> {
        self.messages().get(name)
    }

    /// The first argument of this name of the first message, as a `T`: for handlers that expect one message.
    ///
    /// # Errors
    /// [`ArgError`] names the message and the argument. An `Option<T>` takes an absent argument and NULL for `None`.
    pub fn arg<'a, T: FromValue<'a>>(&'a self, name: &str) -> Result<T, ArgError> {
        self.messages().arg(name)
    }

    /// STREAM-ID: HAProxy's number of the stream; with HAProxy 3.1 and later it counts requests on the connection.
    pub const fn stream_id(&self) -> u64 {
        self.ids.stream
    }

    /// FRAME-ID: counts the requests of a stream.
    pub const fn frame_id(&self) -> u64 {
        self.ids.frame
    }

    /// Which engine asks, if it said so. HAProxy 2.6 and 3.0 have one for each thread.
    pub fn engine_id(&self) -> Option<&[u8]> {
        self.session.engine_id.as_deref()
    }

    /// What both sides of the connection agreed on.
    pub const fn session(&self) -> &Session {
        self.session
    }

    /// The other end of the connection: HAProxy, not its client.
    pub const fn peer(&self) -> &Peer {
        &self.whence.peer
    }

    /// The address that the connection comes from: what a PROXY header announced, and otherwise that of the
    /// [`peer`](Self::peer), if it has one.
    pub fn source(&self) -> Option<SocketAddr> {
        match &self.whence.learned {
            Some(learned) => learned.origin.client().socket_addr(),
            None => self.whence.peer.socket_addr(),
        }
    }

    /// The address that the connection went to, if a PROXY header announced it.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.whence.learned.as_ref()?.origin.destination()?.socket_addr()
    }

    /// The PROXY header of the connection, if its listener expects one.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.whence.learned.as_ref()?.origin.proxy.as_ref()
    }

    /// What TLS says of the connection, if there is TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&crate::tls::TlsPeer> {
        self.whence.learned.as_ref()?.tls.as_ref()
    }

    /// When the request will be given up, where [`Timeouts::message`](spop_core::config::Timeouts::message) is set.
    /// HAProxy does not tell its own `timeout processing`.
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.clock.instant(self.deadline?)
    }

    /// Answers later, from any thread: `keep` puts the responder, which has the messages, where it will be found.
    ///
    /// ```
    /// use std::{sync::mpsc::Sender, thread};
    /// use spop_mio::{Outcome, Request, Responder};
    ///
    /// fn lookup(request: Request<'_>, pool: &Sender<Responder>) -> Outcome {
    ///     // A pool that is gone drops the responder, and so the request fails.
    ///     request.defer(|responder| drop(pool.send(responder)))
    /// }
    /// ```
    pub fn defer(self, keep: impl FnOnce(Responder)) -> Outcome {
        if let Some(ticket) = self.call.ticket.take() {
            let cancelled = Arc::new(Wanted::default());
            self.call.cancelled = Some(Arc::clone(&cancelled));
            let permit = std::mem::take(&mut self.call.permit);
            let job = Job(permit, self.shared.metrics.work_since(self.call.began));
            let (deadline, mailbox) = (self.deadline(), Arc::clone(self.mailbox));
            keep(Responder::new(ticket, self.payload.into_owned(), deadline, mailbox, cancelled, job));
        }
        Outcome(None)
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("ids", &self.ids)
            .field("messages", &self.messages())
            .field("peer", &self.whence.peer)
            .finish_non_exhaustive()
    }
}
