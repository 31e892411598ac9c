//! A connection at the level of frames: what is exchanged, and what of it is illegal.

mod hello;
mod payloads;

use std::{mem, time::Duration};

use bytes::Bytes;
use spop_core::{
    DecodeError,
    frame::{Capabilities, Disconnect, DisconnectError, Frame, FrameType, Header, Ids},
    link::{Illegal, Phase, Side, Verdict, judge},
    notation,
};

use super::{
    direction::{Direction, Found},
    event::{About, Place, What},
    flights::Flights,
    fragments::Fragments,
};

/// The length prefix of a frame, in bytes.
const PREFIX: usize = 4;

/// What happened, and what it is about.
pub(crate) type Happened = Vec<(What, About)>;

/// Checks what both sides of a connection send.
#[derive(Debug)]
pub(crate) struct Session {
    engine: Half,
    agent: Half,
    phase: Phase,
    flights: Flights,
    agreed: Option<Agreed>,
    /// Everything since the HELLO was seen: what is unknown does not exist.
    is_whole: bool,
    /// Only this side was recorded.
    only: Option<Side>,
}

/// What one side has sent.
#[derive(Debug)]
struct Half {
    frames: Direction,
    fragments: Fragments,
    hello: Option<Hello>,
    /// The engine-id.
    id: Option<String>,
    /// Why nothing may follow.
    end: Option<&'static str>,
    /// Nothing more comes.
    is_closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Hello {
    max_frame_size: u32,
    capabilities: Capabilities,
    healthcheck: bool,
}

/// What the HELLOs have agreed on.
#[derive(Clone, Copy, Debug)]
struct Agreed {
    max_frame_size: u32,
    pipelining: bool,
    is_async: bool,
}

/// A frame that is checked.
#[derive(Clone, Copy, Debug)]
struct Checked<'a> {
    side: Side,
    time: Duration,
    at: Place,
    header: Header,
    payload: &'a [u8],
}

impl Session {
    /// A connection from its first byte on. The first `prefix` bytes of HAProxy are those of a PROXY header.
    pub(super) fn new(prefix: u64) -> Self {
        Self::with(Direction::new(Side::Engine, prefix), Direction::new(Side::Agent, 0))
    }

    /// A connection whose begin was not captured.
    pub(super) fn from_the_middle() -> Self {
        let (engine, agent) =
            (Direction::from_the_middle(Side::Engine), Direction::from_the_middle(Side::Agent));
        let mut session = Self::with(engine, agent);
        session.is_whole = false;
        session
    }

    /// One direction of a connection.
    pub(crate) fn of_one_side(side: Side) -> Self {
        let mut session = Self::new(0);
        session.only = Some(side);
        session
    }

    fn with(engine: Direction, agent: Direction) -> Self {
        Self {
            engine: Half::new(engine),
            agent: Half::new(agent),
            phase: Phase::Connected,
            flights: Flights::new(),
            agreed: None,
            is_whole: true,
            only: None,
        }
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.engine.bytes() + self.agent.bytes() + self.flights.bytes()
    }

    /// Requests without an answer.
    pub(super) fn unanswered(&self) -> usize {
        self.flights.len()
    }

    /// The offset of the next byte of a side.
    pub(super) fn offset(&mut self, side: Side) -> u64 {
        self.half(side).frames.offset()
    }

    const fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Engine => &mut self.engine,
            Side::Agent => &mut self.agent,
        }
    }

    /// The next bytes of a side, in one segment.
    pub(crate) fn data(&mut self, side: Side, time: Duration, data: &[u8], out: &mut Happened) {
        self.half(side).frames.push(data);
        while let Some(found) = self.half(side).frames.next() {
            match found {
                Found::Frame { offset, frame, split } => {
                    let at = Place { direction: direction(side), offset };
                    self.frame(side, time, at, &frame, split, out);
                }
                Found::TooLong { offset, len } => {
                    let at = Place { direction: direction(side), offset };
                    let reason = format!(
                        "a frame of {len} bytes: no frame is as long, and what follows is not decoded"
                    );
                    out.push((What::Violation { at, reason }, About::default()));
                }
            }
        }
    }

    /// The next bytes are of this side, and the other one has sent no packet that was captured.
    pub(super) fn alone(&mut self, side: Side, out: &mut Happened) {
        let answered = match side {
            Side::Engine => self.phase == Phase::Greeted,
            Side::Agent => self.phase == Phase::Connected,
        };
        if answered && self.only.is_none() {
            self.only = Some(side);
            let text = "no packet of the other direction was captured: answers are not checked".to_owned();
            out.push((What::Note { at: None, text }, About::default()));
        }
    }

    /// Bytes of a side that the capture does not have.
    pub(super) fn lost(&mut self, side: Side, len: u64) {
        if self.half(side).frames.lost(len) {
            self.is_whole = false;
            self.half(side).fragments.clear();
        }
    }

    /// A side sends nothing more; `is_cut` if that is so because the capture ends.
    pub(crate) fn end(&mut self, side: Side, is_cut: bool, out: &mut Happened) {
        if mem::replace(&mut self.half(side).is_closed, true) {
            return;
        }
        let (partial, skipped) = (self.half(side).frames.partial(), self.half(side).frames.skipped());
        let offset = self.half(side).frames.offset();
        let at = Place { direction: direction(side), offset };
        if partial > 0 && is_cut {
            let text = format!("the capture ends after {partial} bytes of a frame");
            out.push((What::Note { at: Some(at), text }, About::default()));
        } else if partial > 0 {
            let reason = format!("the connection is closed after {partial} bytes of a frame");
            out.push((What::Violation { at, reason }, About::default()));
        }
        if skipped > 0 {
            let text = format!("{skipped} bytes are part of no whole frame");
            out.push((What::Note { at: Some(at), text }, About::default()));
        }
        self.half(side).frames.give_up();
        self.half(side).fragments.clear();
    }

    fn frame(
        &mut self,
        side: Side,
        time: Duration,
        at: Place,
        bytes: &Bytes,
        split: bool,
        out: &mut Happened,
    ) {
        let shown = out.len();
        out.push((What::Frame { at, frame: bytes.clone(), latency: None }, About::frame(bytes)));
        let Frame { header, payload } = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                violation(out, within(at, error.offset), About::default(), error.what);
                self.half(side).frames.give_up();
                return;
            }
        };
        let frame = Checked { side, time, at, header, payload };
        self.check_header(&frame, bytes.len(), split, out);
        if let Some(after) = self.half(side).end {
            frame.violation(out, format_args!("after {after}"));
        }
        match judge(self.phase_of(side, header), side, header.frame_type, header.flags) {
            Verdict::Hello => self.hello(&frame, out),
            Verdict::Disconnect => self.disconnect(&frame, out),
            Verdict::Illegal(illegal) => frame.violation(
                out,
                match illegal {
                    Illegal::BeforeHello => "before the HELLO of its sender",
                    Illegal::SecondHello => "a second HELLO",
                    Illegal::WrongSide => "a type that only the other side sends",
                    Illegal::Fragmented => "without FIN",
                    _ => "illegal",
                },
            ),
            Verdict::Skip => frame.note(out, "of a type that the specification does not have: it is skipped"),
            Verdict::Discard => self.discarded(&frame, out),
            verdict => {
                let (latency, about) = self.payload(verdict, &frame, out);
                if let Some((What::Frame { latency: slot, .. }, shown)) = out.get_mut(shown) {
                    *slot = latency;
                    shown.names = about;
                }
            }
        }
    }

    /// The phase in which a side sends a frame, as far as it was recorded.
    fn phase_of(&mut self, side: Side, header: Header) -> Phase {
        if self.phase == Phase::Connected && (self.only.is_some() || !self.is_whole) {
            self.phase = match header.frame_type {
                FrameType::HaproxyHello | FrameType::AgentDisconnect => Phase::Connected,
                FrameType::AgentHello => Phase::Greeted,
                _ => {
                    self.is_whole = false;
                    Phase::Established
                }
            };
        }
        if self.phase == Phase::Greeted && self.only == Some(Side::Engine) && side == Side::Engine {
            self.phase = Phase::Established;
        }
        self.phase
    }

    fn check_header(&self, frame: &Checked<'_>, len: usize, split: bool, out: &mut Happened) {
        let Header { frame_type, flags, ids } = frame.header;
        let is_control = matches!(
            frame_type,
            FrameType::HaproxyHello
                | FrameType::HaproxyDisconnect
                | FrameType::AgentHello
                | FrameType::AgentDisconnect
        );
        if is_control && ids != Ids::ZERO {
            frame.violation(out, format_args!("its ids are {ids}, not 0/0"));
        }
        if split
            && self.only.is_none()
            && matches!(frame_type, FrameType::AgentHello | FrameType::AgentDisconnect)
        {
            frame.violation(
                out,
                "it comes in more than one segment: HAProxy 3.1 and later fails the connection",
            );
        }
        if flags.0 & 3 == 2 {
            frame.violation(out, "ABORT without FIN");
        }
        if flags.0 & !3 != 0 {
            frame.note(out, format_args!("reserved flags are set: {:#x}", flags.0 & !3));
        }
        let limit = match (self.agreed, self.engine.hello, self.agent.hello) {
            (Some(agreed), ..) => Some((agreed.max_frame_size, "agreed")),
            (None, Some(hello), _) => Some((hello.max_frame_size, "offered by HAProxy")),
            (None, None, Some(hello)) => Some((hello.max_frame_size, "announced by the agent")),
            (None, None, None) => None,
        };
        if let Some((limit, whose)) = limit
            && len > limit as usize
        {
            frame.violation(out, format_args!("{len} bytes, longer than max-frame-size {limit}, as {whose}"));
        }
    }

    fn disconnect(&mut self, frame: &Checked<'_>, out: &mut Happened) {
        match Disconnect::decode(frame.payload) {
            Ok(_) => {}
            Err(DisconnectError::Malformed(error)) => frame.malformed(out, &error),
            Err(error) => frame.violation(out, error),
        }
        self.phase = Phase::Closing;
        self.half(frame.side).end = Some(match frame.side {
            Side::Engine => "its HAPROXY-DISCONNECT",
            Side::Agent => "its AGENT-DISCONNECT",
        });
    }

    /// A frame after a DISCONNECT: the receiver reads nothing but the other side's DISCONNECT.
    fn discarded(&mut self, frame: &Checked<'_>, out: &mut Happened) {
        let is_disconnect = match frame.side {
            Side::Engine => frame.header.frame_type == FrameType::HaproxyDisconnect,
            Side::Agent => frame.header.frame_type == FrameType::AgentDisconnect,
        };
        if is_disconnect {
            self.disconnect(frame, out);
        } else if frame.header.frame_type == FrameType::Ack {
            self.flights.answer(frame.header.ids, frame.time);
        }
    }
}

impl Half {
    fn new(frames: Direction) -> Self {
        Self { frames, fragments: Fragments::new(), hello: None, id: None, end: None, is_closed: false }
    }

    fn bytes(&self) -> usize {
        self.frames.bytes() + self.fragments.bytes()
    }
}

/// The place of a byte of a frame without its length prefix.
const fn within(at: Place, byte: usize) -> Place {
    Place { direction: at.direction, offset: at.offset + (PREFIX + byte) as u64 }
}

/// The direction in which a side sends.
pub(crate) const fn direction(side: Side) -> notation::Direction {
    match side {
        Side::Engine => notation::Direction::ToAgent,
        Side::Agent => notation::Direction::ToHaproxy,
    }
}

fn violation(out: &mut Happened, at: Place, about: About, reason: impl std::fmt::Display) {
    out.push((What::Violation { at, reason: reason.to_string() }, about));
}

impl Checked<'_> {
    fn violation(&self, out: &mut Happened, reason: impl std::fmt::Display) {
        let reason = format!("{}: {reason}", self.header);
        violation(out, self.at, About::header(self.header), reason);
    }

    /// The payload does not decode.
    fn malformed(&self, out: &mut Happened, error: &DecodeError) {
        let at = within(self.at, self.header.encoded_len() + error.offset);
        violation(out, at, About::header(self.header), format_args!("{}: {}", self.header, error.what));
    }

    fn note(&self, out: &mut Happened, text: impl std::fmt::Display) {
        let what = What::Note { at: Some(self.at), text: format!("{}: {text}", self.header) };
        out.push((what, About::header(self.header)));
    }
}
