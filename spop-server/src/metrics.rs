//! Numbers for the `metrics` facade. Without the feature all of this is nothing.

#[cfg(feature = "metrics")]
use std::{cell::Cell, mem::size_of_val, sync::OnceLock, time::Instant};
use std::{fmt, sync::Arc};

#[cfg(feature = "metrics")]
use metrics::{
    Counter, Gauge, Histogram, IntoF64, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram, with_recorder,
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
        #[cfg(feature = "metrics")]
        struct Counters {
            $($name: Counter,)*
        }

        #[cfg(feature = "metrics")]
        impl Counters {
            fn register() -> Self {
                $(describe_counter!($key, $about);)*
                Self { $($name: counter!($key),)* }
            }
        }

        impl Metrics {
            $(
                #[doc = $about]
                #[inline]
                #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
                pub(crate) fn $name(&self, n: usize) {
                    #[cfg(feature = "metrics")]
                    if let Some(recorded) = &self.recorded {
                        recorded.counters.$name.increment(n as u64);
                    }
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

#[cfg(feature = "metrics")]
struct Recorded {
    counters: Counters,
    failures: [Counter; FailureKind::ALL.len()],
    in_flight: Gauge,
    seconds: HandlerSeconds,
    /// The recorder takes `seconds`: otherwise no clock is read.
    timed: bool,
}

#[cfg(feature = "metrics")]
impl Recorded {
    /// The metrics of the recorder that is installed now, if there is one.
    fn register() -> Option<Arc<Self>> {
        let counters = Counters::register();
        describe();
        let (in_flight, seconds) = (gauge!("spop_requests_in_flight"), HandlerSeconds::new());
        let timed = asks(|value| seconds.other.record_many(value, 0));
        // The recorder that stands for none has no size, and takes nothing.
        let is_there = timed
            || asks(|value| in_flight.increment(value))
            || with_recorder(|recorder| size_of_val(recorder)) > 0;
        let failures = FailureKind::ALL.map(|kind| counter!("spop_failures_total", "kind" => kind.as_str()));
        is_there.then(|| Arc::new(Self { counters, failures, in_flight, seconds, timed }))
    }
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

    /// A handler begins.
    #[inline]
    #[allow(clippy::unused_self)]
    pub(crate) fn begin(&self) -> Began {
        Began {
            #[cfg(feature = "metrics")]
            at: self.recorded.as_ref().filter(|recorded| recorded.timed).map(|_| Instant::now()),
        }
    }

    /// A request that its handler answered before it returned: it does not appear in the gauge of requests in flight.
    #[inline]
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub(crate) fn worked(&self, began: Began, labelled: Labelled<'_>) {
        #[cfg(feature = "metrics")]
        if let (Some(at), Some(recorded)) = (began.at, &self.recorded) {
            let place = match labelled {
                Labelled::Messages(messages) => recorded.seconds.place_of_messages(messages),
                Labelled::Label(label) => recorded.seconds.place(label.name()),
            };
            recorded.seconds.at(place).record(at.elapsed());
        }
        let _ = (began, labelled);
    }

    /// A request that was begun, and is worked on until that is dropped.
    #[inline]
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub(crate) fn work_since(&self, began: Began, messages: Messages<'_>) -> Work {
        #[cfg(feature = "metrics")]
        if let Some(recorded) = &self.recorded {
            recorded.in_flight.increment(1);
            let place = began.at.map_or(NAMES, |_| recorded.seconds.place_of_messages(messages));
            return Work(Some(Arc::new(WorkOf { recorded: Arc::clone(recorded), since: began.at, place })));
        }
        let _ = (began, messages);
        Work::default()
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

/// Whether a metric is recorded. Only then it asks for the value that it is given, which is 0.
#[cfg(feature = "metrics")]
fn asks(give: impl FnOnce(Asked<'_>)) -> bool {
    let asked = Cell::new(false);
    give(Asked(&asked));
    asked.get()
}

#[cfg(feature = "metrics")]
struct Asked<'a>(&'a Cell<bool>);

#[cfg(feature = "metrics")]
impl IntoF64 for Asked<'_> {
    fn into_f64(self) -> f64 {
        self.0.set(true);
        0.0
    }
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

    /// Where the histogram of these messages is.
    #[inline]
    fn place_of_messages(&self, messages: Messages<'_>) -> usize {
        let name = messages.iter().next().map(|message| message.name()).unwrap_or_default();
        // Cut as in a `Label`.
        self.place(name.get(..NAME).unwrap_or(name))
    }

    fn place(&self, name: &[u8]) -> usize {
        let is_it = |slot: &OnceLock<(Box<[u8]>, Histogram)>| {
            let known = match slot.get() {
                Some(known) => known,
                None => slot.get_or_init(|| (name.into(), Self::register(name.escape_ascii().to_string()))),
            };
            *known.0 == *name
        };
        self.names.iter().position(is_it).unwrap_or(NAMES)
    }

    fn at(&self, place: usize) -> &Histogram {
        self.names.get(place).and_then(OnceLock::get).map_or(&self.other, |known| &known.1)
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
pub(crate) struct Work(
    #[cfg(feature = "metrics")]
    #[allow(dead_code)] // Held for its drop.
    // Not in place: a request is moved, and has none without a recorder. An `Arc` whose drop is inlined, where that of a `Box` is a call.
    Option<Arc<WorkOf>>,
);

#[cfg(feature = "metrics")]
struct WorkOf {
    recorded: Arc<Recorded>,
    since: Option<Instant>,
    place: usize,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

#[cfg(feature = "metrics")]
impl Drop for WorkOf {
    #[inline(never)]
    fn drop(&mut self) {
        let Self { recorded, since, place } = self;
        recorded.in_flight.decrement(1);
        if let Some(since) = since {
            recorded.seconds.at(*place).record(since.elapsed());
        }
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use metrics::{Key, KeyName, Metadata, NoopRecorder, Recorder, SharedString, with_local_recorder};

    use super::*;

    /// A recorder that takes no metric. It has a size, unlike the one that stands for none.
    #[allow(dead_code)] // For its size.
    struct TakesNothing([u8; 1]);

    impl Recorder for TakesNothing {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn nothing_is_recorded_without_a_recorder() {
        let without = with_local_recorder(&NoopRecorder, Metrics::new);
        assert!(without.recorded.is_none());
        assert!(without.begin().at.is_none());
        assert!(without.work_since(without.begin(), Messages::default()).0.is_none());
        // One that filters is one.
        let with = with_local_recorder(&TakesNothing([0]), Metrics::new);
        assert!(with.recorded.is_some());
        assert!(with.begin().at.is_none(), "no clock is read for a histogram that is not taken");
    }
}
