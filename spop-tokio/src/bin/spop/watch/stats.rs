//! `--stats`: frames, messages, sizes and latencies.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;
use spop_core::{excerpt::Escaped, frame::FrameType, notation::Direction};

use super::event::{Event, What};
use crate::{
    exit::Failure,
    output::{Output, Table},
    shown::{name, type_name},
    time::millis,
};

/// Names of messages that are counted by themselves.
const MESSAGES: usize = 256;

/// The longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Counts of what was shown.
#[derive(Debug)]
pub(super) struct Stats {
    frames: BTreeMap<(&'static str, u8), Sizes>,
    messages: BTreeMap<Box<[u8]>, Message>,
    all: Message,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    count: u64,
    bytes: u64,
    max: u64,
}

#[derive(Debug)]
struct Message {
    notifies: u64,
    answered: u64,
    /// In microseconds.
    latencies: Histogram<u64>,
    longest: u64,
}

/// Requests and their answers.
#[derive(Debug, Serialize)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) latency_ms: LatencyObject,
}

#[derive(Serialize)]
pub(super) struct StatsObject {
    frames: Vec<FrameObject>,
    messages: Vec<MessageObject>,
    latency_ms: LatencyObject,
}

#[derive(Serialize)]
struct FrameObject {
    direction: &'static str,
    #[serde(rename = "type")]
    frame_type: String,
    count: u64,
    bytes: u64,
    mean: u64,
    max: u64,
}

#[derive(Serialize)]
struct MessageObject {
    name: String,
    notifies: u64,
    answered: u64,
    latency_ms: LatencyObject,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct LatencyObject {
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self { frames: BTreeMap::new(), messages: BTreeMap::new(), all: Message::new() }
    }

    pub(super) fn add(&mut self, event: &Event) {
        match &event.what {
            What::Frame { at, frame, latency } => {
                let frame_type = event.about.frame_type.map_or(u8::MAX, FrameType::byte);
                self.frames.entry((name(at.direction), frame_type)).or_default().add(frame.len() as u64 + 4);
                let is_request = at.direction == Direction::ToAgent
                    && event.about.frame_type == Some(FrameType::Notify)
                    && !event.about.names.is_empty();
                if is_request {
                    self.each(event, |message| message.notifies += 1);
                }
                if let Some(latency) = *latency {
                    self.each(event, |message| message.answered(latency));
                }
            }
            What::Joined { at, .. } if at.direction == Direction::ToAgent => {
                self.each(event, |message| message.notifies += 1);
            }
            _ => {}
        }
    }

    fn each(&mut self, event: &Event, count: impl Fn(&mut Message)) {
        count(&mut self.all);
        for (index, name) in event.about.names.iter().enumerate() {
            let repeated = event.about.names.iter().take(index).any(|other| other == name);
            if repeated {
                continue;
            }
            let known = self.messages.len() < MESSAGES || self.messages.contains_key(name);
            let name = if known { name.clone() } else { Box::from(&b"(other messages)"[..]) };
            count(self.messages.entry(name).or_insert_with(Message::new));
        }
    }

    /// Prints tables.
    pub(super) fn show(&self, output: Output) -> Result<(), Failure> {
        let StatsObject { frames, messages, latency_ms } = self.object();
        let mut table = Table::new(["frames", "direction", "count", "bytes", "mean", "max"]);
        for frame in frames {
            let sizes = [frame.count, frame.bytes, frame.mean, frame.max];
            let [count, bytes, mean, max] = sizes.map(|value| value.to_string());
            table.row(None, [frame.frame_type, frame.direction.to_owned(), count, bytes, mean, max]);
        }
        output.table("", &table)?;
        output.line("")?;
        let mut table =
            Table::new(["message", "NOTIFYs", "answered", "p50 ms", "p90 ms", "p99 ms", "max ms"]);
        let all = MessageObject {
            name: "all".to_owned(),
            notifies: self.all.notifies,
            answered: self.all.answered,
            latency_ms,
        };
        for message in messages.into_iter().chain([all]) {
            let LatencyObject { p50, p90, p99, max } = message.latency_ms;
            let [p50, p90, p99, max] =
                [p50, p90, p99, max].map(|ms| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}")));
            let counts = [message.notifies.to_string(), message.answered.to_string()];
            let [notifies, answered] = counts;
            table.row(None, [message.name, notifies, answered, p50, p90, p99, max]);
        }
        output.table("", &table)?;
        output.line("")
    }

    pub(super) fn totals(&self) -> Totals {
        let Message { notifies, answered, .. } = self.all;
        Totals { requests: notifies, answered, latency_ms: self.all.latency() }
    }

    /// As an object.
    pub(super) fn object(&self) -> StatsObject {
        let frames = self.frames.iter().map(|((direction, frame_type), sizes)| FrameObject {
            direction,
            frame_type: type_name(FrameType::from_byte(*frame_type)),
            count: sizes.count,
            bytes: sizes.bytes,
            mean: sizes.bytes / sizes.count.max(1),
            max: sizes.max,
        });
        let messages = self.messages.iter().map(|(name, message)| MessageObject {
            name: Escaped(name).to_string(),
            notifies: message.notifies,
            answered: message.answered,
            latency_ms: message.latency(),
        });
        StatsObject { frames: frames.collect(), messages: messages.collect(), latency_ms: self.all.latency() }
    }
}

impl Sizes {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        self.max = self.max.max(bytes);
    }
}

impl Message {
    fn new() -> Self {
        let longest = LONGEST.as_micros() as u64;
        let latencies = Histogram::new_with_bounds(1, longest, 2)
            .unwrap_or_else(|_| unreachable!("the bounds are constant"));
        Self { notifies: 0, answered: 0, latencies, longest: 0 }
    }

    fn answered(&mut self, latency: Duration) {
        self.answered += 1;
        let micros = latency.as_micros().min(LONGEST.as_micros()) as u64;
        self.longest = self.longest.max(micros);
        self.latencies.saturating_record(micros);
    }

    fn latency(&self) -> LatencyObject {
        let of = |quantile| {
            // That of a bucket may be above the longest.
            let micros = self.latencies.value_at_quantile(quantile).min(self.longest);
            (!self.latencies.is_empty()).then(|| millis(Duration::from_micros(micros)))
        };
        LatencyObject { p50: of(0.5), p90: of(0.9), p99: of(0.99), max: of(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::watch::event::{About, Place};

    fn frame(direction: Direction, frame_type: FrameType, name: &str, latency: Option<Duration>) -> Event {
        let at = Place { direction, offset: 0 };
        Event {
            connection: 1,
            time: Duration::ZERO,
            what: What::Frame { at, frame: Bytes::from_static(&[0; 6]), latency },
            about: About {
                frame_type: Some(frame_type),
                ids: None,
                names: [name, name].map(|name| name.as_bytes().into()).into(),
            },
        }
    }

    #[test]
    fn messages_and_latencies_are_counted() {
        let mut stats = Stats::new();
        for index in 0..1_000 {
            stats.add(&frame(Direction::ToAgent, FrameType::Notify, "a", None));
            let latency = Duration::from_millis(if index % 10 == 0 { 20 } else { 2 });
            stats.add(&frame(Direction::ToHaproxy, FrameType::Ack, "a", Some(latency)));
        }
        let object = stats.object();
        let message = &object.messages[0];
        assert_eq!((object.messages.len(), message.notifies, message.answered), (1, 1_000, 1_000));
        for (found, expected) in [(message.latency_ms.p50, 2.0), (object.latency_ms.p99, 20.0)] {
            assert!((found.unwrap() / expected - 1.0).abs() < 0.01, "{found:?}");
        }
        assert_eq!((object.frames[0].count, object.frames[0].bytes), (1_000, 10_000));
    }

    #[test]
    fn names_are_limited() {
        let mut stats = Stats::new();
        for number in 0..1_000 {
            stats.add(&frame(Direction::ToAgent, FrameType::Notify, &number.to_string(), None));
        }
        assert_eq!(stats.object().messages.len(), MESSAGES + 1);
    }
}
