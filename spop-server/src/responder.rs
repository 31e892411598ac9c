//! Answers that are given later.

use std::{fmt, ops::Deref, thread};

use spop_core::agent::Reply;

use crate::{Cancellation, Cancelled, Failure, FailureKind, Request, inbox::Message};

/// A request, and the obligation to answer it, which can be handed to another thread.
///
/// If it is dropped without an answer, for example because a thread panics, the request fails: HAProxy gets the reply of
/// [`AgentConfig::on_failure`](spop_core::AgentConfig::on_failure) at once.
///
/// Its request counts under [`max_in_flight`](crate::ServerConfig::max_in_flight) and
/// [`max_request_bytes`](crate::ServerConfig::max_request_bytes) until it is dropped, also after it was
/// [cancelled](Self::is_cancelled): a queue of responders should drop those.
#[must_use = "HAProxy waits for an answer"]
pub struct Responder {
    request: Request<'static>,
    cancellation: Cancellation,
    answered: bool,
}

impl Responder {
    pub(crate) fn new(request: Request<'static>, cancellation: Cancellation) -> Self {
        Self { request, cancellation, answered: false }
    }

    /// Answers. If the answer is not needed any more, it is dropped.
    pub fn reply(mut self, reply: impl Into<Reply>) {
        self.send(reply.into());
    }

    /// Whether the answer is not needed any more: HAProxy aborted or abandoned the request, or sent another with the same
    /// identifiers; or the request timed out, or its connection ended. Check this before long work, and repeatedly during it.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    /// Why the answer is not needed any more, if so.
    pub fn reason(&self) -> Option<Cancelled> {
        self.cancellation.reason()
    }

    fn send(&mut self, answer: Reply) {
        self.answered = true;
        // A connection that has ended needs no answer.
        let _ = self.request.connection().inbox.send(Message::Answer(self.request.id(), answer));
    }
}

impl Deref for Responder {
    type Target = Request<'static>;

    fn deref(&self) -> &Request<'static> {
        &self.request
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            self.send(Reply::Fail(if thread::panicking() {
                Failure::new(FailureKind::HandlerPanicked, "the thread that had the responder panicked")
            } else {
                Failure::new(FailureKind::ResponderDropped, "the responder was dropped")
            }));
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("request", &self.request)
            .field("cancelled", &self.reason())
            .finish_non_exhaustive()
    }
}
