//! Dispatch of messages to handlers by name.

use std::{borrow::Cow, fmt, future::Ready};

use futures_util::{
    future::{Either, FutureExt as _},
    stream::{FuturesUnordered, StreamExt as _},
};
use spop_core::{
    Actions,
    agent::{Partial, RouteError, Routes, Unknown},
};
use tracing::warn;

use crate::{Handler, Reply, Request, Watch, log::Limit};

/// How many messages of a NOTIFY are processed concurrently. HAProxy sends fewer;
/// [`Limits::max_messages`](spop_core::config::Limits::max_messages) allows more.
const BESIDE: usize = 32;

/// A handler that dispatches each message to a handler by its name.
///
/// Each of these gets a request with that one message, whose arguments are [`Request::arg`]. The messages of one NOTIFY are
/// processed concurrently, and their actions are joined in the order of the messages. If one fails or disconnects, the others are
/// dropped: a NOTIFY has one answer, and HAProxy gets it at once.
///
/// ```
/// use std::net::IpAddr;
/// use spop_tokio::{Actions, ArgError, Headers, Request, Router, Scope, Server};
///
/// async fn reputation(request: Request) -> Result<Actions, ArgError> {
///     let ip: IpAddr = request.arg("ip")?;
///     let mut actions = Actions::new();
///     actions.set_var(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 });
///     Ok(actions)
/// }
///
/// async fn inspect(request: Request) -> Result<Actions, ArgError> {
///     let (method, headers) = (request.arg::<&str>("method")?, request.arg::<Headers<'_>>("hdrs")?);
///     let mut actions = Actions::new();
///     actions.set_var(Scope::Request, "odd", method == "GET" && headers.get("content-length").is_some());
///     Ok(actions)
/// }
///
/// let server = Server::new(Router::new().on("get-ip-reputation", reputation).on("check-request", inspect));
/// # drop(server);
/// ```
///
/// Every handler is a route: a function, a [`Swap`](crate::Swap) for one that is replaced, a [`Deferred`](crate::Deferred),
/// another router. A message that is answered at once costs no allocation. For what is always answered at once,
/// [`Routes`] is a handler too.
#[must_use = "it is a handler"]
pub struct Router<R = (), U = Unrouted> {
    routes: R,
    otherwise: U,
}

impl Router {
    /// A router without routes. Messages without a route are skipped, with a warning.
    pub fn new() -> Self {
        Self { routes: (), otherwise: Unrouted::default() }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: RouteList> Router<R> {
    /// The policy for messages without a route. Default: [`Unknown::Skip`].
    pub fn unknown(mut self, policy: Unknown) -> Self {
        self.otherwise.policy = policy;
        self
    }

    /// Dispatches messages without a route to this handler.
    pub fn otherwise<H: Handler>(self, handler: H) -> Router<R, H> {
        Router { routes: self.routes, otherwise: handler }
    }
}

impl<R: RouteList, U: Handler> Router<R, U> {
    /// Dispatches messages of this name to this handler. A later route of the same name replaces it.
    pub fn on<H: Handler>(
        self,
        message: impl Into<Cow<'static, str>>,
        handler: H,
    ) -> Router<(Route<H>, R), U> {
        let route = Route { message: message.into(), handler };
        Router { routes: (route, self.routes), otherwise: self.otherwise }
    }

    fn one(&self, request: Request) -> impl Future<Output = Reply> + Send {
        match self.routes.call(request) {
            Ok(call) => Either::Left(call),
            Err(request) => Either::Right(self.otherwise.handle(request).map(Into::into)),
        }
    }
}

impl<R: RouteList, U: Handler> Handler for Router<R, U> {
    type Answer = Reply;

    async fn handle(&self, request: Request) -> Reply {
        if request.messages().len() == 1 {
            return self.one(request).await;
        }
        let mut all = Actions::new();
        let mut messages = request.each();
        loop {
            let some = messages.by_ref().take(BESIDE).enumerate();
            let mut calls: FuturesUnordered<_> =
                some.map(|(index, one)| self.one(one).map(move |reply| (index, reply))).collect();
            if calls.is_empty() {
                return all.into();
            }
            let mut lists = vec![Actions::new(); calls.len()];
            while let Some((index, reply)) = calls.next().await {
                match (reply, lists.get_mut(index)) {
                    (Reply::Ack(actions), Some(list)) => *list = actions,
                    // The others are dropped where they are.
                    (reply, _) => return reply,
                }
            }
            for actions in &lists {
                all.append(actions);
            }
        }
    }

    /// Each route is asked of whose messages something has come, and any may refuse it. Those before have been asked.
    fn watch(&self, arriving: Partial<'_>) -> Watch {
        let mut messages = arriving.new_messages();
        let refused = messages.any(|message| {
            let watch = self.routes.watch(message.name(), arriving);
            watch.unwrap_or_else(|| self.otherwise.watch(arriving)) == Watch::Refuse
        });
        if refused { Watch::Refuse } else { Watch::Continue }
    }
}

impl<R: RouteList, U> fmt::Debug for Router<R, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Vec::new();
        self.routes.names(&mut names);
        f.debug_list().entries(names.iter().rev()).finish()
    }
}

/// The name of the first message.
fn name_of(request: &Request) -> &[u8] {
    request.messages().iter().next().map(|message| message.name()).unwrap_or_default()
}

/// The routes of a [`Router`]: pairs in pairs, so that a call needs no box.
pub trait RouteList: Send + Sync + 'static {
    /// Calls the handler of the request's one message; without one the request comes back.
    ///
    /// # Errors
    /// The request.
    #[allow(clippy::result_large_err)] // To move it costs less than a box for each call.
    fn call(&self, request: Request) -> Result<impl Future<Output = Reply> + Send, Request>;

    /// Asks the handler of messages of this name what is to become of a request that is arriving.
    fn watch(&self, message: &[u8], arriving: Partial<'_>) -> Option<Watch>;

    /// The names, the last first.
    fn names<'a>(&'a self, names: &mut Vec<&'a str>);
}

/// A name and its handler.
pub struct Route<H> {
    message: Cow<'static, str>,
    handler: H,
}

impl<H> fmt::Debug for Route<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Route").field(&self.message).finish()
    }
}

impl<H> Route<H> {
    /// A reason that does not say whose it is would leave that open among several.
    fn named(&self, reply: Reply) -> Reply {
        match reply {
            Reply::Fail(why) if !why.contains(&*self.message) => {
                Reply::Fail(format!("message {:?}: {why}", self.message))
            }
            reply => reply,
        }
    }
}

impl RouteList for () {
    fn call(&self, request: Request) -> Result<impl Future<Output = Reply> + Send, Request> {
        Err::<Ready<Reply>, _>(request)
    }

    fn watch(&self, _: &[u8], _: Partial<'_>) -> Option<Watch> {
        None
    }

    fn names<'a>(&'a self, _: &mut Vec<&'a str>) {}
}

impl<H: Handler, R: RouteList> RouteList for (Route<H>, R) {
    fn call(&self, request: Request) -> Result<impl Future<Output = Reply> + Send, Request> {
        let (route, others) = self;
        if name_of(&request) == route.message.as_bytes() {
            let call = route.handler.handle(request);
            Ok(Either::Left(call.map(|answer| route.named(answer.into()))))
        } else {
            others.call(request).map(Either::Right)
        }
    }

    fn watch(&self, message: &[u8], arriving: Partial<'_>) -> Option<Watch> {
        let (route, others) = self;
        if message == route.message.as_bytes() {
            Some(route.handler.watch(arriving))
        } else {
            others.watch(message, arriving)
        }
    }

    fn names<'a>(&'a self, names: &mut Vec<&'a str>) {
        names.push(&self.0.message);
        self.1.names(names);
    }
}

/// The handler of messages without a route, unless there is another: does what its policy says.
#[derive(Debug, Default)]
pub struct Unrouted {
    policy: Unknown,
    log: Limit,
}

impl Handler for Unrouted {
    type Answer = Reply;

    async fn handle(&self, request: Request) -> Reply {
        match self.policy {
            Unknown::Fail => Reply::Fail(RouteError::unknown(name_of(&request)).to_string()),
            Unknown::Skip => {
                if let Some(suppressed) = self.log.pass() {
                    let error = RouteError::unknown(name_of(&request));
                    warn!(name: "message_unknown", %error, suppressed, "message skipped");
                }
                Reply::Ack(Actions::new())
            }
        }
    }
}

/// Routes that answer at once.
impl Handler for Routes {
    type Answer = Result<Actions, RouteError>;

    fn handle(&self, request: Request) -> impl Future<Output = Self::Answer> + Send {
        std::future::ready(self.answer(request.messages()))
    }
}
