//! Fragmentation of outgoing payloads. One payload is sent at a time, and a fragment is queued only while the outgoing
//! queue is below its low-water mark, so that unfragmented frames are sent in between.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::fmt;

use super::outbox::{Outbox, drop_front};
use crate::{
    Timestamp,
    frame::{Flags, FrameType, HEADER_MAX, Header, Ids},
};

/// The payloads that are being sent in fragments. Boxed: each connection has them, and few have one.
#[derive(Debug, Default)]
pub(super) struct Sending(Option<Box<Jobs>>);

#[derive(Debug, Default)]
struct Jobs {
    jobs: VecDeque<Job>,
    /// Bytes that are not in a queued fragment yet.
    bytes: usize,
}

struct Job {
    /// UNSET after the first fragment was queued.
    frame_type: FrameType,
    ids: Ids,
    payload: Vec<u8>,
    /// How many bytes of the payload were queued.
    sent: usize,
    /// The last part was added.
    complete: bool,
}

/// The length of the payload only: payloads must not appear in logs.
impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frame_type, ids, payload, sent, complete } = self;
        let mut job = f.debug_struct("Job");
        job.field("frame_type", frame_type).field("ids", ids).field("len", &payload.len());
        job.field("sent", sent).field("complete", complete).finish()
    }
}

impl Job {
    fn rest(&self) -> &[u8] {
        self.payload.get(self.sent..).unwrap_or_default()
    }
}

impl Sending {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|sending| sending.jobs.is_empty())
    }

    /// Frees unused capacity.
    pub(super) fn trim(&mut self) {
        if self.is_empty() {
            self.0 = None;
        } else if let Some(sending) = &mut self.0 {
            sending.jobs.shrink_to_fit();
        }
    }

    /// Bytes that are not in a queued fragment yet.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |sending| sending.bytes)
    }

    /// Whether this payload was added in part, and its last part is still to come.
    #[inline]
    pub(super) fn contains(&self, ids: Ids) -> bool {
        !self.is_empty() && self.jobs().any(|job| job.ids == ids && !job.complete)
    }

    /// Whether this payload has bytes that are not in a queued fragment yet.
    pub(super) fn holds(&self, ids: Ids) -> bool {
        self.jobs().any(|job| job.ids == ids)
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.0.iter().flat_map(|sending| &sending.jobs)
    }

    /// Drops the rest of a payload without an ABORT frame. `None` if there is no such payload; `Some(true)` if a fragment
    /// of it was queued before.
    pub(super) fn remove(&mut self, ids: Ids) -> Option<bool> {
        let job = self.take(|job| job.ids == ids)?;
        Some(job.frame_type == FrameType::Unset)
    }

    fn take(&mut self, which: impl Fn(&Job) -> bool) -> Option<Job> {
        let sending = self.0.as_deref_mut()?;
        let index = sending.jobs.iter().position(which)?;
        let job = sending.jobs.remove(index)?;
        sending.bytes -= job.rest().len();
        Some(job)
    }

    /// Adds a payload, or a further part of one.
    pub(super) fn add(&mut self, frame_type: FrameType, ids: Ids, part: &[u8], complete: bool) {
        let sending = self.0.get_or_insert_default();
        sending.bytes += part.len();
        if let Some(job) = sending.jobs.iter_mut().find(|job| job.ids == ids && !job.complete) {
            job.payload.extend_from_slice(part);
            job.complete = complete;
        } else {
            sending.jobs.push_back(Job { frame_type, ids, payload: part.to_vec(), sent: 0, complete });
        }
    }

    /// Aborts an incomplete payload: drops its rest and queues an ABORT. False if there is no such payload.
    pub(super) fn abort(&mut self, now: Timestamp, ids: Ids, out: &mut Outbox) -> bool {
        let job = self.take(|job| job.ids == ids && !job.complete);
        if let Some(job) = &job {
            out.push(now, Header { frame_type: job.frame_type, flags: Flags::ABORT, ids }, &[]);
        }
        job.is_some()
    }

    /// Queues fragments in frames of at most `max` bytes, until the queue reaches the low-water mark or no fragment is due.
    pub(super) fn pump(&mut self, now: Timestamp, out: &mut Outbox, max: usize, low_water: usize) {
        let Some(Jobs { jobs, bytes }) = self.0.as_deref_mut() else { return };
        while out.len() < low_water {
            let Some(job) = jobs.front_mut() else { return };
            let capacity = max.saturating_sub(HEADER_MAX).max(1);
            let left = job.rest().len();
            if left < capacity && !job.complete {
                // More parts are to come: wait until a fragment is full.
                return;
            }
            let last = job.complete && left <= capacity;
            let header = Header {
                frame_type: job.frame_type,
                flags: if last { Flags::FIN } else { Flags::NONE },
                ids: job.ids,
            };
            let fragment = left.min(capacity);
            out.push(now, header, job.rest().get(..fragment).unwrap_or_default());
            job.frame_type = FrameType::Unset;
            job.sent += fragment;
            drop_front(&mut job.payload, &mut job.sent);
            *bytes -= fragment;
            if last {
                jobs.pop_front();
            }
        }
    }

    /// Aborts all payloads, with an ABORT for each of which a fragment was queued. Returns how many payloads there were.
    pub(super) fn abort_all(&mut self, now: Timestamp, out: &mut Outbox) -> usize {
        let Some(sending) = self.0.take() else { return 0 };
        for job in sending.jobs.iter().filter(|job| job.frame_type == FrameType::Unset) {
            out.push(now, Header { frame_type: job.frame_type, flags: Flags::ABORT, ids: job.ids }, &[]);
        }
        sending.jobs.len()
    }
}

#[cfg(test)]
impl Sending {
    /// The allocated capacity.
    pub(super) fn memory(&self) -> usize {
        self.0.as_ref().map_or(0, |sending| sending.jobs.capacity())
    }

    /// The allocated bytes of payloads.
    fn payload_memory(&self) -> usize {
        self.jobs().map(|job| job.payload.capacity()).sum()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::frame::Frame;

    const NOW: Timestamp = Timestamp::ZERO;
    const A: Ids = Ids::new(1, 1);
    const B: Ids = Ids::new(2, 1);
    const MAX: usize = 256;

    /// Sends what is queued: type, identifiers, flags and payload length of each frame.
    fn drain(out: &mut Outbox) -> Vec<(FrameType, Ids, u32, usize)> {
        let bytes = out.ready().to_vec();
        out.sent(NOW, bytes.len());
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*len) as usize);
            assert!(frame.len() <= MAX);
            let Frame { header, payload } = Frame::decode(frame).unwrap();
            frames.push((header.frame_type, header.ids, header.flags.0, payload.len()));
            rest = after;
        }
        frames
    }

    const FRAGMENT: usize = MAX - HEADER_MAX;

    #[test]
    fn a_payload_leaves_in_fragments_and_whole_frames_pass_between() {
        let (mut sending, mut out) = (Sending::default(), Outbox::default());
        sending.add(FrameType::Ack, A, &vec![0; 2 * FRAGMENT + 1], true);
        sending.add(FrameType::Ack, B, b"b", true);
        sending.pump(NOW, &mut out, MAX, 1);
        out.push(NOW, Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: Ids::new(3, 1) }, b"");
        assert_eq!(
            drain(&mut out),
            [(FrameType::Ack, A, 0, FRAGMENT), (FrameType::Ack, Ids::new(3, 1), 1, 0)]
        );
        sending.pump(NOW, &mut out, MAX, 10_000);
        assert_eq!(
            drain(&mut out),
            [(FrameType::Unset, A, 0, FRAGMENT), (FrameType::Unset, A, 1, 1), (FrameType::Ack, B, 1, 1)]
        );
        assert!(sending.is_empty() && sending.bytes() == 0);
    }

    #[test]
    fn a_payload_in_parts_waits_for_full_fragments() {
        let (mut sending, mut out) = (Sending::default(), Outbox::default());
        sending.add(FrameType::Ack, A, &[0; 10], false);
        sending.pump(NOW, &mut out, MAX, 10_000);
        assert!(out.is_empty() && sending.contains(A));
        sending.add(FrameType::Ack, A, &vec![0; FRAGMENT], false);
        sending.pump(NOW, &mut out, MAX, 10_000);
        sending.add(FrameType::Ack, A, &[], true);
        assert!(!sending.contains(A));
        sending.pump(NOW, &mut out, MAX, 10_000);
        assert_eq!(drain(&mut out), [(FrameType::Ack, A, 0, FRAGMENT), (FrameType::Unset, A, 1, 10)]);
    }

    #[test]
    fn bytes_are_counted_until_they_leave_or_are_dropped() {
        let (mut sending, mut out) = (Sending::default(), Outbox::default());
        sending.add(FrameType::Ack, A, &[0; 10], false);
        sending.add(FrameType::Ack, B, &[0; 20], false);
        assert_eq!(sending.bytes(), 30);
        assert_eq!((sending.remove(B), sending.bytes()), (Some(false), 10));
        assert!(sending.abort(NOW, A, &mut out));
        assert_eq!(sending.bytes(), 0);
        sending.add(FrameType::Ack, A, &[0; FRAGMENT + 5], false);
        sending.pump(NOW, &mut out, MAX, 10_000);
        assert_eq!(sending.bytes(), 5);
        assert_eq!((sending.remove(A), sending.bytes()), (Some(true), 0));
        assert_eq!(sending.remove(A), None);
    }

    #[test]
    fn the_memory_of_what_was_queued_is_freed() {
        const LEN: usize = 1 << 20;
        let (mut sending, mut out) = (Sending::default(), Outbox::default());
        sending.add(FrameType::Ack, A, &vec![0; LEN], true);
        while !sending.is_empty() {
            sending.pump(NOW, &mut out, MAX, 1);
            out.clear();
            let (memory, counted) = (sending.payload_memory(), sending.bytes());
            assert!(memory <= (2 * counted + MAX).max(8 * 1024), "{memory} bytes for {counted}");
        }
        // In parts, each sent but for a few bytes.
        for _ in 0..10_000 {
            sending.add(FrameType::Ack, A, &[0; FRAGMENT], false);
            sending.add(FrameType::Ack, A, &[0], false);
            sending.pump(NOW, &mut out, MAX, usize::MAX);
            out.clear();
        }
        let memory = sending.payload_memory();
        assert!(memory <= 16 * 1024, "{memory} bytes for {}", sending.bytes());
    }

    #[test]
    fn a_fragment_that_is_just_full_leaves() {
        let (mut sending, mut out) = (Sending::default(), Outbox::default());
        sending.add(FrameType::Ack, A, &[0; FRAGMENT], false);
        sending.pump(NOW, &mut out, MAX, 10_000);
        assert_eq!(drain(&mut out), [(FrameType::Ack, A, 0, FRAGMENT)]);
    }

    #[test]
    fn no_fragment_is_made_while_enough_waits() {
        let (mut sending, mut out) = (Sending::default(), Outbox::default());
        sending.add(FrameType::Ack, A, &[0; 3 * FRAGMENT], true);
        sending.pump(NOW, &mut out, MAX, 1);
        let waits = out.len();
        sending.pump(NOW, &mut out, MAX, waits);
        assert_eq!(out.len(), waits);
        sending.pump(NOW, &mut out, MAX, waits + 1);
        assert!(out.len() > waits);
    }

    #[test]
    fn an_abort_says_what_the_peer_has_seen() {
        let (mut sending, mut out) = (Sending::default(), Outbox::default());
        sending.add(FrameType::Ack, A, &vec![0; FRAGMENT + 1], false);
        sending.add(FrameType::Ack, B, b"b", false);
        sending.pump(NOW, &mut out, MAX, 10_000);
        assert!(sending.abort(NOW, B, &mut out));
        assert_eq!(sending.abort_all(NOW, &mut out), 1);
        assert_eq!(
            drain(&mut out),
            [(FrameType::Ack, A, 0, FRAGMENT), (FrameType::Ack, B, 3, 0), (FrameType::Unset, A, 3, 0)]
        );
        assert!(sending.is_empty() && !sending.abort(NOW, A, &mut out));
    }
}
