//! Numbers for the `metrics` facade. Without the feature all of this is nothing.

#[cfg(feature = "metrics")]
use std::{cell::Cell, sync::OnceLock, time::Instant};
use std::{fmt, sync::Arc};

#[cfg(feature = "metrics")]
use metrics::{
    Counter, Gauge, Histogram, IntoF64, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
#[cfg(feature = "metrics")]
use spop_core::{CloseReason, Status, link::Initiator};
use spop_core::{Closed, frame::Messages};

#[cfg(feature = "metrics")]
use crate::label::NAME;
use crate::{Address, Entrance, FailureKind, label::Labelled};

/// A name in the code, the name of the metric, and what it counts.
macro_rules! counters {
    ($($name:ident: $key:literal, $about:literal;)*) => {
        /// What a server counts for the recorder that was installed when it was made.
        pub(crate) struct Metrics {
            $(#[cfg(feature = "metrics")] $name: Counter,)*
            #[cfg(feature = "metrics")]
            failures: [Counter; FailureKind::ALL.len()],
            #[cfg(feature = "metrics")]
            in_flight: Gauge,
            #[cfg(feature = "metrics")]
            seconds: HandlerSeconds,
            /// There is a recorder for `seconds`: without one, no clock is read.
            #[cfg(feature = "metrics")]
            timed: bool,
            /// Of connections without a listener.
            listener: ListenerMetrics,
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
                describe();
                #[cfg(feature = "metrics")]
                let seconds = HandlerSeconds::new();
                Self {
                    $(#[cfg(feature = "metrics")] $name: counter!($key),)*
                    #[cfg(feature = "metrics")]
                    failures: FailureKind::ALL.map(|kind| counter!("spop_failures_total", "kind" => kind.as_str())),
                    #[cfg(feature = "metrics")]
                    in_flight: gauge!("spop_requests_in_flight"),
                    #[cfg(feature = "metrics")]
                    timed: is_recorded(&seconds.other),
                    #[cfg(feature = "metrics")]
                    seconds,
                    listener: ListenerMetrics::new(None),
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
    notifies: "spop_notifies_total", "NOTIFYs received";
    acks: "spop_acks_total", "ACKs that handlers gave";
    late: "spop_late_acks_total", "ACKs that came later than HAProxy's processing timeout";
    cancelled: "spop_cancelled_total", "NOTIFYs that were cancelled, or whose session ended";
    aborted: "spop_aborted_total", "NOTIFYs that were dropped before they were complete, or for a limit";
    received: "spop_received_bytes_total", "Bytes received in sessions";
    sent: "spop_sent_bytes_total", "Bytes sent in sessions";
}

impl Metrics {
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
        if let Some(counter) = self.failures.get(kind as usize) {
            counter.increment(1);
        }
        #[cfg(test)]
        if let Ok(mut totals) = self.totals.lock() {
            *totals.entry("spop_failures_total").or_default() += 1;
        }
        let _ = kind;
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
    pub(crate) fn worked(&self, began: Began, labelled: Labelled<'_>) {
        #[cfg(feature = "metrics")]
        if let Some(at) = began.at {
            match labelled {
                Labelled::Messages(messages) => self.seconds.of_messages(messages),
                Labelled::Label(label) => self.seconds.of(label.name()),
            }
            .record(at.elapsed());
        }
        let _ = (began, labelled);
    }

    /// A request that was begun, and is worked on until that is dropped.
    #[inline]
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub(crate) fn work_since(&self, began: Began, messages: Messages<'_>) -> Work {
        #[cfg(feature = "metrics")]
        self.in_flight.increment(1);
        let _ = (began, messages);
        Work {
            #[cfg(feature = "metrics")]
            in_flight: Some(self.in_flight.clone()),
            #[cfg(feature = "metrics")]
            timed: began.at.map(|at| (at, self.seconds.of_messages(messages).clone())),
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

#[cfg(feature = "metrics")]
fn describe() {
    for (name, about) in [
        ("spop_connections_total", "Connections whose session could begin, by listener"),
        (
            "spop_connections_refused_total",
            "Connections that were closed at once, for a limit on connections",
        ),
        ("spop_connections_rejected_total", "Connections that did not pass the accept stage"),
        ("spop_probes_total", "Connections that were monitors' probes"),
        ("spop_closed_total", "Sessions that have ended, by the side that ended them and the status"),
        ("spop_failures_total", "NOTIFYs without an answer of their handler, by kind"),
        (
            "spop_background_refused_total",
            "Work that was not done in the background, because there was too much",
        ),
    ] {
        describe_counter!(name, about);
    }
    describe_gauge!("spop_connections", "Connections with a session, by listener");
    describe_gauge!("spop_requests_in_flight", "Requests whose handlers have not ended");
    describe_gauge!("spop_background", "Work that goes on after the answers of its requests");
    describe_histogram!(
        "spop_handler_seconds",
        Unit::Seconds,
        "How long handlers take, by the name of the first message"
    );
}

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
    fn new(listener: Option<&Address>) -> Self {
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

/// Buckets for `spop_handler_seconds`, from 50 µs to 5 s. Whether a histogram has buckets, and which, decides the recorder:
/// see [the guide](crate::guide::observability).
pub const HANDLER_SECONDS_BUCKETS: [f64; 16] =
    [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// How many names of messages are labels. Peers choose the names.
#[cfg(feature = "metrics")]
const NAMES: usize = 64;

/// A histogram for each of the first names of messages, and one for all others. Found without a lock.
#[cfg(feature = "metrics")]
struct HandlerSeconds {
    names: [OnceLock<(Box<[u8]>, Histogram)>; NAMES],
    other: Histogram,
}

#[cfg(feature = "metrics")]
impl HandlerSeconds {
    fn new() -> Self {
        Self { names: [const { OnceLock::new() }; NAMES], other: Self::register("other".to_owned()) }
    }

    fn register(message: String) -> Histogram {
        histogram!("spop_handler_seconds", "message" => message)
    }

    #[inline]
    fn of_messages(&self, messages: Messages<'_>) -> &Histogram {
        let name = messages.iter().next().map(|message| message.name()).unwrap_or_default();
        // Cut as in a `Label`.
        self.of(name.get(..NAME).unwrap_or(name))
    }

    fn of(&self, name: &[u8]) -> &Histogram {
        for slot in &self.names {
            let known = match slot.get() {
                Some(known) => known,
                None => slot.get_or_init(|| (name.into(), Self::register(name.escape_ascii().to_string()))),
            };
            if *known.0 == *name {
                return &known.1;
            }
        }
        &self.other
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

/// When a handler began, where that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    #[cfg(feature = "metrics")]
    at: Option<Instant>,
}

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
