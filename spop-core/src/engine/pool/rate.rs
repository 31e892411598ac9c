//! The rate of an event per second.

use core::time::Duration;

use crate::Timestamp;

const SECOND: Duration = Duration::from_secs(1);

/// A sliding count over one second: the events of the current period, plus those of the previous one in proportion to the
/// rest of the current.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    since: Timestamp,
    current: u64,
    before: u64,
}

impl Rate {
    pub(super) fn add(&mut self, now: Timestamp) {
        self.advance(now);
        self.current += 1;
    }

    /// Whether one more event stays within `most` per second.
    pub(super) fn allows(&mut self, now: Timestamp, most: Option<u32>) -> bool {
        self.advance(now);
        let Some(most) = most else { return true };
        let left = SECOND.saturating_sub(now.since(self.since)).as_millis() as u64;
        self.current + self.before * left / 1_000 < u64::from(most)
    }

    /// The earliest time at which one more event is allowed; `None` is never.
    pub(super) fn next(&self, most: u32) -> Option<Timestamp> {
        let most = u64::from(most);
        // The period that will allow it, and the count of the period before that.
        let (since, current, before) = if self.current < most {
            (self.since, self.current, self.before)
        } else {
            (self.since + SECOND, 0, self.current)
        };
        let left = ((most - current.min(most)) * 1_000).checked_sub(1)?.checked_div(before).unwrap_or(1_000);
        Some(since + SECOND.saturating_sub(Duration::from_millis(left)))
    }

    fn advance(&mut self, now: Timestamp) {
        let passed = now.since(self.since);
        if passed >= SECOND {
            self.before = if passed < 2 * SECOND { self.current } else { 0 };
            self.current = 0;
            self.since = if passed < 2 * SECOND { self.since + SECOND } else { now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_the_most() {
        let mut rate = Rate::default();
        let mut taken = alloc::vec::Vec::new();
        for millis in 0..10_000 {
            let now = Timestamp::from_millis(millis);
            if rate.allows(now, Some(10)) {
                rate.add(now);
                taken.push(millis);
            }
        }
        assert!((90..=110).contains(&taken.len()), "{}", taken.len());
        assert!(taken.windows(22).all(|window| window[21] - window[0] >= 1_000));
        assert!(rate.allows(Timestamp::ZERO, None) && !rate.allows(Timestamp::from_millis(10_000), Some(0)));
    }

    #[test]
    fn the_next_is_allowed_when_it_was_said_and_no_millisecond_before() {
        for most in [1, 2, 7, 1_000] {
            let mut rate = Rate::default();
            let mut now = Timestamp::from_millis(123);
            for _ in 0..5 * most {
                while rate.allows(now, Some(most)) {
                    rate.add(now);
                }
                let next = rate.next(most).unwrap();
                assert!(next > now && next.since(now) <= 2 * SECOND, "{next} after {now}");
                let mut sooner = rate;
                let before = Timestamp::from_nanos(next.as_nanos() - 1_000_000);
                assert!(!sooner.allows(before, Some(most)) && rate.allows(next, Some(most)), "{next}");
                now = next;
            }
        }
        assert_eq!(Rate::default().next(0), None);
    }
}
