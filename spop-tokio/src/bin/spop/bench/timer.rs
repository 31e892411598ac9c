//! Waiting for events until a point in time. The timeout of epoll has a resolution of a millisecond, which a rate of 10,000
//! requests per second would show as a latency.

use std::{io, time::Duration};

use mio::{Events, Poll};

#[cfg(target_os = "linux")]
pub(super) struct Timer(nix::sys::timerfd::TimerFd);

#[cfg(target_os = "linux")]
impl Timer {
    pub(super) fn new(poll: &Poll, token: mio::Token) -> io::Result<Self> {
        use std::os::fd::{AsFd as _, AsRawFd as _};

        use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let fd = timer.as_fd().as_raw_fd();
        poll.registry().register(&mut mio::unix::SourceFd(&fd), token, mio::Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Waits for events, and not longer than `tick`, which may be exceeded by a millisecond, or `due`.
    pub(super) fn wait(
        &self,
        poll: &mut Poll,
        events: &mut Events,
        tick: Duration,
        due: Option<Duration>,
    ) -> io::Result<()> {
        use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};

        match due {
            Some(due) if due.is_zero() => wait(poll, events, due),
            Some(due) if due < tick => {
                // Setting it again resets it: it is never read.
                self.0.set(Expiration::OneShot(due.into()), TimerSetTimeFlags::empty())?;
                wait(poll, events, tick)
            }
            _ => wait(poll, events, tick),
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(super) fn new(_: &Poll, _: mio::Token) -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for events, and not longer than `tick` or `due`. The last millisecond before `due` is spent without waiting.
    pub(super) fn wait(
        &self,
        poll: &mut Poll,
        events: &mut Events,
        tick: Duration,
        due: Option<Duration>,
    ) -> io::Result<()> {
        let due = due.map_or(tick, |due| due.saturating_sub(Duration::from_millis(1)));
        wait(poll, events, tick.min(due))
    }
}

fn wait(poll: &mut Poll, events: &mut Events, most: Duration) -> io::Result<()> {
    match poll.poll(events, Some(most)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        waited => waited,
    }
}
