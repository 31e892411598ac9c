//! The end of a session.

use alloc::{boxed::Box, string::ToString};

use super::{AgentReactor, action::Action};
use crate::{
    Status,
    link::{CloseReason, Closed, Initiator, Lost, Violation},
};

impl AgentReactor {
    /// Ends the session for a violation of the peer.
    pub(super) fn violated(&mut self, violation: Violation) -> Action<'static> {
        // The bytes of the offending frame do not count as lost.
        self.link.forget_partial();
        let message = violation.to_string();
        self.disconnect_for(CloseReason::Violation(violation), violation.status(), &message);
        self.at_rest(1)
    }

    /// Ends the session with a DISCONNECT, unless it is over.
    pub(super) fn disconnect_for(&mut self, reason: CloseReason, status: Status, message: &str) {
        if !self.link.is_closing() {
            self.end(reason);
            self.link.disconnect(status, message);
        }
    }

    /// Ends the session after the end of the input, if no answer is outstanding and nothing is queued.
    pub(super) fn end_if_nothing_outstanding(&mut self) {
        if self.flight.waiting() == 0 && self.link.nothing_to_send() && !self.link.is_paused() {
            self.end(CloseReason::Eof);
            self.link.close();
        }
    }

    /// Records why the session ends and what is lost. `Action::Close` is returned by the current event or, if a decision
    /// ended the session, by the next one.
    pub(super) fn end(&mut self, reason: CloseReason) {
        let arriving = self.link.reassembly.clear();
        let lost = Lost {
            messages: self.flight.clear(),
            payloads: arriving.len(),
            frame_bytes: self.link.partial_bytes(),
            answers: self.link.abort_all_sending(),
        };
        if reason.initiator() != Initiator::Peer {
            arriving.for_each(|ids| self.push_abort(ids));
        }
        self.ended = Some(Box::new(Closed { reason, lost }));
    }
}
