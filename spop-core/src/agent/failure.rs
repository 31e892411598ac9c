//! Failures: why a request was not answered by its handler.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString as _},
};
use core::{any::Any, error::Error, fmt};

use crate::{
    Actions,
    excerpt::{Causes, Escaped, Shortened},
};

/// Any error: of the standard library, of `anyhow` and its kind, of one's own, or a text.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a request was not answered by its handler. A handler can return it as an error of its own kind or answer.
///
/// ```
/// use spop_core::{Actions, Scope, agent::{Failure, Reply}};
///
/// let mut failure = Failure::handler("the database is down");
/// failure.answer = Some(Actions::new().set(Scope::Transaction, "unknown", true).into());
/// assert!(matches!(Reply::from(Err::<(), _>(failure)), Reply::Fail(failure) if failure.answer.is_some()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// The details, for the log: at most 515 bytes.
    pub error: String,
    /// The route of a router that failed.
    pub route: Option<String>,
    /// What the peer gets. Without it, the reply that [`AgentConfig::on_failure`](crate::AgentConfig::on_failure) names.
    pub answer: Option<Box<Actions>>,
}

/// The kind of a [`Failure`], as the field `what` of the event `request_failed` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// `handler_failed`: the handler returned an error.
    HandlerFailed,
    /// `handler_panicked`: the handler, or the thread that had its responder, panicked.
    HandlerPanicked,
    /// `responder_dropped`: the responder was dropped without an answer.
    ResponderDropped,
    /// `timed_out`: no answer within [`Timeouts::message`](crate::config::Timeouts::message), or within the timeout of a route.
    TimedOut,
    /// `overdue`: the oldest of a connection at its limit of requests or payload bytes in flight, and older than
    /// [`AgentConfig::processing`](crate::AgentConfig::processing).
    Overdue,
    /// `answer_unsendable`: the answer is longer than HAProxy accepts.
    AnswerUnsendable,
    /// `overloaded`: a limit was reached, and the handler was not called. It is `max_in_flight` or `max_request_bytes` of the
    /// server, `max_in_flight` of a route, or twice what [`Limits`](crate::config::Limits) lets one connection have in flight.
    Overloaded,
    /// `already_disconnected`: the handler answered with a disconnect, and the connection has ended.
    AlreadyDisconnected,
}

impl FailureKind {
    /// All kinds, in order.
    pub const ALL: [Self; 8] = [
        Self::HandlerFailed,
        Self::HandlerPanicked,
        Self::ResponderDropped,
        Self::TimedOut,
        Self::Overdue,
        Self::AnswerUnsendable,
        Self::Overloaded,
        Self::AlreadyDisconnected,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HandlerFailed => "handler_failed",
            Self::HandlerPanicked => "handler_panicked",
            Self::ResponderDropped => "responder_dropped",
            Self::TimedOut => "timed_out",
            Self::Overdue => "overdue",
            Self::AnswerUnsendable => "answer_unsendable",
            Self::Overloaded => "overloaded",
            Self::AlreadyDisconnected => "already_disconnected",
        }
    }
}

impl Failure {
    /// A failure of this kind. A long error is cut by [`Shortened`].
    #[cold]
    pub fn new(kind: FailureKind, error: impl fmt::Display) -> Self {
        Self { kind, error: Shortened(error).to_string(), route: None, answer: None }
    }

    /// The failure of a handler that returned this error, with the errors that caused it ([`Causes`]). A `Failure` stays as it is.
    #[cold]
    pub fn handler(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(failure) => *failure,
            Err(error) => Self::new(FailureKind::HandlerFailed, Causes(&*error)),
        }
    }

    /// The failure of a handler that panicked; the payload is what `catch_unwind` returned.
    #[cold]
    pub fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::new(FailureKind::HandlerPanicked, text.unwrap_or("no message"))
    }

    /// The failure of a message that has no route.
    #[cold]
    pub fn unrouted(message: &[u8]) -> Self {
        Self::new(
            FailureKind::HandlerFailed,
            format_args!("there is no route for message \"{}\"", Escaped(message)),
        )
    }

    /// The failure is that of this route, which has this answer for it. The error names the message. What an inner router has
    /// set stays.
    #[cold]
    pub fn set_route(&mut self, route: &str, message: &[u8], answer: Option<&Actions>) {
        if self.route.is_none() {
            self.route = Some(Escaped(route.as_bytes()).to_string());
            let message = format!("message \"{}\"", Escaped(message));
            if !self.error.contains(&message) {
                self.error = Shortened(format_args!("{message}: {}", self.error)).to_string();
            }
        }
        if self.answer.is_none() {
            self.answer = answer.map(|answer| answer.clone().into());
        }
    }

    /// Another message of the same NOTIFY has failed too.
    pub(super) fn append(&mut self, other: &Self) {
        self.error = Shortened(format_args!("{}; {}", self.error, other.error)).to_string();
    }

    /// Appends to the answer, if it has one.
    pub(super) fn append_answer(&mut self, actions: &Actions) {
        if let Some(answer) = &mut self.answer {
            answer.append(actions);
        }
    }
}

/// `KIND: ERROR`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.error)
    }
}

impl Error for Failure {}
