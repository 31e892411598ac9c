//! Token buckets. A bucket is one number: the time at which it is full again (the generic cell rate algorithm).

use std::time::Duration;

/// Times are nanoseconds since the start of the program.
pub(crate) type Nanos = u64;

/// How fast buckets fill, and how many tokens they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    tokens: u64,
    period: Nanos,
    burst: u64,
    /// How long a token takes, in 2⁻³² ns: a product with it needs no division.
    interval: u128,
    /// How long an empty bucket takes to be full.
    depth: Nanos,
}

/// What a bucket says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// There were too few tokens, and none was taken.
    pub(crate) limited: bool,
    /// The whole tokens that the bucket has now.
    pub(crate) remaining: u64,
    /// If limited, when there are enough. For a cost that exceeds the burst, and never passes: when the bucket is full.
    pub(crate) wait: Nanos,
}

impl Rate {
    /// So many tokens in a period, and at most `burst` in a bucket.
    ///
    /// # Errors
    /// Says which of them is out of range.
    pub(crate) fn new(tokens: u64, period: Duration, burst: u64) -> Result<Self, String> {
        const YEAR: u128 = Duration::from_secs(366 * 86_400).as_nanos();
        let nanos = period.as_nanos();
        if nanos == 0 || nanos > YEAR {
            return Err(format!("the period is {period:?}: use 1ns to 366d"));
        }
        if tokens == 0 || u128::from(tokens) > nanos {
            return Err(format!(
                "{tokens} tokens in {period:?}: use 1 or more, and at most one in a nanosecond"
            ));
        }
        let depth = u128::from(burst) * nanos / u128::from(tokens);
        if burst == 0 || depth > YEAR {
            return Err(format!("the burst is {burst}: use 1 or more, and at most what a year brings"));
        }
        let interval = (nanos << 32) / u128::from(tokens);
        // A year has less than 2⁵⁵ ns.
        Ok(Self { tokens, period: nanos as u64, burst, interval, depth: depth as u64 })
    }

    /// Takes tokens from the bucket that is full at `full_at`. Returns when it is full afterwards.
    #[inline]
    pub(crate) fn take(&self, full_at: Nanos, now: Nanos, cost: u64) -> (Taken, Nanos) {
        let fill = full_at.saturating_sub(now);
        if cost > self.burst {
            return (Taken { limited: true, remaining: self.tokens_at(fill), wait: fill }, full_at);
        }
        let needed = fill.saturating_add(self.time(cost));
        // Without a cost it only asks.
        if needed > self.depth && cost > 0 {
            let wait = needed - self.depth;
            return (Taken { limited: true, remaining: self.tokens_at(fill), wait }, full_at);
        }
        (Taken { limited: false, remaining: self.tokens_at(needed), wait: 0 }, now.saturating_add(needed))
    }

    /// How long so many tokens take, at most a burst: less than a nanosecond too short.
    #[inline]
    fn time(&self, tokens: u64) -> Nanos {
        ((u128::from(tokens) * self.interval) >> 32) as u64
    }

    /// The tokens in a bucket that is full after this time.
    #[inline]
    fn tokens_at(&self, fill: Nanos) -> u64 {
        let filled = u128::from(self.depth.saturating_sub(fill));
        (filled * u128::from(self.tokens) / u128::from(self.period)) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn rate(tokens: u64, seconds: u64, burst: u64) -> Rate {
        Rate::new(tokens, Duration::from_secs(seconds), burst).unwrap()
    }

    #[test]
    fn a_bucket_has_its_burst_and_fills_at_its_rate() {
        let rate = rate(5, 10, 3);
        let (now, mut full_at) = (7 * SECOND, 0);
        for remaining in [2, 1, 0] {
            let (taken, next) = rate.take(full_at, now, 1);
            assert_eq!(taken, Taken { limited: false, remaining, wait: 0 });
            full_at = next;
        }
        let limited = |wait| Taken { limited: true, remaining: 0, wait };
        assert_eq!(rate.take(full_at, now, 1), (limited(2 * SECOND), full_at));
        assert_eq!(rate.take(full_at, now + 2 * SECOND - 1, 1), (limited(1), full_at));
        let (taken, next) = rate.take(full_at, now + 2 * SECOND, 1);
        assert_eq!((taken.limited, next), (false, full_at + 2 * SECOND));
        // Full after a long time, and no fuller.
        assert_eq!(rate.take(next, now + 1_000 * SECOND, 1).0.remaining, 2);
    }

    #[test]
    fn a_cost_takes_as_many_tokens_or_none() {
        let rate = rate(10, 1, 10);
        let (taken, full_at) = rate.take(0, SECOND, 7);
        assert_eq!(taken, Taken { limited: false, remaining: 3, wait: 0 });
        let (taken, same) = rate.take(full_at, SECOND, 4);
        assert_eq!((taken, same), (Taken { limited: true, remaining: 3, wait: SECOND / 10 }, full_at));
        assert_eq!(rate.take(full_at, SECOND, 3).0.remaining, 0);
        // It asks only, also an empty bucket.
        let (_, empty) = rate.take(full_at, SECOND, 3);
        assert_eq!(rate.take(empty, SECOND, 0), (Taken { limited: false, remaining: 0, wait: 0 }, empty));
        // It never passes.
        let (taken, same) = rate.take(full_at, SECOND, u64::MAX);
        assert_eq!((taken, same), (Taken { limited: true, remaining: 3, wait: 7 * SECOND / 10 }, full_at));
        assert_eq!(rate.take(0, SECOND, 11).0, Taken { limited: true, remaining: 10, wait: 0 });
    }

    #[test]
    fn what_cannot_be_a_rate_is_refused() {
        for (tokens, period, burst, why) in [
            (0, SECOND, 1, "0 tokens in 1s: use 1 or more"),
            (
                2 * SECOND,
                SECOND,
                1,
                "2000000000 tokens in 1s: use 1 or more, and at most one in a nanosecond",
            ),
            (1, 0, 1, "the period is 0ns"),
            (1, u64::MAX, 1, "the period is"),
            (1, SECOND, 0, "the burst is 0"),
            (1, SECOND, u64::MAX, "the burst is 18446744073709551615"),
        ] {
            let error = Rate::new(tokens, Duration::from_nanos(period), burst).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
    }

    /// A bucket of tokens in fractions of which a nanosecond brings a whole number.
    struct Model {
        tokens: u128,
        at: Nanos,
    }

    proptest! {
        #[test]
        fn it_decides_as_a_bucket_of_tokens_does(
            tokens in 1..5_000_u64,
            period in 1_000_000..100 * SECOND,
            burst in 1..5_000_u64,
            requests in vec((0..20 * SECOND, 0..6_000_u64), 1..200),
        ) {
            let rate = Rate::new(tokens, Duration::from_nanos(period), burst).unwrap();
            let (whole, full) = (u128::from(period), u128::from(burst) * u128::from(period));
            let mut model = Model { tokens: full, at: 0 };
            let (mut now, mut full_at) = (0, 0);
            for (index, (wait, cost)) in requests.into_iter().enumerate() {
                // Some at the same time, some right behind.
                now += match index % 4 { 0 => 0, 1 => wait % 1_000, _ => wait };
                model.tokens = full.min(model.tokens + u128::from(now - model.at) * u128::from(tokens));
                model.at = now;
                let cost_in_model = u128::from(cost) * whole;
                let (taken, next) = rate.take(full_at, now, cost);
                // Less than a nanosecond for each request, for what was rounded.
                let tolerance = u128::from(tokens) * (index as u128 + 2);
                let model_remaining = model.tokens - if taken.limited { 0 } else { cost_in_model.min(model.tokens) };
                if taken.limited {
                    prop_assert!(cost_in_model + tolerance > model.tokens, "{taken:?}, has {} of {cost_in_model}", model.tokens);
                } else {
                    prop_assert!(cost_in_model <= model.tokens + tolerance, "{taken:?}, has {} of {cost_in_model}", model.tokens);
                    prop_assert!(next <= now + rate.depth);
                }
                let range = model_remaining.saturating_sub(tolerance) / whole..=(model_remaining + tolerance) / whole;
                prop_assert!(range.contains(&u128::from(taken.remaining)), "{taken:?} of {range:?}");
                if taken.limited && cost <= burst {
                    // That time is enough, and less is not.
                    prop_assert!(!rate.take(full_at, now + taken.wait, cost).0.limited);
                    prop_assert!(rate.take(full_at, now + taken.wait - 1, cost).0.limited);
                }
                model.tokens = model_remaining;
                full_at = next;
            }
        }
    }
}
