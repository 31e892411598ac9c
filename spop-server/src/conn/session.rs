//! The session of a connection: carries out the actions of its reactor.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use spop_core::{
    Action, AgentReactor, Closed, Interest, Notify, Ticket, Timestamp,
    agent::{Cancel, Cancelled as CancelledNotify, Reply, TicketId, Watch},
    frame::Ids,
};
use tracing::debug;

use super::report::Tally;
use crate::{
    Agent, Cancelled, Connection, Failure, FailureKind, Handler, Open, Outcome, Request, Share, Stage,
    connection::Accepted,
    engines::Membership,
    inbox::Message,
    label::{Label, Labelled, Owed},
    overdue,
    request::Incoming,
    spans,
};

/// A connection with its session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) reactor: AgentReactor,
    pub(super) connection: Arc<Connection>,
    /// What the accept stage found out, until the session is established.
    accepted: Option<Box<Accepted>>,
    /// With async.
    pub(super) membership: Option<Box<Membership>>,
    /// The requests whose answers follow.
    pub(super) waiting: BTreeMap<TicketId, Owed>,
    /// Why the session is over.
    pub(super) closed: Option<Box<Closed>>,
    /// Sends since memory was freed, up to [`EARLY`](super::turn::EARLY).
    pub(super) sends: u8,
    /// Unused input that the driver keeps, in bytes, up to 4 GiB.
    pub(super) unused: u32,
    /// The last turn ended before the input.
    pub(super) more: bool,
    /// The bytes of its unused input and unsent output.
    pub(super) buffered: Share,
    pub(super) tally: Tally,
    /// Until the transport is closed.
    pub(super) open: Option<Open>,
}

impl Session {
    pub(super) fn new(
        agent: &Agent,
        connection: &Arc<Connection>,
        reactor: AgentReactor,
        accepted: Option<Box<Accepted>>,
    ) -> Self {
        Self {
            reactor,
            connection: Arc::clone(connection),
            accepted,
            membership: None,
            waiting: BTreeMap::new(),
            closed: None,
            sends: 0,
            unused: 0,
            more: false,
            buffered: agent.buffered.share(),
            tally: Tally::default(),
            open: Some(agent.metrics.of(connection.entrance.as_ref()).open()),
        }
    }

    // ---- state ----

    #[inline]
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let deadline = self.reactor.deadline().map(|(at, _)| at);
        match self.orphan_deadline() {
            None => deadline,
            orphans => deadline.into_iter().chain(orphans).min(),
        }
    }

    /// When the requests that siblings can still answer time out.
    #[inline]
    pub(super) fn orphan_deadline(&self) -> Option<Timestamp> {
        self.membership.as_ref()?.orphan_deadline
    }

    #[expect(
        clippy::inline_always,
        reason = "packed into a register and taken apart again, the result costs as much as the work"
    )]
    #[inline(always)]
    pub(super) fn interest(&self) -> Interest {
        let mut interest = self.reactor.interest();
        interest.resume |= self.more;
        interest
    }

    /// What a connection does when the server stops: it writes what is queued, and closes.
    pub(super) fn last_interest(&self) -> Interest {
        let write = !self.reactor.outgoing().is_empty();
        Interest { write, close: !write, ..Interest::default() }
    }

    /// Whether siblings can still send answers of this session, which is over.
    pub(super) fn has_orphans(&self) -> bool {
        self.closed.is_some() && !self.waiting.is_empty()
    }

    /// Whether other threads or connections may send it messages. A request that is kept after its answer sends one when it is asked
    /// for its cancellation.
    #[inline]
    pub(super) fn has_senders(&self) -> bool {
        self.membership.is_some()
            || !self.waiting.is_empty()
            || self.connection.held.load(Ordering::Relaxed) > 0
    }

    pub(super) fn set_stage(&mut self, now: Timestamp, stage: Stage) {
        self.reactor.set_lame_duck(stage > Stage::Serve);
        if stage >= Stage::Drain {
            self.reactor.drain(now);
        }
    }

    // ---- actions ----

    /// Carries out an action. False if there is no more to do with the input that it follows from.
    pub(super) fn carry_out(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        action: Action<'_>,
    ) -> bool {
        match action {
            Action::RunMessages(notify) => self.run(agent, now, handler, notify),
            Action::Established(session) => self.established(agent, now, session),
            Action::FragmentArrived(ids) => self.watch(agent, now, handler, ids),
            Action::AbortFragment(aborted) => {
                agent.metrics.aborted(1);
                self.log_aborted(agent, now, &aborted);
            }
            Action::CancelMessages(cancelled) => self.cancelled(agent, now, handler, cancelled),
            Action::Close(closed) => {
                self.close(agent, now, handler, closed, None);
                return false;
            }
            // `SendFrames`, `WantBytes`, `Paused`: the driver reads the interest.
            _ => return false,
        }
        true
    }

    /// Has the handler answer a request.
    #[inline(never)]
    pub(super) fn run(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        notify: Notify<'_>,
    ) {
        let Notify { ticket, payload } = notify;
        let connection = &self.connection;
        self.tally.notifies += 1;
        let payload_len = payload.messages().payload().len();
        let overloaded = agent.is_overloaded(connection, payload_len);
        let labelled = Labelled::of(&payload);
        let permit = if overloaded { None } else { agent.in_flight.enter() };
        let Some(permit) = permit else {
            return self.overloaded(agent, now, ticket, labelled);
        };
        let (id, ids) = (ticket.id(), ticket.ids());
        let mut incoming = Incoming {
            payload,
            id,
            ids,
            arrived: now,
            connection,
            agent,
            began: agent.metrics.begin(),
            permit,
            claimed: AtomicBool::new(false),
            deferred: AtomicBool::new(false),
        };
        let span = spans::enter_request(connection, ids, labelled);
        let outer = connection.begin_call(id);
        let mut outcome = Outcome::Later;
        let called = catch_unwind(AssertUnwindSafe(|| {
            handler.handle_in_place(Request::new(&incoming), &mut outcome);
        }));
        // On the way of most requests nothing is left to drop then.
        if let Some(span) = span {
            drop(span);
        }
        let claimed = *incoming.claimed.get_mut();
        connection.end_call(outer, claimed, incoming.bytes());
        if claimed {
            incoming.permit.disarm();
        }
        let Incoming { permit, began, deferred, .. } = incoming;
        // By reference: an answer stays where the handler put it, and is encoded from there.
        let failed;
        let answer = match (&called, &outcome) {
            // Also if the handler panicked after that.
            _ if deferred.into_inner() => return self.wait(now, handler, ticket, labelled.label()),
            (Err(panic), _) => {
                failed = Reply::Fail(Failure::panicked(panic.as_ref()));
                &failed
            }
            (Ok(()), Outcome::Now(answer)) => answer,
            (Ok(()), Outcome::Later) if claimed => {
                return self.wait(now, handler, ticket, labelled.label());
            }
            (Ok(()), Outcome::Later) => {
                failed = Reply::failed("it answered nothing");
                &failed
            }
        };
        drop(permit);
        if !claimed {
            agent.metrics.worked(began, labelled);
        }
        if self.connection.inbox.has_messages() {
            // Parts of this answer may be among them.
            self.wait(now, handler, ticket, labelled.label());
            self.take_messages(agent, now, handler);
            return self.answer(agent, now, handler, id, answer.clone());
        }
        self.answer_at_once(agent, now, ticket, labelled, answer);
    }

    /// The answer follows.
    fn wait(&mut self, now: Timestamp, handler: &mut impl Handler, ticket: Ticket, label: Label) {
        let request = ticket.id();
        let is_newest = self.membership.as_ref().is_none_or(|membership| membership.hold(now, &ticket));
        self.waiting.insert(request, Owed { ticket, label });
        if !is_newest {
            self.superseded(now, handler, request);
        }
    }

    /// A request with the same identifiers arrived later, on another connection of the engine.
    #[cold]
    fn superseded(&mut self, now: Timestamp, handler: &mut impl Handler, request: TicketId) {
        if self.end_waiting(handler, request, Cancelled::Superseded) {
            self.tally.cancelled += 1;
        }
        self.release(now, request);
    }

    fn established(&mut self, agent: &Agent, now: Timestamp, session: Arc<spop_core::Session>) {
        debug!(
            name: "session_established",
            peer = %self.connection.peer(),
            connection = self.connection.id.0,
            capabilities = %session.capabilities,
            max_frame_size = session.max_frame_size,
            "session established"
        );
        self.warn_of_frame_size(agent, now, &session);
        self.membership = agent.engines.join(&self.connection, &session).map(Box::new);
        self.connection.set_established(session, self.accepted.take());
    }

    fn watch(&mut self, agent: &Agent, now: Timestamp, handler: &mut impl Handler, ids: Ids) {
        let Some(arriving) = self.reactor.arriving(ids) else { return };
        match catch_unwind(AssertUnwindSafe(|| handler.watch(arriving))) {
            Ok(Watch::Continue) => {}
            // An error would say that it is not arriving any more.
            Ok(Watch::Refuse) => _ = self.reactor.abort(now, ids),
            Err(panic) => self.log_watch_panicked(agent, now, ids, &Failure::panicked(panic.as_ref()).error),
        }
    }

    #[cold]
    fn cancelled(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        cancelled: CancelledNotify,
    ) {
        let (ids, why, age) = (cancelled.ids, cancelled.why, cancelled.age);
        let label = self.waiting.get(&cancelled.ticket).map(|owed| owed.label);
        debug!(
            name: "request_cancelled", peer = %self.connection.peer(), connection = self.connection.id.0, %ids,
            messages = label.map(tracing::field::display), ?why, "request cancelled"
        );
        match why {
            Cancel::TimedOut => {
                let failure = Failure::new(FailureKind::TimedOut, "no answer in time");
                self.failed(agent, now, ids, label, &failure);
            }
            Cancel::Overdue => {
                let error = overdue(&agent.config, self.reactor.in_flight() + 1, age);
                self.failed(agent, now, ids, label, &Failure::new(FailureKind::Overdue, error));
            }
            Cancel::Abandoned => self.abandoned(agent, now, ids, label, age),
            _ => self.tally.cancelled += 1,
        }
        self.end_waiting(handler, cancelled.ticket, why.into());
        if let Some(membership) = &self.membership {
            membership.cancel(ids, cancelled.ticket);
        }
    }

    /// Ends a request whose answer is not needed any more. True if its answer was to follow.
    pub(super) fn end_waiting(
        &mut self,
        handler: &mut impl Handler,
        request: TicketId,
        why: Cancelled,
    ) -> bool {
        let waited = self.waiting.remove(&request).is_some();
        if waited {
            cancel(handler, request, why);
        }
        self.end_watched(request, why);
        waited
    }

    /// Tells the cancellations of a request that it has ended.
    #[inline]
    pub(super) fn end_watched(&self, request: TicketId, why: Cancelled) {
        self.connection.inbox.end_watched(request, why);
    }

    // ---- messages ----

    /// Applies the messages of other threads and connections.
    #[inline]
    pub(super) fn take_messages(&mut self, agent: &Agent, now: Timestamp, handler: &mut impl Handler) {
        while self.connection.inbox.has_messages() {
            for message in self.connection.inbox.take_messages() {
                self.collect_end(agent, now, handler);
                self.apply(agent, now, handler, message);
            }
        }
        self.collect_end(agent, now, handler);
    }

    fn apply(&mut self, agent: &Agent, now: Timestamp, handler: &mut impl Handler, message: Message) {
        match message {
            Message::Part(request, actions) => self.send_part(agent, now, handler, request, &actions),
            Message::Answer(request, answer) => self.answer(agent, now, handler, request, answer),
            Message::Send(owed, answer) => self.send_for_sibling(agent, now, owed, answer),
            Message::Watch(request) => {
                if !self.waiting.contains_key(&request) {
                    self.end_watched(request, Cancelled::Answered);
                }
            }
            Message::Supersede(request) => self.superseded(now, handler, request),
            Message::Abandon => self.give_up(handler),
        }
    }

    #[inline]
    pub(super) fn backlog(&self) -> Option<usize> {
        if self.closed.is_some() { None } else { self.reactor.send_backlog() }
    }

    /// Publishes the backlog to other threads. What is queued at this time, the peer has not read.
    #[inline]
    pub(super) fn publish_backlog(&mut self) {
        if self.membership.is_none() {
            return;
        }
        let backlog = self.backlog();
        if let Some(membership) = &mut self.membership {
            membership.publish_backlog(backlog);
            membership.held_up = backlog;
        }
    }
}

/// Stops a call. A panic is the handler's, and its request has ended.
pub(super) fn cancel(handler: &mut impl Handler, request: TicketId, why: Cancelled) {
    let _ = catch_unwind(AssertUnwindSafe(|| handler.cancel(request, why)));
}

/// As [`cancel`], for all requests that wait.
pub(super) fn cancel_all(handler: &mut impl Handler, requests: &[TicketId], why: Cancelled) {
    let _ = catch_unwind(AssertUnwindSafe(|| handler.cancel_all(requests, why)));
}
