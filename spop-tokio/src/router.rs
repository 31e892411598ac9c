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
use tracing::warn;

use crate::{
    Handler, IntoRoute, Reply, Request, Route, Watch,
    handler::Found,
    log::Limit,
    route::{Begin, Called, Pending, RouteCall},
};

/// How many messages of a NOTIFY are processed concurrently. HAProxy sends fewer;
/// [`Limits::max_messages`](spop_core::config::Limits::max_messages) allows more.
const BESIDE: usize = 32;

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
/// What is a handler of a route: see [`IntoRoute`]. A call of an async one costs an allocation, a call of another none.
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

    /// The route of a request with one message.
    #[inline]
    fn find(&self, request: &Request) -> Found {
        let message = request.messages().only();
        Found(message.and_then(|message| self.routes.position(message.name())))
    }

    #[inline]
    const fn call(&self, request: Request, found: Found) -> RouteCall<'_, FoundRoute<'_, S>> {
        RouteCall::Start(FoundRoute { router: self, found }, request)
    }
}

impl<S: Send + Sync> Router<S> {
    /// A request without a route, or with several messages.
    #[inline(never)]
    fn without_route<'a>(
        &'a self,
        request: Request,
        cx: &mut Context<'_>,
        reply: &mut Option<Reply>,
    ) -> Option<Pending<'a>> {
        if request.messages().only().is_none() {
            let mut call = Box::pin(self.many(request));
            match call.as_mut().poll(cx) {
                Poll::Ready(ready) => *reply = Some(ready),
                Poll::Pending => return Some(Pending::of(call)),
            }
            return None;
        }
        if let Some(route) = &self.otherwise {
            let called = Called::otherwise(name_of(&request));
            return route.call_as(called, &self.state, request, cx, reply);
        }
        let failure = || Failure::unrouted(name_of(&request));
        *reply = Some(match self.unknown {
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
                .map(|(index, one)| {
                    let found = self.find(&one);
                    self.call(one, found).map(move |reply| (index, reply))
                })
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

/// The route of a request.
struct FoundRoute<'a, S> {
    router: &'a Router<S>,
    found: Found,
}

impl<'a, S: Send + Sync> Begin<'a> for FoundRoute<'a, S> {
    #[inline]
    fn begin(self, request: Request, cx: &mut Context<'_>, reply: &mut Option<Reply>) -> Option<Pending<'a>> {
        let Self { router, found: Found(position) } = self;
        match position.and_then(|position| router.routes.at(position)) {
            Some((name, route)) => route.call(Some(name), &router.state, request, cx, reply),
            None => router.without_route(request, cx, reply),
        }
    }
}

impl<S: Send + Sync + 'static> Handler for Router<S> {
    type Output = Reply;

    #[inline]
    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send {
        let found = self.find(&request);
        self.call(request, found)
    }

    #[inline]
    fn reply_at_once(
        &self,
        request: Request,
        cx: &mut Context<'_>,
        reply: &mut Option<Reply>,
    ) -> Option<(Request, Found)> {
        let found = self.find(&request);
        match found.0.and_then(|position| self.routes.at(position)) {
            Some((name, route)) if route.is_at_once() => {
                let _ = route.call(Some(name), &self.state, request, cx, reply);
                None
            }
            _ => Some((request, found)),
        }
    }

    #[inline]
    fn handle_found(&self, request: Request, found: Found) -> impl Future<Output = Reply> + Send {
        self.call(request, found)
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
    fn reply_at_once(
        &self,
        request: Request,
        _: &mut Context<'_>,
        reply: &mut Option<Reply>,
    ) -> Option<(Request, Found)> {
        *reply = Some(self.reply(request.messages()));
        None
    }
}
