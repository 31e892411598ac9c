//! Answers, and what happens when there is none.

use std::sync::atomic::Ordering;

use spop_core::{
    AckError, Actions, Settled, Ticket, Timestamp,
    agent::{Reply, TicketId},
};

use super::session::{Session, cancel};
use crate::{Agent, Cancelled, Failure, FailureKind, Handler, engines::Routed};

impl Session {
    /// Answers a request whose handler has answered at once.
    #[inline]
    pub(super) fn answer_at_once(&mut self, agent: &Agent, now: Timestamp, ticket: Ticket, answer: &Reply) {
        self.end_watched(ticket.id(), Cancelled::Answered);
        if let Some(membership) = &self.membership
            && membership.held_up != Some(0)
            && !is_disconnect(answer)
        {
            // A sibling may be faster. If a newer request has superseded this one, its answer is dropped there.
            let _ = membership.hold(now, &ticket);
            return self.route(agent, now, ticket, answer.clone());
        }
        self.send(agent, now, ticket, answer);
    }

    /// Answers a request whose answer was to follow.
    pub(super) fn answer(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        request: TicketId,
        answer: Reply,
    ) {
        self.collect_end(agent, now, handler);
        // Otherwise it needs no answer any more.
        let Some(ticket) = self.waiting.remove(&request) else { return };
        self.end_watched(request, Cancelled::Answered);
        match &self.membership {
            None => self.send(agent, now, ticket, &answer),
            Some(membership) if is_disconnect(&answer) && self.closed.is_none() => {
                membership.cancel(ticket.ids(), request);
                self.send(agent, now, ticket, &answer);
            }
            Some(_) => self.route(agent, now, ticket, answer),
        }
    }

    /// Answers on the connection of the engine that is the fastest.
    #[cold]
    fn route(&mut self, agent: &Agent, now: Timestamp, ticket: Ticket, answer: Reply) {
        let Some(membership) = &self.membership else { return self.send(agent, now, ticket, &answer) };
        let request = ticket.id();
        match membership.route(
            membership.held_up,
            ticket,
            already_disconnected(answer, self.closed.is_some()),
        ) {
            Routed::Here(ticket, answer) => self.send(agent, now, ticket, &answer),
            Routed::Sent => self.release(now, request),
            Routed::Dropped => {
                self.tally.cancelled += 1;
                self.release(now, request);
            }
        }
    }

    /// A request of this connection is answered on another, or needs no answer any more.
    pub(super) fn release(&mut self, now: Timestamp, request: TicketId) {
        // An error says that it was answered or cancelled meanwhile.
        let _ = self.reactor.release(now, request);
    }

    /// An answer of a sibling.
    #[cold]
    pub(super) fn send_for_sibling(&mut self, agent: &Agent, now: Timestamp, ticket: Ticket, answer: Reply) {
        if self.closed.is_some() {
            self.send_back(ticket, answer);
        } else {
            self.send(agent, now, ticket, &already_disconnected(answer, true));
        }
    }

    /// An answer was given to this connection, which cannot send it: another one may.
    #[cold]
    pub(super) fn send_back(&mut self, ticket: Ticket, answer: Reply) {
        let routed = self.membership.as_ref().map(|membership| membership.route_again(ticket, answer));
        if !matches!(routed, Some(Routed::Sent)) {
            self.tally.cancelled += 1;
        }
    }

    /// Queues an answer on this connection.
    #[inline]
    fn send(&mut self, agent: &Agent, now: Timestamp, ticket: Ticket, answer: &Reply) {
        match answer {
            Reply::Ack(actions) => self.acknowledge(agent, now, ticket, actions),
            Reply::Fail(failure) => self.fail(agent, now, ticket, failure),
            Reply::Abort => match self.reactor.abort_answer(now, ticket) {
                Ok(_) => self.tally.acks += 1,
                Err(error) => self.send_back(error.into_ticket(), Reply::Abort),
            },
            Reply::Disconnect { status, message } => {
                self.tally.cancelled += 1;
                self.reactor.disconnect(now, *status, message);
            }
        }
    }

    #[inline]
    fn acknowledge(&mut self, agent: &Agent, now: Timestamp, ticket: Ticket, actions: &Actions) {
        Self::warn_of_names(agent, actions);
        let ids = ticket.ids();
        match self.reactor.acknowledge(now, ticket, actions) {
            Ok(Settled::Queued) => self.tally.acks += 1,
            Ok(Settled::Late { age }) => self.late(agent, now, ids, age),
            Ok(_) => self.tally.cancelled += 1,
            Err(AckError::Closing { ticket, .. } | AckError::Full { ticket, .. }) => {
                self.send_back(ticket, Reply::Ack(actions.clone()));
            }
            Err(error) => {
                let failure = Failure::new(FailureKind::AnswerUnsendable, error.to_string());
                self.fail(agent, now, error.into_ticket(), &failure);
            }
        }
    }

    /// Queues a part of an answer.
    #[cold]
    pub(super) fn send_part(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        request: TicketId,
        actions: &Actions,
    ) {
        if self.closed.is_some() {
            // A sibling would send the last part as if it were the whole answer.
            if self.waiting.contains_key(&request) {
                cancel(handler, request, Cancelled::Disconnected);
                self.forget(request, Cancelled::Disconnected);
            }
            return;
        }
        let Some(ticket) = self.waiting.remove(&request) else { return };
        Self::warn_of_names(agent, actions);
        match self.reactor.acknowledge_part(now, ticket, actions) {
            Ok(ticket) => _ = self.waiting.insert(request, ticket),
            Err(error) => {
                cancel(handler, request, Cancelled::Answered);
                self.end_watched(request, Cancelled::Answered);
                let failure = Failure::new(FailureKind::AnswerUnsendable, error.to_string());
                let ticket = error.into_ticket();
                if let Some(membership) = &self.membership {
                    membership.cancel(ticket.ids(), request);
                }
                self.fail(agent, now, ticket, &failure);
            }
        }
    }

    /// Sends the answer of the failure, or applies `on_failure`: the reply that HAProxy gets for a request without an answer.
    #[cold]
    fn fail(&mut self, agent: &Agent, now: Timestamp, ticket: Ticket, failure: &Failure) {
        let ids = ticket.ids();
        let settled = match &failure.answer {
            Some(actions) => self.reactor.acknowledge(now, ticket, actions).or_else(|error| match error {
                AckError::Closing { .. } | AckError::Full { .. } => Err(error),
                // It is longer than HAProxy accepts.
                error => self.reactor.fail(now, error.into_ticket()),
            }),
            None => self.reactor.fail(now, ticket),
        };
        match settled {
            Ok(Settled::Dropped) => self.tally.cancelled += 1,
            // By a limit of a route. Each request is counted once.
            Ok(_) if failure.kind == FailureKind::Overloaded => {
                Self::count_overloaded(agent);
                self.log_failure(agent, now, ids, failure);
            }
            Ok(_) => self.failed(agent, now, ids, failure),
            Err(error) => self.send_back(error.into_ticket(), Reply::Fail(failure.clone())),
        }
    }

    fn count_overloaded(agent: &Agent) {
        agent.metrics.overloaded(1);
        agent.counters.overloaded.fetch_add(1, Ordering::Relaxed);
    }

    #[cold]
    pub(super) fn overloaded(&mut self, agent: &Agent, now: Timestamp, ticket: Ticket) {
        Self::count_overloaded(agent);
        self.log_failure(
            agent,
            now,
            ticket.ids(),
            &Failure::new(FailureKind::Overloaded, "too many requests"),
        );
        // The ticket is this connection's.
        let _ = self.reactor.fail(now, ticket);
    }
}

fn is_disconnect(answer: &Reply) -> bool {
    matches!(answer, Reply::Disconnect { .. })
}

/// A disconnect is for the connection that the request arrived on. If that has ended, the request fails.
pub(super) fn already_disconnected(answer: Reply, elsewhere: bool) -> Reply {
    match answer {
        Reply::Disconnect { message, .. } if elsewhere => {
            Reply::Fail(Failure::new(FailureKind::AlreadyDisconnected, message))
        }
        answer => answer,
    }
}
