//! When an idle connection gives memory back.

use core::time::Duration;

use crate::Timestamp;

/// Not between the requests of a busy connection, which would allocate the memory again.
const QUIET: Duration = Duration::from_secs(1);

/// A connection is opened for one request: a handshake, an answer, and often nothing more for long. Where thousands are opened
/// at once, memory that is kept for [`QUIET`] stays with the allocator for good.
const EARLY: u8 = 2;

/// Knows when a connection has been quiet for long enough to give back what its requests have left behind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// The last use, until the memory was given back.
    used: Option<Timestamp>,
    /// Uses since then, as far as they count.
    uses: u8,
}

impl Memory {
    /// Bytes were sent. True the first two times, when memory is given back at once.
    #[inline]
    pub(crate) fn used(&mut self, now: Timestamp) -> bool {
        self.used = Some(now);
        let early = self.uses < EARLY;
        self.uses += u8::from(early);
        early
    }

    /// When memory is to be given back, unless the connection is used again.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.used.map(|used| used + QUIET)
    }

    /// The memory was given back.
    pub(crate) fn trimmed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_once_when_the_last_use_was_long_ago() {
        let mut memory = Memory::default();
        let at = Timestamp::from_millis;
        assert_eq!(memory.deadline(), None);
        assert!(memory.used(at(2)) && memory.used(at(3)));
        assert!(!memory.used(at(499)) && !memory.used(at(500)));
        assert_eq!(memory.deadline(), Some(at(1_500)));
        assert_eq!(memory.deadline(), Some(at(1_500)));
        memory.trimmed();
        assert_eq!(memory.deadline(), None);
        assert!(memory.used(at(3_000)) && memory.used(at(3_000)) && !memory.used(at(3_000)));
    }
}
