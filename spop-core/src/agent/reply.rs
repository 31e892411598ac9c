//! What an application decides about a request, as servers carry it out.

use alloc::{
    borrow::Cow,
    string::{String, ToString as _},
};
use core::fmt;

use crate::{Actions, Status};

/// What HAProxy gets for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// These actions.
    Ack(Actions),
    /// What [`AgentConfig::on_failure`](crate::AgentConfig::on_failure) says; the reason is logged.
    Fail(String),
    /// The end of the connection, and of every other request on it.
    Disconnect {
        /// The code, which HAProxy reports plus 256.
        status: Status,
        /// The words, for HAProxy's log.
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
            Err(error) => Self::Fail(error.to_string()),
        }
    }
}

/// What is to become of a request that is still arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    /// Let the rest come.
    Continue,
    /// Refuse it: HAProxy goes on with error 4, and the rest is swallowed.
    Refuse,
}
