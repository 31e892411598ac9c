//! The end of a session, and the requests that outlive it: with async, siblings send their answers.

use std::{io, mem};

use spop_core::{
    CloseReason, Closed, Status, Timer, Timestamp,
    agent::{Reply, TicketId},
    link::Phase,
};

use super::{
    answer::already_disconnected,
    session::{Session, cancel_all},
};
use crate::{Agent, Cancelled, Failure, FailureKind, Handler, Stage, engines::Routed, inbox::Message};

impl Session {
    /// The server stops.
    pub(super) fn stop(&mut self, agent: &Agent, now: Timestamp, handler: &mut impl Handler) {
        self.reactor.disconnect(now, Status::NORMAL, "the agent is shutting down");
        self.collect_end(agent, now, handler);
        self.give_up(handler);
    }

    /// Whether a decision has ended the session, and its `Close` was not collected. Answers would be dropped until then.
    pub(super) fn is_ending(&self) -> bool {
        self.closed.is_none() && self.reactor.phase() == Phase::Closing
    }

    /// Collects the end of the session, if a decision has led to it.
    pub(super) fn collect_end(&mut self, agent: &Agent, now: Timestamp, handler: &mut impl Handler) {
        if self.is_ending() {
            self.feed(agent, now, handler, &[], false);
        }
    }

    #[cold]
    pub(super) fn close(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        mut closed: Closed,
        error: Option<&io::Error>,
    ) {
        if let Some(dropped) = self.membership.as_ref().and_then(|membership| membership.leave()) {
            self.drop_waiting(handler, &dropped);
            // Siblings send the other answers.
            closed.lost.messages = closed.lost.messages.saturating_sub(self.waiting.len());
            if !self.waiting.is_empty()
                && let Some(membership) = &mut self.membership
            {
                membership.orphan_deadline = agent.config.timeouts.message.map(|timeout| now + timeout);
            }
        } else {
            self.give_up(handler);
        }
        if agent.stage() == Stage::Stop || closed.reason == CloseReason::Timeout(Timer::Drain) {
            agent.drain.cut(closed.lost.messages);
        }
        self.report(agent, now, &closed, error);
        agent.metrics.closed(&closed);
        self.closed = Some(Box::new(closed));
        // What the driver keeps is discarded now, not with the transport.
        self.more = self.unused > 0;
        self.forward_messages();
    }

    /// Stops the handlers of requests that are too many to be answered by siblings.
    fn drop_waiting(&mut self, handler: &mut impl Handler, requests: &[TicketId]) {
        let waited = requests.iter().copied().filter(|request| self.waiting.remove(request).is_some());
        let requests: Vec<_> = waited.collect();
        if requests.is_empty() {
            return;
        }
        self.tally.cancelled += requests.len();
        cancel_all(handler, &requests, Cancelled::Disconnected);
        for request in requests {
            self.end_watched(request, Cancelled::Disconnected);
        }
    }

    /// Stops the handlers whose answers no connection can send.
    pub(super) fn give_up(&mut self, handler: &mut impl Handler) {
        if !self.waiting.is_empty() {
            let requests: Vec<_> = mem::take(&mut self.waiting).into_keys().collect();
            self.tally.cancelled += requests.len();
            cancel_all(handler, &requests, Cancelled::Disconnected);
        }
        self.clear_orphan_deadline();
        self.connection.inbox.end_all_watched();
    }

    fn clear_orphan_deadline(&mut self) {
        if let Some(membership) = &mut self.membership {
            membership.orphan_deadline = None;
        }
    }

    /// The connection is dropped, in whatever state. Siblings send the answers that were given.
    pub(super) fn abandon(mut self, agent: &Agent) {
        if let Some(membership) = &self.membership {
            membership.leave();
        }
        for message in self.connection.inbox.close() {
            match message {
                Message::Send(owed, answer) => self.send_back(owed, answer),
                Message::Answer(request, answer) => self.answer_orphan(request, Cancelled::Answered, answer),
                Message::Part(request, _) => self.forget(request, Cancelled::Disconnected),
                Message::Supersede(request) => self.forget(request, Cancelled::Superseded),
                Message::Watch(_) | Message::Abandon => {}
            }
        }
        while let Some((request, _)) = self.waiting.first_key_value() {
            self.forget(*request, Cancelled::Disconnected);
        }
        self.connection.inbox.end_all_watched();
        self.tally.report(&agent.metrics);
    }

    /// The session is over: its siblings send what was given to it, and its own requests keep waiting.
    pub(super) fn forward_messages(&mut self) {
        if self.membership.is_none() {
            return;
        }
        for message in self.connection.inbox.take_messages() {
            match message {
                Message::Send(owed, answer) => self.send_back(owed, answer),
                // Applied later, or not needed any more.
                message => _ = self.connection.inbox.send(message),
            }
        }
    }

    /// The time of the requests that siblings could answer is over.
    #[cold]
    pub(super) fn fail_orphans(&mut self, handler: &mut impl Handler) {
        self.clear_orphan_deadline();
        let requests: Vec<_> = self.waiting.keys().copied().collect();
        cancel_all(handler, &requests, Cancelled::TimedOut);
        for request in requests {
            let failure = Failure::new(FailureKind::TimedOut, "no answer in time");
            self.answer_orphan(request, Cancelled::TimedOut, Reply::Fail(failure));
        }
    }

    /// Has a sibling answer a request of this session, which is over.
    #[cold]
    pub(super) fn answer_orphan(&mut self, request: TicketId, why: Cancelled, answer: Reply) {
        let Some(owed) = self.waiting.remove(&request) else { return };
        self.end_watched(request, why);
        let answer = already_disconnected(answer, true);
        let routed = self.membership.as_ref().map(|membership| membership.route(None, owed, answer));
        if !matches!(routed, Some(Routed::Sent)) {
            self.tally.cancelled += 1;
        }
    }

    /// Ends a request of this session, which is over, without an answer.
    #[cold]
    pub(super) fn forget(&mut self, request: TicketId, why: Cancelled) {
        let Some(owed) = self.waiting.remove(&request) else { return };
        self.tally.cancelled += 1;
        self.end_watched(request, why);
        if let Some(membership) = &self.membership {
            membership.forget(&owed.ticket);
        }
    }
}
