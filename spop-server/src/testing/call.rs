//! Calls of handlers without a connection.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    task::Wake,
    thread::{self, Thread},
    time::{Duration, Instant},
};

use spop_core::{
    Actions,
    agent::{Reply, TicketId},
    engine::EngineError,
    testing::{Outcome, Why},
};

use crate::{Cancellation, Cancelled, Connection, Failure, FailureKind, Handler, Request, inbox::Message};

/// How long [`call`] waits for an answer that comes from another thread, unless the request has a deadline.
pub const LIMIT: Duration = Duration::from_secs(10);

/// How often a request that waits is looked at, in case that it was dropped.
const TICK: Duration = Duration::from_millis(1);

/// Calls a handler, and waits for its answer: also for one that comes from another thread
/// ([`Request::defer`]), until the request's [deadline](super::TestRequest::deadline) or for [`LIMIT`]. What HAProxy gets of a
/// failure is an answer without actions; [`Outcome::failure`] says why, as `KIND: ERROR` with the names of [`FailureKind`].
///
/// ```
/// use std::thread;
/// use spop_core::Actions;
/// use spop_server::{Request, testing::{self, TestRequest}};
///
/// let mut handler = |request: Request<'_>| request.defer(|responder| {
///     thread::spawn(move || responder.reply(Actions::new()));
/// });
/// let outcome = testing::call(&mut handler, TestRequest::new("check-ip"));
/// assert_eq!((outcome.sentence(), outcome.failure()), ("".into(), None));
///
/// let mut panics = |_: Request<'_>| -> Actions { panic!("no luck") };
/// let outcome = testing::call(&mut panics, TestRequest::new("check-ip"));
/// assert_eq!(outcome.failure(), Some("handler_panicked: no luck"));
/// ```
///
/// No limit of a server applies: an answer that is too long for HAProxy, for example, shows with [`replay`](super::replay()).
pub fn call(handler: &mut impl Handler, request: impl Into<Request<'static>>) -> Outcome {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let request = request.into();
    let deadline = request.deadline();
    let until = deadline.unwrap_or_else(|| Instant::now() + LIMIT);
    let mut pending = Pending::new(&request);
    pending.connection.inbox.set_waker(&Arc::new(Unpark(thread::current())).into());
    let (id, mut answer) = (request.id(), None);
    match catch_unwind(AssertUnwindSafe(|| handler.handle(request))) {
        Ok(crate::Outcome::Now(given)) => answer = Some(given),
        Ok(crate::Outcome::Later) => {}
        Err(panic) => answer = Some(Reply::Fail(Failure::panicked(panic.as_ref()))),
    }
    let cancel = |handler: &mut _, why| {
        let _ = catch_unwind(AssertUnwindSafe(|| Handler::cancel(handler, id, why)));
    };
    loop {
        // Before the messages: the last that holds the request may answer.
        let is_kept = pending.connection.held.load(Ordering::Acquire) > 0;
        if let Some(answer) = answer.take().or_else(|| pending.receive()) {
            return pending.answered(answer);
        }
        if let Some(why) = pending.cancellation.reason() {
            cancel(handler, why);
            return pending.cancelled(why);
        }
        let now = Instant::now();
        if now >= until {
            let outcome = pending.timed_out(deadline.is_some());
            cancel(handler, Cancelled::TimedOut);
            return outcome;
        }
        if !is_kept {
            let nothing = Failure::new(FailureKind::HandlerFailed, "it answered nothing");
            return pending.answered(Reply::Fail(nothing));
        }
        thread::park_timeout(TICK.min(until - now));
    }
}

/// A request whose handler was called without a connection. Private: for the adapters.
#[doc(hidden)]
#[derive(Debug)]
pub struct Pending {
    connection: Arc<Connection>,
    request: TicketId,
    /// Tells when the answer is not needed any more.
    pub cancellation: Cancellation,
    parts: Actions,
}

impl Pending {
    /// Of a request that is about to be handled.
    pub fn new(request: &Request<'static>) -> Self {
        let connection = Arc::clone(request.shared_connection());
        let cancellation = connection.inbox.watch(request.id());
        Self { connection, request: request.id(), cancellation, parts: Actions::new() }
    }

    /// What was sent to its connection: parts of its answer, and the answer of a responder.
    fn receive(&mut self) -> Option<Reply> {
        let mut answer = None;
        for message in self.connection.inbox.take_messages() {
            match message {
                Message::Part(_, actions) => _ = self.parts.append(&actions),
                Message::Answer(_, given) if answer.is_none() => answer = Some(given),
                _ => {}
            }
        }
        answer
    }

    /// The outcome of this answer.
    pub fn answered(mut self, answer: Reply) -> Outcome {
        self.receive();
        self.connection.inbox.end_watched(self.request, Cancelled::Answered);
        match answer {
            Reply::Ack(actions) => Outcome::answered(self.parts.append(&actions)),
            Reply::Fail(failure) => match &failure.answer {
                Some(answer) => Outcome::answered(answer).with_failure(&failure),
                None => nothing(&failure),
            },
            Reply::Abort => nothing("the handler aborted its answer"),
            Reply::Disconnect { status, message } => Outcome::failed(EngineError::Spop(status))
                .with_failure(format!("the handler disconnects: {message}")),
        }
    }

    /// The outcome of a request that was cancelled.
    pub fn cancelled(self, why: Cancelled) -> Outcome {
        Outcome::failed(EngineError::Interrupted).with_failure(format!("cancelled: {why:?}"))
    }

    /// The outcome of a request that has no answer at its deadline, or after [`LIMIT`].
    pub fn timed_out(self, deadline: bool) -> Outcome {
        self.connection.inbox.end_watched(self.request, Cancelled::TimedOut);
        let time = if deadline { "before the deadline".into() } else { format!("within {LIMIT:?}") };
        nothing(&Failure::new(FailureKind::TimedOut, format_args!("no answer {time}")))
    }
}

fn nothing(why: impl Into<Why>) -> Outcome {
    Outcome::answered(&Actions::new()).with_failure(why)
}
