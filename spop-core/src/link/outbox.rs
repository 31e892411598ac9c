//! Outgoing bytes: frames queued one behind the other, given out as one slice so that one write sends them all.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    Timestamp,
    frame::{Flags, FrameType, HEADER_MAX, Header, Ids, put_frame},
};

/// What an outbox that holds nothing may keep of its memory.
const KEEP: usize = 512;

#[derive(Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    head: usize,
    /// Output waits for the end of the input.
    pub(super) deferred: bool,
    /// Output waits for what a drain makes of it.
    pub(super) held: bool,
    /// When the first waiting byte came, or the last one left.
    pub(super) progress: Timestamp,
}

/// Lengths only: what the frames hold is of no concern to a log.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, head: _, deferred, held, progress } = self;
        let mut outbox = f.debug_struct("Outbox");
        outbox.field("len", &self.len()).field("capacity", &bytes.capacity());
        outbox.field("deferred", deferred).field("held", held).field("progress", progress).finish()
    }
}

impl Outbox {
    /// Queues a frame.
    #[inline]
    pub(super) fn push(&mut self, now: Timestamp, header: Header, payload: &[u8]) {
        if self.is_empty() {
            self.progress = now;
        }
        let most = 4 + HEADER_MAX + payload.len();
        if self.bytes.capacity() - self.bytes.len() < most {
            self.make_room(most);
        }
        let before = self.bytes.len();
        match header.prefix(payload.len()) {
            // A copy of constant length, and what was too much taken off, is cheaper than one of the right length.
            Some((prefix, len)) => {
                self.bytes.extend_from_slice(&prefix);
                self.bytes.truncate(before + len);
                self.bytes.extend_from_slice(payload);
            }
            None => self.push_any(header.frame_type, header.flags, header.ids, payload),
        }
    }

    #[cold]
    fn make_room(&mut self, bytes: usize) {
        if self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.bytes.reserve(if self.bytes.capacity() == 0 { bytes.max(KEEP) } else { bytes });
    }

    /// A frame whose identifiers are too long for a register. The header comes in pieces, so that others need not put theirs
    /// together.
    #[inline(never)]
    fn push_any(&mut self, frame_type: FrameType, flags: Flags, ids: Ids, payload: &[u8]) {
        put_frame(&mut self.bytes, Header { frame_type, flags, ids }, payload);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// What may leave now.
    #[inline]
    pub(super) fn ready(&self) -> &[u8] {
        if self.deferred | self.held {
            return &[];
        }
        self.bytes.get(self.head..).unwrap_or_default()
    }

    #[inline]
    pub(super) fn sent(&mut self, now: Timestamp, n: usize) {
        self.head += n;
        self.progress = now;
        if self.is_empty() {
            self.bytes.clear();
            self.head = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
        self.head = 0;
    }

    /// Gives all memory back that is not in use.
    pub(super) fn trim(&mut self) {
        if self.is_empty() {
            self.clear();
        }
    }
}

#[cfg(test)]
impl Outbox {
    /// What it has room for without asking for more.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const ACK: Header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: Ids::new(1, 1) };
    /// What a frame has besides its payload.
    const HEAD: usize = 11;
    const START: Timestamp = Timestamp::from_millis(5);

    fn push(out: &mut Outbox, frames: usize, len: usize) {
        for _ in 0..frames {
            out.push(START, ACK, &vec![0; len - HEAD]);
        }
    }

    #[test]
    fn output_that_waits_for_one_thing_does_not_leave_for_another() {
        let mut out = Outbox::default();
        push(&mut out, 1, 100);
        for (deferred, held, leaves) in
            [(true, false, 0), (false, true, 0), (true, true, 0), (false, false, 100)]
        {
            (out.deferred, out.held) = (deferred, held);
            assert_eq!(out.ready().len(), leaves, "deferred: {deferred}, held: {held}");
        }
    }

    #[test]
    fn a_first_short_answer_takes_memory_for_some_and_no_more() {
        let mut out = Outbox::default();
        push(&mut out, 1, 20);
        assert_eq!(out.bytes.capacity(), KEEP);
        push(&mut out, 1, 20);
        assert_eq!(out.bytes.capacity(), KEEP);
    }

    #[test]
    fn a_queue_that_never_empties_moves_to_the_front() {
        let mut out = Outbox::default();
        push(&mut out, 1, 100);
        for _ in 0..1_000 {
            push(&mut out, 1, 100);
            out.sent(START, 100);
        }
        assert_eq!(out.len(), 100);
        assert!(out.bytes.capacity() < 2_000, "{} bytes of memory for 100", out.bytes.capacity());
        let header = Header { ids: Ids::new(u64::MAX, u64::MAX), ..ACK };
        for n in 0..100_000 {
            out.push(START, header, &vec![0; n % 60]);
            out.sent(START, out.len() - 100);
        }
        assert!(out.bytes.capacity() < 2_000, "{} bytes of memory for 100", out.bytes.capacity());
    }

    #[test]
    fn memory_is_given_back_when_nothing_waits() {
        let mut out = Outbox::default();
        push(&mut out, 1, 5_000);
        out.trim();
        assert_eq!(out.len(), 5_000);
        out.sent(START, 5_000);
        assert!(out.bytes.capacity() >= 5_000);
        out.trim();
        assert_eq!(out.bytes.capacity(), 0);
    }
}
