//! How much a second, in the last minute.

use std::{collections::VecDeque, time::Duration};

/// The samples that are kept: those of a minute, one for each second.
const SAMPLES: usize = 61;

/// Counters at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) requests: u64,
    pub(super) failures: u64,
    pub(super) late: u64,
}

/// What counters grew by a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) requests: f64,
    pub(super) failures: f64,
    pub(super) late: f64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    samples: VecDeque<Sample>,
}

impl Rates {
    pub(super) fn push(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// In about the last `seconds`, or in as much of them as there is.
    pub(super) fn over(&self, seconds: usize) -> Rate {
        let first = self.samples.len().saturating_sub(seconds + 1);
        match (self.samples.get(first), self.samples.back()) {
            (Some(first), Some(last)) => first.rate_until(last),
            _ => Rate::default(),
        }
    }

    /// Requests in each second, the last at the end.
    pub(super) fn requests(&self) -> impl Iterator<Item = f64> {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        pairs.map(|(first, last)| first.rate_until(last).requests)
    }
}

impl Sample {
    fn rate_until(&self, last: &Self) -> Rate {
        let seconds = last.at.saturating_sub(self.at).as_secs_f64();
        if seconds == 0.0 {
            return Rate::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
        let rate = |first: u64, last: u64| last.saturating_sub(first) as f64 / seconds;
        Rate {
            requests: rate(self.requests, last.requests),
            failures: rate(self.failures, last.failures),
            late: rate(self.late, last.late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut rates = Rates::default();
        assert_eq!((rates.over(10), rates.requests().count()), (Rate::default(), 0));
        // Ten a second for 90 seconds, then 100, one of ten late.
        let (mut requests, mut late) = (0, 0);
        for second in 0..100_u64 {
            rates.push(Sample { at: Duration::from_secs(second), requests, failures: second, late });
            let more = if second < 90 { 10 } else { 100 };
            (requests, late) = (requests + more, late + more / 10);
        }
        assert_eq!(rates.over(1), Rate { requests: 100.0, failures: 1.0, late: 10.0 });
        assert_eq!(rates.over(9), rates.over(1));
        assert_eq!(rates.over(18), Rate { requests: 55.0, failures: 1.0, late: 5.5 });
        assert_eq!(rates.over(1000), rates.over(60));
        let each: Vec<_> = rates.requests().collect();
        let ends = [each[0], each[59]].map(|rate| format!("{rate:.0}"));
        assert_eq!((each.len(), ends), (60, ["10".to_owned(), "100".to_owned()]));
    }

    #[test]
    fn a_clock_that_stands_still_makes_no_rate() {
        let mut rates = Rates::default();
        for requests in [0, 5] {
            rates.push(Sample { at: Duration::ZERO, requests, failures: 0, late: 0 });
        }
        assert_eq!(rates.over(1), Rate::default());
    }
}
