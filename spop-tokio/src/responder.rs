//! Answers that are given by another thread or task.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use spop_core::agent::{Failure, FailureKind};
use tokio::sync::oneshot;

use crate::{Handler, Reply, Request};

/// The obligation to answer one request, which can be handed to any thread or task. If it is dropped without an answer, the
/// request fails at once.
///
/// ```
/// use spop_tokio::{Actions, Deferred, Request, Responder, Server};
///
/// let (jobs, work) = std::sync::mpsc::channel::<(Request, Responder)>();
/// std::thread::spawn(move || {
///     for (request, responder) in work {
///         // Whatever takes its time, and may block.
///         responder.reply(Actions::new());
///     }
/// });
/// let server = Server::new(Deferred::new(move |request, responder| {
///     // If the thread is gone, the responder is dropped here.
///     let _ = jobs.send((request, responder));
/// }));
/// # drop(server);
/// ```
#[derive(Debug)]
#[must_use = "HAProxy waits for an answer"]
pub struct Responder(oneshot::Sender<Reply>);

/// The reply of a [`Responder`], for a handler that awaits it.
#[derive(Debug)]
#[must_use = "a handler awaits it"]
pub struct Response(oneshot::Receiver<Reply>);

impl Responder {
    /// A responder, and the reply that a handler awaits.
    pub fn new() -> (Self, Response) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), Response(receiver))
    }

    /// Answers. If the answer is not needed any more, it is dropped.
    pub fn reply(self, reply: impl Into<Reply>) {
        drop(self.0.send(reply.into()));
    }

    /// Whether the answer is not needed any more.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the answer is not needed any more.
    pub async fn cancelled(&mut self) {
        poll_fn(|cx| self.0.poll_closed(cx)).await;
    }
}

impl Future for Response {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let reply = Pin::new(&mut self.0).poll(cx);
        reply.map(|reply| {
            reply.unwrap_or_else(|_| {
                Failure::new(FailureKind::ResponderDropped, "the responder was dropped").into()
            })
        })
    }
}

/// A handler from a function that takes the request and a [`Responder`], and returns at once.
#[derive(Clone, Debug)]
pub struct Deferred<F>(F);

impl<F: Fn(Request, Responder) + Send + Sync + 'static> Deferred<F> {
    /// A handler that calls this function.
    pub const fn new(function: F) -> Self {
        Self(function)
    }
}

impl<F: Fn(Request, Responder) + Send + Sync + 'static> Handler for Deferred<F> {
    type Output = Reply;

    async fn handle(&self, request: Request) -> Reply {
        let (responder, response) = Responder::new();
        (self.0)(request, responder);
        response.await
    }
}
