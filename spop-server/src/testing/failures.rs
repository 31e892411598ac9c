//! Failures of the requests of a server, for the outcomes that tests get.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use spop_core::frame::Ids;

use crate::{Agent, Failure};

/// The failures of the requests of an [`Agent`], for adapters whose tests have outcomes. Empty until it is
/// [begun](Self::begin).
#[derive(Debug, Default)]
pub struct FailureRecord {
    begun: AtomicBool,
    failures: Mutex<Vec<(Ids, Failure)>>,
}

impl FailureRecord {
    /// The record of this agent, which begins.
    pub fn begin(agent: &Agent) -> &Self {
        agent.failures.begun.store(true, Ordering::Relaxed);
        &agent.failures
    }

    /// Takes the failures since the last call, with the identifiers of their requests.
    pub fn take(&self) -> Vec<(Ids, Failure)> {
        std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn record(&self, ids: Ids, failure: &Failure) {
        if self.begun.load(Ordering::Relaxed) {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.push((ids, failure.clone()));
        }
    }
}
