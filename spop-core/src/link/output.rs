//! Frames into outgoing bytes.

use super::{Link, Misuse};
use crate::frame::{Flags, FrameType, Header, Ids};

impl Link {
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
