//! The driver of both sides.

use super::{Call, Decision, Pair};
use crate::Timestamp;

impl<H: FnMut(&Call<'_>) -> Decision> Pair<H> {
    /// Does all I/O that is possible now, or else advances the time to the next event. False if there is no event (up to
    /// `until`).
    pub(super) fn advance(&mut self, until: Option<Timestamp>) -> bool {
        let mut worked = false;
        loop {
            let broke = self.break_if_lost();
            let engine = self.engine.turn(self.now, &mut self.agent.end.out);
            let agent = self.agent.turn(self.now, &mut self.engine.end.out);
            self.engine.failures.append(&mut self.agent.failures);
            // Again: a write may have broken the connection.
            if !broke && !engine && !agent && !self.break_if_lost() {
                break;
            }
            worked = true;
            if self.engine.reactor.in_flight() == 0 && self.engine.session.is_some() && until.is_none() {
                // Return to the caller while no request is in flight.
                break;
            }
        }
        if worked {
            return true;
        }
        let (engine, agent) = (&self.engine, &self.agent);
        let events = [engine.next_event(&agent.end.out), agent.next_event(&engine.end.out)];
        let Some(next) = events.into_iter().flatten().min() else { return false };
        if until.is_some_and(|until| next > until) {
            return false;
        }
        self.now = self.now.max(next);
        self.engine.fire(self.now);
        self.agent.fire(self.now);
        self.engine.failures.append(&mut self.agent.failures);
        true
    }

    /// If the connection broke, reports it to both sides, once. True if it did so now.
    fn break_if_lost(&mut self) -> bool {
        if !self.engine.end.out.is_lost() && !self.agent.end.out.is_lost() {
            return false;
        }
        let engine = self.engine.lose(self.now);
        let agent = self.agent.lose(self.now);
        engine || agent
    }

    /// Collects the actions that follow from a decision.
    pub(super) fn resume(&mut self) {
        self.engine.resume(self.now);
        self.agent.resume(self.now);
    }
}
