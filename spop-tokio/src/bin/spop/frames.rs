//! Frames in a stream of bytes: where one ends, and what it says.

use bytes::{Buf as _, Bytes, BytesMut};
use spop_core::{
    excerpt::Escaped,
    frame::{Frame, Header},
    notation,
};

/// The length prefix of a frame, in bytes.
const PREFIX: usize = 4;

/// A buffer that was longer is not kept, in bytes: [`Splitter::rest`] tells what is held.
const KEPT: usize = 64 << 10;

/// Splits a stream of bytes into frames. It holds at most one frame, and what was read behind it.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    /// The most bytes that this buffer has had.
    longest: usize,
    limit: u32,
}

/// What the stream has next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A frame, without its length prefix.
    Frame(Bytes),
    /// Part of a frame, or nothing: so many bytes.
    Partial(usize),
    /// A length prefix over the limit. No later frame can be found.
    TooLong(u32),
}

impl Splitter {
    /// Frames longer than `limit`, the length prefix not included, are refused.
    pub(crate) fn new(limit: u32) -> Self {
        Self { buffer: BytesMut::new(), longest: 0, limit }
    }

    /// Adds bytes. After [`Next::TooLong`] they are discarded.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.is_lost() {
            self.buffer.extend_from_slice(bytes);
            self.longest = self.longest.max(self.buffer.len());
        }
    }

    /// Removes the next frame.
    pub(crate) fn next(&mut self) -> Next {
        let Some(len) = self.announced() else { return Next::Partial(self.buffer.len()) };
        if len > self.limit {
            self.buffer.truncate(PREFIX);
            return Next::TooLong(len);
        }
        let len = len as usize;
        if self.buffer.len() < PREFIX + len {
            return Next::Partial(self.buffer.len());
        }
        self.buffer.advance(PREFIX);
        let frame = self.buffer.split_to(len).freeze();
        if self.longest > KEPT && self.buffer.len() <= KEPT {
            self.buffer = BytesMut::from(&self.buffer[..]);
            self.longest = self.buffer.len();
        }
        Next::Frame(frame)
    }

    /// The bytes that belong to no whole frame.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.buffer
    }

    fn announced(&self) -> Option<u32> {
        self.buffer.first_chunk().copied().map(u32::from_be_bytes)
    }

    fn is_lost(&self) -> bool {
        self.announced().is_some_and(|len| len > self.limit)
    }
}

/// The header of a frame without its length prefix, if it has one.
pub(crate) fn header(frame: &[u8]) -> Option<Header> {
    Frame::decode(frame).ok().map(|frame| frame.header)
}

/// A frame without its length prefix, in the notation.
pub(crate) fn text(frame: &[u8]) -> String {
    match Frame::decode(frame) {
        Ok(frame) => notation::print(frame).to_string(),
        Err(error) => format!("malformed frame of {} bytes, {error}: {}", frame.len(), Escaped(frame)),
    }
}

/// What has arrived of a frame that is not whole, for people. `None` if nothing has.
pub(crate) fn part(bytes: &[u8]) -> Option<String> {
    let Some(prefix) = bytes.first_chunk() else {
        return (!bytes.is_empty()).then(|| format!("{} of the 4 bytes of a length", bytes.len()));
    };
    let (len, came) = (u32::from_be_bytes(*prefix) as usize, bytes.len() - PREFIX);
    let hint = if len == bytes.len() {
        " (a length does not count its own 4 bytes)"
    } else if u32::from_le_bytes(*prefix) as usize == came {
        " (a length is in network byte order)"
    } else {
        ""
    };
    Some(format!("{came} of the {len} bytes of a frame{hint}"))
}

/// What is wrong with a length that no frame has, if it is plausible in the other byte order.
pub(crate) fn byte_order(len: u32) -> Option<String> {
    let swapped = len.swap_bytes();
    (swapped < len && swapped <= 1 << 20)
        .then(|| format!("in little-endian this length is {swapped}: it must be in network byte order"))
}

/// What the first bytes of a server say about it, if it is no SPOP agent.
pub(crate) fn foreign(first: &[u8]) -> Option<&'static str> {
    match first {
        // HTTP/0.9, with which some servers answer what they do not understand, has no status line.
        [b'H', b'T', b'T', b'P', ..] | [b'<', b'!' | b'h' | b'H', ..] => Some("an HTTP server"),
        [b'S', b'S', b'H', b'-', ..] => Some("an SSH server"),
        // An alert, or a handshake.
        [0x15 | 0x16, 0x03, 0..=4, ..] => Some("a TLS server: try --tls"),
        [a, b, c, d, ..]
            if [a, b, c, d].into_iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) =>
        {
            Some("a server of a text protocol")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let stream = [notation::parse_bytes("ACK fin 1 1"), notation::parse_bytes("ACK fin 2 1")];
        let stream: Vec<u8> = stream.into_iter().flat_map(Result::unwrap).chain([0, 0]).collect();
        for cut in 0..=stream.len() {
            let mut splitter = Splitter::new(100);
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                splitter.push(part);
                while let Next::Frame(frame) = splitter.next() {
                    found.push(text(&frame));
                }
            }
            assert_eq!(found, ["ACK fin 1 1", "ACK fin 2 1"], "{cut}");
            assert_eq!((splitter.next(), splitter.rest()), (Next::Partial(2), &[0, 0][..]));
        }
    }

    #[test]
    fn a_buffer_that_was_long_is_not_kept() {
        let long = 1_000_000_u32;
        let mut splitter = Splitter::new(long);
        splitter.push(&long.to_be_bytes());
        splitter.push(&vec![7; long as usize]);
        splitter.push(&[0, 0]);
        let Next::Frame(frame) = splitter.next() else { panic!() };
        assert_eq!((frame.len(), splitter.rest()), (1_000_000, &[0, 0][..]));
        drop(frame);
        splitter.buffer.reserve(10);
        assert!(splitter.buffer.capacity() < KEPT, "{}", splitter.buffer.capacity());
    }

    #[test]
    fn nothing_is_kept_behind_a_length_over_the_limit() {
        let mut splitter = Splitter::new(100);
        for _ in 0..3 {
            splitter.push(b"HTTP/1.1 400 Bad Request\r\n");
            assert_eq!(splitter.next(), Next::TooLong(0x4854_5450));
            assert_eq!(splitter.rest(), b"HTTP");
        }
    }

    #[test]
    fn what_is_wrong_with_a_length_is_told() {
        assert_eq!(part(b""), None);
        assert_eq!(part(b"\0\0").unwrap(), "2 of the 4 bytes of a length");
        assert_eq!(part(b"\0\0\0\x09abc").unwrap(), "3 of the 9 bytes of a frame");
        assert_eq!(
            part(b"\0\0\0\x07abc").unwrap(),
            "3 of the 7 bytes of a frame (a length does not count its own 4 bytes)"
        );
        assert_eq!(
            part(&[&[0, 1, 0, 0][..], &[7; 256]].concat()).unwrap(),
            "256 of the 65536 bytes of a frame (a length is in network byte order)"
        );
        let text = "in little-endian this length is 71: it must be in network byte order";
        assert_eq!(byte_order(71 << 24).as_deref(), Some(text));
        for len in [0, 71, u32::MAX, u32::from_be_bytes(*b"HTTP")] {
            assert_eq!(byte_order(len), None);
        }
    }

    #[test]
    fn servers_of_other_protocols_are_known() {
        assert_eq!(foreign(b"HTTP/1.1"), Some("an HTTP server"));
        assert_eq!(foreign(b"<!DOCTYPE HTML>"), Some("an HTTP server"));
        assert_eq!(foreign(b"220 smtp"), Some("a server of a text protocol"));
        assert_eq!(foreign(b"\x15\x03\x03\x00\x02"), Some("a TLS server: try --tls"));
        assert_eq!(foreign(b"\0\0\0\x50e"), None);
        assert_eq!(foreign(b"a"), None);
    }

    #[test]
    fn a_frame_without_a_header_is_shown_as_its_bytes() {
        assert_eq!(
            text(b"\x67\0"),
            "malformed frame of 2 bytes, at byte 0: the data ends in the middle of a frame header: g\\x00"
        );
        assert_eq!(header(b"\x67\0"), None);
    }
}
