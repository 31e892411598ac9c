//! How far the end of a server is.

use std::sync::atomic::{AtomicU8, Ordering};

/// How far the end of a server is. It only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It serves.
    Serve,
    /// Lame duck: health checks and monitors are refused, so that HAProxy takes the server out. Everything else is served.
    LameDuck,
    /// It finishes what is owed.
    Drain,
    /// It ends at once.
    Stop,
}

/// The level of a server, for all its threads.
#[derive(Debug, Default)]
pub struct AtomicLevel(AtomicU8);

impl AtomicLevel {
    /// Raises the level to this; false when it was there already.
    pub fn raise(&self, level: Level) -> bool {
        self.0.fetch_max(level as u8, Ordering::AcqRel) < level as u8
    }

    /// The level it is.
    pub fn get(&self) -> Level {
        match self.0.load(Ordering::Acquire) {
            0 => Level::Serve,
            1 => Level::LameDuck,
            2 => Level::Drain,
            _ => Level::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_only_rises() {
        let level = AtomicLevel::default();
        assert_eq!(level.get(), Level::Serve);
        assert!(level.raise(Level::LameDuck));
        assert_eq!(level.get(), Level::LameDuck);
        assert!(level.raise(Level::Drain) && !level.raise(Level::Drain));
        assert_eq!(level.get(), Level::Drain);
        assert!(level.raise(Level::Stop) && !level.raise(Level::Drain));
        assert_eq!(level.get(), Level::Stop);
    }
}
