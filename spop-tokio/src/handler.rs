//! What an application brings: a function from requests to replies.

use std::borrow::Cow;

use spop_core::{Actions, Partial, Status};

use crate::Request;

/// Answers requests.
///
/// An async function, or a closure, from [`Request`] to anything that is [`Into<Reply>`] is a handler: `Actions`, or a
/// `Result` of them with any error that can be displayed.
///
/// ```
/// use std::net::IpAddr;
/// use spop_tokio::{Actions, ArgError, Request, Scope};
///
/// async fn reputation(request: Request) -> Result<Actions, ArgError> {
///     let mut actions = Actions::new();
///     if let Some(message) = request.message("get-ip-reputation") {
///         let ip: IpAddr = message.arg("ip")?;
///         actions.set_var(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 });
///     }
///     Ok(actions)
/// }
/// ```
///
/// A handler runs on the task of its connection as far as it gets at once, and beside the others of its connection from
/// there. It must not block the thread. **It is dropped where it waits** when nobody wants its answer any more: HAProxy
/// aborted the request, sent another under the same identifiers, or disconnected. A peer that merely ends its side of the
/// connection still gets its answers.
pub trait Handler: Send + Sync + 'static {
    /// What [`handle`](Self::handle) comes to.
    type Answer: Into<Reply>;

    /// Answers a request.
    fn handle(&self, request: Request) -> impl Future<Output = Self::Answer> + Send;

    /// Looks at a request of which a part has arrived, in fragments, and says whether the rest is wanted. Called with
    /// [`AgentConfig::watch_fragments`](spop_core::AgentConfig::watch_fragments) only.
    fn watch(&self, arriving: Partial<'_>) -> Watch {
        let _ = arriving;
        Watch::Continue
    }
}

impl<F, Answer> Handler for F
where
    F: Fn(Request) -> Answer + Send + Sync + 'static,
    Answer: Future<Output: Into<Reply>> + Send,
{
    type Answer = Answer::Output;

    fn handle(&self, request: Request) -> impl Future<Output = Self::Answer> + Send {
        self(request)
    }
}

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

impl<T: Into<Self>, E: std::fmt::Display> From<Result<T, E>> for Reply {
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
