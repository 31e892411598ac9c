//! Events of routers and engines, at a bounded rate.

use std::sync::{Mutex, PoisonError};

use spop_core::Clock;
use spop_server::LogLimit;

#[derive(Debug, Default)]
pub(crate) struct Limit {
    clock: Clock,
    limit: Mutex<LogLimit>,
}

impl Limit {
    /// Whether an event may be logged; if so, how many were suppressed since the last.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner).pass(self.clock.now())
    }
}
