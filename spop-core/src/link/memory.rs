//! When an idle connection frees unused memory.

use core::time::Duration;

use crate::Timestamp;

/// How many sends free memory at once: those of the handshake and of the first answer. Many connections carry one request
/// and are then idle for long; if thousands of them keep their buffers at the same time, the allocator does not return that
/// memory to the system later.
const EARLY: u8 = 2;

/// Tracks whether a connection has memory to free when it becomes idle.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// The number of sends since memory was last freed, saturating above [`EARLY`]: then there is some to free.
    sends: u8,
}

impl Memory {
    /// Bytes were sent. True for the first [`EARLY`] times: free memory now. Later, [`deadline`](Self::deadline) says when.
    #[inline]
    pub(crate) fn used(&mut self) -> bool {
        let early = self.sends < EARLY;
        self.sends = if early { self.sends + 1 } else { EARLY + 1 };
        early
    }

    /// When to free memory: `quiet` after the connection was last `active`.
    #[inline]
    pub(crate) fn deadline(self, active: Timestamp, quiet: Option<Duration>) -> Option<Timestamp> {
        quiet.filter(|_| self.sends > EARLY).map(|quiet| active + quiet)
    }

    /// Memory was freed.
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
