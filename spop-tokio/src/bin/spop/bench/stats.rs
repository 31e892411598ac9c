//! What is counted.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

/// Reasons that are told apart. An agent can invent any number of messages.
const REASONS: usize = 16;

/// The longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Counts of a run, or of a part of it.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// Answers of which HAProxy ignores a part.
    pub(super) malformed: u64,
    /// Failed requests, by HAProxy's error number.
    pub(super) failed: BTreeMap<u32, u64>,
    /// Those of them that timed out before a connection was free for them.
    pub(super) never_sent: u64,
    /// In flight when the run was cut short.
    pub(super) unfinished: u64,
    /// Sessions that ended, by reason.
    pub(super) ends: BTreeMap<String, u64>,
    /// The time to each answer, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
}

impl Stats {
    pub(super) fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, nanos(LONGEST), 3)
            .unwrap_or_else(|_| unreachable!("the bounds are constant"));
        Self {
            sent: 0,
            answered: 0,
            malformed: 0,
            failed: BTreeMap::new(),
            never_sent: 0,
            unfinished: 0,
            ends: BTreeMap::new(),
            latencies,
        }
    }

    pub(super) fn answered(&mut self, latency: Duration) {
        self.answered += 1;
        self.latencies.saturating_record(nanos(latency));
    }

    pub(super) fn failed(&mut self, code: u32, count: u64) {
        if count > 0 {
            *self.failed.entry(code).or_default() += count;
        }
    }

    pub(super) fn ended(&mut self, reason: String, count: u64) {
        let reason = if self.ends.len() < REASONS || self.ends.contains_key(&reason) {
            reason
        } else {
            "other reasons".to_owned()
        };
        *self.ends.entry(reason).or_default() += count;
    }

    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Whether anything went wrong.
    pub(super) fn is_bad(&self) -> bool {
        self.failures() + self.malformed > 0 || !self.ends.is_empty()
    }

    /// Adds the counts of a part.
    pub(super) fn add(&mut self, part: &Self) {
        self.sent += part.sent;
        self.answered += part.answered;
        self.malformed += part.malformed;
        self.never_sent += part.never_sent;
        self.unfinished += part.unfinished;
        for (code, count) in &part.failed {
            self.failed(*code, *count);
        }
        for (reason, count) in &part.ends {
            self.ended(reason.clone(), *count);
        }
        if !part.latencies.is_empty() {
            // Both have the same bounds.
            let _ = self.latencies.add(&part.latencies);
        }
    }

    /// As [`add`](Self::add), and sets the counts of `part` to zero.
    pub(super) fn take(&mut self, part: &mut Self) {
        self.add(part);
        part.latencies.reset();
        (part.sent, part.answered, part.malformed, part.never_sent, part.unfinished) = (0, 0, 0, 0, 0);
        part.failed.clear();
        part.ends.clear();
    }

    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(quantile))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_distribution() {
        let mut stats = Stats::new();
        for index in 0..1_000_u64 {
            stats.answered(Duration::from_millis(if index % 10 == 0 { 20 } else { 2 }));
        }
        for (quantile, ms) in [(0.5, 2.0), (0.9, 2.0), (0.91, 20.0), (0.99, 20.0), (1.0, 20.0)] {
            let found = stats.quantile(quantile).as_secs_f64() * 1e3;
            assert!((found / ms - 1.0).abs() < 0.001, "{quantile}: {found} ms");
        }
        stats.answered(Duration::from_secs(10_000));
        assert!(stats.quantile(1.0) >= LONGEST, "longer ones are not lost");
    }

    #[test]
    fn parts_add_up() {
        let (mut all, mut part) = (Stats::new(), Stats::new());
        for round in 1..=3 {
            part.answered(Duration::from_millis(round));
            part.failed(258, 2);
            part.ended("gone".into(), 1);
            part.sent += 3;
            all.take(&mut part);
            assert_eq!((part.sent, part.answered, part.failures(), part.latencies.len()), (0, 0, 0, 0));
        }
        assert_eq!((all.sent, all.answered, all.failed[&258], all.ends["gone"]), (9, 3, 6, 3));
        assert_eq!(all.latencies.len(), 3);
    }

    #[test]
    fn reasons_are_limited() {
        let mut stats = Stats::new();
        for number in 0..100 {
            stats.ended(number.to_string(), 1);
        }
        assert_eq!((stats.ends.len(), stats.ends["other reasons"]), (REASONS + 1, 84));
        let mut all = Stats::new();
        all.ended("x".into(), 1);
        all.take(&mut stats);
        assert!(all.ends.len() <= REASONS + 1 && all.ends.values().sum::<u64>() == 101, "{:?}", all.ends);
    }
}
