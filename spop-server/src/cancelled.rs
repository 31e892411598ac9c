//! Why an answer is not waited for.

use spop_core::Cancel;

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
            _ => Self::Superseded,
        }
    }
}
