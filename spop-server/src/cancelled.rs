//! Why a request needs no answer any more.

use spop_core::agent::Cancel;

/// Why a request needs no answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cancelled {
    /// It was answered, by its handler or with the reply to a failure.
    Answered,
    /// HAProxy aborted it.
    Aborted,
    /// HAProxy sent another under the same identifiers.
    Superseded,
    /// HAProxy 3.1 or later abandoned it: it sent another on the same connection.
    Abandoned,
    /// It was the oldest of a connection at its limit of requests or payload bytes in flight, and older than
    /// [`AgentConfig::processing`](spop_core::AgentConfig::processing).
    Overdue,
    /// It was not answered within [`Timeouts::message`](spop_core::config::Timeouts::message).
    TimedOut,
    /// Its connection has ended; with `async`, the last connection of its engine.
    Disconnected,
}

impl From<Cancel> for Cancelled {
    fn from(why: Cancel) -> Self {
        match why {
            Cancel::Aborted => Self::Aborted,
            Cancel::TimedOut => Self::TimedOut,
            Cancel::Abandoned => Self::Abandoned,
            Cancel::Overdue => Self::Overdue,
            _ => Self::Superseded,
        }
    }
}
