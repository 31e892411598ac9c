//! Timers, breaches and the end.

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
                if self.config.profile.awaits_late_ack && self.window() == 1 {
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
            Timer::Idle if self.ending.is_some() => self.part(Status::TIMEOUT),
            // HAProxy hangs up on an agent that does not answer its HELLO.
            Timer::Hello | Timer::Write => {
                self.finish(reason, Status::TIMEOUT);
                self.link.abandon();
            }
            Timer::Drain => self.disconnect_for(reason, Status::NORMAL),
            // Served by the link.
            Timer::Memory => {}
            Timer::Frame | Timer::Idle | Timer::Refused | Timer::Age | Timer::Processing | Timer::Linger => {
                self.disconnect_for(reason, Status::TIMEOUT);
            }
        }
        None
    }

    /// Ends one request.
    pub(super) fn fail(&mut self, id: NotifyId, error: EngineError) -> Option<Failure> {
        let request = self.pending.remove(id)?;
        Some(Failure { id, error, took: self.link.now().since(request.asked) })
    }

    /// What breaks the protocol is left behind, and the session with it.
    pub(super) fn violated(&mut self, violation: Violation) {
        // The frame that is at fault is no loss, however much of it has come.
        self.link.forget_partial();
        if self.link.is_closing() {
            // The agent's DISCONNECT cannot be found in this any more.
            self.part(violation.status());
            return;
        }
        if self.config.profile.stalls_on_nothing && matches!(violation, Violation::BadHeader { len: 0, .. }) {
            self.mute(CloseReason::Violation(violation));
            return;
        }
        let status = violation.status();
        let bad_hello = matches!(violation, Violation::Hello { .. });
        let bad_disconnect = matches!(violation, Violation::Disconnect { .. });
        let reason = CloseReason::Violation(violation);
        let established = self.link.phase == Phase::Established;
        match self.config.profile.on_error {
            OnError::Disconnect if !self.config.healthcheck => self.disconnect_for(reason, status),
            OnError::Silence if established && !bad_disconnect => self.mute(reason),
            OnError::Silence
                if bad_hello && self.config.profile.tells_bad_hello && !self.config.healthcheck =>
            {
                self.finish(reason, status);
                self.link.push_disconnect(FrameType::HaproxyDisconnect, status, haproxy_says(status));
                self.hang_up();
            }
            OnError::Disconnect | OnError::Silence => {
                self.finish(reason, status);
                self.link.abandon();
            }
        }
    }

    /// Reads and sends nothing any more; what waits, waits for its timeout.
    pub(super) fn mute(&mut self, reason: CloseReason) {
        if !self.link.is_closing() {
            self.link.mute();
            self.ending = Some(reason);
        }
    }

    /// Tells the agent that the session ends, and waits for its DISCONNECT; or just ends it, by habit.
    pub(super) fn disconnect_for(&mut self, reason: CloseReason, status: Status) {
        if self.link.is_closing() {
            return;
        }
        self.drop_fragments();
        let reason = if self.deaf { CloseReason::Stalled } else { reason };
        if !self.config.profile.says_goodbye {
            self.finish(reason, status);
            self.hang_up();
            return;
        }
        self.link.disconnect_and_await(status, haproxy_says(status));
        self.ending = Some(reason);
    }

    /// The wait for the agent's DISCONNECT is over: the requests fail with the status that came of it.
    pub(super) fn part(&mut self, status: Status) {
        if let Some(reason) = self.ending.take() {
            self.end(reason, status);
            self.hang_up();
        }
    }

    /// The agent has shut its side: nothing more can be answered.
    pub(super) fn input_ended(&mut self) {
        if self.ending.is_some() {
            self.part(Status::IO);
        } else if !self.link.is_closing() {
            let says_goodbye = self.config.profile.says_goodbye && self.link.phase == Phase::Established;
            self.drop_fragments();
            self.finish(CloseReason::Eof, Status::IO);
            if says_goodbye {
                self.link.push_disconnect(FrameType::HaproxyDisconnect, Status::IO, haproxy_says(Status::IO));
            }
            self.hang_up();
        }
    }

    /// Closes, after the last outgoing bytes if there are any.
    pub(super) fn hang_up(&mut self) {
        if self.link.nothing_to_send() {
            self.link.abandon();
        } else {
            self.link.close();
        }
    }

    pub(super) fn drop_fragments(&mut self) {
        if self.link.is_fragmenting() {
            for id in self.pending.iter() {
                self.link.drop_sending(id.ids());
            }
        }
    }

    /// Notes why the session ends and what ends with it.
    pub(super) fn finish(&mut self, reason: CloseReason, status: Status) {
        // A session that is over already has said why.
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
            adrift: self.is_async(),
        }));
    }

    /// Whether frames of the agent matter.
    pub(super) fn is_reading(&self) -> bool {
        !self.link.is_closing() || self.link.awaits_disconnect()
    }

    /// Ends what only waited for the last request to end.
    pub(super) fn settle(&mut self) {
        if !self.pending.is_empty() {
            return;
        }
        if self.link.is_mute() {
            self.part(Status::IO);
        } else if self.link.is_draining() && !self.link.is_closing() {
            if self.link.phase == Phase::Established {
                self.disconnect_for(CloseReason::Drained, Status::NORMAL);
            } else {
                self.finish(CloseReason::Drained, Status::NORMAL);
                self.link.abandon();
            }
        }
    }

    /// What is left to say when there is nothing more to be done with the input.
    pub(super) fn at_rest(&mut self, at_least: usize) -> EngineAction<'static> {
        self.settle();
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
fn haproxy_says(status: Status) -> &'static str {
    match status {
        // The only one that differs from the specification.
        Status::FRAGMENTED => "fragmentation not supported",
        status => status.reason().unwrap_or("an unknown error occurred"),
    }
}
