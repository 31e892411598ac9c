//! A status page of a server, for people, for scripts and for Prometheus (feature `status`).
//!
//! | path | what |
//! |---|---|
//! | `/` | a page: the stage of the server, requests a second, limits and what is used of them, failures explained, connections |
//! | `/status.json` | the same as JSON |
//! | `/metrics` | what Prometheus collects, if there is a [`recorder`](install_recorder) |
//! | `/dashboard.json` | a dashboard for Grafana, with what `/metrics` has |
//! | `/healthy` | `200` while the server serves, `503` once it shuts down |
//!
//! It has a thread of its own, so that it answers also when the threads of the server are busy. It has no users and no TLS: listen on
//! the loopback interface or in a network that is trusted. It reads no body, and serves at most 32 connections at a time, each for
//! one request and ten seconds at most. A further connection takes the place of the oldest that has sent no request.
//!
//! The header `host` of a request must be an IP address, `localhost`, or a name that [`Status::host`] was given: a site that a browser
//! shows could read the page otherwise, with a name that resolves to this address (DNS rebinding). Others get `421`, but for `/healthy`.
//!
//! ```no_run
//! use std::net::TcpListener;
//! use spop_server::status::{Status, install_recorder};
//!
//! # fn serve(handle: spop_server::ServerHandle) -> Result<(), Box<dyn std::error::Error>> {
//! // Before the server begins to serve.
//! let recorder = install_recorder()?;
//! Status::new(handle).metrics(recorder).serve(TcpListener::bind("127.0.0.1:9404")?)?;
//! # Ok(())
//! # }
//! ```

mod http;
mod page;
mod rates;
mod report;

use std::{
    fmt,
    io::{self, ErrorKind},
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use spop_core::Timestamp;

use self::rates::{Rates, Sample};
use crate::{HANDLER_SECONDS_BUCKETS, ServerHandle};

/// How often the counters are read.
const PERIOD: Duration = Duration::from_secs(1);

/// The recorder of metrics of the process, for Prometheus. See [`install_recorder`].
#[derive(Clone, Debug)]
pub struct Recorder(PrometheusHandle);

impl Recorder {
    /// The metrics as Prometheus collects them. Call [`run_upkeep`](Self::run_upkeep) regularly.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Moves recorded values into the histograms, so that they do not collect in memory. A [`Status`] does it each second for its
    /// recorder.
    pub fn run_upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Installs a recorder of metrics for the whole process, whose histogram of handlers has
/// [`HANDLER_SECONDS_BUCKETS`]. Call it before the server begins to serve.
///
/// # Errors
/// There is a recorder already.
pub fn install_recorder() -> io::Result<Recorder> {
    let seconds = Matcher::Full("spop_handler_seconds".to_owned());
    let built = PrometheusBuilder::new().set_buckets_for_metric(seconds, &HANDLER_SECONDS_BUCKETS);
    let installed = built.and_then(PrometheusBuilder::install_recorder);
    installed.map(Recorder).map_err(|error| io::Error::new(ErrorKind::AlreadyExists, error))
}

/// A status page. See the [module](self).
#[derive(Debug)]
#[must_use = "it does nothing before `serve`"]
pub struct Status {
    handle: ServerHandle,
    metrics: Metrics,
    hosts: Vec<String>,
}

/// What the connections of a status page share.
#[derive(Debug)]
struct Shared {
    handle: ServerHandle,
    metrics: Metrics,
    hosts: Vec<String>,
    since: Instant,
    rates: Mutex<Rates>,
}

/// What `/metrics` has.
#[derive(Default)]
struct Metrics {
    recorder: Option<Recorder>,
    collector: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Status {
    /// Of this server.
    pub fn new(handle: ServerHandle) -> Self {
        Self { handle, metrics: Metrics::default(), hosts: Vec::new() }
    }

    /// With the metrics of this recorder.
    pub fn metrics(mut self, recorder: Recorder) -> Self {
        self.metrics.recorder = Some(recorder);
        self
    }

    /// Before each answer of `/metrics`, a function sets those metrics whose values the agent has elsewhere, such as
    /// `counter!("hits_total").absolute(hits)`. It runs on the thread of the page, so it should not wait for long.
    pub fn collector(mut self, collect: impl Fn() + Send + Sync + 'static) -> Self {
        self.metrics.collector = Some(Box::new(collect));
        self
    }

    /// Also for requests to this name, besides IP addresses and `localhost`: the name of the machine by which Prometheus, or a person,
    /// finds the page. Without a port; may be called several times.
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// Serves on this listener as long as the process lives, in a thread of its own.
    ///
    /// # Errors
    /// The system has no thread, or no event queue, for it.
    pub fn serve(self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            handle: self.handle,
            metrics: self.metrics,
            hosts: self.hosts,
            since: Instant::now(),
            rates: Mutex::default(),
        });
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let serve = move || runtime.block_on(http::serve(listener, shared));
        thread::Builder::new().name("spop-status".to_owned()).spawn(serve)?;
        Ok(())
    }
}

impl Shared {
    /// Reads the counters, for the rates, and runs the upkeep of the recorder.
    fn sample(&self) {
        let stats = self.handle.stats();
        let sample = Sample {
            at: self.since.elapsed(),
            requests: stats.requests,
            failures: stats.failures.total(),
            late: stats.late,
        };
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        if let Some(recorder) = &self.metrics.recorder {
            recorder.run_upkeep();
        }
    }

    fn now(&self) -> Timestamp {
        self.handle.agent().clock().now()
    }

    fn rates(&self) -> Rates {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Metrics {
    fn collect(&self) {
        if let Some(collect) = &self.collector {
            collect();
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("recorder", &self.recorder).finish_non_exhaustive()
    }
}
