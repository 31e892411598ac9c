//! Why an answer is not waited for.

use spop_core::agent::Cancel;

/// Why nobody waits for a request any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cancelled {
    /// It has its answer, be that the one of a failure.
    Answered,
    /// HAProxy aborted it.
    Aborted,
    /// HAProxy sent another under the same identifiers.
    Superseded,
    /// HAProxy gave it up and sent another on its connection.
    Abandoned,
    /// It was older than [`AgentConfig::processing`](spop_core::AgentConfig::processing) when its connection had as many
    /// requests in flight as it may.
    Overdue,
    /// It was not answered within [`Timeouts::message`](spop_core::config::Timeouts::message).
    TimedOut,
    /// Its connection is gone.
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
