//! Numbers for the `metrics` facade. Without the feature all of this is nothing.

mod background;
mod counters;
mod handler_seconds;
mod listener;
#[cfg(feature = "metrics")]
mod recorded;
mod work;

use std::{fmt, sync::Arc};

#[cfg(feature = "metrics")]
use metrics::counter;
use spop_core::Closed;
#[cfg(feature = "metrics")]
use spop_core::{CloseReason, Status, link::Initiator};

pub use self::handler_seconds::HANDLER_SECONDS_BUCKETS;
#[cfg(feature = "metrics")]
use self::recorded::Recorded;
pub(crate) use self::{
    background::BackgroundMetrics,
    listener::{ListenerMetrics, Open},
    work::{Began, Work},
};
use crate::{Entrance, FailureKind};

/// What a server counts for the recorder that was installed when it was made.
pub(crate) struct Metrics {
    /// `None` without a recorder: then a request costs no more than without the feature.
    #[cfg(feature = "metrics")]
    recorded: Option<Arc<Recorded>>,
    /// Of connections without a listener.
    listener: ListenerMetrics,
    /// The same counts, by key.
    #[cfg(test)]
    pub(crate) totals: std::sync::Mutex<std::collections::BTreeMap<&'static str, usize>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// The metrics of the recorder that is installed now.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            recorded: Recorded::register(),
            listener: ListenerMetrics::new(None),
            #[cfg(test)]
            totals: std::sync::Mutex::default(),
        }
    }

    /// Whether anybody takes what is counted.
    #[inline]
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub(crate) const fn is_recording(&self) -> bool {
        #[cfg(feature = "metrics")]
        return cfg!(test) || self.recorded.is_some();
        #[cfg(not(feature = "metrics"))]
        cfg!(test)
    }

    /// Those of a listener; `None` for connections without one.
    pub(crate) fn of<'a>(&'a self, entrance: Option<&'a Arc<Entrance>>) -> &'a ListenerMetrics {
        let of = |entrance: &'a Arc<Entrance>| {
            entrance.metrics.get_or_init(|| ListenerMetrics::new(entrance.listener.as_ref()))
        };
        entrance.map_or(&self.listener, of)
    }

    /// A request has failed.
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub(crate) fn failed(&self, kind: FailureKind) {
        #[cfg(feature = "metrics")]
        if let Some(counter) =
            self.recorded.as_ref().and_then(|recorded| recorded.failures.get(kind as usize))
        {
            counter.increment(1);
        }
        #[cfg(test)]
        if let Ok(mut totals) = self.totals.lock() {
            *totals.entry("spop_failures_total").or_default() += 1;
        }
        let _ = kind;
    }

    /// A session has ended. What a peer may choose freely makes no labels without end.
    #[allow(clippy::unused_self)]
    pub(crate) fn closed(&self, closed: &Closed) {
        let _ = closed;
        #[cfg(feature = "metrics")]
        {
            let by = match closed.reason.initiator() {
                Initiator::Us => "agent",
                Initiator::Peer => "peer",
                Initiator::Time => "time",
                Initiator::Transport => "transport",
                _ => "other",
            };
            let status = match &closed.reason {
                CloseReason::PeerDisconnect { status, .. } | CloseReason::Disconnect(status) => *status,
                CloseReason::Violation(violation) => violation.status(),
                CloseReason::Timeout(_) => Status::TIMEOUT,
                _ => Status::NORMAL,
            };
            let status = if status.0 < 100 { format!("{}", status.0) } else { String::from("other") };
            counter!("spop_closed_total", "by" => by, "status" => status).increment(1);
        }
    }
}
