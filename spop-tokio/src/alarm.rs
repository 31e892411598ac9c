//! One timer for a connection.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use spop_core::{Clock, Timestamp};
use tokio::{
    task::coop,
    time::{Instant, Sleep, sleep_until},
};

/// Later than any deadline that comes in the life of a connection.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A timer that is moved to an earlier time only. Deadlines move to later times with every frame, as a rule: a task that is
/// woken too early finds nothing to do, and sets the alarm again.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Timestamp>,
    /// The waker that the timer has.
    waker: Option<Waker>,
}

impl Alarm {
    /// Sets the alarm to go off at `deadline` at the latest.
    #[inline]
    pub(crate) fn set(&mut self, clock: &Clock, deadline: Option<Timestamp>) {
        let Some(deadline) = deadline.filter(|deadline| self.at.is_none_or(|at| *deadline < at)) else {
            return;
        };
        let instant = clock.instant(deadline).map_or_else(|| Instant::now() + FAR, Instant::from_std);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(instant),
            None => self.sleep = Some(Box::pin(sleep_until(instant))),
        }
        self.at = Some(deadline);
        self.waker = None;
    }

    /// Whether it went off; once.
    #[inline]
    pub(crate) fn went_off(&mut self, cx: &mut Context<'_>) -> bool {
        let (Some(sleep), Some(_)) = (&mut self.sleep, self.at) else { return false };
        // The timer has the waker already.
        let waits = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if waits && !sleep.is_elapsed() {
            return false;
        }
        // Without coop budget a timer wakes its caller at once, and does not keep the waker.
        let remembers = coop::has_budget_remaining();
        if sleep.as_mut().poll(cx) == Poll::Pending {
            self.waker = remembers.then(|| cx.waker().clone());
            return false;
        }
        self.at = None;
        true
    }
}
