//! Events at a bounded rate: a peer must not be able to fill a disk.

use std::time::Duration;

use spop_core::Timestamp;

/// A limit on how often events of a kind are logged. By default ten at once, then one a second.
#[derive(Debug)]
pub struct LogLimit {
    burst: u32,
    period: Duration,
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
        Self { burst, period, tokens: burst, filled: Timestamp::ZERO, suppressed: 0 }
    }

    /// The first event at once, then one a minute, with the number of those left out.
    #[must_use]
    pub const fn one_a_minute() -> Self {
        Self::new(1, Duration::from_secs(60))
    }

    /// Whether an event may be logged; if so, how many were not since the last.
    pub fn pass(&mut self, now: Timestamp) -> Option<u64> {
        let periods = now.since(self.filled).as_nanos().checked_div(self.period.as_nanos());
        let periods = periods.map_or(self.burst, |periods| u32::try_from(periods).unwrap_or(self.burst));
        if periods > 0 {
            self.tokens = self.tokens.saturating_add(periods).min(self.burst);
            self.filled = now;
        }
        // The period runs from the first event of a burst.
        if self.tokens == self.burst {
            self.filled = now;
        }
        if let Some(tokens) = self.tokens.checked_sub(1) {
            self.tokens = tokens;
            Some(core::mem::take(&mut self.suppressed))
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
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let mut limit = LogLimit::default();
        let passed = (0..1000).filter_map(|_| limit.pass(at(0))).count();
        assert_eq!(passed, 10);
        assert_eq!(limit.pass(at(1)), Some(990));
        assert_eq!(limit.pass(at(1)), None);
        assert_eq!(limit.pass(at(100)), Some(1));
    }

    #[test]
    fn one_a_minute_is_the_first_at_once_and_then_a_count() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let mut limit = LogLimit::one_a_minute();
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
