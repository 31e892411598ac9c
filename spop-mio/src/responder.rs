//! Answers that come later, from wherever.

use std::{
    fmt,
    sync::{Arc, OnceLock, mpsc::Sender},
    thread,
    time::Instant,
};

use spop_core::{
    Ticket,
    agent::Reply,
    frame::{ArgError, FromValue, Ids, Message, Messages, OwnedMessages},
};
use spop_server::{Cancelled, ConnectionInfo, Permit, Work};

use crate::{
    app::{Answer, Failure},
    arrivals::Newcomer,
    mail::Mailbox,
    worker::Conn,
};

/// The duty to answer a request, which can be handed to another thread.
///
/// One that is dropped, by a thread that panics for instance, fails its request: HAProxy gets what
/// [`AgentConfig::on_failure`](spop_core::AgentConfig::on_failure) says, at once.
#[must_use = "HAProxy waits for an answer"]
pub struct Responder {
    ticket: Option<Ticket>,
    messages: OwnedMessages,
    deadline: Option<Instant>,
    mailbox: Arc<Mailbox<Letter>>,
    wanted: Arc<Wanted>,
    #[allow(dead_code)] // Held for its drop.
    job: Job,
}

/// What is held while a request is worked on.
#[derive(Debug)]
#[allow(dead_code)] // Held for its drop.
pub(crate) struct Job(pub(crate) Permit, pub(crate) Work);

/// Whether anybody waits for an answer, and why nobody does any more.
#[derive(Debug, Default)]
pub(crate) struct Wanted(OnceLock<Cancelled>);

impl Wanted {
    pub(crate) fn cancel(&self, why: Cancelled) {
        // The first reason is the reason.
        let _ = self.0.set(why);
    }
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Letter {
    /// An answer, or why there is none.
    Answer { ticket: Ticket, answer: Answer },
    /// A connection that another worker had.
    Guest(Box<Conn>),
    /// The same, before its session.
    Newcomer(Box<Newcomer>),
    /// Somebody wants to know which connections there are.
    Report(Sender<Vec<ConnectionInfo>>),
}

impl Responder {
    pub(crate) fn new(
        ticket: Ticket,
        messages: OwnedMessages,
        deadline: Option<Instant>,
        mailbox: Arc<Mailbox<Letter>>,
        wanted: Arc<Wanted>,
        job: Job,
    ) -> Self {
        Self { ticket: Some(ticket), messages, deadline, mailbox, wanted, job }
    }

    /// What is asked, in order.
    pub fn messages(&self) -> Messages<'_> {
        self.messages.view()
    }

    /// The first message of this name.
    pub fn message(&self, name: &str) -> Option<Message<'_>> {
        self.messages.get(name)
    }

    /// The first argument of this name of the first message, as [`Request::arg`](crate::Request::arg).
    ///
    /// # Errors
    /// [`ArgError`] names the message and the argument.
    pub fn arg<'a, T: FromValue<'a>>(&'a self, name: &str) -> Result<T, ArgError> {
        self.messages.arg(name)
    }

    /// STREAM-ID and FRAME-ID.
    pub fn ids(&self) -> Ids {
        self.ticket.as_ref().map_or(Ids::ZERO, Ticket::ids)
    }

    /// When the request will be given up, as [`Request::deadline`](crate::Request::deadline).
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether nobody waits for the answer any more: HAProxy aborted the request or sent another under the same
    /// identifiers, it was given up, or the connection ended. To be asked before and in the course of long work; an answer
    /// is dropped then.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled().is_some()
    }

    /// Why nobody waits for the answer any more, if so.
    pub fn cancelled(&self) -> Option<Cancelled> {
        self.wanted.0.get().copied()
    }

    /// Answers.
    pub fn reply(mut self, reply: impl Into<Reply>) {
        self.send(Ok(reply.into()));
    }

    fn send(&mut self, answer: Answer) {
        if let Some(ticket) = self.ticket.take() {
            // A worker that is gone has no connection left.
            let _ = self.mailbox.send(Letter::Answer { ticket, answer });
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.send(Err(if thread::panicking() {
                Failure::new("handler_panicked", "the thread that had the responder panicked")
            } else {
                Failure::new("responder_dropped", "the responder was dropped")
            }));
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("ticket", &self.ticket)
            .field("messages", &self.messages)
            .field("cancelled", &self.cancelled())
            .finish_non_exhaustive()
    }
}
