//! The right to answer one NOTIFY, once.

use alloc::sync::Arc;
use core::{fmt, time::Duration};

use bytes::Bytes;

use super::dropped::Guard;
use crate::frame::Ids;

/// The number by which its caller knows a connection. It binds tickets to connections: give different numbers to
/// connections whose tickets could meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a ticket while another owns it, so that what belongs to it can be found when it is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub(super) u64);

/// The right and the duty to answer one NOTIFY.
///
/// There is no second one, and answering takes it: a NOTIFY cannot be answered twice. It is worth something to the
/// connection it came from only (with async, to all of the same engine), and nothing once the NOTIFY was cancelled.
///
/// One that is dropped while its NOTIFY waits leaves HAProxy waiting until [`Timeouts::message`](crate::config::Timeouts::message)
/// has passed. Debug builds count that: [`dropped_tickets`](super::AgentReactor::dropped_tickets).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "HAProxy waits for an answer: `acknowledge` it, or `fail` it"]
pub struct Ticket {
    pub(super) connection: ConnectionId,
    pub(super) id: TicketId,
    pub(super) ids: Ids,
    /// With async: the engine whose other connections may carry the answer. None once a part of it was handed in.
    pub(super) engine: Option<Arc<Bytes>>,
    pub(super) guard: Guard,
}

impl Ticket {
    /// For a NOTIFY whose ticket is out, and worth nothing from now on.
    pub(crate) fn in_place_of(id: TicketId, connection: ConnectionId, ids: Ids, engine: &Arc<Bytes>) -> Self {
        Self { connection, id, ids, engine: Some(Arc::clone(engine)), guard: Guard::default() }
    }

    /// The connection the NOTIFY came from.
    pub const fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The ticket's name on that connection.
    pub const fn id(&self) -> TicketId {
        self.id
    }

    /// STREAM-ID and FRAME-ID of the NOTIFY. They may come again; the ticket does not.
    pub const fn ids(&self) -> Ids {
        self.ids
    }

    /// With async: the engine-id that other connections must have to carry the answer. None once a part of the answer was
    /// handed in, which ties it to its connection.
    pub fn engine_id(&self) -> Option<&Bytes> {
        match &self.engine {
            Some(engine) => Some(engine),
            None => None,
        }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NOTIFY {} of connection {}", self.ids, self.connection.0)
    }
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Settled {
    /// It is among the outgoing bytes.
    Queued,
    /// It is among the outgoing bytes, but later than [`AgentConfig::processing`](super::AgentConfig::processing): HAProxy has
    /// probably given the request up. Never returned for an answer that takes another connection.
    Late {
        /// From the NOTIFY to its answer.
        age: Duration,
    },
    /// Nobody waits for it any more: the NOTIFY was cancelled, or the session is over.
    Dropped,
}

/// The NOTIFY of this ticket waits for no answer: it was answered, or cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ticket {} waits for no answer", .0.0)]
pub struct NotWaiting(pub TicketId);

/// An answer that cannot be given as asked. Nothing was queued; the ticket comes back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The NOTIFY came from another connection, and async was not agreed on or the engine is another.
    #[error("the answer to {ticket} was given to connection {}", connection.0)]
    #[non_exhaustive]
    WrongConnection {
        /// The ticket.
        ticket: Ticket,
        /// The connection that was asked.
        connection: ConnectionId,
    },
    /// The connection is closing, and the NOTIFY came from another: the answer can take yet another.
    #[error("the answer to {ticket} was given to a connection that is closing")]
    #[non_exhaustive]
    Closing {
        /// The ticket.
        ticket: Ticket,
    },
    /// The answer is too long for a frame, and the peer does not accept fragments; or it exceeds even their limit, or that of
    /// [`PipeliningPolicy::Always`](super::PipeliningPolicy::Always).
    #[error("the answer to {ticket} takes {size} bytes, more than the {limit} that can be sent")]
    #[non_exhaustive]
    TooBig {
        /// The ticket.
        ticket: Ticket,
        /// What the payload would take.
        size: usize,
        /// What it may take.
        limit: usize,
    },
    /// An answer in parts needs a peer that accepts fragments.
    #[error("the answer to {ticket} cannot be sent in parts: the peer accepts no fragments")]
    #[non_exhaustive]
    NoFragmentation {
        /// The ticket.
        ticket: Ticket,
    },
}

impl AckError {
    /// The ticket that was not used up.
    pub fn into_ticket(self) -> Ticket {
        match self {
            Self::WrongConnection { ticket, .. }
            | Self::Closing { ticket }
            | Self::TooBig { ticket, .. }
            | Self::NoFragmentation { ticket } => ticket,
        }
    }
}
