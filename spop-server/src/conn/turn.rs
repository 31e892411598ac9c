//! The inputs of a session, in turns: how much of one is processed, and what is counted and published at its end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use spop_core::{Action, Misuse, Status, Timer, Timestamp};

use super::session::Session;
use crate::{Agent, Handler, SPARED, TOO_MUCH_BUFFERED};

/// After how many sends the handler's memory is freed at once. A connection is often opened for one request: after the
/// handshake and the first answer nothing may follow for long.
pub(super) const EARLY: u8 = 2;

/// When a connection that drains checks again whether its engine has orphans: at the earliest, and for each connection of the
/// engine, of which all check.
const ORPHANS_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_micros(10));

/// Frames that are processed in one turn. They may be short, and each cost what an ordinary one does.
const FRAMES: usize = 64;

/// The shortest frame with its length prefix.
const SHORTEST: usize = 11;

/// How much of the input is processed before other connections have their turns.
#[inline]
fn frames_of_a_turn(input: &[u8]) -> usize {
    if input.len() <= FRAMES * SHORTEST {
        return input.len();
    }
    let mut end = 0_usize;
    for _ in 0..FRAMES {
        let Some(prefix) = input.get(end..).and_then(<[u8]>::first_chunk::<4>) else { return input.len() };
        end = end.saturating_add(4).saturating_add(u32::from_be_bytes(*prefix) as usize);
    }
    end.min(input.len())
}

impl Session {
    /// The end of a turn: counts buffered bytes, publishes the state, reports metrics.
    #[expect(
        clippy::inline_always,
        reason = "twice for a request, and a call takes as many instructions as it"
    )]
    #[inline(always)]
    pub(super) fn at_rest(&mut self, agent: &Agent, now: Timestamp, handler: &mut impl Handler) {
        if self.buffers_too_much(agent) {
            self.end_for_memory(agent, now, handler);
        }
        self.connection.publish(&self.reactor);
        if let Some(membership) = &self.membership {
            // This connection may have no event until its peer reads.
            membership.publish_backlog(self.backlog());
        }
        self.tally.publish(&self.connection, now, &agent.metrics);
    }

    /// Counts what the connection holds. True if the total is exceeded, and this connection grew and holds more than 32 KiB.
    #[inline]
    fn buffers_too_much(&mut self, agent: &Agent) -> bool {
        let bytes = self.reactor.reassembly_bytes() + self.reactor.outgoing_bytes() + self.unused as usize;
        self.buffered.set(bytes) && bytes > SPARED && agent.buffered.is_exceeded()
    }

    /// Ends the session, and frees what it holds now, not when the peer has read or closed.
    #[cold]
    fn end_for_memory(&mut self, agent: &Agent, now: Timestamp, handler: &mut impl Handler) {
        self.reactor.disconnect(now, Status::RESOURCE, TOO_MUCH_BUFFERED);
        self.log_memory(agent, now);
        self.feed(agent, now, handler, &[], false);
        if self.reactor.outgoing_bytes() > SPARED {
            let action = self.reactor.on_transport_error(now);
            self.carry_out(agent, now, handler, action);
        }
        let _ = self.buffers_too_much(agent);
    }

    // ---- inputs ----

    /// Processes input until there is no more to do with it; returns how many bytes were used.
    #[inline]
    pub(super) fn on_input(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        input: &[u8],
        eof: bool,
    ) -> usize {
        self.publish_backlog();
        // At the end of the input there is no next turn for the rest, and after the session it is discarded.
        let whole = eof || self.closed.is_some();
        let turn = if whole { input.len() } else { frames_of_a_turn(input) };
        let used = self.feed(agent, now, handler, input.get(..turn).unwrap_or(input), eof);
        self.unused = u32::try_from(input.len() - used).unwrap_or(u32::MAX);
        self.more = self.unused > 0 && used == turn;
        self.tally.received += used;
        self.at_rest(agent, now, handler);
        used
    }

    #[inline]
    pub(super) fn feed(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        input: &[u8],
        eof: bool,
    ) -> usize {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let step =
                if eof { self.reactor.on_input_eof(now, rest) } else { self.reactor.on_bytes(now, rest) };
            used += step.consumed;
            let goes_on = match step.action {
                Action::RunMessages(notify) => {
                    self.run(agent, now, handler, notify);
                    true
                }
                Action::SendFrames | Action::WantBytes { .. } | Action::Paused => false,
                action => self.carry_out(agent, now, handler, action),
            };
            if !goes_on || used == input.len() && !eof {
                return used;
            }
        }
    }

    #[inline]
    pub(super) fn on_sent(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        n: usize,
    ) -> Result<(), Misuse> {
        match self.reactor.on_sent(now, n)? {
            Action::SendFrames | Action::WantBytes { .. } | Action::Paused => {}
            action => _ = self.carry_out(agent, now, handler, action),
        }
        self.tally.sent += n;
        if self.sends < EARLY {
            self.sends += 1;
            release_memory(handler);
        }
        self.at_rest(agent, now, handler);
        Ok(())
    }

    /// A drain does not end while the connection may get the answer of an orphan to send. Before each input that can end it.
    fn await_orphans(&mut self, now: Timestamp) {
        let Some(membership) = &self.membership else { return };
        // These timers begin a drain, which can end at once.
        let begins = || {
            let timer = self.reactor.deadline().map(|(_, timer)| timer);
            matches!(timer, Some(Timer::Refused | Timer::Idle | Timer::Age))
        };
        if (self.reactor.is_draining() || begins())
            && let Some(siblings) = membership.awaits_orphans()
        {
            let (least, each) = ORPHANS_AGAIN;
            let siblings = u32::try_from(siblings).unwrap_or(u32::MAX);
            self.reactor.postpone_disconnect(now + least.max(each.saturating_mul(siblings)));
        }
    }

    /// A read that the interest asked for would block.
    pub(super) fn on_read_blocked(&mut self, agent: &Agent, now: Timestamp, handler: &mut impl Handler) {
        self.await_orphans(now);
        let action = self.reactor.on_read_blocked(now);
        self.on_event(agent, now, handler, action);
    }

    pub(super) fn on_timeout(&mut self, agent: &Agent, now: Timestamp, handler: &mut impl Handler) {
        self.await_orphans(now);
        loop {
            if matches!(self.reactor.deadline(), Some((at, Timer::Memory)) if at <= now) {
                self.sends = 0;
                release_memory(handler);
            }
            let action = self.reactor.on_timeout(now);
            if !self.carry_out(agent, now, handler, action) {
                break;
            }
        }
        if self.orphan_deadline().is_some_and(|at| at <= now) {
            self.fail_orphans(handler);
        }
    }

    /// An event without input was reported to the reactor: carries out its action, which ends there.
    pub(super) fn on_event(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        handler: &mut impl Handler,
        action: Action<'static>,
    ) {
        self.carry_out(agent, now, handler, action);
        self.at_rest(agent, now, handler);
    }
}

/// A panic here costs no request.
fn release_memory(handler: &mut impl Handler) {
    let _ = catch_unwind(AssertUnwindSafe(|| handler.release_memory()));
}
