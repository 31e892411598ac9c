//! Carries out what a reactor says: between the protocol and the handler, without any I/O.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    task::Context,
    time::Duration,
};

use bytes::Bytes;
use spop_core::{
    AckError, Action, Actions, AgentReactor, Clock, CloseReason, Closed, ConnectionId, Interest, Misuse,
    Notify, Settled, Status, Step, Ticket, Timer, Timestamp,
    agent::{Cancel, TicketId},
    frame::Ids,
    link::{Phase, Progress},
};
use spop_server::{Cancelled, Open, TOO_MUCH_UNFINISHED, UnfinishedBytes, overdue};
use tracing::{debug, warn};

use crate::{
    Handler, Peer, Reply, Request, Watch,
    calls::{Calls, Outcome, words},
    cancellation::Watched,
    entrance::{Accepted, Arrival},
    request::{Job, Origin},
    service::Shared,
    siblings::{Letter, Seat},
    transfer::End,
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
    seat: Option<Seat>,
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
    pub(crate) orphans: Option<(Calls<F>, Seat)>,
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
            seat: None,
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
                if let Some(seat) = &self.seat {
                    seat.hold(&ticket);
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
                self.seat = self.shared.siblings.join(self.reactor.connection(), &session);
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
                if let Some(seat) = &self.seat {
                    seat.cancel(ids, cancelled.ticket);
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

    /// Whether a decision has ended the session, and the loop has yet to collect its `Action::Close`. Whoever answers now
    /// would answer nobody.
    fn has_ended(&self) -> bool {
        self.closed.is_none() && self.reactor.phase() == Phase::Closing
    }

    /// Answers what was slow and is ready now; true when there was something.
    fn answer(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.shared.now();
        let mut answered = self.seat.is_some() && self.open_letters(now, cx);
        while !self.has_ended()
            && let Some((ticket, outcome)) = self.calls.finished(cx)
        {
            self.settle(now, ticket, outcome);
            answered = true;
        }
        answered
    }

    /// Does what other connections of the engine have asked for; true when there was something.
    #[cold]
    fn open_letters(&mut self, now: Timestamp, cx: &mut Context<'_>) -> bool {
        let Some(seat) = &self.seat else { return false };
        // What has not left by now is held up by the peer.
        seat.set_room(self.reactor.send_backlog());
        let letters = seat.letters(cx.waker());
        let any = !letters.is_empty();
        for letter in letters {
            match letter {
                Letter::Answer(ticket, outcome) => self.settle_here(now, ticket, outcome),
                Letter::Cancel(ticket) => {
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
        let Some(seat) = &self.seat else { return self.settle_here(now, ticket, outcome) };
        let id = ticket.id();
        match seat.route(ticket, outcome) {
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

    /// HAProxy drops variables silently whose names it does not like.
    #[inline]
    fn warn_of_names(&self, actions: &Actions) {
        for dropped in actions.dropped_names().filter(|dropped| self.shared.names.is_new(dropped.name())) {
            warn!(name: "variable_dropped", error = %dropped.error(), "HAProxy ignores this variable: change its name in the handler");
        }
    }

    /// HAProxy has given a request up that still ran.
    #[cold]
    fn abandoned(&self, ids: Ids, age: Duration) {
        self.shared.metrics.cancelled(1);
        self.shared.counters.abandoned.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.shared.logs.late.pass() {
            warn!(
                name: "request_abandoned", peer = %self.peer, %ids, ?age, suppressed,
                "HAProxy gave the request up: its handler takes longer than `timeout processing`"
            );
        }
    }

    /// HAProxy has gone on without this answer.
    #[cold]
    fn late(&self, ids: Ids, age: Duration) {
        self.shared.metrics.acks(1);
        self.shared.metrics.late(1);
        self.shared.counters.late.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.shared.logs.late.pass() {
            let processing = self.shared.config.processing;
            warn!(
                name: "answered_late", peer = %self.peer, %ids, ?age, ?processing, suppressed,
                "answered later than `processing`: HAProxy has probably given the request up"
            );
        }
    }

    /// Another connection of the engine may send it.
    #[cold]
    fn hand_back(&self, ticket: Ticket, outcome: Outcome) {
        if let Some(seat) = &self.seat {
            seat.hand_back(ticket, outcome);
        }
    }

    /// A NOTIFY of this connection was answered on another, or nobody waits for it.
    #[cold]
    fn release(&mut self, now: Timestamp, ticket: TicketId) {
        // An error says that it was answered or cancelled meanwhile.
        let _ = self.reactor.release(now, ticket);
    }

    #[cold]
    fn fail(&mut self, now: Timestamp, ticket: Ticket, what: &'static str, error: &str) {
        self.failed(ticket.ids(), what, error);
        self.give_up(now, ticket, error);
    }

    /// HAProxy gets what it gets for a request without an answer.
    #[cold]
    fn give_up(&mut self, now: Timestamp, ticket: Ticket, error: &str) {
        if let Err(refused) = self.reactor.fail(now, ticket) {
            self.hand_back(refused.into_ticket(), Ok(Reply::Fail(error.to_owned())));
        }
    }

    /// A request has no answer of its handler.
    #[cold]
    fn failed(&self, ids: Ids, what: &'static str, error: &str) {
        self.shared.metrics.failures(1);
        self.complain(ids, what, error);
    }

    #[cold]
    fn complain(&self, ids: Ids, what: &'static str, error: &str) {
        if let Some(suppressed) = self.shared.logs.handler.pass() {
            warn!(name: "request_failed", peer = %self.peer, %ids, what, error, suppressed, "request failed");
        }
    }

    /// For whoever waits for the end of a request elsewhere.
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
        if let Some(seat) = &self.seat {
            seat.cancel(ticket.ids(), ticket.id());
        }
        let error = "too many requests";
        self.complain(ticket.ids(), "overloaded", error);
        self.give_up(now, ticket, error);
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
                    let error = words(panic.as_ref());
                    warn!(name: "watch_panicked", peer = %self.peer, %ids, error, suppressed, "watch panicked");
                }
            }
        }
    }

    fn close(&mut self, mut closed: Closed) {
        if self.seat.as_ref().is_some_and(Seat::leave) {
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
        let orphans = self.seat.take().filter(|_| !calls.is_empty()).map(|seat| (calls, seat));
        Ended { closed: self.closed.take(), orphans }
    }

    fn report(&self, closed: &Closed) {
        let (peer, connection) = (&self.peer, self.reactor.connection().0);
        let faulty = !closed.reason.is_normal()
            && !matches!(closed.reason, CloseReason::Transport | CloseReason::Disconnect(_));
        if let CloseReason::Violation(violation) = &closed.reason
            && self.reactor.session().is_none()
            && let Some(what) = violation.foreign()
        {
            if let Some(suppressed) = self.shared.logs.foreign.pass() {
                warn!(name: "not_spop", %peer, connection, suppressed, "{what} arrived instead of a HAPROXY-HELLO");
            }
        } else if !faulty {
            debug!(name: "connection_closed", %peer, connection, reason = %closed, "connection closed");
        } else if let Some(suppressed) = self.shared.logs.closed.pass() {
            warn!(name: "connection_failed", %peer, connection, reason = %closed, suppressed, "connection failed");
        }
    }
}

/// The session as the loop sees it.
impl<H, F, C> End for Session<H, F, C>
where
    H: Handler,
    F: Future<Output = Reply>,
    C: Fn(Request) -> F,
{
    fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    #[inline]
    fn interest(&self) -> Interest {
        self.reactor.interest()
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.reactor.deadline().map(|(at, _)| at)
    }

    fn outgoing(&mut self) -> &[u8] {
        self.reactor.outgoing()
    }

    #[inline]
    fn work(&mut self, cx: &mut Context<'_>) -> bool {
        (self.seat.is_some() || !self.calls.is_empty()) && self.answer(cx)
    }

    fn received(&mut self, bytes: usize) {
        self.shared.metrics.received(bytes);
    }

    #[inline]
    fn on_bytes(&mut self, now: Timestamp, cx: &mut Context<'_>, input: &Bytes, eof: bool) -> usize {
        let mut used = self.pass_on(now, cx, input, eof);
        if !self.shared.unfinished.count(&mut self.unfinished, self.reactor.unfinished_bytes()) {
            self.reactor.disconnect(now, Status::RESOURCE, TOO_MUCH_UNFINISHED);
            if let Some(suppressed) = self.shared.logs.closed.pass() {
                let (peer, connection) = (&self.peer, self.reactor.connection().0);
                let reason = TOO_MUCH_UNFINISHED;
                warn!(name: "connection_failed", %peer, connection, reason, suppressed, "connection failed");
            }
            used += self.pass_on(now, cx, &input.slice(used.min(input.len())..), eof);
            // What it held is gone now, and not when the peer has closed.
            let _ = self.shared.unfinished.count(&mut self.unfinished, self.reactor.unfinished_bytes());
        }
        used
    }

    fn on_read_blocked(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        let action = self.reactor.on_read_blocked(now);
        self.carry_out_event(now, cx, action);
    }

    fn on_sent(&mut self, now: Timestamp, cx: &mut Context<'_>, n: usize) -> Result<(), Misuse> {
        let action = self.reactor.on_sent(now, n)?;
        self.shared.metrics.sent(n);
        self.carry_out_event(now, cx, action);
        if self.sends < EARLY {
            self.sends += 1;
            self.calls.trim();
        }
        Ok(())
    }

    fn on_write_shut(
        &mut self,
        now: Timestamp,
        cx: &mut Context<'_>,
        progress: Progress,
    ) -> Result<(), Misuse> {
        let action = self.reactor.on_write_shut(now, progress)?;
        self.carry_out_event(now, cx, action);
        Ok(())
    }

    fn on_transport_error(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        let action = self.reactor.on_transport_error(now);
        self.carry_out_event(now, cx, action);
    }

    fn on_timeout(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        loop {
            if matches!(self.reactor.deadline(), Some((at, Timer::Memory)) if at <= now) {
                self.sends = 0;
                self.calls.trim();
            }
            let action = self.reactor.on_timeout(now);
            if !self.carry_out_event(now, cx, action) {
                break;
            }
        }
        // A payload that was given up is gone. It cannot be more than before.
        let _ = self.shared.unfinished.count(&mut self.unfinished, self.reactor.unfinished_bytes());
    }
}
