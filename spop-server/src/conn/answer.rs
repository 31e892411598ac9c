//! Answers, and what happens when there is none.

use spop_core::{
    AckError, Actions, Settled, Ticket, Timestamp,
    agent::{Reply, TicketId},
};

use super::session::{Session, cancel};
use crate::{
    Agent, Cancelled, Failure, FailureKind, Handler,
    engines::Routed,
    label::{Labelled, Owed},
};

impl Session {
    /// Answers a request whose handler has answered at once.
    #[inline]
    pub(super) fn answer_at_once(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        ticket: Ticket,
        labelled: Labelled<'_>,
        answer: &Reply,
    ) {
        self.end_watched(ticket.id(), Cancelled::Answered);
        if let Some(membership) = &self.membership
            && membership.held_up != Some(0)
            && !is_disconnect(answer)
        {
            // A sibling may be faster. If a newer request has superseded this one, its answer is dropped there.
            let _ = membership.hold(now, &ticket);
            return self.route(agent, now, Owed { ticket, label: labelled.label() }, answer.clone());
        }
        self.send(agent, now, ticket, labelled, answer);
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
        let Some(owed) = self.waiting.remove(&request) else { return };
        self.end_watched(request, Cancelled::Answered);
        match &self.membership {
            None => self.send_owed(agent, now, owed, &answer),
            Some(membership) if is_disconnect(&answer) && self.closed.is_none() => {
                membership.cancel(owed.ticket.ids(), request);
                self.send_owed(agent, now, owed, &answer);
            }
            Some(_) => self.route(agent, now, owed, answer),
        }
    }

    /// Answers on the connection of the engine that is the fastest.
    #[cold]
    fn route(&mut self, agent: &Agent, now: Timestamp, owed: Owed, answer: Reply) {
        let Some(membership) = &self.membership else { return self.send_owed(agent, now, owed, &answer) };
        let request = owed.ticket.id();
        match membership.route(membership.held_up, owed, already_disconnected(answer, self.closed.is_some()))
        {
            Routed::Here(owed, answer) => self.send_owed(agent, now, owed, &answer),
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
    pub(super) fn send_for_sibling(&mut self, agent: &Agent, now: Timestamp, owed: Owed, answer: Reply) {
        if self.closed.is_some() {
            self.send_back(owed, answer);
        } else {
            self.send_owed(agent, now, owed, &already_disconnected(answer, true));
        }
    }

    /// An answer was given to this connection, which cannot send it: another one may.
    #[cold]
    pub(super) fn send_back(&mut self, owed: Owed, answer: Reply) {
        let is_closing = self.backlog().is_none();
        let routed =
            self.membership.as_ref().map(|membership| membership.route_again(is_closing, owed, answer));
        if !matches!(routed, Some(Routed::Sent)) {
            self.tally.cancelled += 1;
        }
    }

    fn send_owed(&mut self, agent: &Agent, now: Timestamp, owed: Owed, answer: &Reply) {
        self.send(agent, now, owed.ticket, Labelled::Label(owed.label), answer);
    }

    /// Queues an answer on this connection.
    #[inline]
    fn send(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        ticket: Ticket,
        labelled: Labelled<'_>,
        answer: &Reply,
    ) {
        match answer {
            Reply::Ack(actions) => self.acknowledge(agent, now, ticket, labelled, actions),
            Reply::Fail(failure) => self.fail(agent, now, ticket, labelled, failure),
            Reply::Abort => match self.reactor.abort_answer(now, ticket) {
                Ok(_) => self.tally.acks += 1,
                Err(error) => self.send_back(owed(error, labelled), Reply::Abort),
            },
            Reply::Disconnect { status, message } => {
                self.tally.cancelled += 1;
                self.reactor.disconnect(now, *status, message);
            }
        }
    }

    #[inline]
    fn acknowledge(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        ticket: Ticket,
        labelled: Labelled<'_>,
        actions: &Actions,
    ) {
        Self::warn_of_names(agent, actions);
        let ids = ticket.ids();
        match self.reactor.acknowledge(now, ticket, actions) {
            Ok(Settled::Queued) => self.tally.acks += 1,
            Ok(Settled::Late { age }) => self.late(agent, now, ids, labelled, age),
            Ok(_) => self.tally.cancelled += 1,
            Err(error @ (AckError::Closing { .. } | AckError::Full { .. })) => {
                self.send_back(owed(error, labelled), Reply::Ack(actions.clone()));
            }
            Err(error) => {
                let failure = Failure::new(FailureKind::AnswerUnsendable, error.to_string());
                self.fail(agent, now, error.into_ticket(), labelled, &failure);
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
        let Some(Owed { ticket, label }) = self.waiting.remove(&request) else { return };
        Self::warn_of_names(agent, actions);
        match self.reactor.acknowledge_part(now, ticket, actions) {
            Ok(ticket) => _ = self.waiting.insert(request, Owed { ticket, label }),
            Err(error) => {
                cancel(handler, request, Cancelled::Answered);
                self.end_watched(request, Cancelled::Answered);
                let failure = Failure::new(FailureKind::AnswerUnsendable, error.to_string());
                let ticket = error.into_ticket();
                if let Some(membership) = &self.membership {
                    membership.cancel(ticket.ids(), request);
                }
                self.fail(agent, now, ticket, Labelled::Label(label), &failure);
            }
        }
    }

    /// Sends the answer of the failure, or applies `on_failure`: the reply that HAProxy gets for a request without an answer.
    #[cold]
    fn fail(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        ticket: Ticket,
        labelled: Labelled<'_>,
        failure: &Failure,
    ) {
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
            Ok(_) => self.failed(agent, now, ids, Some(labelled.label()), failure),
            Err(error) => self.send_back(owed(error, labelled), Reply::Fail(failure.clone())),
        }
    }

    #[cold]
    pub(super) fn overloaded(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        ticket: Ticket,
        labelled: Labelled<'_>,
    ) {
        let failure = Failure::new(FailureKind::Overloaded, "too many requests");
        self.failed(agent, now, ticket.ids(), Some(labelled.label()), &failure);
        // The ticket is this connection's.
        let _ = self.reactor.fail(now, ticket);
    }
}

/// The ticket of a refused decision, with its label.
#[cold]
fn owed(error: AckError, labelled: Labelled<'_>) -> Owed {
    Owed { ticket: error.into_ticket(), label: labelled.label() }
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
