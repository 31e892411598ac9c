//! When a connection gives memory back.

use std::time::Duration;

use spop_core::Timestamp;

/// Not between the requests of a busy connection: it would only ask for the memory again.
const QUIET: Duration = Duration::from_secs(1);

/// A connection is opened for one request: there is a handshake, an answer, and often nothing more for long. Where thousands
/// are opened at once, what they would keep for [`QUIET`] stays with the allocator for good.
const EARLY: u8 = 2;

/// Knows when a connection has been quiet for long enough to give back what its requests have left behind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tidy {
    /// The last use, until the memory was given back.
    used: Option<Timestamp>,
    /// Uses since then, as far as they count.
    uses: u8,
}

impl Tidy {
    /// The connection was used; true the first two times, when the memory is better given back at once.
    #[inline]
    pub fn used(&mut self, now: Timestamp) -> bool {
        self.used = Some(now);
        let early = self.uses < EARLY;
        self.uses += u8::from(early);
        early
    }

    /// When it will be time, unless the connection is used again.
    #[inline]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.used.map(|used| used + QUIET)
    }

    /// Whether it is time.
    #[inline]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The memory was given back.
    #[inline]
    pub fn done(&mut self) {
        *self = Self::default();
    }

    /// When it was time, there was something else to do: again after a while.
    #[inline]
    pub fn postpone(&mut self, now: Timestamp) {
        if self.is_due(now) {
            self.used = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_once_when_the_last_use_was_long_ago() {
        let mut tidy = Tidy::default();
        let at = Timestamp::from_millis;
        assert_eq!(tidy.deadline(), None);
        assert!(tidy.used(at(2)) && tidy.used(at(3)));
        assert!(!tidy.used(at(499)) && !tidy.used(at(500)));
        assert_eq!(tidy.deadline(), Some(at(1_500)));
        assert!(!tidy.is_due(at(1_499)) && tidy.is_due(at(1_500)));
        tidy.postpone(at(1_499));
        assert!(tidy.is_due(at(1_500)));
        tidy.postpone(at(1_500));
        assert_eq!(tidy.deadline(), Some(at(2_500)));
        tidy.done();
        assert_eq!(tidy.deadline(), None);
        assert!(tidy.used(at(3_000)) && tidy.used(at(3_000)) && !tidy.used(at(3_000)));
    }
}
