//! What the agent counts, and how much of it the log has.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tracing::info;

use crate::store::{Lost, Store};

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    pub(crate) responses: AtomicU64,
    /// Messages whose body was cut.
    pub(crate) cut: AtomicU64,
    /// Messages with a score that is enough.
    pub(crate) detected: AtomicU64,
    pub(crate) blocked: AtomicU64,
    /// Responses whose request was known.
    pub(crate) joined: AtomicU64,
    /// Those whose request was not: it was too long ago, or there were too many.
    pub(crate) unjoined: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counts {
    /// Sets them as metrics, which have the names of the log.
    pub(crate) fn publish(&self, store: &Store) {
        let Self { requests, responses, cut, detected, blocked, joined, unjoined } = self;
        let Lost { expired, evicted } = store.lost();
        for (name, count) in [
            ("requests", requests),
            ("responses", responses),
            ("cut", cut),
            ("detected", detected),
            ("blocked", blocked),
            ("joined", joined),
            ("unjoined", unjoined),
            ("expired", expired),
            ("evicted", evicted),
        ] {
            metrics::counter!(format!("waf_{name}_total")).absolute(count.load(Relaxed));
        }
    }

    /// Writes them to the log.
    pub(crate) fn log(&self, store: &Store) {
        let Self { requests, responses, cut, detected, blocked, joined, unjoined } = self;
        let Lost { expired, evicted } = store.lost();
        info!(
            ?requests,
            ?responses,
            ?cut,
            ?detected,
            ?blocked,
            ?joined,
            ?unjoined,
            ?expired,
            ?evicted,
            "counts"
        );
    }
}

/// Lines of the log that a client can cause: so many in a second, and then a number.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// How many lines in a second.
const LINES: u32 = 20;

impl LogLimit {
    /// Whether there may be another line, and how many were left out before it.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second.began.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            second.began = Some(now);
            second.lines = 0;
        }
        if second.lines == LINES {
            second.suppressed += 1;
            return None;
        }
        second.lines += 1;
        Some(std::mem::take(&mut second.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited_and_those_left_out_are_counted() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(limit.admit(now), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limit.admit(now + Duration::from_millis(999)), None);
        }
        assert_eq!(limit.admit(now + Duration::from_secs(1)), Some(7));
        assert_eq!(limit.admit(now + Duration::from_secs(1)), Some(0));
    }
}
