//! Prints what a capture shows.

use serde::Serialize;
use serde_json::json;
use spop_core::{
    frame::Flags,
    notation::{self, OwnedFrame},
};

use super::{
    connections::Counts,
    event::{self, Disorder, Event, Place, What},
    filter::Filter,
    stats::{Stats, Totals},
};
use crate::{
    exit::Failure,
    output::{Output, Paint},
    shown::{self, Recorded, Shown},
    time::Utc,
};

/// Filters, prints and counts.
#[derive(Debug)]
pub(crate) struct Printer {
    output: Output,
    shown: Shown,
    filter: Filter,
    /// Statistics that are shown at the end instead of frames.
    stats: Option<Stats>,
    /// Statistics of everything, also of what is not shown.
    all: Option<Stats>,
    /// Raw bytes have no times.
    has_times: bool,
    frames: u64,
    pub(crate) violations: u64,
    segments: [u64; 3],
}

/// The place of an event in JSON.
#[derive(Serialize)]
struct PlaceObject {
    direction: &'static str,
    offset: u64,
}

impl From<Place> for PlaceObject {
    fn from(at: Place) -> Self {
        Self { direction: shown::name(at.direction), offset: at.offset }
    }
}

impl Printer {
    /// With `is_summary`, statistics at the end instead of frames.
    pub(crate) fn new(output: Output, cut: usize, filter: Filter, is_summary: bool) -> Self {
        Self {
            output,
            shown: Shown::new(output, cut),
            filter,
            stats: is_summary.then(Stats::new),
            all: None,
            has_times: true,
            frames: 0,
            violations: 0,
            segments: [0; 3],
        }
    }

    /// Counts also what the filter does not show, and requests and their latencies.
    pub(crate) fn counting(mut self) -> Self {
        self.all = Some(Stats::new());
        self
    }

    pub(crate) const fn without_times(&mut self) {
        self.has_times = false;
    }

    pub(crate) fn events(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        events.drain(..).try_for_each(|event| self.event(event))
    }

    fn event(&mut self, event: Event) -> Result<(), Failure> {
        let is_shown = self.filter.matches(&event);
        if is_shown || self.all.is_some() {
            self.count(&event);
        }
        if !is_shown {
            return Ok(());
        }
        if let Some(stats) = &mut self.stats {
            stats.add(&event);
        }
        if self.stats.is_some() && !matches!(event.what, What::Violation { .. }) {
            return Ok(());
        }
        self.show(event)
    }

    fn count(&mut self, event: &Event) {
        match &event.what {
            What::Frame { .. } => self.frames += 1,
            What::Violation { .. } => self.violations += 1,
            What::Segment { kind, .. } => {
                if let Some(count) = self.segments.get_mut(*kind as usize) {
                    *count += 1;
                }
            }
            _ => {}
        }
        if let Some(all) = &mut self.all {
            all.add(event);
        }
    }

    fn show(&self, event: Event) -> Result<(), Failure> {
        let time = self.has_times.then(|| Utc::at(event.time));
        let show = |name, paint, line: String, details| {
            self.shown.event(time, Some(event.connection), name, paint, &line, details)
        };
        match event.what {
            What::Frame { at, frame, latency } => {
                let recorded = Recorded { offset: at.offset, latency_ms: latency };
                self.shown.frame(time, event.connection, at.direction, &frame, Some(recorded))
            }
            What::Joined { at, mut header, payload, fragments } => {
                header.flags = Flags(header.flags.0 | Flags::FIN.0);
                let text = OwnedFrame { header, payload };
                let line = format!("* joined from {fragments} fragments: {text}");
                let details = json!({
                    "direction": shown::name(at.direction), "fragments": fragments,
                    "stream": header.ids.stream, "frame": header.ids.frame, "text": text.to_string(),
                });
                show("joined", paint(at.direction), line, details)
            }
            What::Violation { at, reason } => {
                let line = format!("! {} byte {}: {reason}", at.direction, at.offset);
                let PlaceObject { direction, offset } = at.into();
                let details = json!({ "direction": direction, "offset": offset, "reason": reason });
                show("violation", Paint::Bad, line, details)
            }
            What::Note { at, text } => {
                let place =
                    at.map_or_else(String::new, |at| format!("{} byte {}: ", at.direction, at.offset));
                let at = at.map(PlaceObject::from);
                let details = match at {
                    Some(PlaceObject { direction, offset }) => {
                        json!({ "direction": direction, "offset": offset, "text": text })
                    }
                    None => json!({ "text": text }),
                };
                show("note", Paint::Warning, format!("* {place}{text}"), details)
            }
            What::Opened { engine, agent } => {
                let line = format!("* connection from {engine} to {agent}");
                let details = json!({ "peer": engine.to_string(), "agent": agent.to_string() });
                show("opened", Paint::Dim, line, details)
            }
            What::Session { max_frame_size, capabilities, healthcheck, engine_id } => {
                let list = if capabilities.is_empty() { "no capabilities" } else { &capabilities };
                let health = if healthcheck { ", a health check" } else { "" };
                let engine = engine_id.as_ref().map_or_else(String::new, |id| format!(", engine {id}"));
                let line = format!("* session: max-frame-size {max_frame_size}, {list}{health}{engine}");
                let details = json!({
                    "max_frame_size": max_frame_size, "capabilities": capabilities,
                    "healthcheck": healthcheck, "engine_id": engine_id,
                });
                show("session", Paint::Dim, line, details)
            }
            What::Segment { at, kind, len } => {
                let (name, text) = match kind {
                    Disorder::Lost => ("lost", "bytes are missing in the capture"),
                    Disorder::Repeated => ("repeated", "bytes are sent or captured again"),
                    Disorder::Early => ("early", "bytes precede those before them"),
                };
                let paint = if kind == Disorder::Lost { Paint::Warning } else { Paint::Dim };
                let line = format!("* {} byte {}: {len} {text}", at.direction, at.offset);
                let PlaceObject { direction, offset } = at.into();
                show(name, paint, line, json!({ "direction": direction, "offset": offset, "bytes": len }))
            }
            What::Fault { direction, name, text } => {
                let details = json!({
                    "direction": shown::name(direction), "fault": name, "text": text,
                    "type": event.about.frame_type.map(shown::type_name),
                    "stream": event.about.ids.map(|ids| ids.stream),
                    "frame": event.about.ids.map(|ids| ids.frame),
                });
                show("fault", Paint::Warning, format!("~ {direction} {text}"), details)
            }
            What::Closed { reason, unanswered } => {
                let open = match unanswered {
                    0 => String::new(),
                    count => format!(", {}", event::unanswered(count)),
                };
                let details = json!({ "reason": reason, "unanswered": unanswered });
                show("closed", Paint::Dim, format!("* closed: {reason}{open}"), details)
            }
        }
    }

    /// Frames so far.
    pub(crate) const fn frames(&self) -> u64 {
        self.frames
    }

    /// Gaps, repeated and early segments so far.
    pub(crate) const fn segments(&self) -> [u64; 3] {
        self.segments
    }

    /// All requests and their answers, if they are counted.
    pub(crate) fn totals(&self) -> Option<Totals> {
        self.all.as_ref().map(Stats::totals)
    }

    /// Prints the statistics that stand for frames.
    pub(crate) fn statistics(&self) -> Result<(), Failure> {
        let Some(stats) = &self.stats else { return Ok(()) };
        stats.show(self.output)?;
        self.shown.object(None, None, "stats", stats.object())
    }

    /// Prints the statistics, and what was found in a capture.
    pub(crate) fn finish(&self, counts: Option<Counts>) -> Result<(), Failure> {
        self.statistics()?;
        let [lost, repeated, early] = self.segments;
        let mut parts = Vec::new();
        if let Some(Counts { spop, others, tls }) = counts {
            let tls = if tls > 0 { format!(" ({tls} with TLS)") } else { String::new() };
            parts.push(format!("SPOP connections: {spop}, others skipped: {others}{tls}"));
        }
        parts.push(format!("frames: {}", self.frames));
        parts.push(format!("violations: {}", self.violations));
        for (count, what) in [(lost, "gaps"), (repeated, "repetitions"), (early, "early segments")] {
            if count > 0 {
                parts.push(format!("{what}: {count}"));
            }
        }
        let paint = if self.violations > 0 { Paint::Bad } else { Paint::Heading };
        self.output.line(self.output.paint(paint, parts.join(", ")))?;
        let Counts { spop, others, tls } = counts.unwrap_or_default();
        let details = json!({
            "connections": spop, "others": others, "tls": tls, "frames": self.frames,
            "violations": self.violations, "lost": lost, "repeated": repeated, "early": early,
        });
        self.shown.object(None, None, "end", details)
    }
}

const fn paint(direction: notation::Direction) -> Paint {
    match direction {
        notation::Direction::ToAgent => Paint::ToAgent,
        notation::Direction::ToHaproxy => Paint::ToHaproxy,
    }
}
