//! The state that HAProxy keeps for a stream between its events.

use core::fmt;

use super::{AgentSection, EventName, LogLine, ProcessTimes, Vars};
use crate::engine::{
    EngineError,
    pool::{ConnectionCounts, Times},
};
use crate::{
    Timestamp,
    frame::{AckActions, Ids},
};

/// One stream (or transaction) of an engine. Its events are sequential: each [begins](Self::begin), is sent as a request, and
/// [ends](Self::end).
///
/// ```
/// use spop_core::{Actions, Scope, Timestamp};
/// use spop_core::engine::pool::Times;
/// use spop_core::haproxy::{AgentSection, Sample, SpoeStream, Vars};
/// use spop_core::engine::EngineError;
/// use spop_core::frame::AckActions;
///
/// let section = AgentSection::new("iprep").set_on_error("error");
/// let (mut stream, mut vars) = (SpoeStream::new(7), Vars::default());
///
/// // Send the request with these identifiers, on a pool or a connection. Here is its answer:
/// let ids = stream.begin(Timestamp::ZERO)?;
/// assert_eq!((ids.stream, ids.frame), (7, 1));
/// let mut answer = Actions::new();
/// answer.set_var(Scope::Session, "ip_score", 77_i32);
/// let answer = AckActions::lenient(answer.as_bytes());
/// stream.end(Timestamp::from_millis(3), &section, &mut vars, Ok(answer), Times::default());
/// assert_eq!(vars.get("sess.iprep.ip_score"), Some(&Sample::Int(77)));
///
/// stream.begin(Timestamp::from_millis(9))?;
/// let failed = Err(EngineError::Timeout);
/// stream.end(Timestamp::from_millis(19), &section, &mut vars, failed, Times::default());
/// assert_eq!(vars.get("txn.iprep.error"), Some(&Sample::Int(1)));
/// assert!(stream.begin(Timestamp::from_millis(20)).is_err(), "without `continue-on-error` this was its last event");
/// # Ok::<(), spop_core::haproxy::SkippedEvent>(())
/// ```
#[derive(Clone, Debug)]
pub struct SpoeStream {
    ids: Ids,
    event: Option<Event>,
    disabled: bool,
    times: ProcessTimes,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    begun: Timestamp,
    encoded: Option<Timestamp>,
}

/// Why no request is sent for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkippedEvent {
    /// An earlier event failed, and `option continue-on-error` is not set. The stream continues without this one.
    Disabled,
    /// Another event of this stream has not ended. Begin this one again when it has.
    Busy,
}

impl fmt::Display for SkippedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "an error has disabled the engine for this stream",
            Self::Busy => "another event of this stream has not ended",
        })
    }
}

impl core::error::Error for SkippedEvent {}

/// The end of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventEnd {
    /// The number of the stream.
    pub stream: u64,
    /// The error, if there was one.
    pub error: Option<EngineError>,
    /// The time of each step.
    pub times: Times,
}

impl EventEnd {
    /// HAProxy's log line for the event: a notice, or a warning if there was an error. Log it if [`AgentSection::logs`] is
    /// true. `load` are the [counts](crate::engine::pool::Pool::counts) of the pool.
    pub fn log_line<'a>(
        &self,
        section: &'a AgentSection,
        event: EventName<'a>,
        load: ConnectionCounts,
    ) -> LogLine<'a> {
        let Self { stream, error, times } = *self;
        LogLine { agent: &section.name, event, stream, error, times, load }
    }
}

impl SpoeStream {
    /// A stream with this number that has had no event.
    pub const fn new(stream: u64) -> Self {
        let times = ProcessTimes { last: None, total: core::time::Duration::ZERO };
        Self { ids: Ids::new(stream, 1), event: None, disabled: false, times }
    }

    /// An event or group occurred. Returns the identifiers of its request, for an engine that takes them from the caller
    /// ([`StreamIds::Streams`](crate::engine::StreamIds::Streams)).
    ///
    /// # Errors
    /// [`SkippedEvent`] if HAProxy sends no request for it.
    pub fn begin(&mut self, now: Timestamp) -> Result<Ids, SkippedEvent> {
        if self.disabled {
            return Err(SkippedEvent::Disabled);
        }
        if self.event.is_some() {
            return Err(SkippedEvent::Busy);
        }
        self.event = Some(Event { begun: now, encoded: None });
        Ok(self.ids)
    }

    /// The messages are encoded and the request is queued: `reqT` ends.
    pub fn encoded(&mut self, now: Timestamp) {
        if let Some(event) = &mut self.event {
            event.encoded.get_or_insert(now);
        }
    }

    /// The event is skipped as if it had not occurred: it has no message to send, or the engine refuses requests after too
    /// many errors (`maxerrrate`).
    pub fn skip(&mut self) {
        self.event = None;
    }

    /// The event has ended: sets the variables. `times` are the pool's; for a connection without a pool, set `wait` only.
    /// `None` if no event was begun.
    ///
    /// FRAME-ID advances only if the request was answered, as in HAProxy: after an error the next event uses the same.
    pub fn end(
        &mut self,
        now: Timestamp,
        section: &AgentSection,
        vars: &mut Vars,
        outcome: Result<AckActions<'_>, EngineError>,
        times: Times,
    ) -> Option<EventEnd> {
        let event = self.event.take()?;
        let error = outcome.as_ref().err().copied();
        let all = now.since(event.begun);
        let mut times = times;
        times.encode = event.encoded.map(|encoded| encoded.since(event.begun)).or(times.encode);
        times.processing = Some(all);
        if error.is_none() {
            let before = [times.encode, times.queue, times.wait].into_iter().flatten().sum();
            times.response = Some(all.saturating_sub(before));
            self.ids.frame = self.ids.frame.saturating_add(1);
        }
        self.times.add(&times);
        self.disabled = error.is_some() && !section.continue_on_error;
        section.set_vars(vars, outcome, all.as_millis(), self.times.total.as_millis());
        Some(EventEnd { stream: self.ids.stream, error, times })
    }

    /// Begins the next transaction of the stream: enables the engine again, and resets the total time.
    pub fn next_transaction(&mut self) {
        *self = Self { ids: self.ids, ..Self::new(self.ids.stream) };
    }

    /// Whether an error has disabled the engine for this stream.
    pub const fn is_disabled(&self) -> bool {
        self.disabled
    }

    /// The times of `option set-process-time` and `option set-total-time`.
    pub const fn times(&self) -> ProcessTimes {
        self.times
    }
}
