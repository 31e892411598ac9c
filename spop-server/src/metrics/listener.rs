//! What is counted of a listener.

use std::fmt;

#[cfg(feature = "metrics")]
use metrics::{Counter, Gauge, counter, gauge};

use crate::Address;

/// What a listener counts.
#[derive(Clone)]
pub(crate) struct ListenerMetrics {
    #[cfg(feature = "metrics")]
    connections: Counter,
    #[cfg(feature = "metrics")]
    refused: Counter,
    #[cfg(feature = "metrics")]
    rejected: Counter,
    #[cfg(feature = "metrics")]
    probes: Counter,
    #[cfg(feature = "metrics")]
    open: Gauge,
}

impl fmt::Debug for ListenerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListenerMetrics")
    }
}

#[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
impl ListenerMetrics {
    pub(super) fn new(listener: Option<&Address>) -> Self {
        let _ = listener;
        #[cfg(feature = "metrics")]
        let listener = listener.map_or_else(|| "none".to_owned(), ToString::to_string);
        Self {
            #[cfg(feature = "metrics")]
            connections: counter!("spop_connections_total", "listener" => listener.clone()),
            #[cfg(feature = "metrics")]
            refused: counter!("spop_connections_refused_total", "listener" => listener.clone()),
            #[cfg(feature = "metrics")]
            rejected: counter!("spop_connections_rejected_total", "listener" => listener.clone()),
            #[cfg(feature = "metrics")]
            probes: counter!("spop_probes_total", "listener" => listener.clone()),
            #[cfg(feature = "metrics")]
            open: gauge!("spop_connections", "listener" => listener),
        }
    }

    pub(crate) fn refused(&self) {
        #[cfg(feature = "metrics")]
        self.refused.increment(1);
    }

    pub(crate) fn rejected(&self) {
        #[cfg(feature = "metrics")]
        self.rejected.increment(1);
    }

    pub(crate) fn probe(&self) {
        #[cfg(feature = "metrics")]
        self.probes.increment(1);
    }

    /// A connection with a session, until that is dropped.
    pub(crate) fn open(&self) -> Open {
        #[cfg(feature = "metrics")]
        {
            self.connections.increment(1);
            self.open.increment(1);
        }
        Open {
            #[cfg(feature = "metrics")]
            open: self.open.clone(),
        }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(crate) struct Open {
    #[cfg(feature = "metrics")]
    open: Gauge,
}

#[cfg(feature = "metrics")]
impl Drop for Open {
    fn drop(&mut self) {
        self.open.decrement(1);
    }
}
