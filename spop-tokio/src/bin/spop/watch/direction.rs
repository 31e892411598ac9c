//! The frames of one direction.

use std::mem;

use bytes::Bytes;
use spop_core::{
    frame::{FrameType, HEADER_MAX},
    link::Side,
};

use crate::frames::{Next, Splitter};

/// The longest frame: as long as the longest that the commands accept.
const FRAME_MAX: u32 = 1 << 20;

/// The shortest frame: type, flags and two identifiers.
const FRAME_MIN: u32 = 7;

/// The length prefix.
const PREFIX: u64 = 4;

/// Finds frames, also behind bytes that are missing.
#[derive(Debug)]
pub(super) struct Direction {
    side: Side,
    splitter: Splitter,
    state: State,
    /// The offset of the next byte.
    offset: u64,
    /// Bytes that belong to no frame that was found.
    skipped: u64,
    /// The next frame began in an earlier segment than the latest.
    is_split: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A frame begins where the last one has ended.
    Framed,
    /// So many bytes of a frame, or of what precedes the first, are skipped.
    Skip(u64),
    /// The next frame begins with some segment.
    Seeking,
    /// No frame is found any more.
    Lost,
}

/// What was found in a direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Frame {
        offset: u64,
        /// Without its length prefix.
        frame: Bytes,
        /// It began in an earlier segment than it ended.
        split: bool,
    },
    /// A length that no frame has.
    TooLong { offset: u64, len: u32 },
}

impl Direction {
    /// What `side` sends, after so many bytes that are no frames.
    pub(super) fn new(side: Side, prefix: u64) -> Self {
        let state = if prefix > 0 { State::Skip(prefix) } else { State::Framed };
        Self::with(side, state)
    }

    /// What `side` sends from some place on.
    pub(super) fn from_the_middle(side: Side) -> Self {
        Self::with(side, State::Seeking)
    }

    fn with(side: Side, state: State) -> Self {
        Self { side, splitter: Splitter::new(FRAME_MAX), state, offset: 0, skipped: 0, is_split: false }
    }

    /// The offset of the next byte.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.splitter.rest().len()
    }

    /// Bytes of a frame whose rest has not come.
    pub(super) fn partial(&self) -> usize {
        if self.state == State::Framed { self.bytes() } else { 0 }
    }

    /// Adds the next bytes, of one segment.
    pub(super) fn push(&mut self, mut data: &[u8]) {
        self.offset += data.len() as u64;
        if let State::Skip(left) = self.state {
            let skip = left.min(data.len() as u64);
            data = data.get(skip as usize..).unwrap_or_default();
            self.state = if left == skip { State::Framed } else { State::Skip(left - skip) };
        }
        if self.state == State::Seeking && is_begin(self.side, data) {
            self.state = State::Framed;
        }
        if self.state == State::Framed {
            self.is_split = self.bytes() > 0;
            self.splitter.push(data);
        } else {
            self.skipped += data.len() as u64;
        }
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Option<Found> {
        if self.state != State::Framed {
            return None;
        }
        let offset = self.offset - self.bytes() as u64;
        match self.splitter.next() {
            Next::Frame(frame) => {
                let split = mem::replace(&mut self.is_split, false);
                Some(Found::Frame { offset, frame, split })
            }
            Next::TooLong(len) => {
                self.splitter = Splitter::new(FRAME_MAX);
                self.skipped += self.offset - offset;
                self.state = State::Lost;
                Some(Found::TooLong { offset, len })
            }
            Next::Partial(_) => None,
        }
    }

    /// So many bytes are missing. True if frames may be among them.
    pub(super) fn lost(&mut self, len: u64) -> bool {
        self.offset += len;
        match self.state {
            State::Skip(left) if left >= len => {
                self.state = if left == len { State::Framed } else { State::Skip(left - len) };
                return false;
            }
            State::Lost => return false,
            State::Skip(_) | State::Seeking => {
                self.state = State::Seeking;
                return true;
            }
            State::Framed => {}
        }
        let rest = self.splitter.rest();
        let whole = rest.first_chunk().map(|len| PREFIX + u64::from(u32::from_be_bytes(*len)));
        let have = rest.len() as u64;
        self.skipped += have;
        self.splitter = Splitter::new(FRAME_MAX);
        self.state = match whole {
            Some(whole) if have + len == whole => State::Framed,
            Some(whole) if have + len < whole => State::Skip(whole - have - len),
            _ => State::Seeking,
        };
        true
    }

    /// No frame is looked for any more.
    pub(super) fn give_up(&mut self) {
        self.skipped += self.bytes() as u64;
        self.splitter = Splitter::new(FRAME_MAX);
        self.state = State::Lost;
    }
}

/// Whether a frame of this side may begin with these bytes.
pub(super) fn is_begin(side: Side, data: &[u8]) -> bool {
    frame_type(data).is_some_and(|frame_type| match frame_type {
        FrameType::HaproxyHello | FrameType::HaproxyDisconnect | FrameType::Notify => side == Side::Engine,
        FrameType::AgentHello | FrameType::AgentDisconnect | FrameType::Ack => side == Side::Agent,
        FrameType::Unset => true,
        FrameType::Unknown(_) => false,
    })
}

/// The type of the frame that may begin with these bytes.
pub(crate) fn frame_type(data: &[u8]) -> Option<FrameType> {
    let (len, rest) = data.split_first_chunk()?;
    let [frame_type, 0, 0, 0, 0..=3, ..] = *rest else { return None };
    (FRAME_MIN..=FRAME_MAX).contains(&u32::from_be_bytes(*len)).then(|| FrameType::from_byte(frame_type))
}

/// Bytes that are enough to know the type of a frame.
pub(crate) const BEGIN: usize = 9;

const _: () = assert!(BEGIN < HEADER_MAX + 4);

#[cfg(test)]
mod tests {
    use spop_core::notation;

    use super::*;

    fn push(direction: &mut Direction, data: &[u8], found: &mut Vec<Found>) {
        direction.push(data);
        found.extend(std::iter::from_fn(|| direction.next()));
    }

    fn stream() -> Vec<u8> {
        ["ACK fin 1 1 set txn a=string:xxxxxxxx", "ACK fin 2 1", "ACK fin 3 1"]
            .iter()
            .flat_map(|line| notation::parse_bytes(line).unwrap())
            .collect()
    }

    fn ids(found: &[Found]) -> Vec<u64> {
        let stream = |found: &Found| match found {
            Found::Frame { frame, .. } => crate::frames::header(frame).unwrap().ids.stream,
            Found::TooLong { .. } => 0,
        };
        found.iter().map(stream).collect()
    }

    #[test]
    fn frames_are_found_behind_what_is_missing() {
        let bytes = stream();
        let second = bytes.len() - 22;
        // Within the first frame; up to its end; beyond it, with the next one at the begin of a segment.
        for (from, to, expected) in
            [(10, 14, &[2, 3][..]), (10, second, &[2, 3]), (10, second + 11, &[3]), (2, second, &[2, 3])]
        {
            let (mut direction, mut found) = (Direction::new(Side::Agent, 0), Vec::new());
            push(&mut direction, &bytes[..from], &mut found);
            assert!(direction.lost((to - from) as u64));
            push(&mut direction, &bytes[to..], &mut found);
            assert_eq!(ids(&found), expected, "{from} {to}");
            let Found::Frame { offset, .. } = &found[0] else { panic!() };
            assert_eq!(*offset, if expected[0] == 2 { second as u64 } else { second as u64 + 11 });
        }
    }

    #[test]
    fn frames_are_sought_behind_a_gap_that_ends_within_one() {
        let bytes = stream();
        let third = bytes.len() - 11;
        let (mut direction, mut found) = (Direction::new(Side::Agent, 0), Vec::new());
        push(&mut direction, &bytes[..10], &mut found);
        assert!(direction.lost((third - 7 - 10) as u64));
        push(&mut direction, &bytes[third - 7..third], &mut found);
        push(&mut direction, &bytes[third..], &mut found);
        assert_eq!((ids(&found), direction.skipped()), (vec![3], 10 + 7));
    }

    #[test]
    fn a_frame_in_two_segments_is_split() {
        let (bytes, mut found) = (stream(), Vec::new());
        let mut direction = Direction::new(Side::Agent, 3);
        push(&mut direction, b"xyz", &mut found);
        push(&mut direction, &bytes[..9], &mut found);
        push(&mut direction, &bytes[9..], &mut found);
        let split: Vec<_> =
            found.iter().map(|found| matches!(found, Found::Frame { split: true, .. })).collect();
        assert_eq!(split, [true, false, false]);
        assert!(matches!(found[0], Found::Frame { offset: 3, .. }));
    }

    #[test]
    fn nothing_is_sought_behind_a_length_that_no_frame_has() {
        let (mut direction, mut found) = (Direction::new(Side::Agent, 0), Vec::new());
        push(&mut direction, b"HTTP/1.1 200 OK\r\n", &mut found);
        push(&mut direction, &stream(), &mut found);
        assert_eq!(found, [Found::TooLong { offset: 0, len: 0x4854_5450 }]);
        assert_eq!((direction.bytes(), direction.skipped()), (0, 17 + stream().len() as u64));
    }

    #[test]
    fn the_middle_of_a_stream_begins_with_a_segment() {
        let (mut direction, mut found) = (Direction::from_the_middle(Side::Agent), Vec::new());
        push(&mut direction, b"rest of a frame", &mut found);
        push(&mut direction, &stream(), &mut found);
        assert_eq!(ids(&found), [1, 2, 3]);
    }
}
