//! Dispatch of messages to handlers by name.

use std::{
    fmt, future,
    task::{Context, Poll},
};

use futures_util::{
    future::FutureExt as _,
    stream::{FuturesUnordered, StreamExt as _},
};
use spop_core::{
    Actions,
    agent::{ByName, Failure, Partial, Router as SyncRouter, Unknown},
};
use spop_server::Outcome;
use tracing::warn;

use crate::{
    Handler, IntoRoute, Reply, Request, Route, Watch,
    handler::Started,
    log::Limit,
    route::{Begin, Called, Pending, RouteCall},
    slot::{BoxedSlot, Spare},
};

/// How many messages of a NOTIFY are processed concurrently. HAProxy sends fewer;
/// [`Limits::max_messages`](spop_core::config::Limits::max_messages) allows more.
const BESIDE: usize = 32;

/// The position of the route of all others.
const OTHERWISE: usize = usize::MAX;

/// A handler that dispatches each message to a handler by its name, with a state `S` that these share.
///
/// Each of these gets a request with that one message, whose arguments are [`Request::arg`](spop_server::Request::arg). The
/// messages of one NOTIFY are processed concurrently, and their actions are joined in the order of the messages. If one fails,
/// and its route has no [answer for that](Route::on_failure), or disconnects, the others are dropped: a NOTIFY has one answer,
/// and HAProxy gets it at once.
///
/// ```
/// use std::{collections::HashMap, net::IpAddr};
/// use spop_tokio::{Actions, ArgError, Headers, Request, Router, Scope, Server};
///
/// struct Scores(HashMap<IpAddr, u32>);
///
/// async fn reputation(scores: &Scores, request: Request) -> Result<Actions, ArgError> {
///     let ip: IpAddr = request.arg("ip")?;
///     Ok(Actions::new().set(Scope::Session, "ip_score", scores.0.get(&ip)))
/// }
///
/// async fn inspect(request: Request) -> Result<Actions, ArgError> {
///     let (method, headers) = (request.arg::<&str>("method")?, request.arg::<Headers<'_>>("hdrs")?);
///     let odd = method == "GET" && headers.get("content-length").is_some();
///     Ok(Actions::new().set(Scope::Request, "odd", odd))
/// }
///
/// let scores = Scores(HashMap::new());
/// let router = Router::with_state(scores).on("get-ip-reputation", reputation).on("check-request", inspect);
/// let server = Server::new(router);
/// # drop(server);
/// ```
///
/// [`IntoRoute`] has what a handler of a route is, why a function may not be accepted, and what async closures cannot do. A connection
/// keeps the memory of a call for the next one of its route: a call that is ready at once costs no allocation.
#[must_use = "it is a handler"]
pub struct Router<S = ()> {
    routes: ByName<Route<S>>,
    otherwise: Option<Route<S>>,
    unknown: Unknown,
    log: Limit,
    state: S,
}

impl Router {
    /// A router without routes and without state. Messages without a route are skipped, with a warning.
    pub fn new() -> Self {
        Self::with_state(())
    }
}

impl<S: Default> Default for Router<S> {
    fn default() -> Self {
        Self::with_state(S::default())
    }
}

impl<S> Router<S> {
    /// A router without routes, with this state. Handlers take it as a reference.
    pub fn with_state(state: S) -> Self {
        let (routes, otherwise, unknown) = (ByName::new(), None, Unknown::default());
        Self { routes, otherwise, unknown, log: Limit::default(), state }
    }

    /// Dispatches messages of this name to this handler. A later route of the same name replaces it.
    pub fn on<M>(self, message: impl Into<Box<str>>, handler: impl IntoRoute<S, M>) -> Self {
        self.route(message, Route::new(handler))
    }

    /// As [`on`](Self::on), for a route with a policy of its own.
    pub fn route(mut self, message: impl Into<Box<str>>, route: Route<S>) -> Self {
        self.routes.insert(message, route);
        self
    }

    /// Dispatches messages without a route to this handler. The route of its failures is `otherwise`.
    pub fn otherwise<M>(mut self, handler: impl IntoRoute<S, M>) -> Self {
        self.otherwise = Some(Route::new(handler));
        self
    }

    /// The policy for messages without a route. Default: [`Unknown::Skip`].
    pub fn unknown(mut self, policy: Unknown) -> Self {
        self.unknown = policy;
        self
    }

    /// The state.
    pub const fn state(&self) -> &S {
        &self.state
    }
}

impl<S: Send + Sync> Router<S> {
    /// A request without a route, or with several messages.
    #[inline(never)]
    fn without_route<'a, 'p>(
        &'a self,
        request: Request,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
        place: impl FnOnce(usize) -> &'p mut Option<BoxedSlot<'a>>,
    ) -> Option<Pending<'a>>
    where
        'a: 'p,
    {
        if request.messages().only().is_none() {
            let mut call = Box::pin(self.many(request));
            match call.as_mut().poll(cx) {
                Poll::Ready(reply) => *outcome = Outcome::Now(reply),
                Poll::Pending => return Some(Pending::of_messages(call)),
            }
            return None;
        }
        if let Some(route) = &self.otherwise {
            let called = Called::otherwise(name_of(&request));
            let waits = route.call_as(called, &self.state, request, cx, outcome, place(OTHERWISE));
            return waits.map(|call| call.at(OTHERWISE));
        }
        let failure = || Failure::unrouted(name_of(&request));
        *outcome = Outcome::Now(match self.unknown {
            Unknown::Fail => Reply::Fail(failure()),
            Unknown::Skip => {
                if let Some(suppressed) = self.log.pass() {
                    let error = failure().error;
                    warn!(name: "message_unknown", %error, suppressed, "message skipped");
                }
                Reply::Ack(Actions::new())
            }
        });
        None
    }

    async fn many(&self, request: Request) -> Reply {
        let mut all = Reply::Ack(Actions::new());
        let mut messages = request.each();
        loop {
            let some = messages.by_ref().take(BESIDE).enumerate();
            let mut calls: FuturesUnordered<_> = some
                .map(|(index, one)| RouteCall::Start(self, one).map(move |reply| (index, reply)))
                .collect();
            if calls.is_empty() {
                return all;
            }
            let mut replies = vec![Reply::Ack(Actions::new()); calls.len()];
            while let Some((index, reply)) = calls.next().await {
                if reply.ends_notify() {
                    // The others are dropped where they are.
                    return all.and(reply);
                }
                if let Some(place) = replies.get_mut(index) {
                    *place = reply;
                }
            }
            all = replies.into_iter().fold(all, Reply::and);
        }
    }
}

impl<'a, S: Send + Sync> Begin<'a> for &'a Router<S> {
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
        let position = request.messages().only_name().and_then(|name| self.routes.position(name));
        if let Some(position) = position
            && let Some((name, route)) = self.routes.at(position)
        {
            let waits = route.call(Some(name), &self.state, request, cx, outcome, place(position));
            return waits.map(|call| call.at(position));
        }
        self.without_route(request, cx, outcome, place)
    }
}

impl<S: Send + Sync + 'static> Handler for Router<S> {
    type Output = Reply;

    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send {
        RouteCall::Start(self, request)
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

    /// Each route is asked of whose messages something has come, and any may refuse it. Those before have been asked.
    fn watch(&self, arriving: Partial<'_>) -> Watch {
        let mut messages = arriving.new_messages();
        let refused = messages.any(|message| {
            let route = self.routes.get(message.name()).map(|(_, route)| route).or(self.otherwise.as_ref());
            route.is_some_and(|route| route.watch(arriving) == Watch::Refuse)
        });
        if refused { Watch::Refuse } else { Watch::Continue }
    }
}

impl<S, N: Into<Box<str>>> Extend<(N, Route<S>)> for Router<S> {
    fn extend<I: IntoIterator<Item = (N, Route<S>)>>(&mut self, routes: I) {
        for (name, route) in routes {
            self.routes.insert(name, route);
        }
    }
}

impl<S: Default, N: Into<Box<str>>> FromIterator<(N, Route<S>)> for Router<S> {
    fn from_iter<I: IntoIterator<Item = (N, Route<S>)>>(routes: I) -> Self {
        let mut router = Self::default();
        router.extend(routes);
        router
    }
}

/// The names of the routes.
impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.routes.fmt(f)
    }
}

/// The name of the first message.
#[inline]
fn name_of(request: &Request) -> &[u8] {
    request.messages().iter().next().map(|message| message.name()).unwrap_or_default()
}

/// A router of functions that are not async.
impl Handler for SyncRouter {
    type Output = Reply;

    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send {
        future::ready(self.reply(request.messages()))
    }

    #[inline]
    fn start<'a>(
        &'a self,
        request: Request,
        _: &mut Context<'_>,
        outcome: &mut Outcome,
        _: &mut Spare<'a>,
    ) -> Started<'a> {
        *outcome = Outcome::Now(Reply::Ack(Actions::new()));
        if let Outcome::Now(reply) = outcome {
            self.write_reply(request.messages(), reply);
        }
        Started::Replied
    }
}
