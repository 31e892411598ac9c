//! What HAProxy asks.

use std::{fmt, sync::Arc, time::Instant};

use spop_core::{
    Clock, Session, Ticket, Timestamp,
    accept::Peer,
    frame::{Ids, Message, Messages},
};

use crate::{
    Outcome, Responder,
    mail::Mailbox,
    responder::{Cancelled, Letter},
};

/// One NOTIFY: the messages of one event, to be answered together.
pub struct Request<'a> {
    pub(crate) messages: Messages,
    pub(crate) ids: Ids,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) call: &'a mut Call,
    pub(crate) session: &'a Session,
    pub(crate) peer: &'a Peer,
    pub(crate) worker: &'a WorkerEnds,
}

/// The ticket of a request, while its handler runs.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// Taken by the handler that answers later.
    pub(crate) ticket: Option<Ticket>,
    /// Then the flag that says whether anybody waits for that.
    pub(crate) cancelled: Option<Arc<Cancelled>>,
}

/// What a request needs of its worker.
#[derive(Debug)]
pub(crate) struct WorkerEnds {
    pub(crate) mailbox: Arc<Mailbox<Letter>>,
    pub(crate) clock: Clock,
}

impl Request<'_> {
    /// What is asked, in order.
    pub const fn messages(&self) -> &Messages {
        &self.messages
    }

    /// The first message of this name.
    pub fn message(&self, name: &str) -> Option<Message<'_>> {
        self.messages.get(name)
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
        self.peer
    }

    /// When the request will be given up, where [`Timeouts::message`](spop_core::config::Timeouts::message) is set.
    /// HAProxy does not tell its own `timeout processing`.
    pub fn deadline(&self) -> Option<Instant> {
        self.worker.clock.instant(self.deadline?)
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
            let cancelled = Arc::new(Cancelled::default());
            self.call.cancelled = Some(Arc::clone(&cancelled));
            let mailbox = Arc::clone(&self.worker.mailbox);
            keep(Responder::new(ticket, self.messages.detach(), self.deadline(), mailbox, cancelled));
        }
        Outcome(None)
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("ids", &self.ids)
            .field("messages", &self.messages)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
