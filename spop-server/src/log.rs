//! Events at a bounded rate: a peer must not be able to fill a disk.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use spop_core::Timestamp;

/// A limit on how often events of a kind are logged, for all threads together. By default ten at once, then one a second.
#[derive(Debug)]
pub struct LogLimit {
    burst: u32,
    period: Duration,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    filled: Timestamp,
    suppressed: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new(10, Duration::from_secs(1))
    }
}

impl LogLimit {
    /// `burst` events at once, then one per `period`.
    #[must_use]
    pub const fn new(burst: u32, period: Duration) -> Self {
        let bucket = Bucket { tokens: burst, filled: Timestamp::ZERO, suppressed: 0 };
        Self { burst, period, bucket: Mutex::new(bucket) }
    }

    /// The first event at once, then one a minute, with the number of those left out.
    #[must_use]
    pub const fn one_a_minute() -> Self {
        Self::new(1, Duration::from_secs(60))
    }

    /// Whether an event may be logged; if so, how many were suppressed since the last.
    pub fn pass(&self, now: Timestamp) -> Option<u64> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let periods = now.since(bucket.filled).as_nanos().checked_div(self.period.as_nanos());
        let periods = periods.map_or(self.burst, |periods| u32::try_from(periods).unwrap_or(self.burst));
        if periods > 0 {
            bucket.tokens = bucket.tokens.saturating_add(periods).min(self.burst);
            bucket.filled = now;
        }
        // The period runs from the first event of a burst.
        if bucket.tokens == self.burst {
            bucket.filled = now;
        }
        if let Some(tokens) = bucket.tokens.checked_sub(1) {
            bucket.tokens = tokens;
            Some(std::mem::take(&mut bucket.suppressed))
        } else {
            bucket.suppressed += 1;
            None
        }
    }
}

/// The limits of log events, one for each kind, so that none can hide another. For all threads of a server together.
#[derive(Debug)]
pub(crate) struct Logs {
    /// Handlers that failed.
    pub(crate) handler: LogLimit,
    /// Handlers that panicked.
    pub(crate) panics: LogLimit,
    /// Answers that came too late.
    pub(crate) late: LogLimit,
    /// Sessions with a frame size that makes HAProxy fail long requests.
    pub(crate) session: LogLimit,
    /// Requests that exceed a limit of their session.
    pub(crate) refused: LogLimit,
    /// Requests without an answer, for want of time or memory.
    pub(crate) requests: LogLimit,
    /// Connections that were ended to free memory.
    pub(crate) memory: LogLimit,
    /// Connections that ended with a fault.
    pub(crate) closed: LogLimit,
    /// Connections that were refused, or could not be accepted.
    pub(crate) accept: LogLimit,
    /// Clients of another protocol: a scanner or a health check on the wrong port would hide the connections of `closed`.
    pub(crate) foreign: LogLimit,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            handler: LogLimit::default(),
            panics: LogLimit::default(),
            late: LogLimit::default(),
            session: LogLimit::default(),
            requests: LogLimit::default(),
            refused: LogLimit::default(),
            memory: LogLimit::default(),
            closed: LogLimit::default(),
            accept: LogLimit::default(),
            foreign: LogLimit::one_a_minute(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_not_logged() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let limit = LogLimit::default();
        let passed = (0..1000).filter_map(|_| limit.pass(at(0))).count();
        assert_eq!(passed, 10);
        assert_eq!(limit.pass(at(1)), Some(990));
        assert_eq!(limit.pass(at(1)), None);
        assert_eq!(limit.pass(at(100)), Some(1));
    }

    #[test]
    fn one_a_minute_is_the_first_at_once_and_then_a_count() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let limit = LogLimit::one_a_minute();
        assert_eq!(limit.pass(at(59)), Some(0));
        assert_eq!(
            (60..119).filter_map(|second| limit.pass(at(second))).count(),
            0,
            "the minute is from the first"
        );
        assert_eq!(limit.pass(at(119)), Some(59));
        assert_eq!(limit.pass(at(178)), None);
        assert_eq!(limit.pass(at(1000)), Some(1));
        assert_eq!(limit.pass(at(1059)), None, "a quiet time saves up no more than one");
    }
}
