//! A recorder of metrics that panics.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};

use super::*;

/// Its gauge of requests in flight panics while this is set.
#[derive(Default)]
struct Panics(Arc<Switch>);

#[derive(Default)]
struct Switch(AtomicBool);

impl GaugeFn for Switch {
    fn increment(&self, _: f64) {
        if self.0.load(Ordering::Relaxed) {
            resume_unwind(Box::new("the recorder is broken"));
        }
    }

    fn decrement(&self, _: f64) {}

    fn set(&self, _: f64) {}
}

impl Recorder for Panics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        if key.name() == "spop_requests_in_flight" {
            Gauge::from_arc(Arc::clone(&self.0))
        } else {
            Gauge::noop()
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_request_that_the_recorder_fails_is_answered_and_not_counted_as_kept() {
    let recorder = Panics::default();
    let mut server = with_local_recorder(&recorder, || {
        let server = Server::new(ServerConfig { max_in_flight: Some(1), ..ServerConfig::default() });
        server.agent.ready([]);
        server
    });
    let mut conn = server.session("e");
    recorder.0.0.store(true, Ordering::Relaxed);
    server.say(&mut conn, "NOTIFY fin 1 1 keep");
    server.say(&mut conn, "NOTIFY fin 3 1 later");
    assert_eq!(server.agent.stats().failures.of(FailureKind::HandlerPanicked), 2);
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1", "ACK fin 3 1"]);
    recorder.0.0.store(false, Ordering::Relaxed);
    server.say(&mut conn, "NOTIFY fin 2 1 keep");
    let kept = server.app.kept.first().expect("the request before it is in progress no more");
    assert_eq!(kept.connection().held.load(Ordering::Relaxed), 1);
    server.app.kept.clear();
    server.lose(&mut conn);
}
