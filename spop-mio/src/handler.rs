//! What an application brings: a function from requests to replies.

use std::{borrow::Cow, fmt};

use spop_core::{Actions, Partial, Status};

use crate::Request;

/// Answers requests, now or later.
///
/// A function, or a closure, from [`Request`] to anything that is [`Into<Outcome>`] is a handler: `Actions`, a `Reply`,
/// or a `Result` of them with any error that can be displayed.
///
/// ```
/// use std::net::IpAddr;
/// use spop_mio::{Actions, ArgError, Request, Scope};
///
/// fn reputation(request: Request<'_>) -> Result<Actions, ArgError> {
///     let mut actions = Actions::new();
///     if let Some(message) = request.message("get-ip-reputation") {
///         let ip: IpAddr = message.arg("ip")?;
///         actions.set_var(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 });
///     }
///     Ok(actions)
/// }
/// # fn is_handler(_: impl spop_mio::Handler) {}
/// # is_handler(reputation);
/// ```
///
/// It runs on the worker's thread, and all connections of the worker wait for it: what takes longer than they can wait
/// goes to another thread, with [`Request::defer`]. Each worker has a handler of its own, so `&mut self` needs no lock.
pub trait Handler: Send {
    /// Answers a request, or keeps its [`Responder`](crate::Responder).
    fn handle(&mut self, request: Request<'_>) -> Outcome;

    /// Looks at a request of which a part has arrived, in fragments, and says whether the rest is wanted. Called with
    /// [`AgentConfig::watch_fragments`](spop_core::AgentConfig::watch_fragments) only.
    fn watch(&mut self, arriving: Partial<'_>) -> Watch {
        let _ = arriving;
        Watch::Continue
    }
}

impl<F, R> Handler for F
where
    F: FnMut(Request<'_>) -> R + Send,
    R: Into<Outcome>,
{
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        self(request).into()
    }
}

/// What a handler did with a request.
#[derive(Debug)]
#[must_use = "the worker does what it says"]
pub struct Outcome(pub(crate) Option<Reply>);

/// What HAProxy gets for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// These actions.
    Ack(Actions),
    /// What [`AgentConfig::on_failure`](spop_core::AgentConfig::on_failure) says; the reason is logged.
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

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self(Some(reply))
    }
}

impl From<Actions> for Outcome {
    fn from(actions: Actions) -> Self {
        Self(Some(Reply::Ack(actions)))
    }
}

impl<T: Into<Self>, E: fmt::Display> From<Result<T, E>> for Outcome {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(outcome) => outcome.into(),
            Err(error) => Self(Some(Reply::Fail(error.to_string()))),
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
