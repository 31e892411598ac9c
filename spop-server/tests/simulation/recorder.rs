//! Keeps the metrics of one server.

#[cfg(feature = "metrics")]
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use std::{io, sync::Arc};

use spop_core::Clock;
use spop_server::{Agent, ServerConfig, Stats};

#[derive(Debug, Default)]
pub struct Recorder {
    #[cfg(feature = "metrics")]
    values: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

impl Recorder {
    /// A server whose metrics are these.
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub fn server(&self, config: ServerConfig) -> io::Result<Arc<Agent>> {
        let new = || {
            let agent = Agent::new(config, Clock::start())?;
            // Now it takes the recorder.
            agent.ready([]);
            Ok(agent)
        };
        #[cfg(feature = "metrics")]
        return metrics::with_local_recorder(self, new);
        #[cfg(not(feature = "metrics"))]
        new()
    }

    /// The statistics have the same numbers.
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub fn check_stats(&self, stats: &Stats) {
        #[cfg(feature = "metrics")]
        {
            let values = self.values.lock().unwrap();
            let counted = ["notifies", "acks", "failures"]
                .map(|key| values[&format!("spop_{key}_total")].load(Ordering::Relaxed));
            assert_eq!(counted, [stats.requests, stats.answered, stats.failures.total()], "{stats:?}");
        }
        let _ = stats;
    }

    /// The numbers of requests add up, and nothing is counted as open.
    #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
    pub fn check(&self) {
        #[cfg(feature = "metrics")]
        {
            let values = self.values.lock().unwrap();
            let get = |key: &str| values[key].load(Ordering::Relaxed);
            let ended = ["acks", "failures", "cancelled"].map(|key| get(&format!("spop_{key}_total")));
            assert_eq!(
                get("spop_notifies_total"),
                ended.iter().sum::<u64>(),
                "each request ends once: {values:?}"
            );
            for gauge in ["spop_requests_in_flight", "spop_connections"] {
                let value = f64::from_bits(get(gauge));
                assert!(value.abs() < 0.5, "{gauge} is {value} at the end");
            }
        }
    }
}

#[cfg(feature = "metrics")]
impl Recorder {
    fn value(&self, key: &metrics::Key) -> Arc<AtomicU64> {
        Arc::clone(self.values.lock().unwrap().entry(key.name().to_owned()).or_default())
    }
}

#[cfg(feature = "metrics")]
impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::from_arc(self.value(key))
    }

    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}
