//! What the agent counts.

use program::{Count, Totals};
use tracing::info;

use crate::store::{Lost, Store};

/// Counts since the start. [`totals`](Self::totals) says what each is.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: Count,
    pub(crate) responses: Count,
    pub(crate) cut: Count,
    pub(crate) detected: Count,
    pub(crate) blocked: Count,
    pub(crate) joined: Count,
    pub(crate) unjoined: Count,
}

impl Counts {
    fn totals(&self, store: &Store) -> Totals {
        let Self { requests, responses, cut, detected, blocked, joined, unjoined } = self;
        let Lost { expired, evicted } = store.lost();
        Totals(vec![
            ("requests", "Requests that were inspected", requests.get()),
            ("responses", "Responses that were inspected", responses.get()),
            ("cut", "Messages whose body was cut", cut.get()),
            ("detected", "Messages with a score that is enough", detected.get()),
            ("blocked", "Messages that were refused", blocked.get()),
            ("joined", "Responses whose request was known", joined.get()),
            ("unjoined", "Responses whose request was not: too long ago, or too many", unjoined.get()),
            ("expired", "Requests whose response did not come in time", expired.get()),
            ("evicted", "Requests that were forgotten for others", evicted.get()),
        ])
    }

    /// Sets them as metrics, which have the names of the log.
    pub(crate) fn publish(&self, store: &Store) {
        self.totals(store).publish("waf", &[]);
    }

    /// Writes them to the log.
    pub(crate) fn log(&self, store: &Store) {
        info!(name: "counts", "counts {}", self.totals(store));
    }
}
