//! Failures: why a request was not answered by its handler.

use std::{any::Any, fmt};

use spop_core::{agent::Reply, excerpt::Shortened};

/// The answer to a request, or why its handler gave none.
pub type Answer = Result<Reply, Failure>;

/// Why a request was not answered by its handler. The peer gets the reply that
/// [`AgentConfig::on_failure`](spop_core::AgentConfig::on_failure) names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// The details, for the log: at most 515 bytes.
    pub error: String,
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
    /// `timed_out`: no answer within [`Timeouts::message`](spop_core::config::Timeouts::message).
    TimedOut,
    /// `overdue`: the oldest of a connection at its limit of requests or payload bytes in flight, and older than
    /// [`AgentConfig::processing`](spop_core::AgentConfig::processing).
    Overdue,
    /// `answer_unsendable`: the answer is longer than HAProxy accepts.
    AnswerUnsendable,
    /// `overloaded`: a limit of the server was reached, and the handler was not called. It is
    /// [`ServerConfig::max_in_flight`](crate::ServerConfig::max_in_flight),
    /// [`ServerConfig::max_request_bytes`](crate::ServerConfig::max_request_bytes), or twice what
    /// [`Limits`](spop_core::config::Limits) lets one connection have in flight.
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
        Self { kind, error: Shortened(error).to_string() }
    }

    /// The failure of a handler that panicked; the payload is what `catch_unwind` returned.
    #[cold]
    pub fn panicked(payload: &(dyn Any + Send)) -> Self {
        Self::new(FailureKind::HandlerPanicked, panic_message(payload))
    }
}

/// `KIND: ERROR`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.error)
    }
}

/// The message of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
