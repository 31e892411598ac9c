//! Numbers for the `metrics` facade. Without the feature all of this is nothing.

use std::fmt;
#[cfg(feature = "metrics")]
use std::{cell::Cell, time::Instant};

#[cfg(feature = "metrics")]
use metrics::{Counter, Gauge, Histogram, IntoF64, counter, describe_counter, gauge, histogram};
use spop_core::Closed;
#[cfg(feature = "metrics")]
use spop_core::{CloseReason, Status, link::Initiator};

/// A name in the code, the name of the metric, and what it counts.
macro_rules! counters {
    ($($name:ident: $key:literal, $about:literal;)*) => {
        /// What a server counts for the recorder that was installed when it was made.
        pub(crate) struct Metrics {
            $(#[cfg(feature = "metrics")] $name: Counter,)*
            #[cfg(feature = "metrics")]
            open: Gauge,
            #[cfg(feature = "metrics")]
            in_flight: Gauge,
            #[cfg(feature = "metrics")]
            seconds: Histogram,
            /// There is a recorder for `seconds`: without one, no clock is read.
            #[cfg(feature = "metrics")]
            timed: bool,
            /// The same counts, by key.
            #[cfg(test)]
            pub(crate) totals: std::sync::Mutex<std::collections::BTreeMap<&'static str, usize>>,
        }

        impl Metrics {
            /// The metrics of the recorder that is installed now.
            #[must_use]
            pub(crate) fn new() -> Self {
                $(#[cfg(feature = "metrics")] describe_counter!($key, $about);)*
                #[cfg(feature = "metrics")]
                let seconds = histogram!("spop_handler_seconds");
                Self {
                    $(#[cfg(feature = "metrics")] $name: counter!($key),)*
                    #[cfg(feature = "metrics")]
                    open: gauge!("spop_connections"),
                    #[cfg(feature = "metrics")]
                    in_flight: gauge!("spop_requests_in_flight"),
                    #[cfg(feature = "metrics")]
                    timed: is_recorded(&seconds),
                    #[cfg(feature = "metrics")]
                    seconds,
                    #[cfg(test)]
                    totals: std::sync::Mutex::default(),
                }
            }

            $(
                #[doc = $about]
                #[inline]
                #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
                pub(crate) fn $name(&self, n: usize) {
                    #[cfg(feature = "metrics")]
                    self.$name.increment(n as u64);
                    #[cfg(test)]
                    if let Ok(mut totals) = self.totals.lock() {
                        *totals.entry($key).or_default() += n;
                    }
                    let _ = n;
                }
            )*
        }
    };
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

counters! {
    connections: "spop_connections_total", "Connections whose session could begin";
    refused: "spop_connections_refused_total", "Connections that were closed at once, for a limit on connections";
    rejected: "spop_connections_rejected_total", "Connections that did not pass the accept stage";
    probes: "spop_probes_total", "Connections that were monitors' probes";
    notifies: "spop_notifies_total", "NOTIFYs received";
    acks: "spop_acks_total", "ACKs that handlers gave";
    late: "spop_late_acks_total", "ACKs that came later than HAProxy's processing timeout";
    failures: "spop_failures_total", "NOTIFYs that a handler failed to answer, or not in time";
    overloaded: "spop_overloaded_total", "NOTIFYs that were failed for a limit, without a call of their handler";
    cancelled: "spop_cancelled_total", "NOTIFYs that were cancelled, or whose session ended";
    aborted: "spop_aborted_total", "NOTIFYs that were dropped before they were complete, or for a limit";
    received: "spop_received_bytes_total", "Bytes received in sessions";
    sent: "spop_sent_bytes_total", "Bytes sent in sessions";
}

impl Metrics {
    /// A connection, until that is dropped.
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub(crate) fn open(&self) -> Open {
        self.connections(1);
        #[cfg(feature = "metrics")]
        self.open.increment(1);
        Open {
            #[cfg(feature = "metrics")]
            open: self.open.clone(),
        }
    }

    /// A handler begins.
    #[inline]
    #[allow(clippy::unused_self)]
    pub(crate) fn begin(&self) -> Began {
        Began {
            #[cfg(feature = "metrics")]
            at: self.timed.then(Instant::now),
        }
    }

    /// A request that its handler answered before it returned: it does not appear in the gauge of requests in flight.
    #[inline]
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub(crate) fn worked(&self, began: Began) {
        #[cfg(feature = "metrics")]
        if let Some(at) = began.at {
            self.seconds.record(at.elapsed());
        }
        let _ = began;
    }

    /// A request that was begun, and is worked on until that is dropped.
    #[inline]
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub(crate) fn work_since(&self, began: Began) -> Work {
        #[cfg(feature = "metrics")]
        self.in_flight.increment(1);
        let _ = began;
        Work {
            #[cfg(feature = "metrics")]
            in_flight: Some(self.in_flight.clone()),
            #[cfg(feature = "metrics")]
            timed: began.at.map(|at| (at, self.seconds.clone())),
        }
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

/// Whether a recorder takes the values of this histogram. Only then it asks for the value, of which it records none.
#[cfg(feature = "metrics")]
fn is_recorded(histogram: &Histogram) -> bool {
    struct Asked<'a>(&'a Cell<bool>);
    impl IntoF64 for Asked<'_> {
        fn into_f64(self) -> f64 {
            self.0.set(true);
            0.0
        }
    }
    let asked = Cell::new(false);
    histogram.record_many(Asked(&asked), 0);
    asked.get()
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

/// When a handler began, where that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    #[cfg(feature = "metrics")]
    at: Option<Instant>,
}

/// A request that is worked on.
#[derive(Default)]
pub(crate) struct Work {
    #[cfg(feature = "metrics")]
    in_flight: Option<Gauge>,
    #[cfg(feature = "metrics")]
    timed: Option<(Instant, Histogram)>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

#[cfg(feature = "metrics")]
impl Drop for Work {
    fn drop(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.decrement(1);
        }
        if let Some((since, seconds)) = self.timed.take() {
            seconds.record(since.elapsed());
        }
    }
}
