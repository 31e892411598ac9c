//! Deadlines of the agent's reactor, and how it handles them.

use super::{
    AgentReactor,
    action::{Abort, Aborted, Action, Cancel, Cancelled},
    drain::DRAINED,
};
use crate::{
    Status, Timestamp,
    frame::Capabilities,
    link::{CloseReason, Due, Earliest, TIMERS, Timer},
};
use alloc::string::ToString;

/// Time.
impl AgentReactor {
    /// When to call [`on_timeout`](Self::on_timeout), and for which timer. `None` if no timer runs.
    #[inline]
    pub fn deadline(&self) -> Option<(Timestamp, Timer)> {
        if self.flight.waiting() > 0 || self.payload_refused || !self.link.is_at_rest() {
            return self.any_deadline();
        }
        // Fast path: a connection that has answered its requests.
        let mut next = self.link.deadline_at_rest(&self.config.timeouts);
        next.offer(self.max_age, Timer::Age);
        debug_assert_eq!(next.0, self.any_deadline());
        next.0
    }

    /// Slow path of [`deadline`](Self::deadline): any timer may run.
    #[inline(never)]
    fn any_deadline(&self) -> Option<(Timestamp, Timer)> {
        let timeouts = &self.config.timeouts;
        let mut next = Earliest(self.link.deadline(timeouts, self.flight.waiting() > 0, || self.is_full()));
        if let Some((_, _, arrived)) = self.flight.oldest() {
            next.offer(timeouts.message.map(|timeout| arrived + timeout), Timer::Message);
            if self.flight.waiting() >= self.overdue_limit() || self.payloads_are_full() {
                next.offer(self.config.processing.map(|processing| arrived + processing), Timer::Processing);
            }
        }
        if !self.link.is_draining() && !self.link.is_closing() {
            next.offer(self.max_age, Timer::Age);
        }
        if self.link.is_draining() || self.link.holds_output() {
            next.offer(self.drain_deadline(), Timer::Drain);
        }
        if self.payload_refused && !self.link.is_draining() && !self.link.is_closing() {
            let quiet = self.config.drain_after_refusal.map(|quiet| self.link.last_active() + quiet);
            next.offer(quiet, Timer::Refused);
        }
        next.0
    }

    /// The deadline has passed. Call it until it returns [`SendFrames`](Action::SendFrames),
    /// [`WantBytes`](Action::WantBytes), [`Paused`](Action::Paused) or [`Close`](Action::Close); the next deadline is later
    /// than `now` then. Before the deadline it does nothing.
    pub fn on_timeout(&mut self, now: Timestamp) -> Action<'static> {
        self.tick(now);
        // Each timer moves its deadline when it is handled. The bound ends the loop even if one does not.
        for _ in 0..TIMERS {
            match self.link.expired(self.deadline()) {
                Some(Due::Timer(timer)) => {
                    if let Some(action) = self.on_timer(timer) {
                        return action;
                    }
                }
                Some(Due::Served) => {}
                Some(Due::Trimmed) => self.flight.trim(),
                None => break,
            }
        }
        self.at_rest(1)
    }

    /// Handles a timer that the link leaves to the reactor.
    pub(super) fn on_timer(&mut self, timer: Timer) -> Option<Action<'static>> {
        match timer {
            Timer::Message => self.fail_oldest(Cancel::TimedOut),
            Timer::Processing => self.fail_oldest(Cancel::Overdue),
            Timer::Idle | Timer::Age => {
                self.drain_by_timer(timer);
                None
            }
            Timer::Fragment => {
                let (ids, _) = self.link.reassembly.oldest()?;
                let received = self.link.reassembly.drop_set(ids)?;
                self.refuse(ids);
                Some(Action::AbortFragment(Aborted { ids, received, why: Abort::TimedOut }))
            }
            Timer::Write => {
                // No DISCONNECT: the peer reads nothing.
                self.end(CloseReason::Timeout(timer));
                self.link.abandon();
                None
            }
            Timer::Refused => {
                self.link.drain(self.link.now() + self.config.timeouts.drain);
                self.advance_drain();
                None
            }
            Timer::Drain if self.link.drain_is_in_time() => {
                self.on_drain_timer();
                None
            }
            Timer::Drain if self.postpone_drain() => None,
            // It was postponed to the end of the drain.
            Timer::Drain if self.drained_by == Some(Timer::Idle) && self.flight.waiting() == 0 => {
                self.disconnect_drained();
                None
            }
            Timer::Drain => {
                let message = if self.drained_by.is_some() { DRAINED } else { "the agent is shutting down" };
                self.disconnect_for(CloseReason::Timeout(timer), Status::NORMAL, message);
                None
            }
            // Handled by the link.
            Timer::Memory => None,
            Timer::Hello | Timer::Frame | Timer::Linger => {
                self.disconnect_for(CloseReason::Timeout(timer), Status::TIMEOUT, &timer.to_string());
                None
            }
        }
    }

    /// From this many requests in flight, the oldest is failed once it is overdue.
    fn overdue_limit(&self) -> usize {
        let max = self.config.limits.max_in_flight;
        match &self.session {
            Some(session) if session.peer_capabilities.contains(Capabilities::ASYNC) => {
                max.min(self.config.max_waiting_frames)
            }
            _ => max,
        }
    }

    /// Fails the oldest request.
    pub(super) fn fail_oldest(&mut self, why: Cancel) -> Option<Action<'static>> {
        let (ticket, ids, arrived) = self.flight.oldest()?;
        self.flight.remove(ticket);
        self.flight.answered();
        self.push_failure(ids);
        let age = self.link.now().since(arrived);
        Some(Action::CancelMessages(Cancelled { ticket, ids, age, why }))
    }
}
