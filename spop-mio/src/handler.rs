//! What an application brings: a function from requests to replies.

use std::fmt;

use spop_core::{
    Actions,
    agent::{Partial, Reply, Routes, Watch},
};

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
/// [`Routes`] give each message to a function of its own, by name.
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

/// Routes that answer at once.
impl Handler for Routes {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        self.answer(request.messages()).into()
    }
}

/// What a handler did with a request.
#[derive(Debug)]
#[must_use = "the worker does what it says"]
pub struct Outcome(pub(crate) Option<Reply>);

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
