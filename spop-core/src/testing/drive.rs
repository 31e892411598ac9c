//! The drivers of both reactors.

use core::mem;

use super::{Decision, End, Outcome, Pair, wire::Arrival};
use crate::{
    Action, EngineAction, Interest, Notify, Settled, Ticket, Timestamp,
    link::{Progress, Timer},
};

impl<H: FnMut(&Notify<'_>) -> Decision> Pair<H> {
    /// Does all I/O that is possible now, or else advances the time to the next event. False if there is no event (up to
    /// `until`).
    pub(super) fn advance(&mut self, until: Option<Timestamp>) -> bool {
        let mut worked = false;
        loop {
            let broke = self.break_if_lost();
            let engine = self.engine_turn();
            let agent = self.agent_turn();
            // Again: a write may have broken the connection.
            if !broke && !engine && !agent && !self.break_if_lost() {
                break;
            }
            worked = true;
            if self.engine.in_flight() == 0 && self.session.is_some() && until.is_none() {
                // Return to the caller while no request is in flight.
                break;
            }
        }
        if worked {
            return true;
        }
        let Some(next) = self.next_event() else { return false };
        if until.is_some_and(|until| next > until) {
            return false;
        }
        self.now = self.now.max(next);
        self.fire();
        true
    }

    fn next_event(&self) -> Option<Timestamp> {
        let timer = |end: &End, deadline: Option<(Timestamp, Timer)>| {
            deadline.filter(|_| !end.closed).map(|(at, _)| at)
        };
        let arrival = |end: &End, wire: &End, reads: bool| {
            wire.out.next_arrival().filter(|_| reads && !end.closed && !end.eof)
        };
        [
            timer(&self.engine_end, self.engine.deadline()),
            timer(&self.agent_end, self.agent.deadline()),
            arrival(&self.engine_end, &self.agent_end, self.engine.interest().read),
            arrival(&self.agent_end, &self.engine_end, self.agent.interest().read),
            self.decisions.keys().next().map(|(at, _)| *at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Fires due timers and gives due answers.
    fn fire(&mut self) {
        let due = |deadline: Option<(Timestamp, Timer)>, now| deadline.is_some_and(|(at, _)| at <= now);
        let mut more = !self.engine_end.closed && due(self.engine.deadline(), self.now);
        while more {
            let action = self.engine.on_timeout(self.now);
            more = self.on_engine(action);
        }
        let mut more = !self.agent_end.closed && due(self.agent.deadline(), self.now);
        while more {
            let action = self.agent.on_timeout(self.now);
            more = self.on_agent(action);
        }
        while let Some(entry) = self.decisions.first_entry()
            && entry.key().0 <= self.now
        {
            let (ticket, decision) = entry.remove();
            self.decide(ticket, decision);
        }
    }

    /// If the connection broke, reports it to both sides, once. True if it did so now.
    fn break_if_lost(&mut self) -> bool {
        if !self.engine_end.out.is_lost() && !self.agent_end.out.is_lost() {
            return false;
        }
        let engine = !mem::replace(&mut self.engine_end.closed, true);
        if engine {
            let action = self.engine.on_transport_error(self.now);
            self.on_engine(action);
        }
        let agent = !mem::replace(&mut self.agent_end.closed, true);
        if agent {
            let action = self.agent.on_transport_error(self.now);
            self.on_agent(action);
        }
        engine || agent
    }

    /// Writes, shuts, closes and reads for the engine. True if there was anything to do.
    fn engine_turn(&mut self) -> bool {
        if self.engine_end.closed {
            return false;
        }
        let mut worked = false;
        let interest = self.engine.interest();
        if interest.write {
            let sent = self.engine_end.out.send(self.now, self.engine.outgoing());
            if sent > 0 {
                worked = true;
                let action = self.engine.on_sent(self.now, sent).unwrap_or(NO_ENGINE_ACTION);
                self.on_engine(action);
            }
        }
        if interest.shut.is_some() {
            worked = true;
            self.engine_end.out.shut(self.now);
            let action = self.engine.on_write_shut(self.now, Progress::Done).unwrap_or(NO_ENGINE_ACTION);
            self.on_engine(action);
        }
        worked |= close(&mut self.engine_end, interest, self.now);
        if interest.resume {
            worked = true;
            self.feed_engine();
        }
        if interest.read && !self.engine_end.eof {
            let inbox = &mut self.engine_end.inbox;
            match self.agent_end.out.receive(self.now, inbox) {
                Arrival::Nothing => {}
                arrival => {
                    worked = true;
                    self.engine_end.eof = arrival == Arrival::Eof;
                    self.feed_engine();
                }
            }
        }
        worked
    }

    /// As [`engine_turn`](Self::engine_turn), for the agent.
    fn agent_turn(&mut self) -> bool {
        if self.agent_end.closed {
            return false;
        }
        let mut worked = false;
        let interest = self.agent.interest();
        if interest.write {
            let sent = self.agent_end.out.send(self.now, self.agent.outgoing());
            if sent > 0 {
                worked = true;
                let action = self.agent.on_sent(self.now, sent).unwrap_or(NO_ACTION);
                self.on_agent(action);
            }
        }
        if interest.shut.is_some() {
            worked = true;
            self.agent_end.out.shut(self.now);
            let action = self.agent.on_write_shut(self.now, Progress::Done).unwrap_or(NO_ACTION);
            self.on_agent(action);
        }
        worked |= close(&mut self.agent_end, interest, self.now);
        if interest.resume {
            worked = true;
            self.feed_agent();
        }
        if interest.read && !self.agent_end.eof {
            let inbox = &mut self.agent_end.inbox;
            match self.engine_end.out.receive(self.now, inbox) {
                Arrival::Nothing if self.agent_end.blocked && !interest.read_now => {}
                Arrival::Nothing => {
                    worked |= interest.read_now;
                    self.agent_end.blocked = true;
                    let action = self.agent.on_read_blocked(self.now);
                    self.on_agent(action);
                }
                arrival => {
                    worked = true;
                    self.agent_end.blocked = false;
                    self.agent_end.eof = arrival == Arrival::Eof;
                    self.feed_agent();
                }
            }
        }
        worked
    }

    /// Collects the actions that follow from a decision.
    pub(super) fn resume(&mut self) {
        if self.engine.interest().resume && !self.engine_end.closed {
            self.feed_engine();
        }
        if self.agent.interest().resume && !self.agent_end.closed {
            self.feed_agent();
        }
    }

    fn feed_engine(&mut self) {
        let mut inbox = mem::take(&mut self.engine_end.inbox);
        let (engine, now) = (&mut self.engine, self.now);
        let mut action = if self.engine_end.eof {
            inbox.feed(|input| engine.on_input_eof(now, input))
        } else {
            inbox.feed(|input| engine.on_bytes(now, input))
        };
        while self.on_engine(action) {
            action = inbox.feed(|input| self.engine.on_bytes(now, input));
        }
        self.engine_end.inbox = inbox;
    }

    fn feed_agent(&mut self) {
        let mut inbox = mem::take(&mut self.agent_end.inbox);
        let (agent, now) = (&mut self.agent, self.now);
        let mut action = if self.agent_end.eof {
            inbox.feed(|input| agent.on_input_eof(now, input))
        } else {
            inbox.feed(|input| agent.on_bytes(now, input))
        };
        while self.on_agent(action) {
            action = inbox.feed(|input| self.agent.on_bytes(now, input));
        }
        self.agent_end.inbox = inbox;
    }

    /// Carries out an action of the engine. False if its input needs no more calls.
    pub(super) fn on_engine(&mut self, action: EngineAction<'_>) -> bool {
        match action {
            EngineAction::SendFrames | EngineAction::WantBytes { .. } => return false,
            EngineAction::Established(session) => self.session = Some(session),
            EngineAction::Answered(answer) => {
                self.outcomes.push((answer.id, Outcome::Answered(answer.into_owned())));
            }
            EngineAction::Failed(failure) => self.outcomes.push((failure.id, Outcome::Failed(failure.error))),
            EngineAction::Unclaimed(_) => self.counts.unclaimed += 1,
            EngineAction::Close(ended) => {
                self.outcomes.extend(ended.unanswered.iter().map(|id| (*id, Outcome::Failed(ended.error))));
                self.ended = Some(ended);
                return false;
            }
        }
        true
    }

    /// Carries out an action of the agent. False if its input needs no more calls.
    pub(super) fn on_agent(&mut self, action: Action<'_>) -> bool {
        match action {
            Action::SendFrames | Action::WantBytes { .. } | Action::Paused => return false,
            Action::RunMessages(notify) => {
                self.counts.asked += 1;
                let decision = (self.handler)(&notify);
                if let Decision::After(time, actions) = decision {
                    let at = (self.now + time, self.deferred);
                    self.deferred += 1;
                    self.decisions.insert(at, (notify.ticket, Decision::Now(actions)));
                } else {
                    self.decide(notify.ticket, decision);
                }
            }
            Action::AbortFragment(_) => self.counts.aborted += 1,
            Action::CancelMessages(_) => self.counts.cancelled += 1,
            Action::FragmentArrived(ids) => {
                let arriving = self.agent.arriving(ids);
                let refused =
                    self.refuses.0.as_mut().zip(arriving).is_some_and(|(refuses, part)| refuses(part));
                if refused && self.agent.abort(self.now, ids).is_ok() {
                    self.counts.aborted += 1;
                }
            }
            Action::Established(_) => {}
            Action::Close(closed) => {
                self.closed = Some(closed);
                return false;
            }
        }
        true
    }

    fn decide(&mut self, ticket: Ticket, decision: Decision) {
        self.agent_end.blocked = false;
        let settled = match decision {
            Decision::Now(actions) | Decision::After(_, actions) => {
                self.agent.acknowledge(self.now, ticket, &actions)
            }
            Decision::Abort => self.agent.abort_answer(self.now, ticket),
            Decision::Fail => self.agent.fail(self.now, ticket),
            Decision::Disconnect(status) => {
                self.agent.disconnect(self.now, status, "the handler disconnects");
                Ok(Settled::Dropped)
            }
            Decision::Never => return,
        };
        let settled = settled.or_else(|error| {
            self.counts.refused += 1;
            self.agent.fail(self.now, error.into_ticket())
        });
        match settled {
            Ok(Settled::Queued) => self.counts.queued += 1,
            _ => self.counts.dropped += 1,
        }
    }
}

/// In place of a `Misuse`, which cannot occur: bytes are sent and sides are shut only as the reactors ask.
const NO_ACTION: Action<'static> = Action::WantBytes { at_least: 1 };
const NO_ENGINE_ACTION: EngineAction<'static> = EngineAction::WantBytes { at_least: 1 };

/// Closes an end if its reactor asks for it: its peer reads EOF.
fn close(end: &mut End, interest: Interest, now: Timestamp) -> bool {
    if interest.close {
        end.closed = true;
        end.out.shut(now);
    }
    interest.close
}
