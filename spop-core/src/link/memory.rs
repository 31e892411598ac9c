//! When an idle connection gives memory back.

use core::time::Duration;

use crate::Timestamp;

/// Not between the requests of a busy connection, which would allocate the memory again.
const QUIET: Duration = Duration::from_secs(1);

/// A connection is opened for one request: a handshake, an answer, and often nothing more for long. Where thousands are opened
/// at once, memory that is kept for [`QUIET`] stays with the allocator for good.
const EARLY: u8 = 2;

/// Knows whether requests have left memory behind that an idle connection gives back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Bytes were sent since memory was given back.
    used: bool,
    /// How often bytes were sent since then, as far as it counts.
    uses: u8,
}

impl Memory {
    /// Bytes were sent. True the first two times, when memory is given back at once.
    #[inline]
    pub(crate) fn used(&mut self) -> bool {
        self.used = true;
        let early = self.uses < EARLY;
        self.uses += u8::from(early);
        early
    }

    /// When memory is to be given back, if the connection was last `active` then.
    #[inline]
    pub(crate) fn deadline(&self, active: Timestamp) -> Option<Timestamp> {
        self.used.then(|| active + QUIET)
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
        assert_eq!(memory.deadline(at(1)), None);
        assert!(memory.used() && memory.used() && !memory.used());
        assert_eq!(memory.deadline(at(500)), Some(at(1_500)));
        memory.trimmed();
        assert_eq!(memory.deadline(at(500)), None);
        assert!(memory.used() && memory.used() && !memory.used());
    }
}
