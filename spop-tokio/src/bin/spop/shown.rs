//! Frames and events of connections, as lines of text or objects in JSON.

use std::time::Duration;

use serde::Serialize;
use spop_core::{frame::FrameType, notation::Direction};

use crate::{
    exit::Failure,
    frames,
    output::{Output, Paint},
    text,
    time::{Utc, millis},
};

/// Where lines and objects go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) output: Output,
    /// Characters after which lines are cut; 0 cuts none.
    cut: usize,
}

/// What a recording knows of a frame.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Recorded {
    /// The byte of its direction at which it begins.
    pub(crate) offset: u64,
    /// The time since the NOTIFY that it answers.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_millis")]
    pub(crate) latency_ms: Option<Duration>,
}

#[derive(Serialize)]
#[allow(clippy::struct_field_names)] // The name in JSON.
struct Event<D> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(flatten)]
    details: D,
}

#[derive(Serialize)]
struct FrameDetails<'a> {
    direction: &'static str,
    #[serde(rename = "type")]
    frame_type: String,
    stream: Option<u64>,
    frame: Option<u64>,
    fin: bool,
    abort: bool,
    size: usize,
    #[serde(flatten)]
    recorded: Option<Recorded>,
    text: &'a str,
}

impl Shown {
    pub(crate) const fn new(output: Output, cut: usize) -> Self {
        Self { output, cut }
    }

    /// An event, of a connection if it has a number.
    pub(crate) fn event(
        self,
        time: Option<Utc>,
        connection: Option<u64>,
        event: &'static str,
        paint: Paint,
        line: &str,
        details: impl Serialize,
    ) -> Result<(), Failure> {
        let line = format!("{}{}", prefix(time, connection), text::cut(line, self.cut));
        self.output.line(self.output.paint(paint, line))?;
        self.object(time, connection, event, details)
    }

    /// An event that has no line of its own.
    pub(crate) fn object(
        self,
        time: Option<Utc>,
        connection: Option<u64>,
        event: &'static str,
        details: impl Serialize,
    ) -> Result<(), Failure> {
        self.output.object(&Event { event, time: time.map(Utc::rfc_3339), connection, details })
    }

    /// A frame without its length prefix.
    pub(crate) fn frame(
        self,
        time: Option<Utc>,
        connection: u64,
        direction: Direction,
        frame: &[u8],
        recorded: Option<Recorded>,
    ) -> Result<(), Failure> {
        let text = frames::text(frame);
        let paint = match direction {
            Direction::ToAgent => Paint::ToAgent,
            Direction::ToHaproxy => Paint::ToHaproxy,
        };
        let header = frames::header(frame);
        let details = FrameDetails {
            direction: name(direction),
            frame_type: header.map_or_else(|| "malformed".into(), |header| type_name(header.frame_type)),
            stream: header.map(|header| header.ids.stream),
            frame: header.map(|header| header.ids.frame),
            fin: header.is_some_and(|header| header.flags.is_fin()),
            abort: header.is_some_and(|header| header.flags.is_abort()),
            size: frame.len() + 4,
            recorded,
            text: &text,
        };
        self.event(time, Some(connection), "frame", paint, &format!("{direction} {text}"), details)
    }
}

/// What a line begins with.
fn prefix(time: Option<Utc>, connection: Option<u64>) -> String {
    let time = time.map_or_else(String::new, |time| format!("{time} "));
    let connection = connection.map_or_else(String::new, |number| format!("#{number} "));
    time + &connection
}

/// The name of a direction in JSON.
pub(crate) const fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::ToAgent => "from-haproxy",
        Direction::ToHaproxy => "to-haproxy",
    }
}

/// The name of a type, as the notation has it.
pub(crate) fn type_name(frame_type: FrameType) -> String {
    match frame_type {
        FrameType::Unknown(number) => format!("TYPE:{number}"),
        known => known.to_string(),
    }
}

#[allow(clippy::ref_option)] // What serde passes.
fn as_millis<S: serde::Serializer>(latency: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    latency.map(millis).serialize(serializer)
}
