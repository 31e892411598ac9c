//! A stream and its events: what HAProxy keeps about it between two of them.

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

/// One stream (or transaction) of an engine. Its events follow each other: each [begins](Self::begin), is asked about, and
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
/// // Ask a pool or a connection under these identifiers; this is what comes of it.
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

/// Why an event is not asked about. That is no error: the stream goes on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkippedEvent {
    /// An earlier event failed, and `option continue-on-error` is not set.
    Disabled,
    /// Another event of this stream has not ended. Try again when it has.
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

/// How an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventEnd {
    /// The stream's number.
    pub stream: u64,
    /// What went wrong.
    pub error: Option<EngineError>,
    /// Where the time went.
    pub times: Times,
}

impl EventEnd {
    /// The line that HAProxy logs about it: a notice, or a warning if there was an error. [`AgentSection::logs`] says
    /// whether.
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
    /// A stream that has asked nothing yet, with its number.
    pub const fn new(stream: u64) -> Self {
        let times = ProcessTimes { last: None, total: core::time::Duration::ZERO };
        Self { ids: Ids::new(stream, 1), event: None, disabled: false, times }
    }

    /// An event or group occurred. Ask under these identifiers, where the engine leaves them to its caller.
    ///
    /// # Errors
    /// [`SkippedEvent`] when it is not to be asked about.
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

    /// The messages are encoded and handed over: `reqT` ends.
    pub fn encoded(&mut self, now: Timestamp) {
        if let Some(event) = &mut self.event {
            event.encoded.get_or_insert(now);
        }
    }

    /// There was nothing to ask, or the engine takes nothing after too many errors (`maxerrrate`): as if the event had not
    /// occurred.
    pub fn skip(&mut self) {
        self.event = None;
    }

    /// The event has ended: sets the variables. `times` are those that the pool gave; a connection alone gives `wait`.
    /// `None` when no event was begun.
    ///
    /// The next event has the next FRAME-ID if this one was answered; otherwise it has the same, as with HAProxy.
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
        section.leave(vars, outcome, all.as_millis(), self.times.total.as_millis());
        Some(EventEnd { stream: self.ids.stream, error, times })
    }

    /// The next transaction of the same stream: it may ask again, and its total time begins from zero.
    pub fn next_transaction(&mut self) {
        *self = Self { ids: self.ids, ..Self::new(self.ids.stream) };
    }

    /// Whether an error has ended its events.
    pub const fn is_disabled(&self) -> bool {
        self.disabled
    }

    /// What `option set-process-time` and `option set-total-time` report.
    pub const fn times(&self) -> ProcessTimes {
        self.times
    }
}
