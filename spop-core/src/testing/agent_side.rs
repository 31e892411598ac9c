//! The agent's side of a connection in virtual time: its reactor, its driver, and the handler under test.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::mem;

use super::{
    Call, Conditions, Counts, Decision, End, Refuses, Why,
    wire::{Arrival, Wire},
};
use crate::{
    Action, AgentConfig, AgentReactor, ConnectionId, Settled, Ticket, Timestamp,
    agent::{Cancel, FailureKind},
    config::Checked,
    frame::Ids,
    link::{Closed, Progress},
};

/// An agent, and its end of the connection.
#[derive(Debug)]
pub(super) struct AgentSide<H> {
    pub(super) reactor: AgentReactor,
    handler: H,
    pub(super) end: End,
    /// Deferred answers, by the time at which they are due.
    decisions: BTreeMap<(Timestamp, u64), (Ticket, Decision)>,
    deferred: u64,
    pub(super) refuses: Refuses,
    /// Why HAProxy got no answer of the handler.
    pub(super) failures: Vec<(Ids, Why)>,
    pub(super) closed: Option<Closed>,
    pub(super) counts: Counts,
}

impl<H> AgentSide<H> {
    /// An agent at the time of the epoch.
    pub(super) fn new(config: Checked<AgentConfig>, handler: H, conditions: Conditions) -> Self {
        Self {
            reactor: AgentReactor::new(Arc::new(config), ConnectionId(0), Timestamp::ZERO),
            handler,
            end: End { out: Wire::new(conditions, 1), ..End::default() },
            decisions: BTreeMap::new(),
            deferred: 0,
            refuses: Refuses::default(),
            failures: Vec::new(),
            closed: None,
            counts: Counts::default(),
        }
    }

    /// When a timer fires, an answer is due, or a byte of the engine arrives.
    pub(super) fn next_event(&self, incoming: &Wire) -> Option<Timestamp> {
        let reads = self.reactor.interest().read && !self.end.closed && !self.end.eof;
        [
            self.reactor.deadline().filter(|_| !self.end.closed).map(|(at, _)| at),
            incoming.next_arrival().filter(|_| reads),
            self.decisions.keys().next().map(|(at, _)| *at),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl<H: FnMut(&Call<'_>) -> Decision> AgentSide<H> {
    /// Fires due timers and gives due answers.
    pub(super) fn fire(&mut self, now: Timestamp) {
        let mut more = !self.end.closed && self.reactor.deadline().is_some_and(|(at, _)| at <= now);
        while more {
            let action = self.reactor.on_timeout(now);
            more = self.carry_out(now, action);
        }
        while let Some(entry) = self.decisions.first_entry()
            && entry.key().0 <= now
        {
            let (ticket, decision) = entry.remove();
            self.decide(now, ticket, decision);
        }
    }

    /// The connection broke. True if that was not known.
    pub(super) fn lose(&mut self, now: Timestamp) -> bool {
        let open = !mem::replace(&mut self.end.closed, true);
        if open {
            let action = self.reactor.on_transport_error(now);
            self.carry_out(now, action);
        }
        open
    }

    /// Collects the actions that follow from a decision.
    pub(super) fn resume(&mut self, now: Timestamp) {
        if self.reactor.interest().resume && !self.end.closed {
            self.feed(now);
        }
    }

    /// Writes, shuts, closes and reads. True if there was anything to do.
    pub(super) fn turn(&mut self, now: Timestamp, incoming: &mut Wire) -> bool {
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
                self.carry_out(now, action);
            }
        }
        if interest.shut.is_some() {
            worked = true;
            self.end.out.shut(now);
            let action = self.reactor.on_write_shut(now, Progress::Done).unwrap_or(NO_ACTION);
            self.carry_out(now, action);
        }
        worked |= self.end.close(interest, now);
        if interest.resume {
            worked = true;
            self.feed(now);
        }
        if interest.read && !self.end.eof {
            let inbox = &mut self.end.inbox;
            match incoming.receive(now, inbox) {
                Arrival::Nothing if self.end.blocked && !interest.read_now => {}
                Arrival::Nothing => {
                    worked |= interest.read_now;
                    self.end.blocked = true;
                    let action = self.reactor.on_read_blocked(now);
                    self.carry_out(now, action);
                }
                arrival => {
                    worked = true;
                    self.end.blocked = false;
                    self.end.eof = arrival == Arrival::Eof;
                    self.feed(now);
                }
            }
        }
        worked
    }

    fn feed(&mut self, now: Timestamp) {
        let mut inbox = mem::take(&mut self.end.inbox);
        let reactor = &mut self.reactor;
        let mut action = if self.end.eof {
            inbox.feed(|input| reactor.on_input_eof(now, input))
        } else {
            inbox.feed(|input| reactor.on_bytes(now, input))
        };
        while self.carry_out(now, action) {
            action = inbox.feed(|input| self.reactor.on_bytes(now, input));
        }
        self.end.inbox = inbox;
    }

    /// Carries out an action. False if its input needs no more calls.
    fn carry_out(&mut self, now: Timestamp, action: Action<'_>) -> bool {
        match action {
            Action::SendFrames | Action::WantBytes { .. } | Action::Paused => return false,
            Action::RunMessages(notify) => {
                self.counts.asked += 1;
                let decision = (self.handler)(&Call::new(&notify, now));
                if let Decision::After(time, actions) = decision {
                    let at = (now + time, self.deferred);
                    self.deferred += 1;
                    self.decisions.insert(at, (notify.ticket, Decision::Now(actions)));
                } else {
                    self.decide(now, notify.ticket, decision);
                }
            }
            Action::AbortFragment(aborted) => {
                self.counts.aborted += 1;
                self.failed(aborted.ids, None, format!("the agent dropped the payload: {:?}", aborted.why));
            }
            Action::CancelMessages(cancelled) => {
                self.counts.cancelled += 1;
                let (why, age) = (cancelled.why, cancelled.age);
                let kind = match why {
                    Cancel::TimedOut => Some(FailureKind::TimedOut),
                    Cancel::Overdue => Some(FailureKind::Overdue),
                    _ => None,
                };
                if kind.is_some() {
                    self.failed(cancelled.ids, kind, format!("no answer after {age:?}: {why:?}"));
                }
            }
            Action::FragmentArrived(ids) => {
                let arriving = self.reactor.arriving(ids);
                let refused =
                    self.refuses.0.as_mut().zip(arriving).is_some_and(|(refuses, part)| refuses(part));
                if refused && self.reactor.abort(now, ids).is_ok() {
                    self.failed(ids, None, "the agent refused the payload".to_string());
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

    /// Says why HAProxy gets no answer of the handler, when it gets one of the agent.
    fn failed(&mut self, ids: Ids, kind: Option<FailureKind>, text: String) {
        self.failures.push((ids, Why { kind, text }));
    }

    fn decide(&mut self, now: Timestamp, ticket: Ticket, decision: Decision) {
        self.end.blocked = false;
        let ids = ticket.ids();
        let settled = match decision {
            Decision::Now(actions) | Decision::After(_, actions) => {
                self.reactor.acknowledge(now, ticket, &actions)
            }
            Decision::Abort => self.reactor.abort_answer(now, ticket),
            Decision::Fail(why) => {
                self.failed(ids, Some(FailureKind::HandlerFailed), why);
                self.reactor.fail(now, ticket)
            }
            Decision::Disconnect(status) => {
                self.reactor.disconnect(now, status, "the handler disconnects");
                Ok(Settled::Dropped)
            }
            Decision::Never => return,
        };
        let settled = settled.or_else(|error| {
            self.counts.refused += 1;
            self.failed(ids, Some(FailureKind::AnswerUnsendable), error.to_string());
            self.reactor.fail(now, error.into_ticket())
        });
        match settled {
            Ok(Settled::Queued) => self.counts.queued += 1,
            _ => self.counts.dropped += 1,
        }
    }
}

/// In place of a `Misuse`, which cannot occur: bytes are sent and sides are shut only as the reactor asks.
const NO_ACTION: Action<'static> = Action::WantBytes { at_least: 1 };
