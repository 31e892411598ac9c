//! Answers that the reactor itself sends: empty, aborted and failed.

use alloc::sync::Arc;

use super::{AgentReactor, config::OnFailure};
use crate::{
    frame::{Flags, FrameType, Header, Ids},
    link::CloseReason,
};

impl AgentReactor {
    /// Answers a NOTIFY without messages. HAProxy 3.1, and 3.2 before August 2025, send one when the conditions of all
    /// messages are false.
    pub(super) fn acknowledge_empty(&mut self, ids: Ids) {
        self.flight.answered();
        self.link.push(Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids }, &[]);
    }

    /// Refuses a payload: sends an ACK with ABORT, and discards the fragments in transit.
    pub(super) fn refuse(&mut self, ids: Ids) {
        self.link.reassembly.refuse(ids, &self.config.limits);
        self.push_refusal(ids);
    }

    /// Sends the ACK with ABORT for a refused payload.
    pub(super) fn push_refusal(&mut self, ids: Ids) {
        self.payload_refused = true;
        self.push_abort(ids);
    }

    /// Queues an ACK with ABORT.
    pub(super) fn push_abort(&mut self, ids: Ids) {
        self.link.push(Header { frame_type: FrameType::Ack, flags: Flags::ABORT, ids }, &[]);
    }

    /// Applies `on_failure`: the reply to a NOTIFY that has no answer. An answer sent in part is aborted instead.
    pub(super) fn push_failure(&mut self, ids: Ids) {
        if self.link.abort_sending(ids) {
            return;
        }
        let config = Arc::clone(&self.config);
        match &config.on_failure {
            OnFailure::Answer(actions) => {
                let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids };
                let fits = header.encoded_len() + actions.as_bytes().len() <= self.max_ack as usize;
                self.link.push(header, if fits { actions.as_bytes() } else { &[] });
            }
            OnFailure::Disconnect { status, message } => {
                self.disconnect_for(CloseReason::Disconnect(*status), *status, message);
            }
        }
    }
}
