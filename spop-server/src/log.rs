//! Events at a bounded rate: a peer must not be able to fill a disk.

use std::time::Duration;

use spop_core::Timestamp;

/// Events of a kind that come at once.
const BURST: u32 = 10;
/// What one more takes after that.
const PERIOD: Duration = Duration::from_secs(1);

/// A bound for each kind of event, so that none can hide another.
#[derive(Debug, Default)]
pub struct LogLimits {
    /// Handlers that failed.
    pub handler: LogLimit,
    /// Answers that came too late.
    pub late: LogLimit,
    /// Sessions whose terms lose requests.
    pub session: LogLimit,
    /// Connections that ended as they should not.
    pub closed: LogLimit,
    /// Connections that were refused, or could not be accepted.
    pub accept: LogLimit,
}

/// A bound on how often events of a kind are logged: ten at once, then one a second.
#[derive(Debug)]
pub struct LogLimit {
    tokens: u32,
    filled: Timestamp,
    suppressed: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self { tokens: BURST, filled: Timestamp::ZERO, suppressed: 0 }
    }
}

impl LogLimit {
    /// Whether an event may be logged; if so, how many were not since the last.
    pub fn pass(&mut self, now: Timestamp) -> Option<u64> {
        let periods = now.since(self.filled).as_nanos() / PERIOD.as_nanos();
        if periods > 0 {
            self.tokens = self.tokens.saturating_add(u32::try_from(periods).unwrap_or(BURST)).min(BURST);
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
        assert_eq!(passed, BURST as usize);
        assert_eq!(limit.pass(at(1)), Some(990));
        assert_eq!(limit.pass(at(1)), None);
        assert_eq!(limit.pass(at(100)), Some(1));
    }
}
