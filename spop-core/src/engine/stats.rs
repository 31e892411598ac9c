//! The times of a request, and the line that HAProxy logs about it (section 4 of the specification).

use core::{fmt, time::Duration};

use super::EngineError;

/// Where the time of one event or group went. `None` is a step that was never finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// What `option set-process-time` and `option set-total-time` report; HAProxy's variables have it in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessTimes {
    /// The processing time of the stream's last event or group.
    pub last: Option<Duration>,
    /// The processing times of all of them so far.
    pub total: Duration,
}

impl ProcessTimes {
    /// Adds an event or group. One that was interrupted has no processing time, and adds nothing.
    pub fn add(&mut self, times: &Times) {
        self.last = times.processing;
        self.total = self.total.saturating_add(times.processing.unwrap_or_default());
    }
}

/// What an event or group is called in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // As the sections they come from.
pub enum Occasion<'a> {
    Event(&'a str),
    Group(&'a str),
}

impl fmt::Display for Occasion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(name) => write!(f, "EVENT:{name}"),
            Self::Group(name) => write!(f, "GROUP:{name}"),
        }
    }
}

/// How busy an engine is, as the log has it; [`Pool::load`](super::Pool::load) knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
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

/// One line of the log, displayed as HAProxy writes it.
///
/// ```
/// use core::time::Duration;
/// use spop_core::{Load, LogLine, Occasion, Times};
///
/// let line = LogLine {
///     agent: "ip-reputation",
///     occasion: Occasion::Event("on-client-session"),
///     stream: 7,
///     error: None,
///     times: Times { wait: Some(Duration::from_millis(3)), ..Times::default() },
///     load: Load { idles: 1, applets: 2, sending: 0, waiting: 1, errors: 0, processed: 42 },
/// };
/// assert_eq!(
///     line.to_string(),
///     "SPOE: [ip-reputation] <EVENT:on-client-session> sid=7 st=0 -1/-1/3/-1/-1 1/2 0/1 0/42",
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// The agent's name in the configuration.
    pub agent: &'a str,
    /// What was asked about.
    pub occasion: Occasion<'a>,
    /// The stream's number.
    pub stream: u64,
    /// What became of it.
    pub error: Option<EngineError>,
    /// Where the time went.
    pub times: Times,
    /// How busy the engine was at its end.
    pub load: Load,
}

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.error.map_or(0, EngineError::code);
        let Self { agent, occasion, stream, .. } = self;
        write!(f, "SPOE: [{agent}] <{occasion}> sid={stream} st={status} ")?;
        let Times { encode, queue, wait, response, processing } = self.times;
        let mut slash = "";
        for time in [encode, queue, wait, response, processing] {
            f.write_str(slash)?;
            match time {
                Some(time) => write!(f, "{}", time.as_millis())?,
                None => f.write_str("-1")?,
            }
            slash = "/";
        }
        let Load { idles, applets, sending, waiting, errors, processed } = self.load;
        write!(f, " {idles}/{applets} {sending}/{waiting} {errors}/{processed}")
    }
}
