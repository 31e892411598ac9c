//! A request that a handler works on.

use std::fmt;
#[cfg(feature = "metrics")]
use std::{sync::Arc, time::Instant};

use spop_core::frame::Messages;

use super::Metrics;
#[cfg(feature = "metrics")]
use super::{handler_seconds::NAMES, recorded::Recorded};
use crate::label::Labelled;

impl Metrics {
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
}

/// When a handler began, where that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    #[cfg(feature = "metrics")]
    at: Option<Instant>,
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
    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, NoopRecorder, Recorder, SharedString, Unit,
        with_local_recorder,
    };

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
