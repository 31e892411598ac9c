//! What can become of a request besides an answer.

use core::fmt;

use crate::{Status, frame::Ids};

/// Why a request failed, as HAProxy tells its configuration in the variable of `option set-on-error` (section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EngineError {
    /// 1: no answer came in time.
    Timeout,
    /// 2: resources could not be had.
    Resources,
    /// 3: the payload exceeds the frame size and cannot be fragmented.
    TooBig,
    /// 4: the agent refused the payload while it was arriving in fragments.
    Aborted,
    /// 5: this side gave it up.
    Interrupted,
    /// 255: anything else.
    Unknown,
    /// 256 + N: the session ended with the status N.
    Spop(Status),
}

impl EngineError {
    /// The number that HAProxy sets the variable to.
    pub const fn code(self) -> u32 {
        match self {
            Self::Timeout => 1,
            Self::Resources => 2,
            Self::TooBig => 3,
            Self::Aborted => 4,
            Self::Interrupted => 5,
            Self::Unknown => 255,
            Self::Spop(status) => status.0.saturating_add(256),
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code();
        match self {
            Self::Timeout => write!(f, "{code} (no answer in time)"),
            Self::Resources => write!(f, "{code} (resources could not be had)"),
            Self::TooBig => write!(f, "{code} (the payload exceeds the frame size)"),
            Self::Aborted => write!(f, "{code} (refused in the middle of its fragments)"),
            Self::Interrupted => write!(f, "{code} (given up by this side)"),
            Self::Unknown => write!(f, "{code} (unknown)"),
            Self::Spop(status) => write!(f, "{code} (the session ended with status {status})"),
        }
    }
}

impl core::error::Error for EngineError {}

/// A request that cannot be sent as asked. Nothing was queued, and nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The payload exceeds a frame and cannot leave in fragments: [`EngineError::TooBig`] to whoever wanted it.
    #[error("the payload takes {size} bytes, more than the {limit} that fit a frame")]
    #[non_exhaustive]
    TooBig {
        /// What the payload takes.
        size: usize,
        /// What it may take.
        limit: usize,
    },
    /// The connection takes no more at the moment: as many requests wait as may, or fragments of one are leaving.
    #[error("the connection takes no more requests before others are done")]
    Busy,
    /// There is no session: not yet, or no more.
    #[error("there is no session")]
    NoSession,
    /// A request with these identifiers waits already.
    #[error("the identifiers {0} are in use")]
    InUse(Ids),
    /// This engine numbers its requests itself.
    #[error("this engine numbers its requests itself")]
    OwnIds,
}
