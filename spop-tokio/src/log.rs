//! Events at a bounded rate: a peer must not be able to fill a disk.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Events of a kind that come at once.
const BURST: u32 = 10;
/// What one more takes after that.
const PERIOD: Duration = Duration::from_secs(1);

/// A token bucket for each kind of event, so that none can hide another.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// Handlers that failed.
    pub(crate) handler: Limit,
    /// Connections that ended as they should not.
    pub(crate) closed: Limit,
    /// Connections that were refused, or could not be accepted.
    pub(crate) accept: Limit,
}

#[derive(Debug)]
pub(crate) struct Limit(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    filled: Instant,
    suppressed: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Self(Mutex::new(Bucket { tokens: BURST, filled: Instant::now(), suppressed: 0 }))
    }
}

impl Limit {
    /// Whether an event may be logged; if so, how many were not since the last.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now())
    }
}

impl Bucket {
    fn pass(&mut self, now: Instant) -> Option<u64> {
        let periods = now.saturating_duration_since(self.filled).as_nanos() / PERIOD.as_nanos();
        if periods > 0 {
            self.tokens = self.tokens.saturating_add(u32::try_from(periods).unwrap_or(BURST)).min(BURST);
            self.filled = now;
        }
        if let Some(tokens) = self.tokens.checked_sub(1) {
            self.tokens = tokens;
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_not_logged() {
        let start = Instant::now();
        let mut bucket = Bucket { tokens: BURST, filled: start, suppressed: 0 };
        let passed = (0..1000).filter_map(|_| bucket.pass(start)).count();
        assert_eq!(passed, BURST as usize);
        assert_eq!(bucket.pass(start + PERIOD), Some(990));
        assert_eq!(bucket.pass(start + PERIOD), None);
        assert_eq!(bucket.pass(start + 100 * PERIOD), Some(1));
    }
}
