//! What is counted for each limit.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// The counts of all workers. Each has its own: a request writes to no memory that they share.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<Vec<Arc<[Counters]>>>>);

/// What a worker has counted for one limit.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Counters {
    pub(crate) passed: Counter,
    pub(crate) limited: Counter,
    /// Messages whose key was NULL. They pass.
    pub(crate) without_key: Counter,
    /// Keys that were forgotten for another.
    pub(crate) forgotten: Counter,
    /// New keys that were limited because there was no slot for them. They are among those limited.
    pub(crate) refused: Counter,
}

/// The sums of all workers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) passed: u64,
    pub(crate) limited: u64,
    pub(crate) without_key: u64,
    pub(crate) forgotten: u64,
    pub(crate) refused: u64,
}

/// A number that one thread counts, and any reads.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more. Of the thread that counts.
    #[inline]
    pub(crate) fn add(&self) {
        self.0.store(self.get() + 1, Ordering::Relaxed);
    }

    #[inline]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counts {
    /// The counters of one more worker, for so many limits.
    pub(crate) fn begin(&self, limits: usize) -> Arc<[Counters]> {
        let counters: Arc<[Counters]> = (0..limits).map(|_| Counters::default()).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counters));
        counters
    }

    /// The sums for the limit of this number.
    pub(crate) fn sums(&self, limit: usize) -> Sums {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().filter_map(|counters| counters.get(limit)).fold(Sums::default(), |sums, counters| {
            Sums {
                passed: sums.passed + counters.passed.get(),
                limited: sums.limited + counters.limited.get(),
                without_key: sums.without_key + counters.without_key.get(),
                forgotten: sums.forgotten + counters.forgotten.get(),
                refused: sums.refused + counters.refused.get(),
            }
        })
    }
}
