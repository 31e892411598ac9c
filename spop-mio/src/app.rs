//! Carries out what a reactor says: between the protocol and the handler, without any I/O.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use spop_core::{
    Action, Actions, AgentReactor, CloseReason, Closed, ConnectionId, Notify, Session, Settled, Ticket,
    Timestamp,
    agent::{Cancel, Reply, TicketId, Watch},
    frame::Ids,
    hub::Hub,
};
use spop_server::{LogLimits, overdue};
use tracing::{debug, warn};

use crate::{
    Handler, Outcome, Request, mail::Mailbox, passing::Whence, pending::Pending, request::Call,
    responder::Letter, shared::Shared, spans, tally::Tally,
};

/// The application's side of a worker.
pub(crate) struct App<H> {
    pub(crate) handler: H,
    pub(crate) shared: Arc<Shared>,
    /// Where answers come that come later.
    pub(crate) mailbox: Arc<Mailbox<Letter>>,
    pub(crate) tally: Tally,
    pub(crate) hub: Hub,
    pub(crate) pending: Pending,
    pub(crate) logs: LogLimits,
    /// Requests of other connections that need no answer any more: they came again elsewhere.
    pub(crate) superseded: Vec<(ConnectionId, TicketId)>,
    /// Whether a session was just established whose answers may take other connections.
    pub(crate) joined: bool,
}

impl<H: Handler> App<H> {
    /// Carries out an action.
    #[inline]
    pub(crate) fn act(
        &mut self,
        now: Timestamp,
        reactor: &mut AgentReactor,
        peer: &Whence,
        action: Action<'_>,
    ) {
        match action {
            Action::RunMessages(notify) => self.run(now, reactor, peer, notify),
            Action::Established(session) => self.established(now, reactor.connection(), peer, &session),
            Action::FragmentArrived(ids) => self.watch(now, reactor, peer, ids),
            Action::AbortFragment(aborted) => {
                let (ids, received, why) = (aborted.ids, aborted.received, aborted.why);
                debug!(name: "payload_dropped", %peer, %ids, received, ?why, "payload dropped");
                self.tally.aborted += 1;
            }
            Action::CancelMessages(cancelled) => {
                let (ids, why) = (cancelled.ids, cancelled.why);
                debug!(name: "request_cancelled", %peer, %ids, ?why, "request cancelled");
                match why {
                    Cancel::TimedOut => {
                        self.failed(now, peer, ids, &Failure::new("timed_out", "no answer in time"));
                    }
                    Cancel::Overdue => {
                        self.shared.control.counters.overdue.fetch_add(1, Ordering::Relaxed);
                        let error = overdue(&self.shared.config, reactor.in_flight() + 1, cancelled.age);
                        self.failed(now, peer, ids, &Failure::new("overdue", &error));
                    }
                    Cancel::Abandoned => self.abandoned(now, peer, ids, cancelled.age),
                    _ => self.tally.cancelled += 1,
                }
                self.hub.cancel(reactor.connection(), ids, cancelled.ticket);
                self.pending.cancel(reactor.connection(), cancelled.ticket, why.into());
            }
            Action::Close(closed) => self.close(now, reactor, peer, &closed),
            _ => {}
        }
    }

    #[inline]
    fn run(&mut self, now: Timestamp, reactor: &mut AgentReactor, peer: &Whence, notify: Notify<'_>) {
        let Notify { ticket, payload } = notify;
        let (connection, id, ids) = (ticket.connection(), ticket.id(), ticket.ids());
        let shared = ticket.engine_id().is_some();
        if shared && let Some(older) = self.hub.hold(&ticket) {
            self.superseded.push(older);
        }
        let Some(session) = reactor.session() else { return };
        self.tally.notifies += 1;
        let server = &*self.shared;
        let Some(permit) = server.in_flight.enter() else {
            return self.overloaded(now, reactor, peer, ticket);
        };
        let mut call = Call { ticket: Some(ticket), permit, began: server.metrics.begin(), cancelled: None };
        let deadline = server.config.timeouts.message.map(|timeout| now + timeout);
        let request = Request {
            payload,
            ids,
            deadline,
            call: &mut call,
            session,
            whence: peer,
            mailbox: &self.mailbox,
            shared: server,
        };
        let span = spans::request(peer, connection, ids);
        let handler = &mut self.handler;
        let entered = span.enter();
        let outcome = catch_unwind(AssertUnwindSafe(|| handler.handle(request)));
        drop(entered);
        let answer = match outcome {
            Ok(Outcome(Some(reply))) => Ok(reply),
            // Then the ticket is with a responder, and this answers nothing.
            Ok(Outcome(None)) => Err(Failure::new("handler_failed", "it answered nothing")),
            Err(panic) => Err(Failure::new("handler_panicked", words(panic.as_ref()))),
        };
        if let Some(cancelled) = call.cancelled {
            // An answer that came already waits in the mail.
            self.pending.insert(connection, id, cancelled);
        }
        if let Some(ticket) = call.ticket {
            server.metrics.worked(call.began);
            if shared {
                self.hub.cancel(connection, ids, id);
            }
            self.settle(now, reactor, peer, ticket, answer);
        }
    }

    #[cold]
    fn overloaded(&mut self, now: Timestamp, reactor: &mut AgentReactor, peer: &Whence, ticket: Ticket) {
        self.tally.overloaded += 1;
        self.shared.control.counters.overloaded.fetch_add(1, Ordering::Relaxed);
        self.hub.cancel(reactor.connection(), ticket.ids(), ticket.id());
        self.complain(now, peer, ticket.ids(), &Failure::new("overloaded", "too many requests"));
        // Refused where the session is over, and then the peer waits for nothing.
        let _ = reactor.fail(now, ticket);
    }
}

impl<H> App<H> {
    /// Answers on this connection.
    #[inline]
    pub(crate) fn settle(
        &mut self,
        now: Timestamp,
        reactor: &mut AgentReactor,
        peer: &Whence,
        ticket: Ticket,
        answer: Answer,
    ) {
        let ids = ticket.ids();
        if let Ok(Reply::Ack(actions)) = &answer {
            self.warn_of_names(actions);
        }
        match answer {
            Ok(Reply::Ack(actions)) => match reactor.acknowledge(now, ticket, &actions) {
                Ok(Settled::Queued) => self.tally.acks += 1,
                Ok(Settled::Late { age }) => self.late(now, peer, ids, age),
                Ok(_) => {}
                Err(error) => {
                    let failure = Failure::new("answer_unsendable", &error.to_string());
                    self.fail(now, reactor, peer, error.into_ticket(), &failure);
                }
            },
            Ok(Reply::Fail(error)) => {
                self.fail(now, reactor, peer, ticket, &Failure::new("handler_failed", &error));
            }
            Err(failure) => self.fail(now, reactor, peer, ticket, &failure),
            Ok(Reply::Disconnect { status, message }) => reactor.disconnect(now, status, &message),
        }
    }

    /// HAProxy drops variables silently whose names it does not like.
    #[inline]
    pub(crate) fn warn_of_names(&self, actions: &Actions) {
        for dropped in actions.dropped_names().filter(|dropped| self.shared.names.is_new(dropped.name())) {
            warn!(name: "variable_dropped", error = %dropped.error(), "HAProxy ignores this variable: change its name in the handler");
        }
    }

    /// HAProxy has given a request up that still ran.
    #[cold]
    fn abandoned(&mut self, now: Timestamp, peer: &Whence, ids: Ids, age: Duration) {
        self.tally.cancelled += 1;
        self.shared.control.counters.abandoned.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.logs.late.pass(now) {
            warn!(
                name: "request_abandoned", %peer, %ids, ?age, suppressed,
                "HAProxy gave the request up: its handler takes longer than `timeout processing`"
            );
        }
    }

    /// HAProxy has gone on without this answer.
    #[cold]
    pub(crate) fn late(&mut self, now: Timestamp, peer: &Whence, ids: Ids, age: Duration) {
        self.tally.acks += 1;
        self.shared.metrics.late(1);
        self.shared.control.counters.late.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.logs.late.pass(now) {
            let processing = self.shared.config.processing;
            warn!(
                name: "answered_late", %peer, %ids, ?age, ?processing, suppressed,
                "answered later than `processing`: HAProxy has probably given the request up"
            );
        }
    }

    /// Gives HAProxy what it gets for a request without an answer.
    #[cold]
    pub(crate) fn fail(
        &mut self,
        now: Timestamp,
        reactor: &mut AgentReactor,
        peer: &Whence,
        ticket: Ticket,
        failure: &Failure,
    ) {
        self.failed(now, peer, ticket.ids(), failure);
        // Refused where the session is over, and then the peer waits for nothing.
        let _ = reactor.fail(now, ticket);
    }

    /// A request has no answer of its handler.
    #[cold]
    fn failed(&mut self, now: Timestamp, peer: &Whence, ids: Ids, failure: &Failure) {
        self.tally.failures += 1;
        self.complain(now, peer, ids, failure);
    }

    #[cold]
    fn complain(&mut self, now: Timestamp, peer: &Whence, ids: Ids, failure: &Failure) {
        if let Some(suppressed) = self.logs.handler.pass(now) {
            let (what, error) = (failure.what, &failure.words);
            warn!(name: "request_failed", %peer, %ids, what, error, suppressed, "request failed");
        }
    }

    fn established(&mut self, now: Timestamp, connection: ConnectionId, peer: &Whence, session: &Session) {
        if session.loses_long_requests()
            && let Some(suppressed) = self.logs.session.pass(now)
        {
            warn!(
                name: "frame_size_reduced",
                %peer,
                offered = session.peer_max_frame_size,
                agreed = session.max_frame_size,
                suppressed,
                "requests longer than the agreed frame size fail in HAProxy (259 since 3.1): raise max_frame_size"
            );
        }
        debug!(
            name: "session_established",
            %peer,
            connection = connection.0,
            capabilities = %session.capabilities,
            max_frame_size = session.max_frame_size,
            "session established"
        );
        self.joined |= self.hub.join(connection, session);
    }

    fn close(&mut self, now: Timestamp, reactor: &AgentReactor, peer: &Whence, closed: &Closed) {
        if !self.forget(now, reactor) {
            self.tally.cancelled += closed.lost.messages;
        }
        let connection = reactor.connection().0;
        self.shared.metrics.closed(closed);
        let faulty = !closed.reason.is_normal()
            && !matches!(closed.reason, CloseReason::Transport | CloseReason::Disconnect(_));
        if let CloseReason::Violation(violation) = &closed.reason
            && reactor.session().is_none()
            && let Some(what) = violation.foreign()
        {
            if let Some(suppressed) = self.logs.foreign.pass(now) {
                warn!(name: "not_spop", %peer, connection, suppressed, "{what} arrived instead of a HAPROXY-HELLO");
            }
        } else if !faulty {
            debug!(name: "connection_closed", %peer, connection, reason = %closed, "connection closed");
        } else if let Some(suppressed) = self.logs.closed.pass(now) {
            warn!(name: "connection_failed", %peer, connection, reason = %closed, suppressed, "connection failed");
        }
    }

    /// A session is over. True when its requests go on, because other connections can carry their answers.
    pub(crate) fn forget(&mut self, now: Timestamp, reactor: &AgentReactor) -> bool {
        let connection = reactor.connection();
        let Some(engine) = reactor.session().and_then(Session::shared_engine) else {
            self.pending.disconnect(connection);
            return false;
        };
        if !self.hub.has(connection) {
            // It was over before its stream was closed.
            return false;
        }
        let goes_on = self.hub.leave(connection);
        if goes_on {
            let until = self.shared.config.timeouts.message.map(|patience| now + patience);
            self.pending.orphan(connection, engine, until);
        } else {
            self.tally.cancelled += self.pending.abandon(connection, engine);
        }
        goes_on
    }
}

impl<H: Handler> App<H> {
    fn watch(&mut self, now: Timestamp, reactor: &mut AgentReactor, peer: &Whence, ids: Ids) {
        let Some(arriving) = reactor.arriving(ids) else { return };
        let handler = &mut self.handler;
        match catch_unwind(AssertUnwindSafe(|| handler.watch(arriving))) {
            Ok(Watch::Continue) => {}
            // An error would say that it is not arriving any more.
            Ok(Watch::Refuse) => drop(reactor.abort(now, ids)),
            Err(panic) => {
                if let Some(suppressed) = self.logs.handler.pass(now) {
                    let error = words(panic.as_ref());
                    warn!(name: "watch_panicked", %peer, %ids, error, suppressed, "watch panicked");
                }
            }
        }
    }
}

/// What there is to say to a request.
pub(crate) type Answer = Result<Reply, Failure>;

/// Why there is nothing to say.
#[derive(Debug)]
pub(crate) struct Failure {
    what: &'static str,
    words: String,
}

impl Failure {
    #[cold]
    pub(crate) fn new(what: &'static str, words: &str) -> Self {
        Self { what, words: words.to_owned() }
    }
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "a panic without words"
    }
}
