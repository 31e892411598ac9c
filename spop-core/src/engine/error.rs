//! How a request fails.

use core::fmt;

use crate::{Status, frame::Ids};

/// Why a request failed: the error numbers of `option set-on-error` (section 2.2).
///
/// [`haproxy::explain`](crate::haproxy::explain) gives the usual causes of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EngineError {
    /// 1: no answer within `timeout processing`.
    Timeout,
    /// 2: a resource could not be allocated, or no connection was available.
    Resources,
    /// 3: the payload exceeds the frame size and cannot be fragmented.
    TooBig,
    /// 4: the agent sent ABORT while the payload was being sent in fragments.
    Aborted,
    /// 5: the engine gave up the request.
    Interrupted,
    /// 255: an unknown error.
    Unknown,
    /// 257: the agent could not be reached. HAProxy has no number of its own for it.
    Unreachable,
    /// 256 + N: the session ended with status N.
    Spop(Status),
}

impl EngineError {
    /// The number in HAProxy's log (`st=`) and in the variable of `option set-on-error`, as the specification and HAProxy up
    /// to 3.0 have it. HAProxy 3.1 and later has no `Aborted`, and reports an interrupted request as 4.
    pub const fn code(self) -> u32 {
        match self {
            Self::Timeout => 1,
            Self::Resources => 2,
            Self::TooBig => 3,
            Self::Aborted => 4,
            Self::Interrupted => 5,
            Self::Unknown => 255,
            Self::Unreachable => 257,
            Self::Spop(status) => status.0.saturating_add(256),
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code();
        match self {
            Self::Timeout => write!(f, "{code} (no answer in time)"),
            Self::Resources => write!(f, "{code} (no resource or connection available)"),
            Self::TooBig => write!(f, "{code} (the payload exceeds the frame size)"),
            Self::Aborted => write!(f, "{code} (the agent aborted the fragmented payload)"),
            Self::Interrupted => write!(f, "{code} (interrupted by the engine)"),
            Self::Unknown => write!(f, "{code} (unknown)"),
            Self::Unreachable => write!(f, "{code} (the agent could not be reached)"),
            Self::Spop(status) => write!(f, "{code} (the session ended with status {status})"),
        }
    }
}

impl core::error::Error for EngineError {}

/// A request that was not sent. Nothing was queued, and the state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The payload exceeds a frame and cannot be fragmented. Report it as [`EngineError::TooBig`].
    #[error("the payload takes {size} bytes, more than the {limit} that fit a frame")]
    #[non_exhaustive]
    TooBig {
        /// The length of the payload, in bytes.
        size: usize,
        /// The longest payload that fits a frame, in bytes.
        limit: usize,
    },
    /// The connection accepts no request now: the limit in flight is reached, a payload is being sent in fragments, a late ACK
    /// is awaited, or the outbound limit is reached.
    #[error("the connection accepts no more requests until others are answered or sent")]
    Busy,
    /// There is no session: the handshake is not done, or the session is draining or has ended.
    #[error("there is no session")]
    NoSession,
    /// A request with these identifiers is in flight.
    #[error("the identifiers {0} are in use")]
    InUse(Ids),
    /// The profile assigns the identifiers itself ([`StreamIds::Odd`](super::StreamIds::Odd)): pass `None`.
    #[error("this engine numbers its requests itself")]
    OwnIds,
}
