//! The outgoing queue: encoded frames in one contiguous buffer, so that one write sends them all.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    Timestamp,
    frame::{Flags, FrameType, HEADER_MAX, Header, Ids, put_frame},
};

/// The first allocation in bytes, enough for several short answers.
const INITIAL_CAPACITY: usize = 512;

/// A buffer of up to this many bytes is kept whatever is queued in it: a busy connection does not reallocate it.
const KEPT_CAPACITY: usize = 8 * 1024;

/// Frees the first `head` bytes of a buffer if they are more than half of it. Then the rest is moved once for at least as many
/// bytes that are dropped.
pub(super) fn drop_front(bytes: &mut Vec<u8>, head: &mut usize) {
    if bytes.capacity() > KEPT_CAPACITY
        && *head > bytes.len() / 2
        && let Some(rest) = bytes.get(*head..)
    {
        *bytes = rest.to_vec();
        *head = 0;
    }
}

#[derive(Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// How many of `bytes` were sent.
    head: usize,
    /// Nothing is sent before the input ends.
    pub(super) deferred: bool,
    /// A drain holds the queue, to send it together with the DISCONNECT.
    pub(super) held: bool,
    /// When the queue became non-empty or bytes were last sent: the start of the write timeout.
    pub(super) progress: Timestamp,
    /// How many bytes have to be sent before the next mark is set: what was queued when this one was, 4 GiB at most. 0 before any
    /// was sent.
    mark: u32,
    /// When the mark was set.
    marked_at: Timestamp,
}

/// Lengths only: payloads must not appear in logs.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, head: _, deferred, held, progress, mark: _, marked_at: _ } = self;
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
            self.reserve(most);
        }
        let before = self.bytes.len();
        match header.prefix(payload.len()) {
            // A copy of constant length and a truncation take fewer instructions than a copy of variable length.
            Some((prefix, len)) => {
                self.bytes.extend_from_slice(&prefix);
                self.bytes.truncate(before + len);
                self.bytes.extend_from_slice(payload);
            }
            None => self.push_any(header.frame_type, header.flags, header.ids, payload),
        }
    }

    /// Makes capacity for `bytes` more. Moves the queue to the front if more than half of the buffer was sent already.
    #[cold]
    fn reserve(&mut self, bytes: usize) {
        if self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.bytes.reserve(if self.bytes.capacity() == 0 { bytes.max(INITIAL_CAPACITY) } else { bytes });
    }

    /// Slow path: identifiers too long for the header to be built in registers. Taking the header by fields keeps the
    /// caller from storing it to the stack on the fast path.
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

    /// The bytes that can be sent now; empty while output is deferred or held.
    #[inline]
    pub(super) fn ready(&self) -> &[u8] {
        if self.deferred | self.held {
            return &[];
        }
        self.bytes.get(self.head..).unwrap_or_default()
    }

    /// Whether there are bytes that can be sent now.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        !(self.deferred | self.held | self.is_empty())
    }

    #[inline]
    pub(super) fn sent(&mut self, now: Timestamp, n: usize) {
        self.head += n;
        self.progress = now;
        if self.is_empty() {
            self.emptied();
        } else {
            drop_front(&mut self.bytes, &mut self.head);
        }
    }

    /// All that is queued was sent, and nothing is behind it.
    #[inline]
    pub(super) fn all_sent(&mut self) {
        self.mark = 0;
        self.emptied();
    }

    #[inline]
    fn emptied(&mut self) {
        self.bytes.clear();
        self.head = 0;
        if self.bytes.capacity() > KEPT_CAPACITY {
            self.free();
        }
    }

    #[cold]
    fn free(&mut self) {
        self.bytes = Vec::new();
    }

    /// When the bytes were queued that have to be sent next; `None` if none were sent since the queue was empty.
    #[inline]
    pub(super) fn marked_at(&self) -> Option<Timestamp> {
        (self.mark > 0).then_some(self.marked_at)
    }

    /// Counts `n` sent bytes against the mark; `behind` are not queued yet. A queue that is empty has no mark.
    #[inline]
    pub(super) fn count(&mut self, now: Timestamp, n: usize, behind: usize) {
        if self.is_empty() {
            self.mark = 0;
        } else if n < self.mark as usize {
            self.mark -= n as u32;
        } else {
            self.mark = u32::try_from(self.len() + behind).unwrap_or(u32::MAX);
            self.marked_at = now;
        }
    }

    /// Output can leave from now on: the peer could not read it before.
    pub(super) fn released(&mut self, now: Timestamp) {
        (self.progress, self.mark) = (now, 0);
    }

    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
        self.head = 0;
    }

    /// Frees the buffer if it is empty.
    pub(super) fn trim(&mut self) {
        if self.is_empty() {
            self.clear();
        }
    }
}

#[cfg(test)]
impl Outbox {
    /// The allocated capacity.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const ACK: Header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: Ids::new(1, 1) };
    /// Length prefix and header of a frame.
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
        assert_eq!(out.bytes.capacity(), INITIAL_CAPACITY);
        push(&mut out, 1, 20);
        assert_eq!(out.bytes.capacity(), INITIAL_CAPACITY);
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

    #[test]
    fn a_queue_that_is_read_in_part_frees_what_was_sent() {
        const LEN: usize = 1 << 20;
        let mut out = Outbox::default();
        push(&mut out, LEN / 1_000, 1_000);
        let (mut moved, mut head) = (0, 0);
        while out.len() > 1 {
            out.sent(START, 1);
            moved += if out.head < head { out.len() } else { 0 };
            head = out.head;
            let most = (4 * out.len()).max(KEPT_CAPACITY);
            assert!(out.bytes.capacity() <= most, "{} bytes for {}", out.bytes.capacity(), out.len());
        }
        assert!(moved <= LEN, "{moved} bytes were moved");
        out.sent(START, 1);
        push(&mut out, LEN / 1_000, 1_000);
        out.sent(START, out.len());
        push(&mut out, 1, 20);
        assert!(out.bytes.capacity() <= KEPT_CAPACITY, "{} bytes for 20", out.bytes.capacity());
    }
}
