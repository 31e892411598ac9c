//! The counts of a pool, and the times of a request.

use core::time::Duration;

/// The connections and requests of an engine, as HAProxy logs them; [`Pool::counts`](super::Pool::counts) returns them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// The connections with a session and no request in flight.
    pub idles: usize,
    /// All connections.
    pub applets: usize,
    /// The queued requests.
    pub sending: usize,
    /// The requests in flight.
    pub waiting: usize,
    /// The requests that have failed so far.
    pub errors: u64,
    /// The requests that have ended so far, failed ones included.
    pub processed: u64,
}

/// The times of one event or group, by step. `None` is a step that was not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Times {
    /// `reqT`: encoding the messages.
    pub encode: Option<Duration>,
    /// `qT`: waiting for a connection that takes the request.
    pub queue: Option<Duration>,
    /// `wT`: waiting for the answer.
    pub wait: Option<Duration>,
    /// `resT`: applying the answer.
    pub response: Option<Duration>,
    /// `pT`: the sum, which is the latency that the event adds to its stream.
    pub processing: Option<Duration>,
}
