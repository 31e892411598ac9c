//! When an idle connection gives memory back.

use core::time::Duration;

use crate::Timestamp;

/// A connection is opened for one request: a handshake, an answer, and often nothing more for long. Where thousands are opened
/// at once, memory that is kept for longer stays with the allocator for good.
const EARLY: u8 = 2;

/// Knows whether requests have left memory behind that an idle connection gives back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Bytes were sent, and memory was not given back since.
    used: bool,
    /// How often bytes were sent since then, as far as it counts.
    uses: u8,
}

impl Memory {
    /// Bytes were sent. True the first two times, when memory is given back at once.
    #[inline]
    pub(crate) fn used(&mut self) -> bool {
        let early = self.uses < EARLY;
        self.uses += u8::from(early);
        self.used = !early;
        early
    }

    /// When memory is to be given back, if the connection was last `active` then.
    #[inline]
    pub(crate) fn deadline(self, active: Timestamp, quiet: Option<Duration>) -> Option<Timestamp> {
        quiet.filter(|_| self.used).map(|quiet| active + quiet)
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
        assert!(memory.used() && memory.used());
        let quiet = Some(Duration::from_secs(1));
        assert_eq!(memory.deadline(at(1), quiet), None);
        assert!(!memory.used());
        assert_eq!(memory.deadline(at(500), quiet), Some(at(1_500)));
        assert_eq!(memory.deadline(at(500), None), None);
        memory.trimmed();
        assert_eq!(memory.deadline(at(500), quiet), None);
        assert!(memory.used() && memory.used() && !memory.used());
    }
}
