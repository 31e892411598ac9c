//! Decisions of an application on a request, for servers to carry out.

use alloc::{borrow::Cow, boxed::Box};

use super::{BoxError, Failure};
use crate::{Actions, Status};

/// The reply to a request.
///
/// What converts into [`Actions`] converts into a reply, and so does a `Result` of a reply and any error.
///
/// ```
/// use spop_core::{Actions, Scope, agent::Reply};
///
/// let answer = Actions::new().set(Scope::Session, "score", 50);
/// assert_eq!(Reply::from((Scope::Session, "score", 50)), Reply::Ack(answer));
/// assert_eq!(Reply::from(()), Reply::Ack(Actions::new()));
/// let failed = Reply::from(Err::<(), _>("the database is down"));
/// assert!(matches!(failed, Reply::Fail(failure) if failure.error == "the database is down"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An ACK with these actions.
    Ack(Actions),
    /// The answer of the failure, or else the reply that [`AgentConfig::on_failure`](crate::AgentConfig::on_failure) names. The
    /// server counts and logs the failure.
    Fail(Failure),
    /// No answer: the peer receives an ACK with ABORT, which HAProxy treats as an answer without actions. An answer that was
    /// sent in part is aborted.
    Abort,
    /// A DISCONNECT. The other requests in flight on the connection are lost.
    Disconnect {
        /// The status code. HAProxy reports it plus 256.
        status: Status,
        /// The message, cut to 180 bytes.
        message: Cow<'static, str>,
    },
}

impl Reply {
    /// The failure of a handler with this error.
    #[cold]
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self::Fail(Failure::handler(error))
    }

    /// Whether it is the reply to a whole NOTIFY, whatever the other messages get: not actions, and not a failure with an answer
    /// of its own.
    #[inline]
    pub const fn ends_notify(&self) -> bool {
        !matches!(self, Self::Ack(_) | Self::Fail(Failure { answer: Some(_), .. }))
    }

    /// The reply to a NOTIFY whose messages got this one and the next. Actions are joined in order. The first that
    /// [ends the NOTIFY](Self::ends_notify) is the reply.
    #[must_use = "it is the reply"]
    pub fn and(self, next: Self) -> Self {
        if self.ends_notify() {
            return self;
        }
        match (self, next) {
            (Self::Ack(mut all), Self::Ack(actions)) => {
                all.append(&actions);
                Self::Ack(all)
            }
            (Self::Ack(mut all), Self::Fail(Failure { answer: Some(actions), kind, error, route })) => {
                all.append(&actions);
                Self::Fail(Failure { answer: Some(Box::new(all)), kind, error, route })
            }
            (Self::Fail(mut first), Self::Ack(actions)) => {
                first.append_answer(&actions);
                Self::Fail(first)
            }
            (Self::Fail(mut first), Self::Fail(mut second)) => match second.answer.take() {
                Some(actions) => {
                    first.append_answer(&actions);
                    first.append(&second);
                    Self::Fail(first)
                }
                None => {
                    second.append(&first);
                    Self::Fail(second)
                }
            },
            (_, next) => next,
        }
    }
}

impl<T: Into<Actions>> From<T> for Reply {
    #[inline]
    fn from(actions: T) -> Self {
        Self::Ack(actions.into())
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Fail(failure)
    }
}

impl<T: Into<Self>, E: Into<BoxError>> From<Result<T, E>> for Reply {
    #[inline]
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(reply) => reply.into(),
            Err(error) => Self::failed(error),
        }
    }
}

/// The decision on a request that is still arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    /// Receive the rest.
    Continue,
    /// Refuse it: HAProxy continues with error 4, and further fragments are discarded.
    Refuse,
}

#[cfg(test)]
mod tests {
    use core::fmt;

    use super::*;
    use crate::{Scope, agent::FailureKind};

    fn set(name: &str) -> Actions {
        Actions::new().set(Scope::Session, name, 1)
    }

    fn failed(error: &str, answer: Option<&str>) -> Reply {
        let mut failure = Failure::handler(error);
        failure.answer = answer.map(|name| set(name).into());
        Reply::Fail(failure)
    }

    #[test]
    fn replies_to_messages_are_joined_in_order_to_the_first_that_ends_the_notify() {
        let [a, b] = ["a", "b"].map(|name| Reply::Ack(set(name)));
        let ab = || (set("a"), set("b")).into();
        assert_eq!(a.clone().and(b.clone()), Reply::Ack(ab()));
        for (replies, error) in [
            ([a.clone(), failed("x", Some("b"))], "x"),
            ([failed("x", Some("a")), b.clone()], "x"),
            ([failed("x", Some("a")), failed("y", Some("b"))], "x; y"),
        ] {
            let [first, second] = replies;
            let Reply::Fail(failure) = first.and(second) else { unreachable!() };
            assert_eq!((failure.error.as_str(), failure.answer), (error, Some(Box::new(ab()))));
        }
        assert_eq!(failed("x", Some("a")).and(failed("y", None)), failed("y; x", None));
        assert_eq!(failed("x", None).and(b.clone()), failed("x", None));
        assert_eq!(a.clone().and(Reply::Abort), Reply::Abort);
        assert_eq!(Reply::Abort.and(a), Reply::Abort);
        assert_eq!(failed("x", Some("a")).and(Reply::Abort).and(b), Reply::Abort);
    }

    /// An error with a cause.
    #[derive(Debug)]
    struct Layer(&'static str, Option<BoxError>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl core::error::Error for Layer {
        fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
            self.1.as_ref().map(|cause| &**cause as _)
        }
    }

    #[test]
    fn any_error_fails_the_request_and_keeps_its_causes() {
        let refused = || Layer("connect", Some(Layer("refused", None).into()));
        let text = |reply| match reply {
            Reply::Fail(Failure { kind: FailureKind::HandlerFailed, error, .. }) => error,
            other => unreachable!("{other:?}"),
        };
        assert_eq!(text(Err::<(), _>(refused()).into()), "connect: refused");
        assert_eq!(text(Err::<(), _>(BoxError::from(refused())).into()), "connect: refused");
        assert_eq!(
            text(Err::<(), _>(anyhow::Error::new(refused()).context("ask")).into()),
            "ask: connect: refused"
        );
        assert_eq!(text(Err::<(), _>(anyhow::anyhow!("text")).into()), "text");
        assert_eq!(text(Err::<(), _>("text").into()), "text");
        assert_eq!(text(Err::<(), _>(alloc::string::String::from("text")).into()), "text");
        let failure = Failure::new(FailureKind::Overloaded, "full");
        assert_eq!(Reply::from(Err::<(), _>(failure.clone())), Reply::Fail(failure));
    }

    #[test]
    fn a_failure_belongs_to_the_innermost_route() {
        let mut failure = Failure::handler("no");
        failure.set_route("inner", b"ask", None);
        failure.set_route("outer", b"ask", Some(&set("a")));
        let (route, answer) = (failure.route.as_deref(), failure.answer.as_deref());
        assert_eq!((route, answer), (Some("inner"), Some(&set("a"))));
        assert_eq!(failure.error, r#"message "ask": no"#);
        failure.set_route("outer", b"ask", Some(&set("b")));
        assert_eq!(failure.answer.as_deref(), Some(&set("a")));
    }
}
