//! What the application does with requests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use spop_core::{
    Actions, Scope,
    agent::{BoxError, Partial, Reply, Router, TicketId, Watch},
    wire::ToValue,
};

use crate::{Cancelled, Request};

/// Answers requests, now or later: what a [`Conn`](crate::Conn) calls.
///
/// A function or closure from [`Request`] to anything that is [`Into<Outcome>`] is a handler: `Actions`, what converts into them
/// (`()`, a tuple of scope, name and value), a `Reply`, or a `Result` of them with any error. Its causes are logged with it.
///
/// ```
/// use std::net::IpAddr;
/// use spop_core::{Actions, Scope, frame::ArgError};
/// use spop_server::Request;
///
/// fn reputation(request: Request<'_>) -> Result<Actions, ArgError> {
///     let ip: IpAddr = request.arg("ip")?;
///     Ok(Actions::new().set(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 }))
/// }
/// # fn is_handler(_: impl spop_server::Handler) {}
/// # is_handler(reputation);
/// ```
///
/// A [`Router`] calls a function for each message, by name.
///
/// A handler runs on the thread that drives its connection, and blocks that connection; with an event loop, it blocks all
/// connections of the thread. Defer longer work to another thread with [`Request::defer`]. Panics of a handler are caught; see
/// [the guide](crate::guide::failures).
pub trait Handler {
    /// Answers a request, or keeps it ([`Outcome::Later`]) and answers later, with a [`Responder`](crate::Responder) or
    /// [`Conn::on_answer`](crate::Conn::on_answer).
    fn handle(&mut self, request: Request<'_>) -> Outcome;

    /// As [`handle`](Self::handle), in place of [`Outcome::Later`]: each move of a reply copies more than a hundred bytes.
    #[doc(hidden)]
    #[inline]
    fn handle_in_place(&mut self, request: Request<'_>, outcome: &mut Outcome) {
        *outcome = self.handle(request);
    }

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

    fn handle_in_place(&mut self, request: Request<'_>, outcome: &mut Outcome) {
        (**self).handle_in_place(request, outcome);
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

impl Handler for Router {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        Outcome::Now(self.reply(request.messages()))
    }

    #[inline]
    fn handle_in_place(&mut self, request: Request<'_>, outcome: &mut Outcome) {
        *outcome = Outcome::Now(Reply::Ack(Actions::new()));
        if let Outcome::Now(reply) = outcome {
            self.write_reply(request.messages(), reply);
        }
    }
}

/// What a [`Handler`] did with a request.
#[derive(Debug)]
#[must_use = "the connection applies it"]
pub enum Outcome {
    /// It answered, or failed.
    Now(Reply),
    /// It keeps the request, and the answer follows: [`Request::defer`] returns this.
    Later,
}

impl<T: Into<Self>, E: Into<BoxError>> From<Result<T, E>> for Outcome {
    #[inline]
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(outcome) => outcome.into(),
            Err(error) => Self::Now(Reply::failed(error)),
        }
    }
}

macro_rules! answers {
    ($([$($generic:tt)*] $type:ty,)*) => {$(
        impl<$($generic)*> From<$type> for Outcome {
            #[inline]
            fn from(reply: $type) -> Self {
                Self::Now(reply.into())
            }
        }
    )*};
}

// What converts into a reply. Not by one implementation, which would overlap with that for a `Result`.
answers! {
    [] Reply,
    [] Actions,
    [] (),
    [N: AsRef<[u8]>, V: ToValue] (Scope, N, V),
    [T: Into<Actions>] Option<T>,
    [T: Into<Actions>, const N: usize] [T; N],
    [A: Into<Actions>, B: Into<Actions>] (A, B),
    // Not of any three: `(Scope, N, V)` could be one of them, for what this crate knows.
    [K: AsRef<[u8]>, V: ToValue, L: AsRef<[u8]>, W: ToValue, M: AsRef<[u8]>, X: ToValue]
        ((Scope, K, V), (Scope, L, W), (Scope, M, X)),
    [A: Into<Actions>, B: Into<Actions>, C: Into<Actions>, D: Into<Actions>] (A, B, C, D),
}
