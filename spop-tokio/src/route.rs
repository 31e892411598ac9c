//! A handler of messages, with its policy.

use std::{
    any::Any,
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use spop_core::{
    Actions,
    agent::{Failure, FailureKind, Partial, Watch},
};
use tokio::time::{Sleep, sleep};

use crate::{Handler, IntoRoute, Reply, Request, handler::Found};

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
    at_once: bool,
    policy: Option<Box<Policy>>,
}

/// What a route calls.
pub(crate) trait Target<S>: Send + Sync {
    /// Calls it, and polls it once if it is async: writes the reply, or returns the call that is not ready. The reply is written
    /// where it stays: each of its moves copies more than a hundred bytes.
    fn call<'a>(
        &'a self,
        state: &'a S,
        request: Request,
        cx: &mut Context<'_>,
        reply: &mut Option<Reply>,
    ) -> Option<PendingReply<'a>>;

    /// Whether it is not async: no call is ever pending.
    fn is_at_once(&self) -> bool {
        false
    }

    /// As [`Handler::watch`].
    fn watch(&self, arriving: Partial<'_>) -> Watch {
        let _ = arriving;
        Watch::Continue
    }
}

/// A reply that was not ready at once.
pub(crate) type PendingReply<'a> = Pin<Box<dyn PollReply + Send + 'a>>;

/// A future of what converts into a reply: one box without a second future around it.
pub trait PollReply {
    /// Polls it.
    fn poll_reply(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply>;
}

impl<F: Future<Output: Into<Reply>>> PollReply for F {
    #[inline]
    fn poll_reply(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        self.poll(cx).map(Into::into)
    }
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
        Self { at_once: target.is_at_once(), target: Box::new(target), policy: None }
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

    /// Calls the handler, and polls it once if it is async: writes the reply, or returns the call that is not ready. The name is
    /// that of the route and of the message.
    #[inline]
    pub(crate) fn call<'a>(
        &'a self,
        name: Option<&'a str>,
        state: &'a S,
        request: Request,
        cx: &mut Context<'_>,
        reply: &mut Option<Reply>,
    ) -> Option<Pending<'a>> {
        if self.policy.is_some() {
            return self.call_as(Called::named(name), state, request, cx, reply);
        }
        match catch_unwind(AssertUnwindSafe(|| self.target.call(state, request, cx, reply))) {
            Ok(None) if !matches!(reply, Some(Reply::Fail(_))) => None,
            started => Called::named(name).started(started, cx, reply),
        }
    }

    /// As [`call`](Self::call).
    #[inline(never)]
    pub(crate) fn call_as<'a>(
        &'a self,
        mut called: Called<'a>,
        state: &'a S,
        request: Request,
        cx: &mut Context<'_>,
        reply: &mut Option<Reply>,
    ) -> Option<Pending<'a>> {
        called.policy = self.policy.as_deref();
        if !called.enter() {
            let error = "the route has as many calls in progress as its max_in_flight allows";
            *reply = Some(called.failed(Failure::new(FailureKind::Overloaded, error)));
            return None;
        }
        let started = catch_unwind(AssertUnwindSafe(|| self.target.call(state, request, cx, reply)));
        called.started(started, cx, reply)
    }

    /// Whether it is not async and has no policy.
    #[inline]
    pub(crate) const fn is_at_once(&self) -> bool {
        self.at_once && self.policy.is_none()
    }

    pub(crate) fn watch(&self, arriving: Partial<'_>) -> Watch {
        self.target.watch(arriving)
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

/// What a call is of.
#[derive(Default)]
pub(crate) struct Called<'a> {
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

impl<'a> Called<'a> {
    /// A call of a route with the name of its message.
    #[inline]
    const fn named(name: Option<&'a str>) -> Self {
        Self { name, policy: None, extra: None }
    }

    /// A call for a message of another name.
    pub(crate) fn otherwise(message: &[u8]) -> Self {
        let extra = Extra { message: Some(message.into()), ..Extra::default() };
        Self { extra: Some(Box::new(extra)), ..Self::named(Some("otherwise")) }
    }

    /// Counts the call, if the policy has a limit; false if there are too many.
    fn enter(&mut self) -> bool {
        let Some(policy) = self.policy.filter(|policy| policy.max_in_flight.is_some()) else { return true };
        let permit = policy.enter();
        let entered = permit.is_some();
        self.extra.get_or_insert_default().permit = permit;
        entered
    }

    /// A failure is one of this route.
    #[cold]
    fn failed(&self, mut failure: Failure) -> Reply {
        let answer = self.policy.and_then(|policy| policy.on_failure.as_ref());
        if let Some(name) = self.name {
            let message = self.extra.as_ref().and_then(|extra| extra.message.as_deref());
            failure.set_route(name, message.unwrap_or(name.as_bytes()), answer);
        } else if failure.answer.is_none() {
            failure.answer = answer.map(|answer| answer.clone().into());
        }
        Reply::Fail(failure)
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Reply {
        self.failed(Failure::panicked(panic))
    }

    /// After the first poll.
    #[inline(never)]
    fn started(
        self,
        started: thread::Result<Option<PendingReply<'a>>>,
        cx: &mut Context<'_>,
        reply: &mut Option<Reply>,
    ) -> Option<Pending<'a>> {
        match started {
            Ok(None) => {
                *reply = reply.take().map(|reply| match reply {
                    Reply::Fail(failure) => self.failed(failure),
                    other => other,
                });
                None
            }
            Ok(Some(call)) => {
                let mut call = Pending { reply: call, called: self };
                if let Poll::Ready(late) = call.poll_timeout(cx) {
                    *reply = Some(late);
                    return None;
                }
                Some(call)
            }
            Err(panic) => {
                *reply = Some(self.panicked(panic.as_ref()));
                None
            }
        }
    }
}

/// A call that was not ready at once. Errors, panics and the timeout are failures of the route.
pub(crate) struct Pending<'a> {
    reply: PendingReply<'a>,
    called: Called<'a>,
}

impl<'a> Pending<'a> {
    /// A call that is of no route.
    pub(crate) fn of(reply: PendingReply<'a>) -> Self {
        Self { reply, called: Called::default() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        match catch_unwind(AssertUnwindSafe(|| self.reply.as_mut().poll_reply(cx))) {
            Ok(Poll::Ready(Reply::Fail(failure))) => Poll::Ready(self.called.failed(failure)),
            Ok(Poll::Ready(reply)) => Poll::Ready(reply),
            Ok(Poll::Pending) => self.poll_timeout(cx),
            Err(panic) => Poll::Ready(self.called.panicked(panic.as_ref())),
        }
    }

    /// The failure of a call that was not ready, once its time is over.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        let called = &mut self.called;
        let Some(timeout) = called.policy.and_then(|policy| policy.timeout) else { return Poll::Pending };
        let extra = called.extra.get_or_insert_default();
        let timer = extra.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let error = format!("no answer within {timeout:?}");
                Poll::Ready(called.failed(Failure::new(FailureKind::TimedOut, error)))
            }
        }
    }
}

/// What calls a route.
pub(crate) trait Begin<'a> {
    /// As [`Route::call`].
    fn begin(self, request: Request, cx: &mut Context<'_>, reply: &mut Option<Reply>) -> Option<Pending<'a>>;
}

/// The call of a route for a request. Nothing happens before it is polled: the reply of a route that is ready at once is
/// returned where it is polled, and is never kept.
pub(crate) enum RouteCall<'a, B> {
    Start(B, Request),
    Pending(Pending<'a>),
    Done,
}

impl<'a, B: Begin<'a> + Unpin> Future for RouteCall<'a, B> {
    type Output = Reply;

    #[expect(clippy::inline_always, reason = "a call less for each request")]
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let this = self.get_mut();
        if let Self::Pending(call) = this {
            return call.poll(cx);
        }
        // If it was ready before, it stays pending.
        let Self::Start(route, request) = mem::replace(this, Self::Done) else { return Poll::Pending };
        let mut reply = None;
        if let Some(call) = route.begin(request, cx, &mut reply) {
            *this = Self::Pending(call);
            return Poll::Pending;
        }
        reply.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<'a> Begin<'a> for &'a Route {
    #[inline]
    fn begin(self, request: Request, cx: &mut Context<'_>, reply: &mut Option<Reply>) -> Option<Pending<'a>> {
        self.call(None, &(), request, cx, reply)
    }
}

impl Handler for Route {
    type Output = Reply;

    #[inline]
    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send {
        RouteCall::Start(self, request)
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        Self::watch(self, arriving)
    }

    #[inline]
    fn reply_at_once(
        &self,
        request: Request,
        cx: &mut Context<'_>,
        reply: &mut Option<Reply>,
    ) -> Option<(Request, Found)> {
        if !self.is_at_once() {
            return Some((request, Found(None)));
        }
        let _ = self.call(None, &(), request, cx, reply);
        None
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
    fn a_call_has_no_room_for_a_reply() {
        assert!(size_of::<RouteCall<'_, &Route>>() <= 56, "{}", size_of::<RouteCall<'_, &Route>>());
    }
}
