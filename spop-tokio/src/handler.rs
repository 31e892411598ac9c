//! What an application brings: a function from requests to replies.

use spop_core::agent::{Partial, Reply, Watch};

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
/// aborted the request, sent another under the same identifiers, or disconnected (with `async`: on the last connection of its
/// engine), or [`Timeouts::message`](spop_core::config::Timeouts::message) was over. A peer that merely ends its side of the
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
