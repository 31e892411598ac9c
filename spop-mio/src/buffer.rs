//! Reading without a buffer for each connection.

use std::io::{self, Read};

use bytes::BytesMut;

/// The size of a buffer, and so of the longest read.
const SIZE: usize = 128 * 1024;

/// What a read has room for at least.
const ROOM: usize = 16 * 1024;

/// A leftover up to this size is copied to the front of the next read. A longer one gets the next read behind it, so that
/// a frame which arrives in many small pieces is not copied for each of them.
pub(crate) const SMALL: usize = 4 * 1024;

/// The buffer that all connections of a thread read into, one after the other.
///
/// What was read leaves it without a copy, and its memory is used again when the frames in it have been dropped. Whoever
/// keeps [`Messages`](spop_core::frame::Messages) keeps 128 KiB of it from being used again; hence their `detach`.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    /// The part that was not used yet. All of it is initialised: zeros are written once for each time round, and not for
    /// each read.
    free: BytesMut,
    /// The longest read of late. The next may be as long, and one read is cheaper than two with a frame cut between them.
    longest: usize,
    received: usize,
    sent: usize,
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    /// How many bytes; none at the end of the input.
    pub(crate) bytes: usize,
    /// Whether there was room for more.
    pub(crate) short: bool,
    /// Whether the inbox is a slice of the buffer now.
    pub(crate) shared: bool,
}

impl ReadBuffer {
    /// A buffer that takes its memory when it is first read into.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What has passed since it was last asked for: bytes received, and bytes sent.
    pub(crate) const fn take_moved(&mut self) -> (usize, usize) {
        (std::mem::replace(&mut self.received, 0), std::mem::replace(&mut self.sent, 0))
    }

    /// So many bytes were written.
    #[inline]
    pub(crate) const fn note_sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// So many bytes were read.
    #[inline]
    pub(crate) const fn note_received(&mut self, bytes: usize) {
        self.received += bytes;
    }

    /// Reads once, and appends it to `inbox`, which is a slice of this buffer afterwards unless it was long.
    #[inline]
    pub(crate) fn read(&mut self, stream: &mut impl Read, inbox: &mut BytesMut) -> io::Result<Got> {
        let kept = inbox.len();
        if kept > SMALL {
            return read_behind(stream, inbox);
        }
        let room = self.longest.clamp(ROOM, SIZE - SMALL - 1) + 1;
        if self.free.len() < kept + room {
            self.renew(inbox);
        }
        let Some((front, room)) = self.free.split_at_mut_checked(kept) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        front.copy_from_slice(inbox);
        let got = read(stream, room)?;
        if got.bytes == 0 {
            return Ok(got);
        }
        self.longest = got.bytes.max(self.longest - self.longest / 8);
        *inbox = self.free.split_to(kept + got.bytes);
        Ok(Got { shared: true, ..got })
    }

    #[cold]
    fn renew(&mut self, inbox: &mut BytesMut) {
        // It may be the last that keeps the memory from being used again.
        *inbox = BytesMut::from(&**inbox);
        self.free.clear();
        if !self.free.try_reclaim(SIZE) {
            self.free = BytesMut::with_capacity(SIZE);
        }
        self.free.resize(SIZE, 0);
    }
}

#[cold]
fn read_behind(stream: &mut impl Read, inbox: &mut BytesMut) -> io::Result<Got> {
    let kept = inbox.len();
    inbox.resize(kept + ROOM, 0);
    let got = read(stream, inbox.get_mut(kept..).unwrap_or_default());
    inbox.truncate(kept + got.as_ref().map_or(0, |got| got.bytes));
    got
}

#[inline]
fn read(stream: &mut impl Read, room: &mut [u8]) -> io::Result<Got> {
    loop {
        match stream.read(room) {
            Ok(bytes) => return Ok(Got { bytes, short: bytes < room.len(), shared: false }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_and_what_follows_them_are_one_piece() {
        let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let mut stream = &bytes[..];
        let (mut buffer, mut inbox) = (ReadBuffer::new(), BytesMut::new());
        let mut taken = Vec::new();
        for leftover in [0, 1, SMALL, SMALL + 1, 20_000, 100, 0].into_iter().cycle() {
            let got = buffer.read(&mut stream, &mut inbox).unwrap();
            if got.bytes == 0 {
                break;
            }
            let take = inbox.len().saturating_sub(leftover);
            taken.extend_from_slice(&inbox.split_to(take));
        }
        taken.extend_from_slice(&inbox);
        assert!(taken == bytes);
    }

    #[test]
    fn bursts_of_one_size_are_read_in_one_piece_each() {
        let (mut buffer, mut inbox) = (ReadBuffer::new(), BytesMut::new());
        for burst in 0..100 {
            let got = buffer.read(&mut &*vec![1; 40_000], &mut inbox).unwrap();
            assert!(got.short && got.bytes == 40_000, "{burst}: {got:?}");
            inbox.clear();
        }
    }

    #[test]
    fn memory_is_used_again_when_nobody_keeps_it() {
        let (mut buffer, mut inbox) = (ReadBuffer::new(), BytesMut::new());
        let mut starts = std::collections::BTreeSet::new();
        for _ in 0..100 {
            buffer.read(&mut &[1; 10_000][..], &mut inbox).unwrap();
            starts.insert(inbox.as_ptr());
            inbox.clear();
        }
        assert!(starts.len() <= SIZE / 10_000, "{starts:?}");
        buffer.read(&mut &[1; 10_000][..], &mut inbox).unwrap();
        let kept = inbox.split().freeze();
        for _ in 0..100 {
            buffer.read(&mut &[2; 10_000][..], &mut inbox).unwrap();
            inbox.clear();
        }
        assert!(kept.iter().all(|byte| *byte == 1));
    }
}
