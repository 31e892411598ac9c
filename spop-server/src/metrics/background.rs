//! What is counted of the work in the background.

use std::fmt;
#[cfg(feature = "metrics")]
use std::sync::OnceLock;

#[cfg(feature = "metrics")]
use metrics::{Counter, Gauge, counter, gauge};

/// What a server counts of the work in its background. Of the recorder that is installed when it begins to serve.
#[derive(Default)]
pub(crate) struct BackgroundMetrics {
    #[cfg(feature = "metrics")]
    now: OnceLock<Gauge>,
    #[cfg(feature = "metrics")]
    refused: OnceLock<Counter>,
}

impl fmt::Debug for BackgroundMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackgroundMetrics")
    }
}

#[allow(clippy::unused_self)]
impl BackgroundMetrics {
    /// The server begins to serve.
    pub(crate) fn ready(&self) {
        #[cfg(feature = "metrics")]
        let _ = (self.now(), self.counter());
    }

    pub(crate) fn entered(&self) {
        #[cfg(feature = "metrics")]
        self.now().increment(1);
    }

    pub(crate) fn left(&self) {
        #[cfg(feature = "metrics")]
        self.now().decrement(1);
    }

    pub(crate) fn refused(&self) {
        #[cfg(feature = "metrics")]
        self.counter().increment(1);
    }

    #[cfg(feature = "metrics")]
    fn counter(&self) -> &Counter {
        self.refused.get_or_init(|| counter!("spop_background_refused_total"))
    }

    #[cfg(feature = "metrics")]
    fn now(&self) -> &Gauge {
        self.now.get_or_init(|| gauge!("spop_background"))
    }
}
