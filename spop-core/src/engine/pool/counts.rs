//! What a pool reports: how busy it is, and where the time of a request went.

use core::time::Duration;

/// How busy an engine is, as the log has it; [`Pool::load`](super::Pool::load) knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// Connections without a request.
    pub idles: usize,
    /// Connections.
    pub applets: usize,
    /// Requests that wait to be sent.
    pub sending: usize,
    /// Requests that wait for their answers.
    pub waiting: usize,
    /// Requests that failed so far.
    pub errors: u64,
    /// Requests that ended so far.
    pub processed: u64,
}

/// Where the time of one event or group went. `None` is a step that was never finished.
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
    /// `pT`: all of it, which is the latency that the event adds to its stream.
    pub processing: Option<Duration>,
}
