//! What a connection waits for, and until when.

use super::{Interest, Layer, Link, Phase, Stage, Timer};
use crate::{Timestamp, config::Timeouts};

/// How many times the linger timeout all that is left to send may take. A peer that reads a little at a time makes progress,
/// and must not hold up a shutdown for it.
const FLUSH: u32 = 10;

impl Link {
    /// `full` is backpressure; `ended` that the end of the session was not reported yet.
    #[inline]
    pub(crate) fn interest(&self, full: bool, ended: bool) -> Interest {
        if self.is_closing() {
            return self.interest_of_closing(ended);
        }
        Interest {
            read: !self.eof && !full,
            read_now: false,
            write: !self.out.ready().is_empty(),
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
        let step = self.closing.current();
        let close = matches!(step, Some(Stage::Close) | None);
        let writes = matches!(step, Some(Stage::Flush | Stage::AwaitDisconnect));
        Interest {
            read: !self.eof && !close,
            read_now: false,
            write: writes && !self.out.ready().is_empty(),
            resume: false,
            shut: match step {
                Some(Stage::ShutData) => Some(Layer::Data),
                Some(Stage::ShutTransport) => Some(Layer::Transport),
                _ => None,
            },
            close,
        }
    }

    /// The next deadline. `owes` says whether answers are due, which keeps a connection from being idle; `full` that
    /// reading is paused, so that the peer cannot be late.
    pub(crate) fn deadline(&self, timeouts: &Timeouts, owes: bool, full: bool) -> Option<(Timestamp, Timer)> {
        let mut next = Earliest::default();
        if self.mute {
            return None;
        }
        if self.is_closing() {
            let step = self.closing.current();
            if step == Some(Stage::AwaitDisconnect) {
                let wait = timeouts.idle.unwrap_or(timeouts.linger);
                next.offer(Some(self.step_since + wait), Timer::Idle);
            } else if !matches!(step, Some(Stage::Close) | None) {
                next.offer(Some(self.step_since + timeouts.linger), Timer::Linger);
            }
            if step == Some(Stage::Flush) {
                next.offer(Some(self.since + timeouts.linger.saturating_mul(FLUSH)), Timer::Linger);
            }
        } else {
            let after = |since: Timestamp, timeout: Option<_>| timeout.map(|timeout| since + timeout);
            if self.phase != Phase::Established {
                next.offer(after(self.since, timeouts.hello), Timer::Hello);
            }
            if !self.eof
                && !full
                && let Some((since, _)) = self.partial
            {
                next.offer(after(since.max(self.stopped), timeouts.frame), Timer::Frame);
            }
            if !self.eof
                && !full
                && let Some((_, touched)) = self.reassembly.oldest()
            {
                next.offer(after(touched.max(self.stopped), timeouts.frame), Timer::Fragment);
            }
            if self.nothing_to_send() || self.out.deferred {
                // What arrives in parts has a timeout of its own, or else is idle when its next part does not come.
                let timed = timeouts.frame.is_some() && (self.reassembly.len() > 0 || self.partial.is_some());
                if !owes && !timed && !self.is_draining() {
                    next.offer(after(self.active, timeouts.idle), Timer::Idle);
                }
            } else if !self.out.deferred && !self.out.held && !self.out.is_empty() {
                next.offer(after(self.out.progress, timeouts.write), Timer::Write);
            }
            next.offer(self.drain_by, Timer::Drain);
            if self.nothing_to_send() {
                next.offer(self.memory.deadline(self.active, timeouts.memory), Timer::Memory);
            }
        }
        next.0
    }

    /// What is due: `None` when nothing is. Timers that need no decision of the reactor are served on the way.
    pub(crate) fn expired(&mut self, due: Option<(Timestamp, Timer)>) -> Option<Due> {
        let (_, timer) = due.filter(|(at, _)| *at <= self.now)?;
        match timer {
            Timer::Linger => self.step_overdue(),
            Timer::Memory => {
                // What is in use now will be sent, which starts the timer again.
                self.trim();
                self.memory.trimmed();
                return Some(Due::Trimmed);
            }
            _ => return Some(Due::Timer(timer)),
        }
        Some(Due::Served)
    }
}

/// More timers than can be due at one time: steps of closing among them.
pub(crate) const TIMERS: usize = 16;

/// A timer that is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// It was served; another may be due.
    Served,
    /// It was served, and the reactor may give back memory of its own.
    Trimmed,
    /// The reactor is to serve it.
    Timer(Timer),
}

/// The earliest of several deadlines.
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
