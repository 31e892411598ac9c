//! Faults that are injected into what passes: what they are, and which frames they strike.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::BytesMut;
use fastrand::Rng;
use spop_core::{
    frame::{FrameType, HEADER_MAX, Header},
    notation::Direction,
};

use crate::{
    frames, time,
    watch::{frame_type_by_name, proxy_header},
};

/// The length prefix of a frame, in bytes.
const PREFIX: usize = 4;

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It passes so much later, and what is behind it as well.
    Delay(Duration),
    /// It does not pass.
    Drop,
    /// The connection ends after so many bytes of it.
    End { byte: u64, reset: bool },
}

/// A fault, and which frames it strikes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    action: Action,
    to: Direction,
    /// Any type if there is none.
    types: Vec<FrameType>,
    /// Frames of a connection that pass before.
    after: u64,
    /// Each so many-th one.
    every: u64,
    /// This share of them, at random; 1 is all.
    share: f64,
    /// So often at most, on all connections together.
    times: u64,
}

/// Parses `--delay`.
pub(super) fn delay(text: &str) -> Result<Fault, String> {
    let (delay, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    Fault::parse(Action::Delay(time::duration(delay)?), rest)
}

/// Parses `--drop`.
pub(super) fn drop(text: &str) -> Result<Fault, String> {
    Fault::parse(Action::Drop, text)
}

/// Parses `--close`.
pub(super) fn close(text: &str) -> Result<Fault, String> {
    Fault::parse(Action::End { byte: 0, reset: false }, text)
}

/// Parses `--reset`.
pub(super) fn reset(text: &str) -> Result<Fault, String> {
    Fault::parse(Action::End { byte: 0, reset: true }, text)
}

impl Fault {
    fn parse(action: Action, text: &str) -> Result<Self, String> {
        let to = Direction::ToHaproxy;
        let mut fault =
            Self { action, to, types: Vec::new(), after: 0, every: 1, share: 1.0, times: u64::MAX };
        for term in text.split_whitespace() {
            let (key, value) = term.split_once('=').ok_or_else(|| expected(term))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{value:?} is no number: {term}"));
            let positive = || match number()? {
                0 => Err(format!("{key} must not be 0")),
                number => Ok(number),
            };
            match (key, &mut fault.action) {
                ("to", _) => {
                    fault.to = match value {
                        "haproxy" => Direction::ToHaproxy,
                        "agent" => Direction::ToAgent,
                        _ => return Err(format!("expected to=haproxy or to=agent, found {term}")),
                    }
                }
                ("type", _) => {
                    for name in value.split(',') {
                        fault.types.push(frame_type_by_name(name)?);
                    }
                }
                ("after", _) => fault.after = number()?,
                ("every", _) => fault.every = positive()?,
                ("share", _) => fault.share = share(value)?,
                ("times", _) => fault.times = positive()?,
                ("byte", Action::End { byte, .. }) => *byte = number()?,
                _ => return Err(expected(term)),
            }
        }
        Ok(fault)
    }

    /// Whether chance decides.
    pub(super) fn is_random(&self) -> bool {
        self.share < 1.0
    }
}

fn expected(found: &str) -> String {
    format!(
        "expected to, type, after, every, share or times, and for --close and --reset byte; found {found:?}"
    )
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let share = percent.map(|percent| percent / 100.0);
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("expected a share from 0% to 100%, such as 2.5%, found {text:?}"))
}

/// The faults of all connections.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// Each with the number of frames that it may still strike.
    faults: Arc<[(Fault, AtomicU64)]>,
    seed: u64,
}

impl Faults {
    pub(super) fn new(faults: Vec<Fault>, seed: u64) -> Self {
        let left = |fault: Fault| {
            let times = fault.times;
            (fault, AtomicU64::new(times))
        };
        Self { faults: faults.into_iter().map(left).collect(), seed }
    }

    /// Those of one direction of a connection. What is random depends on the seed, the number and the direction alone.
    pub(super) fn of(&self, connection: u64, to: Direction) -> Injector {
        let indices = self.faults.iter().enumerate().filter(|(_, (fault, _))| fault.to == to);
        let armed: Vec<_> = indices.map(|(index, _)| Armed { index, seen: 0 }).collect();
        let stream = connection.wrapping_mul(2).wrapping_add(u64::from(to == Direction::ToAgent));
        Injector {
            faults: Arc::clone(&self.faults),
            armed,
            random: Rng::with_seed(
                Rng::with_seed(self.seed).u64(..) ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ),
            is_opening: to == Direction::ToAgent,
            head: Vec::new(),
            size: 0,
            left: 0,
            fate: Fate::Pass(Duration::ZERO),
            is_over: false,
        }
    }
}

/// The faults of one direction of a connection, frame by frame. It holds the header of a frame at most, or a PROXY header.
#[derive(Debug)]
pub(super) struct Injector {
    faults: Arc<[(Fault, AtomicU64)]>,
    armed: Vec<Armed>,
    random: Rng,
    /// What HAProxy sends may still begin with a PROXY header, which is no frame.
    is_opening: bool,
    /// The begin of a frame, or of a connection, whose header has not come as a whole.
    head: Vec<u8>,
    /// The frame, in bytes.
    size: u64,
    /// Bytes of the frame that have not come.
    left: u64,
    fate: Fate,
    /// The connection was ended.
    is_over: bool,
}

#[derive(Debug)]
struct Armed {
    index: usize,
    /// Frames of its types.
    seen: u64,
}

/// What happens to the bytes of the frame that come.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Pass(Duration),
    Drop,
    /// So many more pass.
    End {
        left: u64,
        reset: bool,
    },
}

/// What passes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes, so much later than they came.
    Bytes(BytesMut, Duration),
    /// The end of the connection.
    End { reset: bool },
}

/// A fault that has struck a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Struck {
    pub(super) action: Action,
    /// None if the frame has no header that can be read.
    pub(super) header: Option<Header>,
    /// The frame with its length prefix, in bytes.
    size: u64,
}

impl Injector {
    /// Whether everything passes as it comes.
    pub(super) fn is_idle(&self) -> bool {
        self.armed.is_empty()
    }

    /// The next bytes.
    pub(super) fn push(&mut self, data: &[u8], parts: &mut Vec<Part>, struck: &mut Vec<Struck>) {
        if self.is_idle() {
            parts.push(Part::Bytes(data.into(), Duration::ZERO));
            return;
        }
        if !self.is_opening {
            return self.frames(data, parts, struck);
        }
        self.head.extend_from_slice(data);
        if let Some(len) = proxy_header(&self.head) {
            self.is_opening = false;
            // It passes as the body of a frame that no fault has struck.
            self.left = len as u64;
            let first = std::mem::take(&mut self.head);
            self.frames(&first, parts, struck);
        }
    }

    fn frames(&mut self, mut data: &[u8], parts: &mut Vec<Part>, struck: &mut Vec<Struck>) {
        while !data.is_empty() && !self.is_over {
            if self.left > 0 {
                let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                let (body, rest) = data.split_at(len);
                self.left -= len as u64;
                self.emit(body, parts);
                data = rest;
                continue;
            }
            let len = (self.needed() - self.head.len()).min(data.len());
            let (head, rest) = data.split_at(len);
            self.head.extend_from_slice(head);
            data = rest;
            if self.head.len() < self.needed() {
                continue;
            }
            let head = std::mem::take(&mut self.head);
            self.size = PREFIX as u64 + announced(&head);
            self.left = self.size - head.len() as u64;
            self.decide(head.get(PREFIX..).unwrap_or_default(), struck);
            self.emit(&head, parts);
        }
    }

    /// Nothing more comes: what is held passes.
    pub(super) fn finish(&mut self, parts: &mut Vec<Part>) {
        let head = std::mem::take(&mut self.head);
        if !head.is_empty() && !self.is_over {
            parts.push(Part::Bytes(head[..].into(), Duration::ZERO));
        }
    }

    /// Bytes of a frame that decide about it.
    fn needed(&self) -> usize {
        if self.head.len() < PREFIX {
            PREFIX
        } else {
            PREFIX + announced(&self.head).min(HEADER_MAX as u64) as usize
        }
    }

    fn decide(&mut self, head: &[u8], struck: &mut Vec<Struck>) {
        let header = frames::header(head);
        let mut fate = Fate::Pass(Duration::ZERO);
        for armed in &mut self.armed {
            let Some((fault, left)) = self.faults.get(armed.index) else { continue };
            if !fault.types.is_empty()
                && header.is_none_or(|header| !fault.types.contains(&header.frame_type))
            {
                continue;
            }
            armed.seen += 1;
            let number = armed.seen.saturating_sub(fault.after);
            let is_hit = number > 0
                && number % fault.every == 0
                && (!fault.is_random() || self.random.f64() < fault.share);
            let Fate::Pass(delay) = fate else { continue };
            let take = |left: u64| left.checked_sub(1);
            if !is_hit || left.fetch_update(Relaxed, Relaxed, take).is_err() {
                continue;
            }
            fate = match fault.action {
                Action::Delay(more) => Fate::Pass(delay.saturating_add(more)),
                Action::Drop => Fate::Drop,
                Action::End { byte, reset } => Fate::End { left: byte.min(self.size), reset },
            };
            struck.push(Struck { action: fault.action, header, size: self.size });
        }
        self.fate = fate;
    }

    fn emit(&mut self, bytes: &[u8], parts: &mut Vec<Part>) {
        match &mut self.fate {
            Fate::Pass(delay) => append(parts, bytes, *delay),
            Fate::Drop => {}
            Fate::End { left, reset } => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                append(parts, bytes.get(..len).unwrap_or_default(), Duration::ZERO);
                *left -= len as u64;
                if *left == 0 {
                    parts.push(Part::End { reset: *reset });
                    self.is_over = true;
                }
            }
        }
    }
}

/// Bytes with the same delay stay together: HAProxy 3.1 and later wants an AGENT-HELLO in one segment.
fn append(parts: &mut Vec<Part>, bytes: &[u8], delay: Duration) {
    match parts.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Part::Bytes(last, of_last)) if *of_last == delay => last.extend_from_slice(bytes),
        _ => parts.push(Part::Bytes(bytes.into(), delay)),
    }
}

/// The length in a length prefix.
fn announced(head: &[u8]) -> u64 {
    head.first_chunk().map_or(0, |prefix| u32::from_be_bytes(*prefix).into())
}

impl Struck {
    /// The name in JSON.
    pub(super) const fn name(&self) -> &'static str {
        match self.action {
            Action::Delay(_) => "delay",
            Action::Drop => "drop",
            Action::End { reset: false, .. } => "close",
            Action::End { reset: true, .. } => "reset",
        }
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.header {
            Some(header) => write!(f, "{header}")?,
            None => f.write_str("a frame without a header")?,
        }
        let size = self.size;
        match self.action {
            Action::Delay(delay) => write!(f, ", {size} bytes: delayed by {delay:?}"),
            Action::Drop => write!(f, ", {size} bytes: dropped"),
            Action::End { byte, reset } => {
                let how = if reset { "reset" } else { "closed" };
                write!(f, ": the connection is {how} after {} of {size} bytes", byte.min(size))
            }
        }
    }
}
