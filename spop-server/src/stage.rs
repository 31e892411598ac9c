//! The stages of a server's shutdown.

use std::sync::atomic::{AtomicU8, Ordering};

/// The stage of a server's shutdown. It only advances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No shutdown.
    #[default]
    Serve,
    /// Lame duck: health checks and monitors are refused, so that HAProxy takes the server out. Everything else is served.
    LameDuck,
    /// Listeners are closed, and each connection is served until all its requests are answered.
    Drain,
    /// All connections are closed at once.
    Stop,
}

/// A [`Stage`] that threads share.
#[derive(Debug, Default)]
pub(crate) struct AtomicStage(AtomicU8);

impl AtomicStage {
    /// Advances to a stage. False if it was reached before.
    pub(crate) fn advance(&self, stage: Stage) -> bool {
        self.0.fetch_max(stage as u8, Ordering::AcqRel) < stage as u8
    }

    #[inline]
    pub(crate) fn get(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Serve,
            1 => Stage::LameDuck,
            2 => Stage::Drain,
            _ => Stage::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_only_advances() {
        let stage = AtomicStage::default();
        assert_eq!(stage.get(), Stage::Serve);
        assert!(stage.advance(Stage::LameDuck));
        assert_eq!(stage.get(), Stage::LameDuck);
        assert!(stage.advance(Stage::Drain) && !stage.advance(Stage::Drain));
        assert_eq!(stage.get(), Stage::Drain);
        assert!(stage.advance(Stage::Stop) && !stage.advance(Stage::Drain));
        assert_eq!(stage.get(), Stage::Stop);
    }
}
