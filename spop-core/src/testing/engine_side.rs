//! HAProxy's side of a connection in virtual time: the engine's reactor and its driver.

use alloc::{sync::Arc, vec::Vec};
use core::mem;

use super::{
    End, Outcome, Why,
    wire::{Arrival, Conditions, Wire},
};
use crate::{
    ConnectionId, EngineAction, EngineConfig, EngineReactor, MessageList, Session, Timestamp,
    config::Checked,
    engine::{Ended, NotifyError, NotifyId},
    frame::Ids,
    link::Progress,
};

/// An engine, and its end of the connection. Private: for the pairs of adapters.
#[derive(Debug)]
pub struct EngineSide {
    /// The reactor.
    pub reactor: EngineReactor,
    pub(super) end: End,
    /// The requests that have ended, in order.
    pub outcomes: Vec<(NotifyId, Outcome)>,
    /// Why the agent's handler gave no answer, by the identifiers of requests whose outcome is to come.
    pub failures: Vec<(Ids, Why)>,
    /// The session, once it is established.
    pub session: Option<Session>,
    /// The end of the session.
    pub ended: Option<Ended>,
    pub(super) unclaimed: u64,
}

impl EngineSide {
    /// An engine at the time of the epoch.
    pub fn new(config: Checked<EngineConfig>, conditions: Conditions) -> Self {
        Self {
            reactor: EngineReactor::new(Arc::new(config), ConnectionId(0), Timestamp::ZERO),
            end: End { out: Wire::new(conditions, 0), ..End::default() },
            outcomes: Vec::new(),
            failures: Vec::new(),
            session: None,
            ended: None,
            unclaimed: 0,
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// As [`EngineReactor::notify`].
    pub fn notify(
        &mut self,
        now: Timestamp,
        ids: Option<Ids>,
        messages: &MessageList,
    ) -> Result<NotifyId, NotifyError> {
        let id = self.reactor.notify(now, ids, messages)?;
        // An earlier request with these identifiers may have failed after its outcome.
        self.failures.retain(|(ids, _)| *ids != id.ids());
        Ok(id)
    }

    /// The direction to the agent.
    pub const fn out(&mut self) -> &mut Wire {
        &mut self.end.out
    }

    /// Whether this side has closed the connection.
    pub const fn is_closed(&self) -> bool {
        self.end.closed
    }

    /// When a timer fires, or a byte of the agent arrives.
    pub fn next_event(&self, incoming: &Wire) -> Option<Timestamp> {
        if self.end.closed {
            return None;
        }
        let timer = self.reactor.deadline().map(|(at, _)| at);
        let reads = self.reactor.interest().read && !self.end.eof;
        timer.into_iter().chain(incoming.next_arrival().filter(|_| reads)).min()
    }

    /// Fires timers that are due.
    pub fn fire(&mut self, now: Timestamp) {
        let mut more = !self.end.closed && self.reactor.deadline().is_some_and(|(at, _)| at <= now);
        while more {
            let action = self.reactor.on_timeout(now);
            more = self.carry_out(action);
        }
    }

    /// The connection broke. True if that was not known.
    pub fn lose(&mut self, now: Timestamp) -> bool {
        let open = !mem::replace(&mut self.end.closed, true);
        if open {
            let action = self.reactor.on_transport_error(now);
            self.carry_out(action);
        }
        open
    }

    /// Writes, shuts, closes and reads. True if there was anything to do.
    pub fn turn(&mut self, now: Timestamp, incoming: &mut Wire) -> bool {
        if self.end.closed {
            return false;
        }
        let mut worked = false;
        let interest = self.reactor.interest();
        if interest.write {
            let sent = self.end.out.send(now, self.reactor.outgoing());
            if sent > 0 {
                worked = true;
                let action = self.reactor.on_sent(now, sent).unwrap_or(NO_ACTION);
                self.carry_out(action);
            }
        }
        if interest.shut.is_some() {
            worked = true;
            self.end.out.shut(now);
            let action = self.reactor.on_write_shut(now, Progress::Done).unwrap_or(NO_ACTION);
            self.carry_out(action);
        }
        worked |= self.end.close(interest, now);
        if interest.resume {
            worked = true;
            self.feed(now);
        }
        if interest.read && !self.end.eof {
            match incoming.receive(now, &mut self.end.inbox) {
                Arrival::Nothing => {}
                arrival => {
                    worked = true;
                    self.end.eof = arrival == Arrival::Eof;
                    self.feed(now);
                }
            }
        }
        worked
    }

    /// Collects the actions that follow from a decision.
    pub fn resume(&mut self, now: Timestamp) {
        if self.reactor.interest().resume && !self.end.closed {
            self.feed(now);
        }
    }

    fn feed(&mut self, now: Timestamp) {
        let mut inbox = mem::take(&mut self.end.inbox);
        let reactor = &mut self.reactor;
        let mut action = if self.end.eof {
            inbox.feed(|input| reactor.on_input_eof(now, input))
        } else {
            inbox.feed(|input| reactor.on_bytes(now, input))
        };
        while self.carry_out(action) {
            action = inbox.feed(|input| self.reactor.on_bytes(now, input));
        }
        self.end.inbox = inbox;
    }

    /// Carries out an action. False if its input needs no more calls.
    fn carry_out(&mut self, action: EngineAction<'_>) -> bool {
        match action {
            EngineAction::SendFrames | EngineAction::WantBytes { .. } => return false,
            EngineAction::Established(session) => self.session = Some(session),
            EngineAction::Answered(answer) => {
                let outcome = Outcome::acknowledged(answer.payload.into_bytes(), answer.took);
                self.settle(answer.id, outcome);
            }
            EngineAction::Failed(failure) => self.settle(failure.id, Outcome::failed(failure.error)),
            EngineAction::Unclaimed(_) => self.unclaimed += 1,
            EngineAction::Close(ended) => {
                for id in &ended.unanswered {
                    self.settle(*id, Outcome::failed(ended.error));
                }
                self.ended = Some(ended);
                return false;
            }
        }
        true
    }

    fn settle(&mut self, id: NotifyId, outcome: Outcome) {
        let failure = self.failures.iter().position(|(ids, _)| *ids == id.ids());
        let outcome = match failure.map(|index| self.failures.remove(index)) {
            Some((_, why)) => outcome.with_failure(why),
            None => outcome,
        };
        self.outcomes.push((id, outcome));
    }
}

/// In place of a `Misuse`, which cannot occur: bytes are sent and sides are shut only as the reactor asks.
const NO_ACTION: EngineAction<'static> = EngineAction::WantBytes { at_least: 1 };
