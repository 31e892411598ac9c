//! Outgoing bytes: frames queued one behind the other, given out as one slice so that one write sends them all.

use alloc::vec::Vec;
use core::time::Duration;

use crate::{
    Timestamp,
    frame::{Flags, FrameType, HEADER_MAX, Header, Ids, put_frame},
};

/// A bound on how many bytes leave at once.
///
/// HAProxy 3.1 to 3.5 stalls for good when it reads a receive buffer that is full to its last byte (`tune.bufsize`, 16384
/// bytes): one answer of 16380 bytes does it, or twenty of 932 in one burst. It has at most twenty requests waiting on a
/// connection, so that answers in time fill the buffer only if there are long ones among them; late answers, for which it
/// waits no more, can be any number. Bursts that could fill it are sent in portions, with a pause between them in which
/// HAProxy reads. Other bursts are not delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// The pause, from the last byte of one portion to the first of the next.
    pub interval: Duration,
}

impl Default for Pacing {
    /// One millisecond.
    fn default() -> Self {
        Self { interval: Duration::from_millis(1) }
    }
}

/// How many requests such a HAProxy has waiting on one connection.
const STREAMS: usize = 20;

/// What an outbox that holds nothing may keep of its memory.
const KEEP: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    head: usize,
    /// Where the last frame starts, when it must not be cut.
    whole: Option<usize>,
    /// Output waits for the end of the input.
    pub(super) deferred: bool,
    /// Output waits for what a drain makes of it.
    pub(super) held: bool,
    pace: Option<Pace>,
    /// When the first waiting byte came, or the last one left.
    pub(super) progress: Timestamp,
}

#[derive(Debug)]
struct Pace {
    interval: Duration,
    portion: usize,
    /// Frames up to this length are short.
    short: usize,
    /// When the pause after the last byte that left is over, and how much has left since the last pause.
    until: Timestamp,
    used: usize,
    /// How many bytes wait up to the end of the last frame that makes a portion count: a long one, or one with which more
    /// than a portion waits. It stays above zero until the pause after that frame, because the peer may not have read it.
    long: usize,
}

impl Outbox {
    /// Sends at most `portion` bytes at once, where frames are long enough to matter.
    pub(super) fn pace(&mut self, pacing: Pacing, portion: usize) {
        let Pacing { interval } = pacing;
        let short = portion / STREAMS;
        self.pace = Some(Pace { interval, portion, short, until: Timestamp::ZERO, used: 0, long: 0 });
    }

    /// Queues a frame; returns where in the buffer it starts.
    #[inline]
    pub(super) fn push(&mut self, now: Timestamp, header: Header, payload: &[u8]) -> usize {
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
        if let Some(pace) = &mut self.pace {
            // What left long ago takes nothing from the portion of now.
            pace.renew(now);
            let waiting = self.bytes.len() - self.head;
            if self.bytes.len() - before > pace.short || waiting > pace.portion {
                pace.long = waiting;
            }
        }
        before
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

    /// As [`push`](Self::push), for the last frame of all, which leaves in one piece: HAProxy 3.2 and later resets a
    /// connection on half a DISCONNECT.
    pub(super) fn push_last(&mut self, now: Timestamp, header: Header, payload: &[u8]) {
        self.whole = Some(self.push(now, header, payload));
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
        let waiting = self.bytes.get(self.head..).unwrap_or_default();
        match &self.pace {
            Some(pace) if pace.long > 0 => waiting.get(..self.portion(pace)).unwrap_or(waiting),
            _ => waiting,
        }
    }

    fn portion(&self, pace: &Pace) -> usize {
        let len = self.len();
        let left = pace.portion.saturating_sub(pace.used).min(len);
        match self.whole.map(|whole| whole.saturating_sub(self.head)) {
            Some(whole) if whole < left && left < len => {
                if whole == 0 && pace.used == 0 {
                    len
                } else {
                    whole
                }
            }
            _ => left,
        }
    }

    #[inline]
    pub(super) fn sent(&mut self, now: Timestamp, n: usize) {
        let n = n.min(self.len());
        self.head += n;
        self.progress = now;
        if let Some(pace) = &mut self.pace {
            pace.renew(now);
            pace.until = now + pace.interval;
            pace.used += n;
            pace.long = if pace.long > n { pace.long - n } else { usize::from(pace.long > 0) };
        }
        if self.is_empty() {
            self.bytes.clear();
            self.head = 0;
            self.whole = None;
        }
    }

    /// When a portion that was used up may be followed by the next.
    pub(super) fn paced_until(&self) -> Option<Timestamp> {
        let pace = self.pace.as_ref()?;
        (!self.is_empty() && !self.deferred && !self.held && self.ready().is_empty()).then_some(pace.until)
    }

    pub(super) fn renew(&mut self, now: Timestamp) {
        if let Some(pace) = &mut self.pace {
            pace.renew(now);
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
        self.head = 0;
        self.whole = None;
    }

    /// Gives all memory back that is not in use.
    pub(super) fn trim(&mut self) {
        if self.is_empty() {
            self.clear();
        }
    }

    /// Gives memory back that a waiting connection does not need.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() && self.bytes.capacity() > 2 * KEEP {
            self.clear();
        }
    }
}

impl Pace {
    fn renew(&mut self, now: Timestamp) {
        if self.used > 0 && now >= self.until {
            self.used = 0;
            if self.long == 1 {
                self.long = 0;
            }
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
    const PORTION: usize = 15_868;

    fn paced() -> Outbox {
        let mut out = Outbox::default();
        out.pace(Pacing::default(), PORTION);
        out
    }

    fn push(out: &mut Outbox, frames: usize, len: usize) {
        for _ in 0..frames {
            out.push(START, ACK, &vec![0; len - HEAD]);
        }
    }

    #[test]
    fn bursts_of_short_answers_leave_at_once() {
        for short in [PORTION / STREAMS, 700, 20] {
            let mut out = paced();
            for _ in 0..1_000 {
                push(&mut out, STREAMS, short);
                assert_eq!(out.ready().len(), STREAMS * short);
                assert_eq!(out.paced_until(), None);
                out.sent(START, STREAMS * short);
            }
        }
    }

    #[test]
    fn more_answers_than_requests_can_wait_leave_in_portions() {
        let mut out = paced();
        push(&mut out, 60, 700);
        let (mut now, mut left) = (START, 60 * 700);
        while left > 0 {
            let n = out.ready().len();
            assert_eq!(n, left.min(PORTION));
            out.sent(now, n);
            left -= n;
            now = now + Pacing::default().interval;
            out.renew(now);
        }
        assert!(out.is_empty());
    }

    #[test]
    fn the_pause_begins_with_the_last_byte_that_left() {
        let mut out = paced();
        let (early, late) = (START, START + Pacing::default().interval * 9 / 10);
        push(&mut out, 1, 100);
        out.sent(early, 100);
        push(&mut out, 20, 1_000);
        out.sent(late, out.ready().len());
        assert_eq!(out.len(), 20 * 1_000 + 100 - PORTION);
        let pause = Pacing::default().interval;
        out.renew(early + pause);
        assert!(out.ready().is_empty());
        assert_eq!(out.paced_until(), Some(late + pause));
        out.renew(late + pause);
        assert_eq!(out.ready().len(), 20 * 1_000 + 100 - PORTION);
    }

    #[test]
    fn a_burst_with_a_long_answer_leaves_in_portions() {
        let mut out = paced();
        push(&mut out, 40, 932);
        let mut now = START;
        let mut left = 40 * 932;
        while left > 0 {
            let n = out.ready().len();
            assert_eq!(n, left.min(PORTION));
            assert_eq!(out.paced_until(), None);
            // Half of a portion first: what is left of it may still leave.
            out.sent(now, n / 2);
            assert_eq!(out.ready().len(), n - n / 2);
            out.sent(now, n - n / 2);
            left -= n;
            assert!(out.ready().is_empty());
            if left > 0 {
                let at = out.paced_until().unwrap();
                assert_eq!(at, now + Pacing::default().interval);
                now = at;
                out.renew(now);
            }
        }
        assert!(out.is_empty());
    }

    #[test]
    fn what_follows_a_long_answer_counts_until_the_pause_is_over() {
        let mut out = paced();
        push(&mut out, 1, 15_000);
        out.sent(START, 15_000);
        push(&mut out, 20, 700);
        assert_eq!(out.ready().len(), PORTION - 15_000);
        out.sent(START, PORTION - 15_000);
        assert!(out.ready().is_empty());
        out.renew(START + Pacing::default().interval);
        assert_eq!(out.ready().len(), 15_000 + 20 * 700 - PORTION);
    }

    #[test]
    fn the_last_frame_is_not_cut() {
        let mut out = paced();
        push(&mut out, 1, PORTION - 10);
        out.push_last(START, ACK, &[0; 50]);
        assert_eq!(out.ready().len(), PORTION - 10);
        out.sent(START, PORTION - 10);
        assert!(out.ready().is_empty());
        out.renew(START + Pacing::default().interval);
        assert_eq!(out.ready().len(), 50 + HEAD);
    }

    #[test]
    fn the_last_frame_leaves_with_the_others_where_all_of_them_fit() {
        let mut out = paced();
        push(&mut out, 1, 1_000);
        out.push_last(START, ACK, &[0; 50]);
        assert_eq!(out.ready().len(), 1_000 + 50 + HEAD);
    }

    #[test]
    fn a_portion_that_ends_before_the_last_frame_is_a_whole_one() {
        let mut out = paced();
        push(&mut out, 2, PORTION);
        out.push_last(START, ACK, &[0; 50]);
        assert_eq!(out.ready().len(), PORTION);
    }

    #[test]
    fn a_long_answer_behind_others_counts_to_its_own_end_and_no_further() {
        let mut out = paced();
        push(&mut out, 1, 12_000);
        out.sent(START, 5_000);
        push(&mut out, 1, 5_000);
        out.sent(START, out.ready().len());
        let later = START + Pacing::default().interval;
        out.renew(later);
        out.sent(later, out.ready().len());
        assert!(out.is_empty());
        out.renew(later + Pacing::default().interval);
        for _ in 0..2 {
            push(&mut out, STREAMS, PORTION / STREAMS);
            assert_eq!(out.ready().len(), STREAMS * (PORTION / STREAMS));
            out.sent(later, out.ready().len());
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
        out.shrink();
        assert_eq!(out.len(), 5_000);
        out.sent(START, 5_000);
        out.shrink();
        assert_eq!(out.bytes.capacity(), 0);
    }

    #[test]
    fn memory_for_a_few_answers_is_kept_until_all_is_given_back() {
        let mut out = Outbox::default();
        let few = 2 * KEEP / 32 - 1;
        push(&mut out, few, 32);
        assert_eq!(out.bytes.capacity(), 2 * KEEP);
        out.trim();
        assert_eq!(out.len(), few * 32);
        out.sent(START, few * 32);
        out.shrink();
        assert_eq!(out.bytes.capacity(), 2 * KEEP);
        out.trim();
        assert_eq!(out.bytes.capacity(), 0);
    }
}
