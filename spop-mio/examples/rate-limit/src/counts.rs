//! What is counted for each limit.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use program::Totals;

/// The counts of all workers. Each has its own: a request writes to no memory that they share.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<Vec<Arc<[Counters]>>>>);

/// What a worker has counted for one limit. [`Counts::totals`] says what each is.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Counters {
    pub(crate) passed: Counter,
    pub(crate) limited: Counter,
    pub(crate) without_key: Counter,
    pub(crate) forgotten: Counter,
    pub(crate) refused: Counter,
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

    /// The sum of all workers, for the limit of this number.
    pub(crate) fn sum(&self, limit: usize, of: fn(&Counters) -> &Counter) -> u64 {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().filter_map(|counters| counters.get(limit)).map(|counters| of(counters).get()).sum()
    }

    /// All sums for the limit of this number.
    pub(crate) fn totals(&self, limit: usize) -> Totals {
        let sum = |of| self.sum(limit, of);
        Totals(vec![
            ("passed", "Requests that passed", sum(|counters| &counters.passed)),
            ("limited", "Requests that were limited", sum(|counters| &counters.limited)),
            ("without_key", "Requests without a key, which pass", sum(|counters| &counters.without_key)),
            ("forgotten", "Keys that were forgotten for another", sum(|counters| &counters.forgotten)),
            (
                "refused",
                "New keys limited for want of a slot, among limited",
                sum(|counters| &counters.refused),
            ),
        ])
    }
}
