//! The shutdown of a server: its stage, who is told of it, and the work in the background that it waits for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
};

use tracing::warn;

use crate::{Stage, metrics::BackgroundMetrics, stage::AtomicStage};

#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    pub(crate) stage: AtomicStage,
    subscribers: Mutex<Subscribers>,
    max_background: usize,
    background: AtomicUsize,
    refused: AtomicU64,
    /// It was logged that the limit was reached, and less than half of it is used since.
    logged: AtomicBool,
    pub(crate) metrics: BackgroundMetrics,
}

#[derive(Debug, Default)]
struct Subscribers {
    next: u64,
    wakers: HashMap<u64, Waker>,
}

impl Shutdown {
    /// Of a server that allows so much work in the background.
    pub(crate) fn new(max_background: usize) -> Self {
        Self { max_background, ..Self::default() }
    }

    // ---- who is told ----

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
        let before = self.background.fetch_add(1, Ordering::Relaxed);
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
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.metrics.refused();
        if !self.logged.swap(true, Ordering::Relaxed) {
            let max = self.max_background;
            warn!(name: "background_full", max, "too much work in the background: some is left undone");
        }
    }

    fn leave_background(&self) {
        let left = self.background.fetch_sub(1, Ordering::AcqRel) - 1;
        if left <= self.max_background / 2 && self.logged.load(Ordering::Relaxed) {
            self.logged.store(false, Ordering::Relaxed);
        }
        if left == 0 && self.stage.get() >= Stage::Drain {
            self.wake();
        }
        self.metrics.left();
    }

    /// How much there is.
    pub(crate) fn background(&self) -> usize {
        self.background.load(Ordering::Acquire)
    }

    /// How much there is, and how much there may be.
    pub(crate) fn background_usage(&self) -> (usize, usize) {
        (self.background(), self.max_background)
    }

    /// How much there is, and how often there was too much.
    pub(crate) fn background_counts(&self) -> (u64, u64) {
        (self.background() as u64, self.refused.load(Ordering::Relaxed))
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
/// The work is counted until this is dropped. A server that drains waits for it, for
/// [`Timeouts::drain`](spop_core::config::Timeouts::drain) and a second at most, and then says how much it leaves. It does not end the
/// work: the process does.
#[derive(Debug)]
#[must_use = "the work is counted as long as this lives"]
pub struct Background(Arc<Shutdown>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.leave_background();
    }
}
