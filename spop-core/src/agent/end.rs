//! The end of a session.

use alloc::{boxed::Box, string::ToString};

use super::{AgentReactor, action::Action};
use crate::{
    Status,
    link::{CloseReason, Closed, Initiator, Lost, Violation},
};

impl AgentReactor {
    pub(super) fn violated(&mut self, violation: Violation) -> Action<'static> {
        // The frame that is at fault is no loss, however much of it has come.
        self.link.forget_partial();
        let message = violation.to_string();
        self.disconnect_for(CloseReason::Violation(violation), violation.status(), &message);
        self.at_rest(1)
    }

    pub(super) fn disconnect_for(&mut self, reason: CloseReason, status: Status, message: &str) {
        if !self.link.is_closing() {
            self.end(reason);
            self.link.disconnect(status, message);
        }
    }

    /// After the end of the input there may be nothing left to do.
    pub(super) fn end_if_nothing_owed(&mut self) {
        if self.flight.waiting() == 0 && self.link.nothing_to_send() && !self.link.is_paused() {
            self.end(CloseReason::Eof);
            self.link.close();
        }
    }

    /// Notes why the session ends and what is lost by it. The action that says so is returned by the input under way, or
    /// by the next where a decision of the application ended it.
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
