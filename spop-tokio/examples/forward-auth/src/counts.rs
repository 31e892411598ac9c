//! What the agent counts.

use std::sync::Arc;

use program::Count;
use spop_tokio::ServerHandle;
use tracing::info;

use crate::options::OnFailure;

/// Numbers of requests since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Questions to the service.
    pub(crate) asked: Count,
    /// Requests with a decision from the cache, or from a question that an equal request has asked.
    pub(crate) cached: Count,
    pub(crate) allowed: Count,
    pub(crate) denied: Count,
}

/// What metrics and the log have: these counts, and the requests that the server counts as failed, those of its limits included.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) counts: Arc<Counts>,
    pub(crate) server: ServerHandle,
    pub(crate) on_failure: OnFailure,
}

impl Report {
    /// Sets metrics, which have the names of the log.
    pub(crate) fn publish(&self) {
        let Counts { asked, cached, allowed, denied } = &*self.counts;
        for (name, count) in [("asked", asked), ("cached", cached), ("allowed", allowed), ("denied", denied)]
        {
            metrics::counter!(format!("forward_auth_{name}_total")).absolute(count.get());
        }
        let policy = self.on_failure.name();
        metrics::counter!("forward_auth_failed_total", "policy" => policy).absolute(self.failed());
    }

    pub(crate) fn log(&self) {
        let Counts { asked, cached, allowed, denied } = &*self.counts;
        info!(
            name: "counts",
            asked = asked.get(),
            cached = cached.get(),
            allowed = allowed.get(),
            denied = denied.get(),
            failed = self.failed(),
            policy = self.on_failure.name(),
            "requests"
        );
    }

    fn failed(&self) -> u64 {
        self.server.stats().failures.total()
    }
}
