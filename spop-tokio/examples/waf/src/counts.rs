//! What the agent counts, and how much of it the log has.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use program::{Count, Totals};
use tracing::info;

use crate::store::{Lost, Store};

/// Counts since the start. [`totals`](Self::totals) says what each is.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: Count,
    pub(crate) responses: Count,
    pub(crate) cut: Count,
    pub(crate) detected: Count,
    pub(crate) blocked: Count,
    pub(crate) joined: Count,
    pub(crate) unjoined: Count,
}

impl Counts {
    fn totals(&self, store: &Store) -> Totals {
        let Self { requests, responses, cut, detected, blocked, joined, unjoined } = self;
        let Lost { expired, evicted } = store.lost();
        Totals(vec![
            ("requests", "Requests that were inspected", requests.get()),
            ("responses", "Responses that were inspected", responses.get()),
            ("cut", "Messages whose body was cut", cut.get()),
            ("detected", "Messages with a score that is enough", detected.get()),
            ("blocked", "Messages that were refused", blocked.get()),
            ("joined", "Responses whose request was known", joined.get()),
            ("unjoined", "Responses whose request was not: too long ago, or too many", unjoined.get()),
            ("expired", "Requests whose response did not come in time", expired.get()),
            ("evicted", "Requests that were forgotten for others", evicted.get()),
        ])
    }

    /// Sets them as metrics, which have the names of the log.
    pub(crate) fn publish(&self, store: &Store) {
        self.totals(store).publish("waf", &[]);
    }

    /// Writes them to the log.
    pub(crate) fn log(&self, store: &Store) {
        info!(name: "counts", "counts {}", self.totals(store));
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
