//! Timers, protocol violations, and the end of a session.

use alloc::boxed::Box;

use super::{
    EngineError, EngineReactor, NotifyId,
    action::{Ended, EngineAction, Failure},
    config::OnError,
};
use crate::{
    Status,
    frame::{Flags, FrameType, Header},
    link::{CloseReason, Closed, Lost, Phase, Timer, Violation},
};

impl EngineReactor {
    pub(super) fn on_timer(&mut self, timer: Timer) -> Option<EngineAction<'static>> {
        let reason = CloseReason::Timeout(timer);
        match timer {
            Timer::Message => {
                let id = self.pending.oldest()?.id;
                if !self.link.is_closing() && self.link.drop_sending(id.ids()) == Some(true) {
                    let header = Header { frame_type: FrameType::Unset, flags: Flags::ABORT, ids: id.ids() };
                    self.link.push(header, &[]);
                }
                if self.link.reassembly.drop_set(id.ids()).is_some() {
                    self.link.reassembly.refuse(id.ids(), &self.config.limits);
                }
                if self.config.profile.late_ack_blocks && self.window() == 1 {
                    self.late_ack = true;
                }
                return self.fail(id, EngineError::Timeout).map(EngineAction::Failed);
            }
            Timer::Fragment => {
                let (ids, _) = self.link.reassembly.oldest()?;
                self.link.reassembly.drop_set(ids)?;
                self.link.reassembly.refuse(ids, &self.config.limits);
                let id = self.pending.find(ids)?.id;
                return self.fail(id, EngineError::Timeout).map(EngineAction::Failed);
            }
            Timer::Idle if self.ending.is_some() => self.finish_ending(Status::TIMEOUT),
            // HAProxy closes without a DISCONNECT when the AGENT-HELLO does not come in time.
            Timer::Hello | Timer::Write => {
                self.finish(reason, Status::TIMEOUT);
                self.link.abandon();
            }
            Timer::Drain => self.disconnect_for(reason, Status::NORMAL),
            // The link handles it.
            Timer::Memory => {}
            Timer::Frame | Timer::Idle | Timer::Refused | Timer::Age | Timer::Processing | Timer::Linger => {
                self.disconnect_for(reason, Status::TIMEOUT);
            }
        }
        None
    }

    /// Removes one request and returns its failure.
    pub(super) fn fail(&mut self, id: NotifyId, error: EngineError) -> Option<Failure> {
        let request = self.pending.remove(id)?;
        Some(Failure { id, error, took: self.link.now().since(request.asked) })
    }

    /// Ends the session after a protocol violation, as the profile has it.
    pub(super) fn on_violation(&mut self, violation: Violation) {
        // The frame at fault does not count as lost, even if it is incomplete.
        self.link.forget_partial();
        if self.link.is_closing() {
            // The input cannot be parsed any further, so the agent's DISCONNECT cannot be found.
            self.finish_ending(violation.status());
            return;
        }
        if self.config.profile.stalls_on_empty_frame
            && matches!(violation, Violation::BadHeader { len: 0, .. })
        {
            self.go_silent(CloseReason::Violation(violation));
            return;
        }
        let status = violation.status();
        let bad_hello = matches!(violation, Violation::Hello { .. });
        let bad_disconnect = matches!(violation, Violation::Disconnect { .. });
        let reason = CloseReason::Violation(violation);
        let established = self.link.phase == Phase::Established;
        match self.config.profile.on_error {
            OnError::Disconnect if !self.config.healthcheck => self.disconnect_for(reason, status),
            OnError::Silence if established && !bad_disconnect => self.go_silent(reason),
            OnError::Silence
                if bad_hello && self.config.profile.reports_bad_hello && !self.config.healthcheck =>
            {
                self.finish(reason, status);
                self.link.push_disconnect(FrameType::HaproxyDisconnect, status, disconnect_message(status));
                self.close_after_flush();
            }
            OnError::Disconnect | OnError::Silence => {
                self.finish(reason, status);
                self.link.abandon();
            }
        }
    }

    /// Stops reading and sending without closing: requests in flight end with their timeouts.
    pub(super) fn go_silent(&mut self, reason: CloseReason) {
        if !self.link.is_closing() {
            self.link.mute();
            self.ending = Some(reason);
        }
    }

    /// Sends a DISCONNECT and awaits the agent's. A profile without DISCONNECTs closes instead.
    pub(super) fn disconnect_for(&mut self, reason: CloseReason, status: Status) {
        if self.link.is_closing() {
            return;
        }
        self.drop_fragments();
        let reason = if self.stalled { CloseReason::Stalled } else { reason };
        if !self.config.profile.sends_disconnect {
            self.finish(reason, status);
            self.close_after_flush();
            return;
        }
        self.link.disconnect_and_await(status, disconnect_message(status));
        self.ending = Some(reason);
    }

    /// Ends a session that is ending, with the error that its requests get.
    pub(super) fn finish_ending(&mut self, status: Status) {
        if let Some(reason) = self.ending.take() {
            self.end(reason, status);
            self.close_after_flush();
        }
    }

    /// The agent has shut its write side: no more answers can arrive.
    pub(super) fn on_eof(&mut self) {
        if self.ending.is_some() {
            self.finish_ending(Status::IO);
        } else if !self.link.is_closing() {
            let disconnects = self.config.profile.sends_disconnect && self.link.phase == Phase::Established;
            self.drop_fragments();
            self.finish(CloseReason::Eof, Status::IO);
            if disconnects {
                let message = disconnect_message(Status::IO);
                self.link.push_disconnect(FrameType::HaproxyDisconnect, Status::IO, message);
            }
            self.close_after_flush();
        }
    }

    /// Closes once the outgoing bytes are flushed.
    pub(super) fn close_after_flush(&mut self) {
        if self.link.nothing_to_send() {
            self.link.abandon();
        } else {
            self.link.close();
        }
    }

    /// Drops the rest of a payload that is being sent in fragments.
    pub(super) fn drop_fragments(&mut self) {
        if self.link.is_fragmenting() {
            for id in self.pending.iter() {
                self.link.drop_sending(id.ids());
            }
        }
    }

    /// Records why the session ends, and its unanswered requests.
    pub(super) fn finish(&mut self, reason: CloseReason, status: Status) {
        // The first reason counts: a session that has ended keeps its own.
        if !self.link.is_closing() || self.ending.take().is_some() {
            self.end(reason, status);
        }
    }

    fn end(&mut self, reason: CloseReason, status: Status) {
        self.drop_fragments();
        let lost = Lost {
            messages: self.pending.len(),
            payloads: self.link.reassembly.clear().len(),
            frame_bytes: self.link.partial_bytes(),
            answers: 0,
        };
        self.ended = Some(Box::new(Ended {
            closed: Closed { reason, lost },
            error: EngineError::Spop(status),
            unanswered: self.pending.take_all(),
            orphaned: self.is_async(),
        }));
    }

    /// Whether frames from the agent are still processed.
    pub(super) fn is_reading(&self) -> bool {
        !self.link.is_closing() || self.link.awaits_disconnect()
    }

    /// With no request in flight, ends a session that is draining or silent.
    pub(super) fn end_if_idle(&mut self) {
        if !self.pending.is_empty() {
            return;
        }
        if self.link.is_mute() {
            self.finish_ending(Status::IO);
        } else if self.link.is_draining() && !self.link.is_closing() {
            if self.link.phase == Phase::Established {
                self.disconnect_for(CloseReason::Drained, Status::NORMAL);
            } else {
                self.finish(CloseReason::Drained, Status::NORMAL);
                self.link.abandon();
            }
        }
    }

    /// The action when the input holds no further complete frame.
    pub(super) fn stop_action(&mut self, at_least: usize) -> EngineAction<'static> {
        self.end_if_idle();
        if let Some(ended) = self.ended.take() {
            EngineAction::Close(*ended)
        } else if !self.outgoing().is_empty() {
            EngineAction::SendFrames
        } else {
            EngineAction::WantBytes { at_least }
        }
    }
}

/// The message of HAProxy's DISCONNECT.
fn disconnect_message(status: Status) -> &'static str {
    match status {
        // The only message that differs from the specification's.
        Status::FRAGMENTED => "fragmentation not supported",
        status => status.reason().unwrap_or("an unknown error occurred"),
    }
}
