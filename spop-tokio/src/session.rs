//! Carries out what a reactor says: between the protocol and the handler, without any I/O.

mod end;
mod report;
#[cfg(test)]
mod tests;

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    task::Context,
};

use bytes::Bytes;
use spop_core::{
    AckError, Action, AgentReactor, Closed, ConnectionId, Notify, Settled, Step, Ticket, Timestamp,
    agent::{Cancel, TicketId},
    frame::Ids,
    link::Phase,
};
use spop_server::{Cancelled, Open, UnfinishedBytes, overdue};
use tracing::{debug, warn};

use crate::{
    Handler, Peer, Reply, Request, Watch,
    calls::{Calls, Outcome, panic_message},
    cancellation::Watched,
    entrance::{Accepted, Arrival},
    request::{Job, Origin},
    service::Shared,
    siblings::{Membership, SiblingMessage},
};

/// After how many sends memory is given back at once. A connection is often opened for one request: after the handshake and
/// the first answer nothing may come for long.
const EARLY: u8 = 2;

/// One connection but for its bytes.
pub(crate) struct Session<H, F, C> {
    pub(crate) reactor: AgentReactor,
    shared: Arc<Shared<H>>,
    calls: Calls<F>,
    /// Makes a call of a request.
    call: C,
    peer: Peer,
    /// What was learned before the session.
    accepted: Option<Arc<Accepted>>,
    /// Set with the handshake.
    origin: Option<Arc<Origin>>,
    /// With async.
    membership: Option<Membership>,
    /// Counts it while it lives.
    #[allow(dead_code)]
    open: Open,
    /// What it holds of requests that have not arrived whole.
    unfinished: UnfinishedBytes,
    /// Sends since memory was given back when it was time for that, up to [`EARLY`].
    sends: u8,
    closed: Option<Closed>,
}

/// What is left of a connection whose stream may be closed.
pub(crate) struct Ended<F> {
    /// Why it ended.
    pub(crate) closed: Option<Closed>,
    /// Handlers whose answers its siblings can send.
    pub(crate) orphans: Option<(Calls<F>, Membership)>,
}

impl<H, F, C> Session<H, F, C>
where
    H: Handler,
    F: Future<Output = Reply>,
    C: Fn(Request) -> F,
{
    pub(crate) fn new(shared: Arc<Shared<H>>, id: ConnectionId, arrival: Arrival, call: C) -> Self {
        let Arrival { peer, accepted, layers, .. } = arrival;
        let reactor = AgentReactor::new(Arc::clone(&shared.config), id, shared.now()).with_layers(layers);
        debug!(name: "connection_opened", %peer, connection = id.0, "connection opened");
        let open = shared.metrics.open();
        let unfinished = shared.unfinished.connection();
        Self {
            reactor,
            shared,
            calls: Calls::new(),
            call,
            peer,
            accepted,
            origin: None,
            membership: None,
            open,
            unfinished,
            sends: 0,
            closed: None,
        }
    }

    /// Carries out an action that came of an input; true when there is more to be done with that.
    #[inline]
    fn carry_out(&mut self, now: Timestamp, cx: &mut Context<'_>, input: &Bytes, action: Action<'_>) -> bool {
        match action {
            Action::RunMessages(Notify { ticket, payload }) => {
                let Some(origin) = &self.origin else { return true };
                let ids = ticket.ids();
                self.shared.metrics.notifies(1);
                if let Some(membership) = &self.membership {
                    membership.hold(&ticket);
                }
                let timeout = self.shared.config.timeouts.message;
                let deadline = timeout.and_then(|timeout| self.shared.clock.instant(now + timeout));
                let Some(permit) = self.shared.in_flight.enter() else {
                    self.overloaded(now, ticket);
                    return true;
                };
                let job = Job { permit, work: self.shared.metrics.work() };
                let origin = Arc::clone(origin);
                let call = &self.call;
                let call =
                    || call(Request { messages: payload.into_owned_in(input), ids, deadline, origin, job });
                if let Some((ticket, outcome)) = self.calls.start(cx, ticket, call) {
                    self.settle(now, ticket, outcome);
                }
            }
            Action::Established(session) => {
                debug!(
                    name: "session_established",
                    peer = %self.peer,
                    connection = self.reactor.connection().0,
                    capabilities = %session.capabilities,
                    max_frame_size = session.max_frame_size,
                    "session established"
                );
                if session.loses_long_requests()
                    && let Some(suppressed) = self.shared.logs.session.pass()
                {
                    warn!(
                        name: "frame_size_reduced",
                        peer = %self.peer,
                        offered = session.peer_max_frame_size,
                        agreed = session.max_frame_size,
                        suppressed,
                        "requests longer than the agreed frame size fail in HAProxy (259 since 3.1): raise max_frame_size"
                    );
                }
                self.membership = self.shared.siblings.join(self.reactor.connection(), &session);
                self.origin = Some(Arc::new(Origin {
                    peer: self.peer.clone(),
                    accepted: self.accepted.clone(),
                    session,
                    watched: Watched::default(),
                }));
            }
            Action::FragmentArrived(ids) => self.watch(now, ids),
            Action::AbortFragment(aborted) => {
                let (ids, received, why) = (aborted.ids, aborted.received, aborted.why);
                debug!(name: "payload_dropped", peer = %self.peer, %ids, received, ?why, "payload dropped");
                self.shared.metrics.aborted(1);
            }
            Action::CancelMessages(cancelled) => {
                let (ids, why) = (cancelled.ids, cancelled.why);
                debug!(name: "request_cancelled", peer = %self.peer, %ids, ?why, "request cancelled");
                match why {
                    Cancel::TimedOut => self.failed(ids, "timed_out", "no answer in time"),
                    Cancel::Overdue => {
                        self.shared.counters.overdue.fetch_add(1, Ordering::Relaxed);
                        let in_flight = self.reactor.in_flight() + 1;
                        self.failed(ids, "overdue", &overdue(&self.shared.config, in_flight, cancelled.age));
                    }
                    Cancel::Abandoned => self.abandoned(ids, cancelled.age),
                    _ => self.shared.metrics.cancelled(1),
                }
                self.calls.cancel(cancelled.ticket);
                self.ended(ids, why.into());
                if let Some(membership) = &self.membership {
                    membership.cancel(ids, cancelled.ticket);
                }
            }
            Action::Close(closed) => {
                self.close(closed);
                return false;
            }
            // SendFrames, WantBytes, Paused: the driver reads the interest.
            _ => return false,
        }
        true
    }

    /// Carries out an action that needs no bytes.
    fn carry_out_event(&mut self, now: Timestamp, cx: &mut Context<'_>, action: Action<'static>) -> bool {
        self.carry_out(now, cx, &Bytes::new(), action)
    }

    /// Passes on an input until there is no more to be done with it; returns how many bytes were used.
    #[inline]
    fn pass_on(&mut self, now: Timestamp, cx: &mut Context<'_>, input: &Bytes, eof: bool) -> usize {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let reactor = &mut self.reactor;
            let step = if eof { reactor.on_input_eof(now, rest) } else { reactor.on_bytes(now, rest) };
            let Step { consumed, action } = step;
            used += consumed;
            if !self.carry_out(now, cx, input, action) {
                return used;
            }
        }
    }

    /// Whether a decision has ended the session, and the loop has yet to collect its `Action::Close`. Answers would
    /// be dropped until then.
    fn has_ended(&self) -> bool {
        self.closed.is_none() && self.reactor.phase() == Phase::Closing
    }

    /// Answers what was slow and is ready now; true when there was something.
    fn answer(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.shared.now();
        let mut answered = self.membership.is_some() && self.take_messages(now, cx);
        while !self.has_ended()
            && let Some((ticket, outcome)) = self.calls.finished(cx)
        {
            self.settle(now, ticket, outcome);
            answered = true;
        }
        answered
    }

    /// Does what siblings have asked for; true when there was something.
    #[cold]
    fn take_messages(&mut self, now: Timestamp, cx: &mut Context<'_>) -> bool {
        let Some(membership) = &self.membership else { return false };
        // What is queued by now is held up by the peer.
        membership.set_backlog(self.reactor.send_backlog());
        membership.register(cx.waker());
        let mut any = false;
        while !self.has_ended()
            && let Some(message) = self.membership.as_ref().and_then(Membership::next_message)
        {
            any = true;
            match message {
                SiblingMessage::Answer(ticket, outcome) => self.settle_here(now, ticket, outcome),
                SiblingMessage::Cancel(ticket) => {
                    if let Some(ids) = self.calls.cancel(ticket) {
                        self.ended(ids, Cancelled::Superseded);
                        self.shared.metrics.cancelled(1);
                    }
                    self.release(now, ticket);
                }
            }
        }
        any
    }

    #[inline]
    fn settle(&mut self, now: Timestamp, ticket: Ticket, outcome: Outcome) {
        self.ended(ticket.ids(), Cancelled::Answered);
        let Some(membership) = &self.membership else { return self.settle_here(now, ticket, outcome) };
        let id = ticket.id();
        match membership.route(ticket, outcome) {
            Some((ticket, outcome)) => self.settle_here(now, ticket, outcome),
            None => self.release(now, id),
        }
    }

    /// Answers on this connection.
    #[inline]
    fn settle_here(&mut self, now: Timestamp, ticket: Ticket, outcome: Outcome) {
        let ids = ticket.ids();
        if let Ok(Reply::Ack(actions)) = &outcome {
            self.warn_of_names(actions);
        }
        match outcome {
            Ok(Reply::Ack(actions)) => match self.reactor.acknowledge(now, ticket, &actions) {
                Ok(Settled::Queued) => self.shared.metrics.acks(1),
                Ok(Settled::Late { age }) => self.late(ids, age),
                Ok(_) => {}
                Err(AckError::Closing { ticket, .. }) => self.hand_back(ticket, Ok(Reply::Ack(actions))),
                Err(error) => {
                    let words = error.to_string();
                    self.fail(now, error.into_ticket(), "answer_unsendable", &words);
                }
            },
            Ok(Reply::Fail(error)) => self.fail(now, ticket, "handler_failed", &error),
            Err(panic) => self.fail(now, ticket, "handler_panicked", &panic),
            Ok(Reply::Disconnect { status, message }) if ticket.connection() == self.reactor.connection() => {
                self.reactor.disconnect(now, status, &message);
            }
            // The connection that it was to end has ended.
            Ok(Reply::Disconnect { message, .. }) => self.fail(now, ticket, "already_disconnected", &message),
        }
    }

    /// Gives an answer to another connection of the engine.
    #[cold]
    fn hand_back(&self, ticket: Ticket, outcome: Outcome) {
        if let Some(membership) = &self.membership {
            membership.hand_back(ticket, outcome);
        }
    }

    /// A NOTIFY of this connection was answered on another, or its answer is not wanted any more.
    #[cold]
    fn release(&mut self, now: Timestamp, ticket: TicketId) {
        // An error says that it was answered or cancelled meanwhile.
        let _ = self.reactor.release(now, ticket);
    }

    #[cold]
    fn fail(&mut self, now: Timestamp, ticket: Ticket, what: &'static str, error: &str) {
        self.failed(ticket.ids(), what, error);
        self.apply_on_failure(now, ticket, error);
    }

    /// Applies `on_failure`: the reply that HAProxy gets for a request without an answer.
    #[cold]
    fn apply_on_failure(&mut self, now: Timestamp, ticket: Ticket, error: &str) {
        if let Err(refused) = self.reactor.fail(now, ticket) {
            self.hand_back(refused.into_ticket(), Ok(Reply::Fail(error.to_owned())));
        }
    }

    /// Tells the cancellations of a request that it has ended.
    #[inline]
    fn ended(&self, ids: Ids, why: Cancelled) {
        if let Some(origin) = &self.origin {
            origin.watched.end(ids, why);
        }
    }

    #[cold]
    fn overloaded(&mut self, now: Timestamp, ticket: Ticket) {
        self.shared.metrics.overloaded(1);
        self.shared.counters.overloaded.fetch_add(1, Ordering::Relaxed);
        if let Some(membership) = &self.membership {
            membership.cancel(ticket.ids(), ticket.id());
        }
        let error = "too many requests";
        self.log_failure(ticket.ids(), "overloaded", error);
        self.apply_on_failure(now, ticket, error);
    }

    fn watch(&mut self, now: Timestamp, ids: Ids) {
        let Some(arriving) = self.reactor.arriving(ids) else { return };
        let handler = &self.shared.handler;
        match catch_unwind(AssertUnwindSafe(|| handler.watch(arriving))) {
            Ok(Watch::Continue) => {}
            // An error would say that it is not arriving any more.
            Ok(Watch::Refuse) => _ = self.reactor.abort(now, ids),
            Err(panic) => {
                if let Some(suppressed) = self.shared.logs.handler.pass() {
                    let error = panic_message(panic.as_ref());
                    warn!(name: "watch_panicked", peer = %self.peer, %ids, error, suppressed, "watch panicked");
                }
            }
        }
    }

    fn close(&mut self, mut closed: Closed) {
        if self.membership.as_ref().is_some_and(Membership::leave) {
            // Siblings send the answers.
            closed.lost.messages = 0;
        } else {
            self.calls.clear();
            if let Some(origin) = &self.origin {
                origin.watched.end_all();
            }
        }
        self.report(&closed);
        self.shared.metrics.closed(&closed);
        self.shared.metrics.cancelled(closed.lost.messages);
        self.closed = Some(closed);
    }

    /// Takes out what is left at the end.
    pub(crate) fn end(&mut self) -> Ended<F> {
        let calls = mem::replace(&mut self.calls, Calls::new());
        let orphans =
            self.membership.take().filter(|_| !calls.is_empty()).map(|membership| (calls, membership));
        Ended { closed: self.closed.take(), orphans }
    }
}
