//! Events at a bounded rate, for all tasks of a server together.

use std::sync::{Mutex, PoisonError};

use spop_core::Clock;
use spop_server as server;

/// A bound for each kind of event, so that none can hide another.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Handlers that failed.
    pub(crate) handler: Limit,
    /// Answers that came too late.
    pub(crate) late: Limit,
    /// Sessions whose terms lose requests.
    pub(crate) session: Limit,
    /// Connections that ended as they should not.
    pub(crate) closed: Limit,
    /// Connections that were refused, or could not be accepted.
    pub(crate) accept: Limit,
    /// Clients of another protocol.
    pub(crate) foreign: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        let foreign = Limit { limit: Mutex::new(server::LogLimit::one_a_minute()), ..Limit::default() };
        Self {
            handler: Limit::default(),
            late: Limit::default(),
            session: Limit::default(),
            closed: Limit::default(),
            accept: Limit::default(),
            foreign,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Limit {
    clock: Clock,
    limit: Mutex<server::LogLimit>,
}

impl Limit {
    /// Whether an event may be logged; if so, how many were not since the last.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner).pass(self.clock.now())
    }
}
