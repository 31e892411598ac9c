//! The thread that shows and records what is relayed. It decodes what HAProxy sends and receives as the segments of a capture
//! are decoded, so that a recording says what was shown.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde_json::json;
use spop_core::{frame::Header, link::Side};

use super::{
    record::{Recorder, Stopped},
    tap::{Counters, Ends, Happening, Receiver, Seen},
};
use crate::{
    exit::{self, Exit, Failure},
    output::{Output, Paint},
    shown::Shown,
    time::Utc,
    watch::{About, Connections, Event, Printer, Segment, What, direction},
};

/// The longest payload of a packet, in bytes.
const PAYLOAD_MAX: usize = 32 << 10;

/// The longest gap in a stream. From half of the sequence numbers on, what follows would precede it.
const GAP_MAX: u64 = 1 << 30;

/// The same refusals are shown so often.
const REFUSALS: Duration = Duration::from_secs(1);

/// Shows, records and counts.
pub(super) struct Watcher {
    output: Output,
    shown: Shown,
    connections: Connections,
    links: HashMap<u64, Link>,
    printer: Printer,
    recorder: Option<Recorder>,
    recording_failed: bool,
    output_failed: bool,
    counters: Arc<Counters>,
    events: Vec<Event>,
    refusals: Refusals,
    /// It was told that not everything is watched.
    is_behind: bool,
}

/// A connection from HAProxy, as TCP.
#[derive(Debug)]
struct Link {
    ends: Ends,
    /// The next sequence numbers of HAProxy and the relay.
    next: [u32; 2],
    is_shut: [bool; 2],
    /// What closes it, if it is no side.
    closer: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Refusals {
    latest: Option<(Duration, String)>,
    /// Those that were not shown.
    more: u64,
}

/// The flags of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Syn,
    Fin,
    Rst,
    None,
}

impl Watcher {
    /// Connections to the relay at this port.
    pub(super) fn new(
        output: Output,
        cut: usize,
        printer: Printer,
        recorder: Option<Recorder>,
        port: u16,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            output,
            shown: Shown::new(output, cut),
            connections: Connections::new(vec![port]),
            links: HashMap::new(),
            printer,
            recorder,
            recording_failed: false,
            output_failed: false,
            counters,
            events: Vec::new(),
            refusals: Refusals::default(),
            is_behind: false,
        }
    }

    /// Watches until all connections have ended, and shows what was seen in all.
    pub(super) fn run(mut self, receiver: &Receiver) -> Exit {
        while let Some(seen) = receiver.next() {
            self.seen(seen);
            self.counters.watched.fetch_add(1, Relaxed);
        }
        while self.connections.finish_one(&mut self.events) {
            self.print();
            self.counters.watched.fetch_add(1, Relaxed);
        }
        self.not_shown(Utc::now().since_1970());
        if !self.output_failed {
            let summary = self.summary();
            self.printed(summary);
        }
        if self.recording_failed || self.output_failed {
            return Exit::Io;
        }
        Exit::unless(self.printer.violations > 0)
    }

    /// Shows what has happened.
    fn print(&mut self) {
        if self.output_failed {
            self.events.clear();
            return;
        }
        let printed = self.printer.events(&mut self.events);
        self.printed(printed);
    }

    /// Output that fails is not tried again: what passes is still recorded.
    fn printed(&mut self, result: Result<(), Failure>) {
        let Err(failure) = result else { return };
        self.output_failed = true;
        let why = match failure.exit {
            Exit::Fine => "the reader of the output has gone".to_owned(),
            _ => failure.to_string(),
        };
        exit::warn(format_args!("{why}: nothing more is shown; it relays until it is stopped"));
    }

    fn seen(&mut self, seen: Seen) {
        let Seen { connection, time, what } = seen;
        match what {
            Happening::Opened { ends } => self.opened(connection, ends, time),
            Happening::Data { from, unwatched, bytes } => {
                self.gap(connection, from, unwatched, time);
                for part in bytes.chunks(PAYLOAD_MAX) {
                    self.segment(connection, from, Flag::None, part, time);
                }
                if unwatched > 0 {
                    // What is missing never comes.
                    self.segment(connection, other(from), Flag::None, b"", time);
                }
            }
            Happening::Gap { from, unwatched } => self.gap(connection, from, unwatched, time),
            Happening::Shut(from) => self.segment(connection, from, Flag::Fin, b"", time),
            Happening::Reset(by) => self.segment(connection, by, Flag::Rst, b"", time),
            Happening::Closes(reason) => {
                if let Some(link) = self.links.get_mut(&connection) {
                    link.closer.get_or_insert(reason);
                }
            }
            Happening::Over => self.over(connection, time),
            Happening::Fault { from, name, header, text } => {
                self.fault(connection, from, name, header, text, time);
            }
            Happening::Note(text) => self.note(time, "note", &text, json!({ "text": text })),
            Happening::Refused { peer, reason } => self.refused(&peer, reason, time),
        }
    }

    fn opened(&mut self, connection: u64, ends: Ends, time: Duration) {
        self.links.insert(connection, Link::new(connection, ends));
        for (from, flag) in [(Side::Engine, Flag::Syn), (Side::Agent, Flag::Syn), (Side::Engine, Flag::None)]
        {
            self.segment(connection, from, flag, b"", time);
        }
    }

    /// Bytes that nobody has seen: the sequence numbers have a gap.
    fn gap(&mut self, connection: u64, from: Side, unwatched: u64, time: Duration) {
        if unwatched == 0 {
            return;
        }
        if let Some(link) = self.links.get_mut(&connection) {
            link.skip(from, unwatched);
        }
        self.behind(time);
    }

    fn behind(&mut self, time: Duration) {
        if std::mem::replace(&mut self.is_behind, true) {
            return;
        }
        let text = "what passes is more than is shown and recorded in time: parts of it are not watched; all of it passes";
        self.note(time, "note", text, json!({ "text": text }));
    }

    fn segment(&mut self, connection: u64, from: Side, flag: Flag, payload: &[u8], time: Duration) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if flag == Flag::Rst && link.is_shut == [true; 2] {
            // It is closed, or reset, already.
            return;
        }
        let closer = link.closer;
        let segment = link.segment(from, flag, payload);
        let stopped = self.recorder.as_mut().and_then(|recorder| recorder.segment(time, &segment).err());
        let tls = self.connections.counts.tls;
        self.connections.segment(time, &segment, &mut self.events);
        for event in &mut self.events {
            if let (What::Closed { reason, .. }, Some(closer)) = (&mut event.what, closer) {
                closer.clone_into(reason);
            }
        }
        self.print();
        if self.connections.counts.tls > tls {
            let text =
                "TLS passes, and is not decoded: --listen-tls-cert ends it here, and --tls begins it again";
            self.note(time, "note", text, json!({ "text": text }));
        }
        if let Some(Stopped { text, is_failure }) = stopped {
            self.recorder = None;
            self.recording_failed = is_failure;
            self.note(time, "note", &text, json!({ "text": text }));
        }
    }

    /// The relay has closed a connection: what was not closed before is now.
    fn over(&mut self, connection: u64, time: Duration) {
        for from in [Side::Agent, Side::Engine] {
            let is_shut = self.links.get(&connection).and_then(|link| link.is_shut.get(index(from)).copied());
            if is_shut == Some(false) {
                self.segment(connection, from, Flag::Fin, b"", time);
            }
        }
        let Some(link) = self.links.remove(&connection) else { return };
        self.connections.forget(link.ends.haproxy, link.ends.relay, time, &mut self.events);
        self.print();
    }

    fn fault(
        &mut self,
        connection: u64,
        from: Side,
        name: &'static str,
        header: Option<Header>,
        text: String,
        time: Duration,
    ) {
        let ends = self.links.get(&connection).map(|link| link.ends);
        let number = ends.and_then(|ends| self.connections.number(ends.haproxy, ends.relay));
        // The connection is none of SPOP, or nothing is known of it yet.
        let Some(connection) = number else { return self.note(time, "note", &text, json!({ "text": text })) };
        let about = header.map(About::header).unwrap_or_default();
        let what = What::Fault { direction: direction(from), name, text };
        self.events.push(Event { connection, time, what, about });
        self.print();
    }

    /// HAProxy opens hundreds of connections a second where something is wrong.
    fn refused(&mut self, peer: &str, reason: String, time: Duration) {
        if let Some((latest, same)) = &self.refusals.latest
            && *same == reason
            && time.saturating_sub(*latest) < REFUSALS
        {
            self.refusals.more += 1;
            return;
        }
        self.not_shown(time);
        let details = json!({ "peer": peer, "reason": reason });
        self.note(time, "refused", &format!("connection from {peer} is closed: {reason}"), details);
        self.refusals.latest = Some((time, reason));
    }

    /// Refusals that were not shown.
    fn not_shown(&mut self, time: Duration) {
        let more = std::mem::take(&mut self.refusals.more);
        if more > 0 {
            let text = format!("{more} more connections were closed for the same reason");
            self.note(time, "note", &text, json!({ "text": text }));
        }
    }

    fn note(&mut self, time: Duration, event: &'static str, text: &str, details: serde_json::Value) {
        if !self.output_failed {
            let (time, line) = (Utc::at(time), format!("* {text}"));
            let shown = self.shown.event(Some(time), None, event, Paint::Warning, &line, details);
            self.printed(shown);
        }
    }

    fn summary(&self) -> Result<(), Failure> {
        self.printer.statistics()?;
        let Counters { connections, refused, unwatched, delayed, dropped, closed, reset, watched: _ } =
            &*self.counters;
        let [connections, refused, unwatched, delayed, dropped, closed, reset] =
            [connections, refused, unwatched, delayed, dropped, closed, reset]
                .map(|counter| counter.load(Relaxed));
        let (frames, violations) = (self.printer.frames(), self.printer.violations);
        let [gaps, ..] = self.printer.segments();
        let Some(totals) = self.printer.totals() else { return Ok(()) };
        let unanswered = totals.requests.saturating_sub(totals.answered);
        let [requests, answered] = [totals.requests, totals.answered];
        let always = |count, what| (true, count, what);
        let counted = |count: u64, what| (count > 0, count, what);
        let parts = [
            always(connections, "connections"),
            counted(refused, "not relayed"),
            always(frames, "frames"),
            always(requests, "requests"),
            always(answered, "answered"),
            counted(unanswered, "unanswered"),
            always(violations, "violations"),
            counted(delayed, "frames delayed"),
            counted(dropped, "frames dropped"),
            counted(closed + reset, "connections ended by a fault"),
            counted(gaps, "gaps"),
            counted(unwatched, "bytes not watched"),
        ];
        let parts = parts.iter().filter(|(is_shown, ..)| *is_shown);
        let parts: Vec<_> = parts.map(|(_, count, what)| format!("{what}: {count}")).collect();
        let paint = if violations > 0 { Paint::Bad } else { Paint::Heading };
        self.output.line(self.output.paint(paint, parts.join(", ")))?;
        let latency = totals.latency_ms;
        let quantiles =
            [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99), ("max", latency.max)];
        let quantiles = quantiles.iter().filter_map(|(name, ms)| Some(format!("{name} {:.3}", (*ms)?)));
        let quantiles: Vec<_> = quantiles.collect();
        if !quantiles.is_empty() {
            self.output.line(format_args!("ms from NOTIFY to ACK: {}", quantiles.join(", ")))?;
        }
        let details = json!({
            "connections": connections, "refused": refused, "frames": frames,
            "requests": requests, "answered": answered, "unanswered": unanswered,
            "latency_ms": latency, "violations": violations, "lost": gaps, "unwatched": unwatched,
            "faults": { "delay": delayed, "drop": dropped, "close": closed, "reset": reset },
        });
        self.shown.object(None, None, "end", details)
    }
}

impl Link {
    fn new(connection: u64, ends: Ends) -> Self {
        // Other numbers than those of an earlier connection of the same ports.
        let initial = (connection as u32).wrapping_mul(0x9e37_79b1);
        Self { ends, next: [initial, !initial], is_shut: [false; 2], closer: None }
    }

    /// Bytes of a side that are no segments.
    fn skip(&mut self, from: Side, bytes: u64) {
        if let Some(next) = self.next.get_mut(index(from)) {
            *next = next.wrapping_add(bytes.min(GAP_MAX) as u32);
        }
    }

    /// The next segment of a side.
    fn segment<'a>(&mut self, from: Side, flag: Flag, payload: &'a [u8]) -> Segment<'a> {
        let [haproxy, relay] = [self.ends.haproxy, self.ends.relay];
        let [to_agent, to_haproxy] = &mut self.next;
        let (from_address, to_address, next, ack) = match from {
            Side::Engine => (haproxy, relay, to_agent, to_haproxy),
            Side::Agent => (relay, haproxy, to_haproxy, to_agent),
        };
        // The first SYN has none.
        let ack = (flag != Flag::Syn || from == Side::Agent).then_some(*ack);
        let sequence = *next;
        let counts = payload.len() as u32 + u32::from(matches!(flag, Flag::Syn | Flag::Fin));
        *next = next.wrapping_add(counts);
        if flag == Flag::Fin
            && let Some(is_shut) = self.is_shut.get_mut(index(from))
        {
            *is_shut = true;
        }
        if flag == Flag::Rst {
            self.is_shut = [true; 2];
        }
        Segment {
            from: from_address,
            to: to_address,
            sequence,
            ack,
            syn: flag == Flag::Syn,
            fin: flag == Flag::Fin,
            rst: flag == Flag::Rst,
            payload,
            cut: 0,
        }
    }
}

const fn index(side: Side) -> usize {
    match side {
        Side::Engine => 0,
        Side::Agent => 1,
    }
}

const fn other(side: Side) -> Side {
    match side {
        Side::Engine => Side::Agent,
        Side::Agent => Side::Engine,
    }
}

#[cfg(test)]
mod tests {
    use spop_core::notation;

    use super::*;

    #[test]
    fn frames_are_found_behind_a_gap_of_any_length() {
        let frame = notation::parse_bytes("NOTIFY fin 1 1 check").unwrap();
        for unwatched in [1, 1 << 30, 2 << 30, (2 << 30) + 1, 3 << 30, 4 << 30, u64::MAX] {
            let [haproxy, relay] = ["127.0.0.1:1", "127.0.0.1:9"].map(|address| address.parse().unwrap());
            let mut link = Link::new(7, Ends { haproxy, relay });
            let (mut connections, mut events) = (Connections::new(vec![9]), Vec::new());
            let mut push = |link: &mut Link, from, flag, payload: &[u8]| {
                connections.segment(Duration::ZERO, &link.segment(from, flag, payload), &mut events);
            };
            push(&mut link, Side::Engine, Flag::Syn, b"");
            push(&mut link, Side::Agent, Flag::Syn, b"");
            push(&mut link, Side::Engine, Flag::None, &frame);
            link.skip(Side::Engine, unwatched);
            push(&mut link, Side::Engine, Flag::None, &frame);
            push(&mut link, Side::Agent, Flag::None, b"");
            let frames = events.iter().filter(|event| matches!(event.what, What::Frame { .. }));
            assert_eq!(frames.count(), 2, "{unwatched}");
        }
    }
}
