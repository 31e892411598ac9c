//! The memory that input is read into, and what is left of it.

use std::io;

/// The size of a buffer, and so of the longest read.
const SIZE: usize = 64 * 1024;

/// A read has space for this much at least.
const SPACE: usize = 16 * 1024;

/// A leftover that is no longer than this gives back the memory of a longer one.
const SMALL: usize = 4 * 1024;

/// The buffer that all connections of a thread read into, one after the other.
///
/// Frames are processed in place. The beginning of a frame that has not arrived whole is copied to a buffer of its connection
/// (a [`Leftover`]); a connection whose frames were all whole holds no memory for input. 64 KiB, allocated by the first read.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    /// Empty before the first read, and then of constant length: it is zeroed once.
    bytes: Vec<u8>,
}

/// Received bytes that a reactor has not used: the beginning of a frame, or frames that wait for a limit. Empty as a rule, and
/// without memory then.
#[derive(Debug, Default)]
pub struct Leftover(Option<Box<Kept>>);

/// Boxed: each connection has a leftover, and few have one that is not empty.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    /// How many of them were used.
    used: usize,
}

/// Where the input is after a read: the leftover, followed by what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The first so many bytes of the buffer. The leftover is empty.
    InBuffer(usize),
    /// The leftover.
    InLeftover,
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    /// How many bytes; none at the end of the input.
    pub(crate) bytes: usize,
    /// Whether there was space for more.
    pub(crate) short: bool,
    pub(crate) input: Input,
}

impl ReadBuffer {
    /// A buffer that allocates its memory when it is first read into.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads once, and joins the leftover and what was read.
    #[inline]
    pub(crate) fn read(
        &mut self,
        leftover: &mut Leftover,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Got> {
        if self.bytes.is_empty() {
            self.bytes.resize(SIZE, 0);
        }
        let kept = leftover.unused().len();
        let start = if kept <= SIZE - SPACE { kept } else { 0 };
        let space = self.bytes.get_mut(start..).unwrap_or_default();
        let bytes = uninterrupted(space, &mut read)?;
        let short = bytes < space.len();
        let received = self.bytes.get_mut(..start + bytes).unwrap_or_default();
        let input = match leftover.join(received, start) {
            Some(input) => Input::InBuffer(input.len()),
            None => Input::InLeftover,
        };
        Ok(Got { bytes, short, input })
    }

    /// The first `len` bytes, which were read.
    #[inline]
    pub(crate) fn front(&self, len: usize) -> &[u8] {
        self.bytes.get(..len).unwrap_or_default()
    }
}

impl Leftover {
    /// The bytes that were not used.
    #[inline]
    pub fn unused(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], Kept::unused)
    }

    /// So many more bytes of it were used.
    pub fn consume(&mut self, bytes: usize) {
        let Some(kept) = &mut self.0 else { return };
        kept.used += bytes;
        if kept.used >= kept.bytes.len() {
            kept.clear();
        }
    }

    /// Appends bytes. What was used is removed when that is the greater part: each byte is moved a constant number of times.
    pub fn append(&mut self, bytes: &[u8]) {
        let kept = self.0.get_or_insert_with(|| Box::new(Kept { bytes: Vec::new(), used: 0 }));
        if kept.used >= kept.bytes.len() - kept.used {
            kept.bytes.drain(..kept.used);
            kept.used = 0;
        }
        // Long ones grow by a quarter: what is counted is their length.
        if kept.bytes.capacity() - kept.bytes.len() < bytes.len() {
            kept.bytes.reserve_exact(bytes.len().max(kept.bytes.len() / 4));
        }
        kept.bytes.extend_from_slice(bytes);
    }

    /// Joins the leftover and what follows it: `buffer` behind its `headroom`. The shorter of the two is copied: the leftover to
    /// the headroom, or, when a long frame arrives in small pieces, the piece behind the leftover. `None` if the leftover is
    /// the input then.
    #[inline]
    pub(crate) fn join<'b>(&mut self, buffer: &'b mut [u8], headroom: usize) -> Option<&'b [u8]> {
        let (kept, headroom) = (self.unused().len(), headroom.min(buffer.len()));
        if kept > headroom.min(buffer.len() - headroom) {
            self.append(buffer.get(headroom..).unwrap_or_default());
            return None;
        }
        let input = buffer.get_mut(headroom - kept..)?;
        input.split_at_mut(kept).0.copy_from_slice(self.unused());
        self.clear();
        Some(input)
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |kept| kept.bytes.capacity())
    }

    #[inline]
    fn clear(&mut self) {
        if let Some(kept) = &mut self.0 {
            kept.clear();
        }
    }

    /// Gives back memory that it does not need, at the end of a turn.
    #[inline]
    pub fn trim(&mut self) {
        if self.0.is_some() {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        let Some(kept) = &mut self.0 else { return };
        let unused = kept.unused();
        if unused.is_empty() {
            self.0 = None;
        } else if (unused.len() <= SMALL || unused.len() <= kept.used)
            && kept.bytes.capacity() > 2 * unused.len().max(SMALL)
        {
            // A long leftover is copied only if as much was used before it.
            **kept = Kept { bytes: unused.to_vec(), used: 0 };
        }
    }
}

impl Kept {
    #[inline]
    fn unused(&self) -> &[u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    /// All bytes were used. What comes next in the same turn may be short, and would be kept in the memory of a long frame.
    fn clear(&mut self) {
        if self.bytes.capacity() > SIZE {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.used = 0;
    }
}

impl From<Vec<u8>> for Leftover {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Some(Box::new(Kept { bytes, used: 0 })))
    }
}

#[inline]
fn uninterrupted(
    space: &mut [u8],
    read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match read(space) {
            // A stream may claim what it likes.
            Ok(bytes) => return Ok(bytes.min(space.len())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Reads once, uses all of the input but `leave` bytes at most, and returns what was used.
    fn step(buffer: &mut ReadBuffer, stream: &mut impl Read, rest: &mut Leftover, leave: usize) -> Vec<u8> {
        let got = buffer.read(rest, |space| stream.read(space)).unwrap();
        if let Input::InBuffer(len) = got.input {
            assert!(rest.unused().is_empty());
            let input = buffer.front(len);
            let (used, left) = input.split_at(len.saturating_sub(leave));
            rest.append(left);
            used.to_vec()
        } else {
            let used = rest.unused().len().saturating_sub(leave);
            let bytes = rest.unused()[..used].to_vec();
            rest.consume(used);
            bytes
        }
    }

    #[test]
    fn leftovers_and_what_follows_them_are_one_piece() {
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
        for piece in [1_000, 20_000, usize::MAX] {
            let mut stream = &bytes[..];
            let (mut buffer, mut rest) = (ReadBuffer::new(), Leftover::default());
            let mut taken = Vec::new();
            for leave in
                [0, 1, 4_096, 20_000, 100, SIZE - SPACE, SIZE - SPACE + 1, 300_000, 0].into_iter().cycle()
            {
                let (next, later) = stream.split_at(piece.min(stream.len()));
                let mut next = next;
                let before = next.len();
                taken.extend(step(&mut buffer, &mut next, &mut rest, leave));
                stream = &bytes[bytes.len() - later.len() - next.len()..];
                rest.trim();
                if before == 0 {
                    break;
                }
            }
            taken.extend_from_slice(rest.unused());
            assert!(taken == bytes, "{piece}");
        }
    }

    #[test]
    fn a_long_frame_in_small_pieces_stays_where_it_is() {
        let (mut buffer, mut rest) = (ReadBuffer::new(), Leftover::default());
        let mut moved = 0;
        for piece in 0..1 << 20 {
            let start = rest.unused().as_ptr();
            let got = buffer.read(&mut rest, |space| (&[1][..]).read(space)).unwrap();
            if let Input::InBuffer(len) = got.input {
                assert!(piece < 2, "{piece}: the leftover was copied");
                rest.append(buffer.front(len));
            }
            rest.trim();
            moved += usize::from(rest.unused().as_ptr() != start);
        }
        assert!(moved < 40, "moved {moved} times");
    }

    #[test]
    fn a_leftover_keeps_no_more_memory_than_it_needs() {
        let mut rest = Leftover::from(vec![1; 1 << 20]);
        rest.trim();
        assert_eq!(rest.unused().len(), 1 << 20);
        rest.consume((1 << 20) - 100);
        rest.trim();
        assert_eq!((rest.unused().len(), rest.capacity()), (100, 100));
        rest.consume(100);
        rest.trim();
        assert_eq!(rest.capacity(), 0);
        let mut rest = Leftover::from(vec![1; 1 << 20]);
        rest.consume((1 << 20) - SMALL - 100);
        rest.trim();
        assert_eq!((rest.unused().len(), rest.capacity()), (SMALL + 100, SMALL + 100));
    }

    #[test]
    fn what_follows_a_long_frame_does_not_keep_its_memory() {
        let mut rest = Leftover::from(vec![1; 1 << 20]);
        rest.consume(1 << 20);
        rest.append(&[1; 5_000]);
        rest.trim();
        assert_eq!((rest.unused().len(), rest.capacity()), (5_000, 5_000));
    }

    #[test]
    fn frames_that_wait_are_not_moved_for_each_one_that_is_used() {
        let mut rest = Leftover::from(vec![1; SIZE]);
        let mut moved = 0;
        while rest.unused().len() > SIZE / 4 {
            rest.consume(10);
            rest.trim();
            rest.append(&[1]);
            moved += usize::from(rest.0.as_ref().is_none_or(|kept| kept.used == 0));
        }
        assert!((1..=2).contains(&moved), "{moved} times");
    }
}
