//! What the recorder takes: all metrics of a server without a listener.

use std::{cell::Cell, mem::size_of_val, sync::Arc};

use metrics::{
    Counter, Gauge, IntoF64, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    with_recorder,
};

use super::{counters::Counters, handler_seconds::HandlerSeconds};
use crate::FailureKind;

pub(super) struct Recorded {
    pub(super) counters: Counters,
    pub(super) failures: [Counter; FailureKind::ALL.len()],
    pub(super) in_flight: Gauge,
    pub(super) seconds: HandlerSeconds,
    /// The recorder takes `seconds`: otherwise no clock is read.
    pub(super) timed: bool,
}

impl Recorded {
    /// The metrics of the recorder that is installed now, if there is one.
    pub(super) fn register() -> Option<Arc<Self>> {
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

/// Whether a metric is recorded. Only then it asks for the value that it is given, which is 0.
fn asks(give: impl FnOnce(Asked<'_>)) -> bool {
    let asked = Cell::new(false);
    give(Asked(&asked));
    asked.get()
}

struct Asked<'a>(&'a Cell<bool>);

impl IntoF64 for Asked<'_> {
    fn into_f64(self) -> f64 {
        self.0.set(true);
        0.0
    }
}

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
