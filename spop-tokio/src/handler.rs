//! The application: an async function from requests to replies.

use std::{fmt, pin::Pin};

use futures_util::FutureExt as _;
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
/// A handler runs on the task of its connection: inline as far as it gets without waiting, and then concurrently with the
/// others of its connection. It must not block the thread. **It is dropped at its current `await`** if its answer is not needed any
/// more: HAProxy aborted or abandoned the request, sent another with the same identifiers, or disconnected (with `async`: the
/// last connection of its engine), or [`Timeouts::message`](spop_core::config::Timeouts::message) has passed. A peer that only
/// shuts its write side still gets its answers.
pub trait Handler: Send + Sync + 'static {
    /// The answer that [`handle`](Self::handle) returns.
    type Answer: Into<Reply>;

    /// Answers a request.
    fn handle(&self, request: Request) -> impl Future<Output = Self::Answer> + Send;

    /// Decides whether to receive the rest of a request that arrives in fragments, by what has arrived. Called only with
    /// [`AgentConfig::watch_fragments`](spop_core::AgentConfig::watch_fragments).
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

/// A handler that is chosen at run time: any handler, behind a pointer. Each call costs an allocation.
///
/// ```
/// use spop_tokio::{Actions, BoxHandler, Request, Router, Server};
///
/// async fn allow(_: Request) -> Actions {
///     Actions::new()
/// }
///
/// let routed = std::env::var_os("ROUTED").is_some();
/// let handler = if routed { BoxHandler::new(Router::new().on("check", allow)) } else { BoxHandler::new(allow) };
/// let server = Server::new(handler);
/// # drop(server);
/// ```
pub struct BoxHandler(Box<dyn DynHandler>);

type BoxFuture<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// A [`Handler`] whose futures are boxed.
trait DynHandler: Send + Sync {
    fn handle(&self, request: Request) -> BoxFuture<'_>;
    fn watch(&self, arriving: Partial<'_>) -> Watch;
}

impl<H: Handler> DynHandler for H {
    fn handle(&self, request: Request) -> BoxFuture<'_> {
        Box::pin(self.handle(request).map(Into::into))
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        Handler::watch(self, arriving)
    }
}

impl BoxHandler {
    /// Boxes a handler.
    pub fn new(handler: impl Handler) -> Self {
        Self(Box::new(handler))
    }
}

impl Handler for BoxHandler {
    type Answer = Reply;

    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send {
        self.0.handle(request)
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        self.0.watch(arriving)
    }
}

impl fmt::Debug for BoxHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxHandler").finish_non_exhaustive()
    }
}
