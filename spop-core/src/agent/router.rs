//! Dispatch of messages to functions by name.

use alloc::sync::Arc;
use core::fmt;

use super::{BoxError, ByName, Failure, Reply};
use crate::{
    Actions,
    frame::{Message, Messages},
};

/// Calls a function for each message of a NOTIFY, by the name of the message, and joins the actions in the order of the messages.
///
/// A function returns a `Result` of actions, of what converts into them, or of a [`Reply`].
///
/// ```
/// use std::net::IpAddr;
/// use spop_core::{Actions, MessageList, Messages, Scope, agent::Router, wire::Headers};
///
/// let router = Router::new()
///     .on("get-ip-reputation", |message| {
///         let ip: IpAddr = message.arg("ip")?;
///         Ok((Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 }))
///     })
///     .on("check-request", |message| {
///         let headers: Headers<'_> = message.arg("hdrs")?;
///         let agent = headers.get("user-agent");
///         Ok(Actions::new().set(Scope::Request, "browser", agent.is_some()).unset(Scope::Request, "reason"))
///     });
///
/// let mut question = MessageList::new();
/// question.message("get-ip-reputation").arg("ip", IpAddr::from([192, 0, 2, 1]));
/// question.message("without-a-route");
/// assert_eq!(router.reply(Messages::decode(question.as_bytes())?), (Scope::Session, "ip_score", 50).into());
/// # Ok::<(), spop_core::DecodeError>(())
/// ```
///
/// Clones share the functions.
#[derive(Clone, Default)]
pub struct Router {
    routes: ByName<Route>,
    otherwise: Option<Route>,
    unknown: Unknown,
}

/// The policy for messages without a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// Skip the message, and answer the others.
    #[default]
    Skip,
    /// Fail the NOTIFY.
    Fail,
}

/// A function for the messages of a name, and what HAProxy gets when it fails: for [`Router::route`].
///
/// ```
/// use spop_core::{Actions, Scope, agent::{Route, Router}};
///
/// let waf = Route::new(|message| {
///     let path: &[u8] = message.arg("path")?;
///     Ok((Scope::Transaction, "blocked", path.contains(&0)))
/// });
/// let router = Router::new().route("waf", waf.on_failure((Scope::Transaction, "blocked", true)));
/// # drop(router);
/// ```
#[derive(Clone)]
pub struct Route {
    function: Arc<Function>,
    on_failure: Option<Arc<Actions>>,
}

/// Writes the reply where it stays: each move of it copies more than a hundred bytes.
type Function = dyn Fn(&Message<'_>, &mut Reply) + Send + Sync;

impl Route {
    /// A route to this function.
    pub fn new<F, R>(function: F) -> Self
    where
        F: Fn(&Message<'_>) -> Result<R, BoxError> + Send + Sync + 'static,
        R: Into<Reply>,
    {
        let function = move |message: &Message<'_>, reply: &mut Reply| *reply = function(message).into();
        Self { function: Arc::new(function), on_failure: None }
    }

    /// What HAProxy gets when the function returns an error or panics, instead of
    /// [`AgentConfig::on_failure`](crate::AgentConfig::on_failure). The other messages of the NOTIFY are answered. The server
    /// counts and logs the failure.
    #[must_use]
    pub fn on_failure(mut self, answer: impl Into<Actions>) -> Self {
        self.on_failure = Some(Arc::new(answer.into()));
        self
    }

    #[inline]
    fn write_reply(&self, name: &str, message: &Message<'_>, reply: &mut Reply) {
        self.call(message, reply);
        if let Reply::Fail(failure) = reply {
            failure.set_route(name, message.name(), self.on_failure.as_deref());
        }
    }

    #[cfg(feature = "std")]
    #[inline]
    fn call(&self, message: &Message<'_>, reply: &mut Reply) {
        use std::panic::{AssertUnwindSafe, catch_unwind};

        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.function)(message, reply))) {
            *reply = Reply::Fail(Failure::panicked(panic.as_ref()));
        }
    }

    #[cfg(not(feature = "std"))]
    #[inline]
    fn call(&self, message: &Message<'_>, reply: &mut Reply) {
        (self.function)(message, reply);
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("on_failure", &self.on_failure).finish_non_exhaustive()
    }
}

impl Router {
    /// No routes: every message is unknown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Dispatches messages of this name to this function. It replaces an earlier route of the same name.
    #[must_use]
    pub fn on<F, R>(self, message: &str, function: F) -> Self
    where
        F: Fn(&Message<'_>) -> Result<R, BoxError> + Send + Sync + 'static,
        R: Into<Reply>,
    {
        self.route(message, Route::new(function))
    }

    /// As [`on`](Self::on), for a route with a policy of its own.
    #[must_use]
    pub fn route(mut self, message: &str, route: Route) -> Self {
        self.routes.insert(message, route);
        self
    }

    /// Dispatches messages of all other names to this function.
    #[must_use]
    pub fn otherwise<F, R>(mut self, function: F) -> Self
    where
        F: Fn(&Message<'_>) -> Result<R, BoxError> + Send + Sync + 'static,
        R: Into<Reply>,
    {
        self.otherwise = Some(Route::new(function));
        self
    }

    /// Sets the policy for messages without a route. Default [`Unknown::Skip`].
    #[must_use]
    pub const fn unknown(mut self, policy: Unknown) -> Self {
        self.unknown = policy;
        self
    }

    /// The reply to the messages of a NOTIFY. A message that fails, without an answer for it in its route, fails the NOTIFY, and
    /// those after it are not processed.
    #[inline]
    pub fn reply(&self, messages: Messages<'_>) -> Reply {
        let mut reply = Reply::Ack(Actions::new());
        self.write_reply(messages, &mut reply);
        reply
    }

    /// As [`reply`](Self::reply), in place of an ACK without actions.
    #[doc(hidden)]
    #[inline]
    pub fn write_reply(&self, messages: Messages<'_>, reply: &mut Reply) {
        match messages.only() {
            Some(message) => self.one(&message, reply),
            None => *reply = self.several(messages),
        }
    }

    #[inline(never)]
    fn several(&self, messages: Messages<'_>) -> Reply {
        let mut all = Reply::Ack(Actions::new());
        for message in messages {
            let mut reply = Reply::Ack(Actions::new());
            self.one(&message, &mut reply);
            all = all.and(reply);
            if all.ends_notify() {
                break;
            }
        }
        all
    }

    #[inline]
    fn one(&self, message: &Message<'_>, reply: &mut Reply) {
        let route = self.routes.get(message.name());
        match route.or_else(|| self.otherwise.as_ref().map(|route| ("otherwise", route))) {
            Some((name, route)) => route.write_reply(name, message, reply),
            None if self.unknown == Unknown::Fail => {
                *reply = Reply::Fail(Failure::unrouted(message.name()));
            }
            None => {}
        }
    }
}

impl<N: AsRef<str>> Extend<(N, Route)> for Router {
    fn extend<I: IntoIterator<Item = (N, Route)>>(&mut self, routes: I) {
        for (name, route) in routes {
            self.routes.insert(name.as_ref(), route);
        }
    }
}

impl<N: AsRef<str>> FromIterator<(N, Route)> for Router {
    fn from_iter<I: IntoIterator<Item = (N, Route)>>(routes: I) -> Self {
        let mut router = Self::new();
        router.extend(routes);
        router
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.routes.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{
        format,
        string::{String, ToString as _},
    };

    use super::*;
    use crate::{Scope, Value, agent::FailureKind, notation};

    fn router() -> Router {
        Router::new()
            .on("a", |_| Ok((Scope::Session, "replaced", true)))
            .on("b", |message| Ok((Scope::Session, "b", message.arg::<i32>("n")?)))
            .on("a", |message| Ok(Actions::new().set(Scope::Session, "a", message.arg::<i32>("n")?)))
            .on("no", |_| Err::<(), _>("on purpose".into()))
    }

    fn reply(router: &Router, messages: &str) -> Reply {
        let payload = notation::parse(&format!("NOTIFY fin 1 1 {messages}")).unwrap().payload;
        router.reply(Messages::decode(&payload).unwrap())
    }

    fn sentence(actions: &Actions) -> String {
        let mut frame = notation::parse("ACK fin 1 1").unwrap();
        frame.payload = actions.as_bytes().to_vec();
        frame.to_string().replacen("ACK fin 1 1", "", 1).trim().to_string()
    }

    fn answered(router: &Router, messages: &str) -> Result<String, String> {
        match reply(router, messages) {
            Reply::Ack(actions) => Ok(sentence(&actions)),
            Reply::Fail(failure) => Err(failure.error),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn actions_come_in_the_order_of_the_messages() {
        let asked = "b n=int32:1 ; x ; a n=int32:2 ; b n=int32:3";
        let expected = "set sess b=int32:1 ; set sess a=int32:2 ; set sess b=int32:3";
        assert_eq!(answered(&router(), asked).as_deref(), Ok(expected));
        assert_eq!(answered(&router(), "").as_deref(), Ok(""));
    }

    #[test]
    fn what_has_no_route_is_skipped_fails_or_goes_elsewhere() {
        let asked = r#""x\xff" ; a n=int32:2"#;
        assert_eq!(answered(&router(), asked).as_deref(), Ok("set sess a=int32:2"));
        let error = answered(&router().unknown(Unknown::Fail), asked).unwrap_err();
        assert_eq!(error, r#"there is no route for message "x\xff""#);
        let all = router().unknown(Unknown::Fail).otherwise(|message| {
            Ok(Actions::new().set(Scope::Session, "name", Value::Binary(message.name())))
        });
        let expected = "set sess name=binary:78ff ; set sess a=int32:2";
        assert_eq!(answered(&all, asked).as_deref(), Ok(expected));
    }

    #[test]
    fn errors_name_the_message() {
        let error = |asked| answered(&router(), asked).unwrap_err();
        assert_eq!(error("no"), r#"message "no": on purpose"#);
        assert_eq!(error("a n=int32:1 ; b"), r#"argument "n" of message "b" is missing"#);
        assert_eq!(format!("{:?}", router()), r#"{"a", "b", "no"}"#);
        let Reply::Fail(failure) = reply(&router(), "a n=int32:1 ; no") else { panic!() };
        assert_eq!(failure.route.as_deref(), Some("no"));
        let rest = router().otherwise(|_| Err::<(), _>("full".into()));
        let Reply::Fail(failure) = reply(&rest, "x") else { panic!() };
        assert_eq!((failure.route.as_deref(), &*failure.error), (Some("otherwise"), r#"message "x": full"#));
    }

    #[test]
    fn a_route_with_an_answer_for_its_failure_leaves_the_other_messages_theirs() {
        let fails = Route::new(|_| Err::<(), _>("down".into())).on_failure((Scope::Session, "failed", 1));
        let panics = Route::new(|_| -> Result<(), _> { panic!("on purpose") });
        let panics = panics.on_failure((Scope::Session, "panicked", 1));
        let mut router = router();
        router.extend([("fails", fails), ("panics", panics)]);
        for (asked, kind, error, answer) in [
            ("fails", FailureKind::HandlerFailed, r#"message "fails": down"#, "set sess failed=int32:1"),
            (
                "a n=int32:2 ; panics ; fails ; b n=int32:3",
                FailureKind::HandlerPanicked,
                r#"message "panics": on purpose; message "fails": down"#,
                "set sess a=int32:2 ; set sess panicked=int32:1 ; set sess failed=int32:1 ; set sess b=int32:3",
            ),
        ] {
            let Reply::Fail(failure) = reply(&router, asked) else { panic!() };
            assert_eq!((failure.kind, &*failure.error), (kind, error));
            assert_eq!(sentence(&failure.answer.unwrap()), answer);
        }
        // One without an answer fails the NOTIFY.
        let Reply::Fail(failure) = reply(&router, "fails ; no ; fails") else { panic!() };
        assert_eq!((failure.route.as_deref(), failure.answer), (Some("no"), None));
        let router: Router = [("a", Route::new(|_| Ok(())))].into_iter().collect();
        assert_eq!(answered(&router, "a").as_deref(), Ok(""));
    }
}
