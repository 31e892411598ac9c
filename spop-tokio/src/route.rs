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
use spop_server::Outcome;
use tokio::time::{Sleep, sleep};

use crate::{
    Handler, IntoRoute, Reply, Request,
    handler::Started,
    slot::{BoxedSlot, Spare},
};

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
/// A route without state is a [`Handler`] too. [`IntoRoute`] has what is accepted, and what an async closure cannot do.
pub struct Route<S = ()> {
    target: Box<dyn Target<S>>,
    policy: Option<Box<Policy>>,
}

/// What a route calls.
pub(crate) trait Target<S>: Send + Sync {
    /// Memory for its calls.
    fn slot<'a>(&'a self, state: &'a S) -> BoxedSlot<'a>;

    /// As [`Handler::watch`].
    fn watch(&self, arriving: Partial<'_>) -> Watch {
        let _ = arriving;
        Watch::Continue
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

    /// Calls the handler, and polls it once if it is async: writes the outcome, or returns the call that is not ready. The name is
    /// that of the route and of the message.
    #[inline]
    pub(crate) fn call<'a>(
        &'a self,
        name: Option<&'a str>,
        state: &'a S,
        request: Request,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
        spare: &mut Option<BoxedSlot<'a>>,
    ) -> Option<Pending<'a>> {
        if self.policy.is_some() {
            return self.call_as(Called::named(name), state, request, cx, outcome, spare);
        }
        let slot = spare.get_or_insert_with(|| self.target.slot(state));
        match catch_unwind(AssertUnwindSafe(|| slot.call(request, cx, outcome))) {
            Ok(()) if matches!(outcome, Outcome::Now(reply) if !matches!(reply, Reply::Fail(_))) => None,
            started => Called::named(name).started(started, cx, outcome, spare),
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
        outcome: &mut Outcome,
        spare: &mut Option<BoxedSlot<'a>>,
    ) -> Option<Pending<'a>> {
        called.policy = self.policy.as_deref();
        if !called.enter() {
            let error = "the route has as many calls in progress as its max_in_flight allows";
            *outcome = Outcome::Now(called.failed(Failure::new(FailureKind::Overloaded, error)));
            return None;
        }
        let slot = spare.get_or_insert_with(|| self.target.slot(state));
        let started = catch_unwind(AssertUnwindSafe(|| slot.call(request, cx, outcome)));
        called.started(started, cx, outcome, spare)
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
        started: thread::Result<()>,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
        spare: &mut Option<BoxedSlot<'a>>,
    ) -> Option<Pending<'a>> {
        if let Err(panic) = started {
            *outcome = Outcome::Now(self.panicked(panic.as_ref()));
            // What is left of the future holds the request.
            let slot = spare.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(slot)));
            return None;
        }
        match mem::replace(outcome, Outcome::Later) {
            Outcome::Now(Reply::Fail(failure)) => *outcome = Outcome::Now(self.failed(failure)),
            Outcome::Now(reply) => *outcome = Outcome::Now(reply),
            Outcome::Later => {
                let mut call = Pending { call: Waiting::Route(spare.take()?), position: 0, called: self };
                match call.poll_timeout(cx) {
                    Poll::Ready(late) => *outcome = Outcome::Now(late),
                    Poll::Pending => return Some(call),
                }
            }
        }
        None
    }
}

/// A call that was not ready at once. Errors, panics and the timeout are failures of the route.
#[doc(hidden)]
#[allow(unreachable_pub)] // A public trait returns it.
pub struct Pending<'a> {
    call: Waiting<'a>,
    /// That of its route in the router.
    position: usize,
    called: Called<'a>,
}

enum Waiting<'a> {
    Route(BoxedSlot<'a>),
    Messages(Pin<Box<dyn Future<Output = Reply> + Send + 'a>>),
}

impl Waiting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        match self {
            Self::Route(slot) => {
                let mut outcome = Outcome::Later;
                slot.poll(cx, &mut outcome);
                match outcome {
                    Outcome::Now(reply) => Poll::Ready(reply),
                    Outcome::Later => Poll::Pending,
                }
            }
            Self::Messages(replies) => replies.as_mut().poll(cx),
        }
    }
}

impl<'a> Pending<'a> {
    /// The calls for several messages.
    pub(crate) fn of_messages(replies: Pin<Box<dyn Future<Output = Reply> + Send + 'a>>) -> Self {
        Self { call: Waiting::Messages(replies), position: 0, called: Called::default() }
    }

    /// One of the route at this position.
    pub(crate) fn at(self, position: usize) -> Self {
        Self { position, ..self }
    }

    /// Drops the future, and leaves its memory to further calls.
    pub(crate) fn end(self, spare: &mut Spare<'a>) {
        if let Waiting::Route(mut slot) = self.call {
            slot.clear();
            spare.keep(self.position, slot);
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        match catch_unwind(AssertUnwindSafe(|| self.call.poll(cx))) {
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

impl fmt::Debug for Pending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("route", &self.called.name).finish_non_exhaustive()
    }
}

/// What calls a route.
pub(crate) trait Begin<'a>: Sized {
    /// As [`Route::call`], with the memory at the place of the route.
    fn begin<'p>(
        self,
        request: Request,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
        place: impl FnOnce(usize) -> &'p mut Option<BoxedSlot<'a>>,
    ) -> Option<Pending<'a>>
    where
        'a: 'p;

    /// As [`Handler::start`].
    #[inline]
    fn start(
        self,
        request: Request,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
        spare: &mut Spare<'a>,
    ) -> Started<'a> {
        self.begin(request, cx, outcome, |position| spare.of(position))
            .map_or(Started::Replied, Started::Waits)
    }
}

/// The call of a route for a request, where it is the future of another one. Nothing happens before it is polled.
pub(crate) enum RouteCall<'a, B> {
    Start(B, Request),
    Pending(Pending<'a>),
    Done,
}

impl<'a, B: Begin<'a> + Unpin> Future for RouteCall<'a, B> {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let this = self.get_mut();
        if let Self::Pending(call) = this {
            return call.poll(cx);
        }
        // If it was ready before, it stays pending.
        let Self::Start(route, request) = mem::replace(this, Self::Done) else { return Poll::Pending };
        let mut outcome = Outcome::Later;
        let mut slot = None;
        if let Some(call) = route.begin(request, cx, &mut outcome, |_| &mut slot) {
            *this = Self::Pending(call);
        }
        match outcome {
            Outcome::Now(reply) => Poll::Ready(reply),
            Outcome::Later => Poll::Pending,
        }
    }
}

impl<'a> Begin<'a> for &'a Route {
    #[inline]
    fn begin<'p>(
        self,
        request: Request,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
        place: impl FnOnce(usize) -> &'p mut Option<BoxedSlot<'a>>,
    ) -> Option<Pending<'a>>
    where
        'a: 'p,
    {
        self.call(None, &(), request, cx, outcome, place(0))
    }
}

impl Handler for Route {
    type Output = Reply;

    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send {
        RouteCall::Start(self, request)
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        Self::watch(self, arriving)
    }

    #[inline]
    fn start<'a>(
        &'a self,
        request: Request,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
        spare: &mut Spare<'a>,
    ) -> Started<'a> {
        Begin::start(self, request, cx, outcome, spare)
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
        assert!(size_of::<RouteCall<'_, &Route>>() <= 80, "{}", size_of::<RouteCall<'_, &Route>>());
    }
}
