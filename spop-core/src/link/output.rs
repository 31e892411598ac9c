//! Outgoing frames and fragments.

use super::{Link, Misuse};
use crate::frame::{Flags, FrameType, Header, Ids};

impl Link {
    /// Queues a frame.
    #[inline]
    pub(crate) fn push(&mut self, header: Header, payload: &[u8]) {
        self.last_active = self.now;
        self.out.push(self.now, header, payload);
    }

    /// Queues a payload, or a part of one, to be sent in fragments.
    pub(crate) fn push_fragmented(&mut self, frame_type: FrameType, ids: Ids, part: &[u8], complete: bool) {
        self.last_active = self.now;
        self.sending.add(frame_type, ids, part, complete);
        self.pump();
    }

    /// Whether this payload was queued in part, and its last part is still to come.
    pub(crate) fn is_sending(&self, ids: Ids) -> bool {
        self.sending.contains(ids)
    }

    /// Aborts all payloads that are being sent in fragments; returns how many there were.
    pub(crate) fn abort_all_sending(&mut self) -> usize {
        self.sending.abort_all(self.now, &mut self.out)
    }

    /// Aborts an incomplete payload that is being sent in fragments. False if there is none.
    pub(crate) fn abort_sending(&mut self, ids: Ids) -> bool {
        let aborted = self.sending.abort(self.now, ids, &mut self.out);
        self.pump();
        aborted
    }

    /// Whether any payload has bytes that are not in a queued fragment yet.
    pub(crate) fn is_fragmenting(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Whether this payload has bytes that are not in a queued fragment yet.
    pub(crate) fn is_leaving(&self, ids: Ids) -> bool {
        self.sending.holds(ids)
    }

    /// Drops the rest of a payload that is being sent in fragments, without an ABORT frame. `None` if there is no such payload;
    /// `Some(true)` if a fragment of it was queued before.
    pub(crate) fn drop_sending(&mut self, ids: Ids) -> Option<bool> {
        self.sending.remove(ids)
    }

    /// Drops the rest of an answer that was cancelled. Sends an ABORT if a fragment of it was queued before.
    #[inline]
    pub(crate) fn withdraw(&mut self, ids: Ids) {
        if !self.sending.is_empty() {
            if self.sending.remove(ids) == Some(true) {
                self.push(Header { frame_type: FrameType::Unset, flags: Flags::ABORT, ids }, &[]);
            }
            self.pump();
        }
    }

    /// Queues further fragments, up to a low-water mark of four frames.
    fn pump(&mut self) {
        let max = self.max_frame_size;
        let fragment = max.saturating_sub(self.spare) as usize;
        self.sending.pump(self.now, &mut self.out, fragment, (max as usize).saturating_mul(4));
    }

    /// The bytes that can be sent now.
    pub(crate) fn outgoing(&self) -> &[u8] {
        self.out.ready()
    }

    /// The send backlog in bytes: queued frames, and payloads not yet in fragments.
    pub(crate) fn outgoing_bytes(&self) -> usize {
        self.out.len() + self.sending.bytes()
    }

    pub(crate) fn nothing_to_send(&self) -> bool {
        self.out.is_empty() && self.sending.is_empty()
    }

    /// The first `n` outgoing bytes were sent.
    ///
    /// # Errors
    /// [`Misuse::SentTooMuch`] if there are fewer. The state is unchanged then.
    #[inline]
    pub(crate) fn sent(&mut self, n: usize) -> Result<(), Misuse> {
        let outgoing = self.out.ready().len();
        if n > outgoing {
            return Err(Misuse::SentTooMuch { sent: n, outgoing });
        }
        if n == 0 {
            return Ok(());
        }
        self.last_active = self.now;
        if n == outgoing && self.sending.is_empty() {
            self.out.all_sent();
        } else {
            self.sent_in_part(n);
        }
        if self.is_closing() && !self.awaits_disconnect() {
            self.stage_since = self.now;
            self.advance();
        }
        Ok(())
    }

    /// Fast path of [`sent`](Self::sent): true if the first `n` outgoing bytes are all that is queued, and the connection neither
    /// drains nor ends. In all other cases nothing is changed.
    #[inline]
    pub(crate) fn sent_whole(&mut self, n: usize) -> bool {
        let whole = n > 0
            && n == self.out.ready().len()
            && self.sending.is_empty()
            && !self.is_closing()
            && !self.is_draining()
            && !self.eof;
        if whole {
            self.last_active = self.now;
            self.out.all_sent();
        }
        whole
    }

    /// Slow path of [`sent`](Self::sent): more is to be sent.
    #[inline(never)]
    fn sent_in_part(&mut self, n: usize) {
        self.out.sent(self.now, n);
        if !self.sending.is_empty() {
            self.pump();
        }
        self.out.count(self.now, n, self.sending.bytes());
    }

    /// Frees unused capacity.
    pub(crate) fn trim(&mut self) {
        self.out.trim();
        self.sending.trim();
        self.reassembly.trim();
    }
}
