//! Events of routers and engines, at a bounded rate.

use spop_core::Clock;
use spop_server::LogLimit;

#[derive(Debug, Default)]
pub(crate) struct Limit {
    clock: Clock,
    limit: LogLimit,
}

impl Limit {
    /// Whether an event may be logged; if so, how many were suppressed since the last.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.limit.pass(self.clock.now())
    }
}
