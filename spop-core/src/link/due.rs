//! Interest and deadlines of a connection.

use super::{Interest, Layer, Link, Phase, Stage, Timer};
use crate::{Timestamp, config::Timeouts};

/// The flush may take this many linger timeouts in total. Without the limit, a peer that reads a few bytes at a time could
/// delay a shutdown without end.
const FLUSH_FACTOR: u32 = 10;

/// A payload may take this many frame timeouts in total. Without the limit, a peer that provokes backpressure again and again
/// could keep one without end.
const BACKPRESSURE_FACTOR: u32 = 10;

/// What is queued at one time may take this many write timeouts to leave. Without the limit, a peer that reads one byte now and
/// then could keep the whole queue without end.
const WRITE_FACTOR: u32 = 10;

impl Link {
    /// `full` means backpressure; `ended` that `Close` was not returned yet.
    #[expect(
        clippy::inline_always,
        reason = "packed into a register and taken apart again, the result costs as much as the work"
    )]
    #[inline(always)]
    pub(crate) fn interest(&self, full: bool, ended: bool) -> Interest {
        if self.is_closing() {
            return self.interest_of_closing(ended);
        }
        Interest {
            read: !self.eof && !full,
            read_now: false,
            write: self.out.is_ready(),
            resume: self.paused && !full,
            shut: None,
            close: false,
        }
    }

    #[cold]
    fn interest_of_closing(&self, ended: bool) -> Interest {
        if ended {
            return Interest { resume: true, ..Interest::default() };
        }
        if self.mute {
            return Interest::default();
        }
        let stage = self.closing.current();
        let close = matches!(stage, Some(Stage::Close) | None);
        let writes = matches!(stage, Some(Stage::Flush | Stage::AwaitDisconnect));
        Interest {
            read: !self.eof && !close,
            read_now: false,
            write: writes && self.out.is_ready(),
            resume: false,
            shut: match stage {
                Some(Stage::ShutData) => Some(Layer::Data),
                Some(Stage::ShutTransport) => Some(Layer::Transport),
                _ => None,
            },
            close,
        }
    }

    /// Whether a session is established, and nothing is queued or has arrived in part: only the timers of an idle connection run.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.phase == Phase::Established
            && self.partial.is_none()
            && self.drain_by.is_none()
            && self.reassembly.len() == 0
            && self.nothing_to_send()
            && !self.mute
    }

    /// The next deadline of a connection that [is at rest](Self::is_at_rest).
    #[inline]
    pub(crate) fn deadline_at_rest(&self, timeouts: &Timeouts) -> Earliest {
        let mut next = Earliest::default();
        next.offer(timeouts.idle.map(|idle| self.last_active + idle), Timer::Idle);
        next.offer(self.memory.deadline(self.last_active, timeouts.memory), Timer::Memory);
        next
    }

    /// The next deadline. With answers `outstanding` the connection is not idle; if it is `full`, reading is paused, and no
    /// frame timeout runs.
    pub(crate) fn deadline(
        &self,
        timeouts: &Timeouts,
        outstanding: bool,
        full: impl Fn() -> bool,
    ) -> Option<(Timestamp, Timer)> {
        let mut next = Earliest::default();
        if self.mute {
            return None;
        }
        if self.is_closing() {
            let stage = self.closing.current();
            if stage == Some(Stage::AwaitDisconnect) {
                let wait = timeouts.idle.unwrap_or(timeouts.linger);
                next.offer(Some(self.stage_since + wait), Timer::Idle);
            } else if !matches!(stage, Some(Stage::Close) | None) {
                next.offer(Some(self.stage_since + timeouts.linger), Timer::Linger);
            }
            if stage == Some(Stage::Flush) {
                next.offer(Some(self.since + timeouts.linger.saturating_mul(FLUSH_FACTOR)), Timer::Linger);
            }
        } else {
            let after = |since: Timestamp, timeout: Option<_>| timeout.map(|timeout| since + timeout);
            if self.phase != Phase::Established {
                next.offer(after(self.since, timeouts.hello), Timer::Hello);
            }
            if let Some((since, _)) = self.partial
                && !self.eof
                && !full()
            {
                next.offer(after(since.max(self.backpressure_at), timeouts.frame), Timer::Frame);
            }
            if let Some((_, since)) = self.reassembly.oldest()
                && !self.eof
                && !full()
            {
                let latest = timeouts.frame.map(|frame| since + frame.saturating_mul(BACKPRESSURE_FACTOR));
                let by = after(since.max(self.backpressure_at), timeouts.frame).min(latest);
                next.offer(by, Timer::Fragment);
            }
            let nothing_to_send = self.nothing_to_send();
            if nothing_to_send || self.out.deferred {
                // A frame or payload that has arrived in part has the frame timeout; without one, the idle timeout applies.
                let timed = timeouts.frame.is_some() && (self.reassembly.len() > 0 || self.partial.is_some());
                if !outstanding && !timed && !self.is_draining() {
                    next.offer(after(self.last_active, timeouts.idle), Timer::Idle);
                }
            } else if !self.out.deferred && !self.out.held && !self.out.is_empty() {
                next.offer(after(self.out.progress, timeouts.write), Timer::Write);
                if let Some(marked_at) = self.out.marked_at() {
                    let latest = timeouts.write.map(|write| marked_at + write.saturating_mul(WRITE_FACTOR));
                    next.offer(latest, Timer::Write);
                }
            }
            next.offer(self.drain_by, Timer::Drain);
            if nothing_to_send {
                next.offer(self.memory.deadline(self.last_active, timeouts.memory), Timer::Memory);
            }
        }
        next.0
    }

    /// Handles the timer that is due, if one is, as far as the link can; `None` if none is.
    pub(crate) fn expired(&mut self, due: Option<(Timestamp, Timer)>) -> Option<Due> {
        let (_, timer) = due.filter(|(at, _)| *at <= self.now)?;
        match timer {
            Timer::Linger => self.stage_timed_out(),
            Timer::Memory => {
                // Memory in use now belongs to output, and sending it starts the timer again.
                self.trim();
                self.memory.trimmed();
                return Some(Due::Trimmed);
            }
            _ => return Some(Due::Timer(timer)),
        }
        Some(Due::Served)
    }
}

/// An upper bound of the timers that can be due at the same time, the stages of closing included.
pub(crate) const TIMERS: usize = 16;

/// A timer that is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// The link handled it; another may be due.
    Served,
    /// The link freed unused memory; the reactor frees its own.
    Trimmed,
    /// The reactor handles it.
    Timer(Timer),
}

/// The earliest of several deadlines; the first offered of those at the same time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Earliest(pub(crate) Option<(Timestamp, Timer)>);

impl Earliest {
    #[inline]
    pub(crate) fn offer(&mut self, at: Option<Timestamp>, timer: Timer) {
        if let Some(at) = at
            && self.0.is_none_or(|(earliest, _)| at < earliest)
        {
            self.0 = Some((at, timer));
        }
    }
}
