//! Decisions of an application on a request, for servers to carry out.

use alloc::{
    borrow::Cow,
    string::{String, ToString as _},
};
use core::fmt;

use crate::{Actions, Status, excerpt::Shortened};

/// The reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An ACK with these actions.
    Ack(Actions),
    /// The reply that [`AgentConfig::on_failure`](crate::AgentConfig::on_failure) names. The server logs this reason; that of a
    /// `Result` is cut by [`Shortened`].
    Fail(String),
    /// No answer: the peer receives an ACK with ABORT, which HAProxy treats as an answer without actions. An answer that was
    /// sent in part is aborted.
    Abort,
    /// A DISCONNECT. The other requests in flight on the connection are lost.
    Disconnect {
        /// The status code. HAProxy reports it plus 256.
        status: Status,
        /// The message, cut to 180 bytes.
        message: Cow<'static, str>,
    },
}

impl From<Actions> for Reply {
    fn from(actions: Actions) -> Self {
        Self::Ack(actions)
    }
}

impl<T: Into<Self>, E: fmt::Display> From<Result<T, E>> for Reply {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(reply) => reply.into(),
            Err(error) => Self::Fail(Shortened(error).to_string()),
        }
    }
}

/// The decision on a request that is still arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    /// Receive the rest.
    Continue,
    /// Refuse it: HAProxy continues with error 4, and further fragments are discarded.
    Refuse,
}
