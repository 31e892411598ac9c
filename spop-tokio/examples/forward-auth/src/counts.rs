//! What the agent counts.

use std::sync::Arc;

use program::{Count, Totals};
use spop_tokio::ServerHandle;
use tracing::info;

use crate::options::OnFailure;

/// Numbers since the start. [`totals`](Self::totals) says what each is.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) asked: Count,
    pub(crate) cached: Count,
    pub(crate) allowed: Count,
    pub(crate) denied: Count,
}

impl Counts {
    fn totals(&self) -> Totals {
        let Self { asked, cached, allowed, denied } = self;
        Totals(vec![
            ("asked", "Questions to the service", asked.get()),
            (
                "cached",
                "Decisions from the cache, or from a question that an equal request has asked",
                cached.get(),
            ),
            ("allowed", "Requests that were allowed", allowed.get()),
            ("denied", "Requests that were denied", denied.get()),
        ])
    }
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
        self.counts.totals().publish("forward_auth", &[]);
        self.failed().publish("forward_auth", &[("policy", self.on_failure.name())]);
    }

    pub(crate) fn log(&self) {
        let (counts, failed, policy) = (self.counts.totals(), self.failed(), self.on_failure.name());
        info!(name: "counts", policy, "requests {counts} {failed}");
    }

    fn failed(&self) -> Totals {
        Totals(vec![("failed", "Requests without a decision", self.server.stats().failures.total())])
    }
}
