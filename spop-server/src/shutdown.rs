//! The shutdown of a server: its stage, its subscribers, and the work in the background that it waits for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering, fence},
    },
    task::Waker,
};

use spop_core::Clock;
use tracing::warn;

use crate::{LogLimit, Stage, metrics::BackgroundMetrics, stage::AtomicStage};

#[derive(Debug)]
pub(crate) struct Shutdown {
    pub(crate) stage: AtomicStage,
    subscribers: Mutex<Subscribers>,
    clock: Clock,
    max_background: usize,
    background: Counts,
    full: LogLimit,
    pub(crate) metrics: BackgroundMetrics,
}

/// Counts of the work in the background. In a cache line of their own: every thread reads the stage.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts {
    now: AtomicUsize,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Subscribers {
    next: u64,
    wakers: HashMap<u64, Waker>,
}

impl Shutdown {
    /// Of a server that allows so much work in the background.
    pub(crate) fn new(max_background: usize, clock: Clock) -> Self {
        Self {
            stage: AtomicStage::default(),
            subscribers: Mutex::default(),
            clock,
            max_background,
            background: Counts::default(),
            full: LogLimit::default(),
            metrics: BackgroundMetrics::default(),
        }
    }

    // ---- subscribers ----

    pub(crate) fn subscribe(self: &Arc<Self>, waker: &Waker) -> Subscription {
        let mut subscribers = self.subscribers();
        let key = subscribers.next;
        subscribers.next += 1;
        subscribers.wakers.insert(key, waker.clone());
        Subscription { shutdown: Arc::clone(self), key }
    }

    /// Wakes the subscribers.
    pub(crate) fn wake(&self) {
        let wakers: Vec<_> = self.subscribers().wakers.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn subscribers(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- background ----

    pub(crate) fn enter_background(self: &Arc<Self>) -> Option<Background> {
        // First and last: a recorder of metrics may panic, and the count stays right.
        self.metrics.entered();
        let before = self.background.now.fetch_add(1, Ordering::Relaxed);
        // One that is too many is taken back by its drop.
        let background = Background(Arc::clone(self));
        if before < self.max_background {
            return Some(background);
        }
        self.refuse();
        None
    }

    #[cold]
    fn refuse(&self) {
        self.background.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.full.pass(self.clock.now()) {
            let max = self.max_background;
            warn!(name: "background_full", max, suppressed, "too much work in the background: some is left undone");
        }
        self.metrics.refused();
    }

    fn leave_background(&self) {
        if self.background.now.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake_if_ending();
        }
        self.metrics.left();
    }

    /// Something has ended that a shutdown waits for: wakes the subscribers if there is one.
    ///
    /// A thread that begins a shutdown checks what is left behind a fence too, so at least one of the two threads sees the other's change.
    pub(crate) fn wake_if_ending(&self) {
        fence(Ordering::SeqCst);
        if self.stage.get() >= Stage::Drain {
            self.wake();
        }
    }

    /// The work that is not over.
    pub(crate) fn background(&self) -> usize {
        self.background.now.load(Ordering::Acquire)
    }

    /// The work that is not over, and its limit.
    pub(crate) fn background_usage(&self) -> (usize, usize) {
        (self.background(), self.max_background)
    }

    /// The work that is not over, and what was refused.
    pub(crate) fn background_counts(&self) -> (u64, u64) {
        (self.background() as u64, self.background.refused.load(Ordering::Relaxed))
    }
}

/// The registration of a waker for the stages of a shutdown. See [`Agent::subscribe`](crate::Agent::subscribe).
#[derive(Debug)]
pub struct Subscription {
    shutdown: Arc<Shutdown>,
    key: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shutdown.subscribers().wakers.remove(&self.key);
    }
}

/// Permission for work that goes on after the answer of its request. See [`Request::background`](crate::Request::background).
///
/// The work is counted until this is dropped. A server that drains waits for it, until a second after
/// [`Timeouts::drain`](spop_core::config::Timeouts::drain) at most, and then logs how much of it is not over; one that stops does not
/// wait. Neither ends the work: the process does.
#[derive(Debug)]
#[must_use = "the work is counted as long as this lives"]
pub struct Background(Arc<Shutdown>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.leave_background();
    }
}
