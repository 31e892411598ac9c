//! The application: an async function from requests to replies.

use std::task::Context;

use spop_core::agent::{Partial, Reply, Watch};
use spop_server::Outcome;

use crate::{Request, route::Pending, slot::Spare};

/// Answers requests.
///
/// An async function, or a closure, from [`Request`] to anything that is [`Into<Reply>`] is a handler: `Actions`, what converts into
/// them (`()`, a tuple of scope, name and value), a `Reply`, or a `Result` of them with any error. Its causes are logged with it. A
/// [`Route`](crate::Route) also takes functions with arguments of a message, and with state.
///
/// ```
/// use std::net::IpAddr;
/// use spop_tokio::{Actions, ArgError, Request, Scope};
///
/// async fn reputation(request: Request) -> Result<Actions, ArgError> {
///     let ip: IpAddr = request.arg("ip")?;
///     Ok(Actions::new().set(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 }))
/// }
/// # spop_tokio::Server::new(reputation);
/// ```
///
/// A handler runs on the task of its connection: inline as far as it gets without waiting, and then concurrently with the
/// others of its connection. It must not block the thread. **It is dropped at its current `await`** if its answer is not needed any
/// more: HAProxy aborted or abandoned the request, sent another with the same identifiers, or disconnected (with `async`: the
/// last connection of its engine), or [`Timeouts::message`](spop_core::config::Timeouts::message) has passed. A peer that only
/// shuts its write side still gets its answers.
///
/// A function of something else is none:
///
/// ```compile_fail
/// spop_tokio::Server::new(|request: String| async {});
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler is an async function or closure of one argument, `spop_tokio::Request`, or a type that implements `Handler`",
    note = "its result must be `()`, `(Scope, name, value)`, `Actions`, `Reply`, or a `Result` of these with any error (in a closure with `?`: `Ok::<_, BoxError>(...)`)",
    note = "its future must be `Send`: without an `Rc` or the guard of a `std` mutex across an `await`",
    note = "functions of a state or of extractors, and functions that are not async, are routes: `Router::on`, `Route::new`"
)]
pub trait Handler: Send + Sync + 'static {
    /// What [`handle`](Self::handle) returns.
    type Output: Into<Reply>;

    /// Answers a request.
    fn handle(&self, request: Request) -> impl Future<Output = Self::Output> + Send;

    /// Decides whether to receive the rest of a request that arrives in fragments, by what has arrived. Called only with
    /// [`AgentConfig::watch_fragments`](spop_core::AgentConfig::watch_fragments).
    fn watch(&self, arriving: Partial<'_>) -> Watch {
        let _ = arriving;
        Watch::Continue
    }

    /// Starts to answer a request without a future of its own: for routers, whose futures are of any type. It writes the outcome,
    /// returns the request for [`handle`](Self::handle), or the call that waits.
    #[doc(hidden)]
    #[inline]
    fn start<'a>(
        &'a self,
        request: Request,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
        spare: &mut Spare<'a>,
    ) -> Started<'a> {
        let _ = (cx, outcome, spare);
        Started::Not(request)
    }
}

/// What [`Handler::start`] has done.
#[doc(hidden)]
#[derive(Debug)]
#[allow(unreachable_pub)] // It is returned by a public trait.
pub enum Started<'a> {
    /// It has written the outcome.
    Replied,
    /// The call waits.
    Waits(Pending<'a>),
    /// Nothing.
    Not(Request),
}

impl<F, Call> Handler for F
where
    F: Fn(Request) -> Call + Send + Sync + 'static,
    Call: Future<Output: Into<Reply>> + Send,
{
    type Output = Call::Output;

    fn handle(&self, request: Request) -> impl Future<Output = Self::Output> + Send {
        self(request)
    }
}
