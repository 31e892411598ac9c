//! Tickets: each permits one answer to one NOTIFY.

use alloc::sync::Arc;
use core::{fmt, time::Duration};

use bytes::Bytes;

use super::dropped::Guard;
use crate::frame::Ids;

/// The caller's identifier of a connection. It binds tickets to their connection, and must be unique among connections
/// whose tickets could be confused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Identifies a ticket without owning it, for example to find the handler of a cancelled NOTIFY. Unique within a
/// connection, and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub(crate) u64);

impl TicketId {
    /// Of no request in flight: a ticket that was released where it came from, and returns there.
    pub(super) const RELEASED: Self = Self(u64::MAX);
}

/// Permits one answer to one NOTIFY.
///
/// It cannot be cloned, and answering consumes it: a NOTIFY cannot be answered twice. It is valid for the connection that
/// received the NOTIFY (with async, for every connection of the same engine) until the NOTIFY is cancelled.
///
/// If a ticket is dropped unanswered, HAProxy waits for its own timeout, and the NOTIFY stays in flight until
/// [`Timeouts::message`](crate::config::Timeouts::message) has passed. Debug builds count such tickets: [`dropped_tickets`](super::AgentReactor::dropped_tickets).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "HAProxy waits for an answer: `acknowledge` it, or `fail` it"]
pub struct Ticket {
    pub(super) connection: ConnectionId,
    pub(super) id: TicketId,
    pub(super) ids: Ids,
    /// With async: the engine-id. `None` once a part of the answer was queued.
    pub(super) engine: Option<Arc<Bytes>>,
    pub(super) guard: Guard,
}

impl Ticket {
    /// A second ticket for a NOTIFY whose first is void from now on.
    pub(crate) fn in_place_of(id: TicketId, connection: ConnectionId, ids: Ids, engine: &Arc<Bytes>) -> Self {
        Self { connection, id, ids, engine: Some(Arc::clone(engine)), guard: Guard::default() }
    }

    /// The same ticket after its own connection has released it: there it is as good as that of a sibling.
    pub(crate) fn released(self) -> Self {
        Self { id: TicketId::RELEASED, ..self }
    }

    /// The connection that received the NOTIFY.
    pub const fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The ticket's identifier on that connection.
    pub const fn id(&self) -> TicketId {
        self.id
    }

    /// STREAM-ID and FRAME-ID of the NOTIFY. HAProxy may reuse them.
    pub const fn ids(&self) -> Ids {
        self.ids
    }

    /// With async: the engine-id. Every connection that has it may carry the answer. `None` without async, and once a part
    /// of the answer was queued, which binds the rest to the same connection.
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

/// The result of a decision on a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Settled {
    /// The answer was queued.
    Queued,
    /// The answer was queued later than [`AgentConfig::processing`](super::AgentConfig::processing) after its NOTIFY:
    /// HAProxy has probably abandoned the request. Never returned for an answer that takes another connection.
    Late {
        /// The time from the NOTIFY to its answer.
        age: Duration,
    },
    /// The answer was dropped: the NOTIFY was cancelled, or the session is over.
    Dropped,
}

/// Error of [`release`](super::AgentReactor::release): the NOTIFY of this ticket was answered or cancelled before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ticket {} waits for no answer", .0.0)]
pub struct NotWaiting(pub TicketId);

/// An answer that cannot be sent as asked. Nothing was queued; [`into_ticket`](Self::into_ticket) returns the ticket.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The NOTIFY was received by another connection, and async is not in effect or the engine-ids differ.
    #[error("the answer to {ticket} was given to connection {}", connection.0)]
    #[non_exhaustive]
    WrongConnection {
        /// The ticket.
        ticket: Ticket,
        /// The connection that was to send the answer.
        connection: ConnectionId,
    },
    /// The connection is closing, and the NOTIFY was received by another. Use another connection of the engine.
    #[error("the answer to {ticket} was given to a connection that is closing")]
    #[non_exhaustive]
    Closing {
        /// The ticket.
        ticket: Ticket,
    },
    /// [`max_outgoing`](crate::config::Limits::max_outgoing) bytes are queued, and the NOTIFY was received by another connection.
    /// Use another connection of the engine.
    #[error("the answer to {ticket} was given to a connection whose peer does not read")]
    #[non_exhaustive]
    Full {
        /// The ticket.
        ticket: Ticket,
    },
    /// The answer is too long for a frame and the peer accepts no fragments; or it exceeds
    /// [`max_outgoing`](crate::config::Limits::max_outgoing), or the limit of
    /// [`PipeliningPolicy::Always`](super::PipeliningPolicy::Always).
    #[error("the answer to {ticket} takes {size} bytes, more than the {limit} that can be sent")]
    #[non_exhaustive]
    TooBig {
        /// The ticket.
        ticket: Ticket,
        /// The length of the payload, in bytes.
        size: usize,
        /// The longest payload that can be sent, in bytes.
        limit: usize,
    },
    /// The answer was given in parts, and the peer accepts no fragments.
    #[error("the answer to {ticket} cannot be sent in parts: the peer accepts no fragments")]
    #[non_exhaustive]
    NoFragmentation {
        /// The ticket.
        ticket: Ticket,
    },
}

impl AckError {
    /// The ticket, which is still valid.
    pub fn into_ticket(self) -> Ticket {
        match self {
            Self::WrongConnection { ticket, .. }
            | Self::Closing { ticket }
            | Self::Full { ticket }
            | Self::TooBig { ticket, .. }
            | Self::NoFragmentation { ticket } => ticket,
        }
    }
}
