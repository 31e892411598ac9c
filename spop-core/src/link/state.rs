//! The state that both reactors stand on.

use super::{
    Closing, Layers, Misuse, Phase, Side, Verdict, Violation, judge, memory::Memory, outbox::Outbox,
    reassembly::Reassembly, sending::Sending,
};
use crate::{
    DecodeError, Timestamp,
    frame::{Flags, FrameType, Header, Ids},
    wire::{Malformed, Piece, Reader},
};

/// The shortest frame: type, flags and two identifiers.
const SHORTEST: u32 = 7;

/// What is left of the bytes of one input.
#[derive(Debug)]
pub(crate) struct Input<'i> {
    bytes: &'i [u8],
    consumed: usize,
}

impl<'i> Input<'i> {
    #[inline]
    pub(crate) const fn new(bytes: &'i [u8]) -> Self {
        Self { bytes, consumed: 0 }
    }

    #[inline]
    pub(crate) const fn bytes(&self) -> &'i [u8] {
        self.bytes
    }

    /// How many bytes were used so far.
    #[inline]
    pub(crate) const fn consumed(&self) -> usize {
        self.consumed
    }

    fn advance(&mut self, n: usize) {
        self.bytes = self.bytes.get(n..).unwrap_or_default();
        self.consumed += n;
    }

    /// Discards the rest.
    pub(crate) fn clear(&mut self) {
        self.advance(self.bytes.len());
    }
}

/// The next frame of an input, which still holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next<'i> {
    pub(crate) header: Header,
    pub(crate) verdict: Verdict,
    pub(crate) payload: &'i [u8],
    /// The length of the frame with its length prefix.
    pub(crate) len: usize,
}

/// One connection, whichever side of it this is.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent facts, not states.
pub(crate) struct Link {
    pub(super) side: Side,
    pub(crate) phase: Phase,
    /// The longest frame, without its length prefix.
    pub(crate) max_frame_size: u32,
    pub(crate) reassembly: Reassembly,
    pub(super) out: Outbox,
    pub(super) sending: Sending,
    /// How many bytes of its frame a fragment leaves free.
    pub(super) spare: usize,
    pub(super) closing: Closing,
    pub(super) layers: Layers,
    /// The latest time that any input told.
    pub(super) now: Timestamp,
    /// When the connection was opened; once it is closing, when that began.
    pub(super) since: Timestamp,
    /// When a frame last came or left.
    pub(super) active: Timestamp,
    /// The last time that this side did not read, because of a limit. Until then the peer could not be late.
    pub(super) stopped: Timestamp,
    /// Since when a frame has been arriving, and how much of it is there.
    pub(super) partial: Option<(Timestamp, usize)>,
    pub(super) drain_by: Option<Timestamp>,
    /// When the current step of closing was begun, or has last come on.
    pub(super) step_since: Timestamp,
    pub(super) eof: bool,
    /// Frames were left unused because of a limit.
    pub(super) paused: bool,
    /// An engine that neither reads nor writes any more, and does not close either.
    pub(super) mute: bool,
    /// The driver was asked to shut the write side.
    pub(super) shut_asked: bool,
    pub(crate) memory: Memory,
    pub(super) skipped: u64,
}

impl Link {
    pub(crate) fn new(side: Side, max_frame_size: u32, now: Timestamp) -> Self {
        Self {
            side,
            phase: Phase::Connected,
            max_frame_size,
            reassembly: Reassembly::default(),
            out: Outbox::default(),
            sending: Sending::default(),
            spare: 0,
            closing: Closing::default(),
            layers: Layers::Plain,
            now,
            since: now,
            active: now,
            stopped: now,
            partial: None,
            drain_by: None,
            step_since: now,
            eof: false,
            paused: false,
            mute: false,
            shut_asked: false,
            memory: Memory::default(),
            skipped: 0,
        }
    }

    pub(crate) fn set_layers(&mut self, layers: Layers) {
        self.layers = layers;
    }

    pub(crate) fn defer_output(&mut self) {
        self.out.deferred = true;
    }

    /// When a frame last came or left.
    pub(crate) fn last_active(&self) -> Timestamp {
        self.active
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.out.deferred
    }

    /// Holds back what is to be sent, or lets it go.
    pub(crate) fn hold_output(&mut self, held: bool) {
        self.out.held = held && !self.eof && !self.is_closing();
    }

    /// Since when output has been held back that could leave.
    pub(crate) fn held_since(&self) -> Option<Timestamp> {
        (self.out.held && !self.out.is_empty()).then_some(self.out.progress)
    }

    /// Makes fragments shorter than their frames could hold, by this much.
    pub(crate) fn spare(&mut self, bytes: usize) {
        self.spare = bytes;
    }

    /// Moves the time on, never back.
    pub(crate) fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    pub(crate) fn is_eof(&self) -> bool {
        self.eof
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes of a frame that has not arrived whole.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.partial.map_or(0, |(_, bytes)| bytes)
    }

    /// Reading has stopped, and may go on from now on.
    pub(crate) fn reading_stopped(&mut self) {
        self.stopped = self.now;
    }

    /// The frame under way is not waited for any more.
    pub(crate) fn forget_partial(&mut self) {
        self.partial = None;
    }

    /// Whether frames were left unused because of a limit.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    // ---- frames in ----

    /// Looks at the next frame; `Ok(Err(n))` asks for `n` bytes more. Frames that mean nothing are skipped on the way.
    #[inline]
    pub(crate) fn next<'i>(&mut self, input: &mut Input<'i>) -> Result<Result<Next<'i>, usize>, Violation> {
        loop {
            let Some((prefix, rest)) = input.bytes.split_first_chunk::<4>() else {
                return Ok(Err(4 - input.bytes.len()));
            };
            let len = u32::from_be_bytes(*prefix);
            if len > self.max_frame_size {
                return Err(Violation::FrameTooBig { len, max: self.max_frame_size });
            }
            // A frame that cannot be one is refused at once, whether the rest of it is there or not.
            if len < SHORTEST {
                let error =
                    DecodeError { what: Malformed::Truncated(Piece::FrameHeader), offset: len as usize };
                return Err(Violation::BadHeader { len, error });
            }
            let Some(frame) = rest.get(..len as usize) else {
                return Ok(Err(len as usize - rest.len()));
            };
            let mut reader = Reader::new(frame);
            let header = Header::read(&mut reader)
                .map_err(|what| Violation::BadHeader { len, error: reader.error(frame, what) })?;
            let verdict = judge(self.phase, self.side.other(), header.frame_type, header.flags);
            let len = 4 + frame.len();
            match verdict {
                Verdict::Skip => {
                    self.skipped = self.skipped.saturating_add(1);
                    self.skip(input, len);
                }
                Verdict::Illegal(why) => return Err(Violation::Illegal { header, why }),
                _ => return Ok(Ok(Next { header, verdict, payload: reader.rest(), len })),
            }
        }
    }

    /// Fast path: a payload in one frame of this type, if that is what is next in the input, with the length of its frame.
    /// Otherwise [`next`](Self::next) says what there is.
    #[inline]
    pub(crate) fn whole<'i>(
        &self,
        input: &'i [u8],
        sender: Side,
        frame_type: FrameType,
    ) -> Option<(Ids, &'i [u8], usize)> {
        let (&[l0, l1, l2, l3, first, f0, f1, f2, f3], _) = input.split_first_chunk()?;
        let flags = Flags(u32::from_be_bytes([f0, f1, f2, f3]));
        if first != frame_type.byte() || judge(self.phase, sender, frame_type, flags) != Verdict::Whole {
            return None;
        }
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        if len > self.max_frame_size {
            return None;
        }
        let end = 4_usize.checked_add(len as usize)?;
        let (ids, payload) = Ids::split_from(input.get(9..end)?)?;
        Some((ids, payload, end))
    }

    /// Uses the first `len` bytes of the input, which are a frame.
    pub(crate) fn skip(&mut self, input: &mut Input<'_>, len: usize) {
        input.advance(len);
        self.took_frame();
    }

    /// A frame was used.
    #[inline]
    pub(crate) fn took_frame(&mut self) {
        self.partial = None;
        self.active = self.now;
    }

    /// Nothing more can be done with the input, of which `left` bytes are left, before more bytes come.
    pub(crate) fn rest(&mut self, left: usize) {
        self.paused = false;
        self.partial = match self.partial {
            _ if left == 0 => None,
            Some((since, _)) => Some((since, left)),
            None => Some((self.now, left)),
        };
    }

    /// Backpressure: frames may be left in the input until a limit no longer holds. Meanwhile no timer runs against a frame.
    pub(crate) fn pause(&mut self, left: usize) {
        self.paused = left > 0;
        self.partial = None;
    }

    pub(crate) fn input_ended(&mut self) {
        self.eof = true;
        if self.out.deferred | self.out.held {
            (self.out.deferred, self.out.held) = (false, false);
            // The peer has had no time yet to read what waited.
            self.out.progress = self.now;
        }
        self.advance();
    }

    // ---- frames out ----

    #[inline]
    pub(crate) fn push(&mut self, header: Header, payload: &[u8]) {
        self.active = self.now;
        self.out.push(self.now, header, payload);
    }

    /// Queues a payload, or a part of one, that leaves in fragments.
    pub(crate) fn push_fragmented(&mut self, frame_type: FrameType, ids: Ids, part: &[u8], complete: bool) {
        self.active = self.now;
        self.sending.add(frame_type, ids, part, complete);
        self.pump();
    }

    /// Whether a part of this payload has been queued, and more is to come.
    pub(crate) fn is_sending(&self, ids: Ids) -> bool {
        self.sending.contains(ids)
    }

    /// Drops the payloads that have not left whole; returns how many there were.
    pub(crate) fn abort_all_sending(&mut self) -> usize {
        self.sending.abort_all(self.now, &mut self.out)
    }

    /// Ends a payload that is leaving in fragments. False when there is none.
    pub(crate) fn abort_sending(&mut self, ids: Ids) -> bool {
        let aborted = self.sending.abort(self.now, ids, &mut self.out);
        self.pump();
        aborted
    }

    /// Whether fragments of any payload have not been queued yet.
    pub(crate) fn is_fragmenting(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Whether fragments of this payload have not been queued yet.
    pub(crate) fn is_leaving(&self, ids: Ids) -> bool {
        self.sending.holds(ids)
    }

    /// Forgets the fragments of a payload that were not queued, and tells nobody. `Some` when there were any: true if
    /// others were queued before.
    pub(crate) fn drop_sending(&mut self, ids: Ids) -> Option<bool> {
        self.sending.remove(ids)
    }

    /// Forgets the rest of an answer for which nobody waits; the peer is told if it has got a part.
    #[inline]
    pub(crate) fn withdraw(&mut self, ids: Ids) {
        if !self.sending.is_empty() {
            if self.sending.remove(ids) == Some(true) {
                self.push(Header { frame_type: FrameType::Unset, flags: Flags::ABORT, ids }, &[]);
            }
            self.pump();
        }
    }

    fn pump(&mut self) {
        let max = self.max_frame_size as usize;
        self.sending.pump(self.now, &mut self.out, max.saturating_sub(self.spare), max.saturating_mul(4));
    }

    pub(crate) fn outgoing(&self) -> &[u8] {
        self.out.ready()
    }

    /// Bytes that wait to leave, be they frames already or not.
    pub(crate) fn outgoing_bytes(&self) -> usize {
        self.out.len() + self.sending.bytes()
    }

    pub(crate) fn nothing_to_send(&self) -> bool {
        self.out.is_empty() && self.sending.is_empty()
    }

    /// The first `n` outgoing bytes have left.
    ///
    /// # Errors
    /// When there are fewer. Nothing has changed then.
    #[inline]
    pub(crate) fn sent(&mut self, n: usize) -> Result<(), Misuse> {
        let outgoing = self.out.ready().len();
        if n > outgoing {
            return Err(Misuse::SentTooMuch { sent: n, outgoing });
        }
        if n == 0 {
            return Ok(());
        }
        self.active = self.now;
        self.out.sent(self.now, n);

        if !self.sending.is_empty() {
            self.pump();
        }
        if self.is_closing() && !self.awaits_disconnect() {
            self.step_since = self.now;
            self.advance();
        }
        Ok(())
    }

    /// Gives all memory back that is not in use.
    pub(crate) fn trim(&mut self) {
        self.out.trim();
        self.sending.trim();
        self.reassembly.trim();
    }
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Engine => Self::Agent,
            Self::Agent => Self::Engine,
        }
    }
}
