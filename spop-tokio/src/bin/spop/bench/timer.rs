//! Waiting for events until a point in time. The timeout of epoll has a resolution of a millisecond, which a rate of 10,000
//! requests per second would show as a latency.

use std::{io, time::Duration};

use mio::{Events, Poll};

/// A wait that is shorter is one of the timer.
#[cfg(target_os = "linux")]
const COARSE: Duration = Duration::from_millis(50);

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

    /// Waits for events, and not longer than `most`.
    pub(super) fn wait(&self, poll: &mut Poll, events: &mut Events, most: Duration) -> io::Result<()> {
        use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};

        if most.is_zero() || most >= COARSE {
            return wait(poll, events, most);
        }
        // Setting it again resets it: it is never read.
        self.0.set(Expiration::OneShot(most.into()), TimerSetTimeFlags::empty())?;
        wait(poll, events, COARSE)
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(super) fn new(_: &Poll, _: mio::Token) -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for events, and not longer than `most`. The last millisecond is spent without waiting.
    pub(super) fn wait(&self, poll: &mut Poll, events: &mut Events, most: Duration) -> io::Result<()> {
        wait(poll, events, most.saturating_sub(Duration::from_millis(1)))
    }
}

fn wait(poll: &mut Poll, events: &mut Events, most: Duration) -> io::Result<()> {
    match poll.poll(events, Some(most)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        waited => waited,
    }
}
