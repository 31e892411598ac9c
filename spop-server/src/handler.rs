//! What the application does with requests.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use spop_core::{
    Actions,
    agent::{Partial, Reply, Routes, TicketId, Watch},
    excerpt::Shortened,
};

use crate::{Answer, Cancelled, Request};

/// Answers requests, now or later: what a [`Conn`](crate::Conn) calls.
///
/// A function or closure from [`Request`] to anything that is [`Into<Outcome>`] is a handler: `Actions`, a `Reply`, or a
/// `Result` of them with any error that can be displayed.
///
/// ```
/// use std::net::IpAddr;
/// use spop_core::{Actions, Scope, frame::ArgError};
/// use spop_server::Request;
///
/// fn reputation(request: Request<'_>) -> Result<Actions, ArgError> {
///     let mut actions = Actions::new();
///     if let Some(message) = request.message("get-ip-reputation") {
///         let ip: IpAddr = message.arg("ip")?;
///         actions.set_var(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 });
///     }
///     Ok(actions)
/// }
/// # fn is_handler(_: impl spop_server::Handler) {}
/// # is_handler(reputation);
/// ```
///
/// [`Routes`] call a function for each message, by name.
///
/// A handler runs on the thread that drives its connection, and blocks that connection; with an event loop, it blocks all
/// connections of the thread. Defer longer work to another thread with [`Request::defer`]. Panics of a handler are caught; see
/// [the guide](crate::guide#when-a-handler-fails).
pub trait Handler {
    /// Answers a request, or keeps it ([`Outcome::Later`]) and answers later, with a [`Responder`](crate::Responder) or
    /// [`Conn::on_answer`](crate::Conn::on_answer).
    fn handle(&mut self, request: Request<'_>) -> Outcome;

    /// Decides whether to receive the rest of a request that arrives in fragments, by what has arrived. Called only with
    /// [`AgentConfig::watch_fragments`](spop_core::AgentConfig::watch_fragments).
    fn watch(&mut self, arriving: Partial<'_>) -> Watch {
        let _ = arriving;
        Watch::Continue
    }

    /// A request that was to be answered later needs no answer any more. Stop its work, and drop the request or its responder: it
    /// counts under [`max_in_flight`](crate::ServerConfig::max_in_flight) and
    /// [`max_request_bytes`](crate::ServerConfig::max_request_bytes) until then.
    fn cancel(&mut self, request: TicketId, why: Cancelled) {
        let _ = (request, why);
    }

    /// As [`cancel`](Self::cancel), for all unanswered requests of a connection, in order of arrival.
    fn cancel_all(&mut self, requests: &[TicketId], why: Cancelled) {
        for request in requests {
            // One that panics leaves the others.
            let _ = catch_unwind(AssertUnwindSafe(|| self.cancel(*request, why)));
        }
    }

    /// The connection is idle: free memory that is kept for its next requests.
    fn release_memory(&mut self) {}
}

impl<F, R> Handler for F
where
    F: FnMut(Request<'_>) -> R,
    R: Into<Outcome>,
{
    #[inline]
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        self(request).into()
    }
}

/// A handler that is chosen at run time.
impl Handler for Box<dyn Handler + Send> {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        (**self).handle(request)
    }

    fn watch(&mut self, arriving: Partial<'_>) -> Watch {
        (**self).watch(arriving)
    }

    fn cancel(&mut self, request: TicketId, why: Cancelled) {
        (**self).cancel(request, why);
    }

    fn cancel_all(&mut self, requests: &[TicketId], why: Cancelled) {
        (**self).cancel_all(requests, why);
    }

    fn release_memory(&mut self) {
        (**self).release_memory();
    }
}

impl Handler for Routes {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        self.answer(request.messages()).into()
    }
}

/// What a [`Handler`] did with a request.
#[derive(Debug)]
#[must_use = "the connection applies it"]
pub enum Outcome {
    /// It answered, or failed.
    Now(Answer),
    /// It keeps the request, and the answer follows: [`Request::defer`] returns this.
    Later,
}

impl<T: Into<Self>, E: fmt::Display> From<Result<T, E>> for Outcome {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(outcome) => outcome.into(),
            Err(error) => Self::Now(Ok(Reply::Fail(Shortened(error).to_string()))),
        }
    }
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Now(Ok(reply))
    }
}

impl From<Actions> for Outcome {
    #[inline]
    fn from(actions: Actions) -> Self {
        Self::Now(Ok(Reply::Ack(actions)))
    }
}
