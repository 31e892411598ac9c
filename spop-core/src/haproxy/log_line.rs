//! The times of a request, and HAProxy's log line (section 4 of the specification).

use core::{fmt, time::Duration};

use crate::engine::{
    EngineError,
    pool::{ConnectionCounts, Times},
};

/// The times of `option set-process-time` and `option set-total-time`, which HAProxy's variables hold in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessTimes {
    /// The processing time of the stream's last event or group.
    pub last: Option<Duration>,
    /// The sum over all events and groups so far.
    pub total: Duration,
}

impl ProcessTimes {
    /// Adds the time of an event or group. An interrupted one has no processing time, and adds nothing.
    pub fn add(&mut self, times: &Times) {
        self.last = times.processing;
        self.total = self.total.saturating_add(times.processing.unwrap_or_default());
    }
}

/// The name of an event or group in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The variants are named after their sections in the configuration.
#[non_exhaustive]
pub enum EventName<'a> {
    Event(&'a str),
    Group(&'a str),
}

impl fmt::Display for EventName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(name) => write!(f, "EVENT:{name}"),
            Self::Group(name) => write!(f, "GROUP:{name}"),
        }
    }
}

/// A log line, displayed as HAProxy up to 3.0 writes it (section 4). HAProxy 3.1 and later logs only the processing time, and
/// the errors and processed requests: `SPOE: [agent] <EVENT:name> sid=7 st=0 3 0/42`.
///
/// [`explain`](super::explain) explains the number of `st`.
///
/// ```
/// use core::time::Duration;
/// use spop_core::haproxy::{EventName, LogLine};
///
/// let mut line = LogLine::new("ip-reputation", EventName::Event("on-client-session"), 7);
/// line.times.wait = Some(Duration::from_millis(3));
/// (line.load.idles, line.load.applets, line.load.waiting, line.load.processed) = (1, 2, 1, 42);
/// assert_eq!(
///     line.to_string(),
///     "SPOE: [ip-reputation] <EVENT:on-client-session> sid=7 st=0 -1/-1/3/-1/-1 1/2 0/1 0/42",
/// );
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LogLine<'a> {
    /// The agent's name in the configuration.
    pub agent: &'a str,
    /// The event or group.
    pub event: EventName<'a>,
    /// The number of the stream.
    pub stream: u64,
    /// The error; `None` is logged as `st=0`.
    pub error: Option<EngineError>,
    /// The time of each step.
    pub times: Times,
    /// The connections and requests of the engine when the event ended.
    pub load: ConnectionCounts,
}

impl<'a> LogLine<'a> {
    /// An event without an error. Times and counts are empty; set them in the fields.
    pub fn new(agent: &'a str, event: EventName<'a>, stream: u64) -> Self {
        let (times, load) = (Times::default(), ConnectionCounts::default());
        Self { agent, event, stream, error: None, times, load }
    }
}

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.error.map_or(0, EngineError::code);
        let Self { agent, event, stream, .. } = self;
        write!(f, "SPOE: [{agent}] <{event}> sid={stream} st={status} ")?;
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
        let ConnectionCounts { idles, applets, sending, waiting, errors, processed } = self.load;
        write!(f, " {idles}/{applets} {sending}/{waiting} {errors}/{processed}")
    }
}
