//! A handler of messages, with its policy.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use spop_core::{
    Actions,
    agent::{Failure, FailureKind, Partial, Watch},
};
use tokio::time::{Sleep, sleep};

use crate::{Handler, IntoRoute, Reply, Request};

/// A handler with a policy of its own: for [`Router::route`](crate::Router::route), and for collections of handlers.
///
/// ```
/// use std::time::Duration;
/// use spop_tokio::{Actions, ArgError, Request, Route, Router, Scope};
///
/// async fn waf(request: Request) -> Result<Actions, ArgError> {
///     let path: &[u8] = request.arg("path")?;
///     Ok(Actions::new().set(Scope::Transaction, "blocked", path.contains(&0)))
/// }
///
/// let waf = Route::new(waf)
///     .timeout(Duration::from_millis(20))
///     .max_in_flight(100)
///     .on_failure((Scope::Transaction, "blocked", true));
/// let router = Router::new().route("waf", waf);
/// # let _ = router;
/// ```
///
/// All routes have one type, whatever their handlers are: they can be made in a loop, and chosen at run time.
///
/// ```
/// use spop_tokio::{Route, Router, Scope};
///
/// let configured = [("allow", 0), ("deny", 100)];
/// let routes = configured.map(|(name, score)| (name, Route::new(move || (Scope::Session, "score", score))));
/// let router: Router = routes.into_iter().collect();
/// # let _ = router;
/// ```
///
/// A route without state is a [`Handler`] too.
pub struct Route<S = ()> {
    target: Box<dyn Target<S>>,
    policy: Option<Box<Policy>>,
}

/// What a route calls.
pub(crate) trait Target<S>: Send + Sync {
    /// Calls it. The request is there, and is taken: by reference, to move it once only.
    fn call<'a>(&'a self, state: &'a S, request: &mut Option<Request>) -> Call<'a>;

    /// As [`Handler::watch`].
    fn watch(&self, arriving: Partial<'_>) -> Watch {
        let _ = arriving;
        Watch::Continue
    }
}

/// A reply, now or later.
#[allow(missing_debug_implementations)] // It is not public.
pub enum Call<'a> {
    /// Now. It is taken once.
    Now(Option<Reply>),
    /// Later.
    Later(Pin<Box<dyn Future<Output = Reply> + Send + 'a>>),
}

#[derive(Debug, Default)]
struct Policy {
    timeout: Option<Duration>,
    on_failure: Option<Actions>,
    max_in_flight: Option<usize>,
    in_flight: AtomicUsize,
}

impl<S> Route<S> {
    /// A route to this handler.
    pub fn new<M>(handler: impl IntoRoute<S, M>) -> Self {
        handler.into_route()
    }

    pub(crate) fn boxed(target: impl Target<S> + 'static) -> Self {
        Self { target: Box::new(target), policy: None }
    }

    fn policy(&mut self) -> &mut Policy {
        self.policy.get_or_insert_default()
    }

    /// What HAProxy gets when the handler returns an error, panics, takes too long or is not called because of a limit of this
    /// route, instead of [`AgentConfig::on_failure`](crate::AgentConfig::on_failure). The other messages of the NOTIFY are
    /// answered. The server counts and logs the failure.
    #[must_use = "it returns the route"]
    pub fn on_failure(mut self, answer: impl Into<Actions>) -> Self {
        self.policy().on_failure = Some(answer.into());
        self
    }

    /// How long a call may take. The handler is dropped at its current `await` then, and the request fails.
    /// [`Timeouts::message`](spop_core::config::Timeouts::message) applies as well.
    #[must_use = "it returns the route"]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.policy().timeout = Some(timeout);
        self
    }

    /// The greatest number of calls in progress. Further ones fail at once, as `overloaded`.
    #[must_use = "it returns the route"]
    pub fn max_in_flight(mut self, max: usize) -> Self {
        self.policy().max_in_flight = Some(max);
        self
    }

    /// Calls the handler with the request, which is taken.
    #[inline]
    pub(crate) fn call<'a>(
        &'a self,
        state: &'a S,
        name: Option<&'a str>,
        request: &mut Option<Request>,
    ) -> RouteCall<'a> {
        let policy = self.policy.as_deref();
        let mut extra = None;
        if let Some(policy) = policy
            && policy.max_in_flight.is_some()
        {
            let Some(permit) = policy.enter() else {
                *request = None;
                let error = "the route has as many calls in progress as its max_in_flight allows";
                let call = Call::fails(Failure::new(FailureKind::Overloaded, error));
                return RouteCall { call, name, policy: Some(policy), extra };
            };
            extra = Some(Box::new(Extra { permit: Some(permit), ..Extra::default() }));
        }
        let call = catch_unwind(AssertUnwindSafe(|| self.target.call(state, request)))
            .unwrap_or_else(|panic| Call::fails(Failure::panicked(panic.as_ref())));
        RouteCall { call, name, policy, extra }
    }

    pub(crate) fn watch(&self, arriving: Partial<'_>) -> Watch {
        self.target.watch(arriving)
    }
}

impl Call<'_> {
    #[cold]
    fn fails(failure: Failure) -> Self {
        Self::Now(Some(Reply::Fail(failure)))
    }
}

impl Policy {
    /// Counts a call, unless there are too many.
    fn enter(&self) -> Option<Permit<'_>> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(&self.in_flight);
        self.max_in_flight.is_none_or(|max| before < max).then_some(permit)
    }
}

/// Counts a call as in progress.
struct Permit<'a>(&'a AtomicUsize);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call of a route. Errors, panics and the timeout are failures of the route.
pub(crate) struct RouteCall<'a> {
    call: Call<'a>,
    /// Of the route.
    name: Option<&'a str>,
    policy: Option<&'a Policy>,
    extra: Option<Box<Extra<'a>>>,
}

/// What most calls are without.
#[derive(Default)]
struct Extra<'a> {
    /// The name of the message, if it is not that of the route.
    message: Option<Box<[u8]>>,
    #[allow(dead_code)] // Held for its drop.
    permit: Option<Permit<'a>>,
    /// From the first poll that was not ready.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl RouteCall<'_> {
    /// A call that is of no route.
    pub(crate) const fn of(call: Call<'_>) -> RouteCall<'_> {
        RouteCall { call, name: None, policy: None, extra: None }
    }

    /// The name of the message is not that of the route.
    pub(crate) fn with_message(mut self, message: Box<[u8]>) -> Self {
        self.extra.get_or_insert_default().message = Some(message);
        self
    }

    /// The failure of a call that was not ready, once its time is over.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        let Some(timeout) = self.policy.and_then(|policy| policy.timeout) else { return Poll::Pending };
        let extra = self.extra.get_or_insert_default();
        let timer = extra.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| {
            Failure::new(FailureKind::TimedOut, format_args!("no answer within {timeout:?}")).into()
        })
    }

    #[cold]
    fn failed(&self, failure: &mut Failure) {
        let answer = self.policy.and_then(|policy| policy.on_failure.as_ref());
        if let Some(name) = self.name {
            let message = self.extra.as_ref().and_then(|extra| extra.message.as_deref());
            failure.set_route(name, message.unwrap_or(name.as_bytes()), answer);
        } else if failure.answer.is_none() {
            failure.answer = answer.map(|answer| answer.clone().into());
        }
    }
}

impl Future for RouteCall<'_> {
    type Output = Reply;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let mut reply = match &mut self.call {
            Call::Now(reply) => match reply.take() {
                Some(reply) => reply,
                // It was ready before.
                None => return Poll::Pending,
            },
            Call::Later(call) => match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
                Ok(Poll::Ready(reply)) => reply,
                Ok(Poll::Pending) => match self.poll_timeout(cx) {
                    Poll::Ready(reply) => reply,
                    Poll::Pending => return Poll::Pending,
                },
                Err(panic) => Reply::Fail(Failure::panicked(panic.as_ref())),
            },
        };
        if let Reply::Fail(failure) = &mut reply {
            self.failed(failure);
        }
        Poll::Ready(reply)
    }
}

impl Handler for Route {
    type Output = Reply;

    #[inline]
    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send {
        self.call(&(), None, &mut Some(request))
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        Self::watch(self, arriving)
    }
}

impl<S> fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_not_much_more_than_a_reply() {
        assert!(size_of::<RouteCall<'_>>() <= size_of::<Reply>() + 40, "{}", size_of::<RouteCall<'_>>());
    }
}
