//! Frames received from the agent.

use bytes::Bytes;

use super::{
    EngineError, EngineReactor,
    action::{Answer, EngineAction, UnclaimedAck},
    handshake::negotiate,
    pending::Request,
};
use crate::{
    Status,
    frame::{Capabilities, Disconnect, Flags, Frame, FrameType, Header, Ids, Received},
    link::{Begun, CloseReason, Continued, Input, Next, Phase, Verdict, Violation},
};

/// Length prefix (4), type (1), flags (4) and two one-byte identifiers.
const HELLO_HEADER: usize = 11;

impl EngineReactor {
    /// Processes the next frame. `None`: no action, and another frame may follow.
    pub(super) fn step<'i>(&mut self, input: &mut Input<'i>) -> Result<Option<EngineAction<'i>>, Violation> {
        if self.config.profile.strict_ids && self.link.phase == Phase::Established {
            self.check_ids(input.bytes())?;
        }
        match self.link.next(input) {
            Err(Violation::Illegal { header, .. }) if self.skips(header) => {
                self.skip_first(input);
                Ok(None)
            }
            Err(violation) => Err(violation),
            Ok(Ok(next)) => self.on_frame(input, &next),
            Ok(Err(at_least)) => {
                self.link.rest(input.bytes().len());
                if self.link.is_eof() {
                    self.on_eof();
                    return Ok(Some(self.stop_action(at_least)));
                }
                self.check_split(input.bytes())?;
                Ok(Some(self.stop_action(at_least)))
            }
        }
    }

    fn on_frame<'i>(
        &mut self,
        input: &mut Input<'i>,
        next: &Next<'i>,
    ) -> Result<Option<EngineAction<'i>>, Violation> {
        match next.verdict {
            Verdict::Whole | Verdict::First | Verdict::Abort | Verdict::More | Verdict::Last => {
                self.on_ack(input, next)
            }
            Verdict::Hello => self.on_hello(input, next).map(Some),
            Verdict::Disconnect | Verdict::Discard
                if next.header.frame_type == FrameType::AgentDisconnect =>
            {
                self.on_disconnect(input, next)
            }
            Verdict::Disconnect | Verdict::Skip | Verdict::Discard | Verdict::Illegal(_) => {
                self.link.skip(input, next.len);
                Ok(None)
            }
        }
    }

    fn on_hello(
        &mut self,
        input: &mut Input<'_>,
        next: &Next<'_>,
    ) -> Result<EngineAction<'static>, Violation> {
        let session = negotiate(&self.config, next.header, next.payload)?;
        self.link.skip(input, next.len);
        if self.config.healthcheck {
            if self.config.profile.strict_healthcheck && !input.bytes().is_empty() {
                return Err(Violation::AfterHealthCheck(input.bytes().len()));
            }
            self.finish(CloseReason::HealthCheck, Status::NORMAL);
            self.close_after_flush();
            return Ok(self.stop_action(1));
        }
        self.link.phase = Phase::Established;
        self.link.max_frame_size = session.max_frame_size;
        self.session = Some(alloc::boxed::Box::new(session.clone()));
        Ok(EngineAction::Established(session))
    }

    fn on_disconnect<'i>(
        &mut self,
        input: &mut Input<'i>,
        next: &Next<'i>,
    ) -> Result<Option<EngineAction<'i>>, Violation> {
        let frame_type = next.header.frame_type;
        let disconnect = Disconnect::decode(next.payload);
        if self.link.awaits_disconnect() {
            // HAProxy reports the status of the agent's reply in place of its own.
            let status = disconnect.map_or(Status::INVALID, |disconnect| disconnect.status);
            self.link.skip(input, next.len);
            self.finish_ending(status);
            return Ok(None);
        }
        let disconnect = disconnect.map_err(|error| Violation::Disconnect { frame_type, error })?;
        let status = disconnect.status;
        let reason = CloseReason::peer_disconnect(status, disconnect.message);
        self.link.skip(input, next.len);
        if self.config.profile.fin_hides_disconnect && self.link.is_eof() && !self.pending.is_empty() {
            self.go_silent(reason);
            return Ok(None);
        }
        self.finish(reason, status);
        self.close_after_flush();
        Ok(None)
    }

    #[inline]
    fn on_ack<'i>(
        &mut self,
        input: &mut Input<'i>,
        next: &Next<'i>,
    ) -> Result<Option<EngineAction<'i>>, Violation> {
        let header = next.header;
        if header.frame_type == FrameType::Unset || header.flags.0 & Flags::FIN.0 == 0 {
            return self.on_ack_fragment(input, next);
        }
        let ids = header.ids;
        match self.pending.find(ids) {
            Some(request) if self.link.is_leaving(ids) => {
                self.link.skip(input, next.len);
                if !header.flags.is_abort() {
                    // HAProxy ignores an ACK that comes before the last fragment was sent, and expects it again.
                    self.ignored += 1;
                    return Ok(None);
                }
                self.link.drop_sending(ids);
                Ok(self.fail(request.id, EngineError::Aborted).map(EngineAction::Failed))
            }
            Some(request) => {
                if self.link.reassembly.len() > 0 {
                    self.link.reassembly.drop_set(ids);
                }
                self.link.skip(input, next.len);
                Ok(Some(self.answered(request, Received::in_input(next.payload))))
            }
            None => self.on_unclaimed(input, next),
        }
    }

    fn answered<'i>(&mut self, request: Request, payload: Received<'i>) -> EngineAction<'i> {
        self.pending.remove(request.id);
        let took = self.link.now().since(request.asked);
        EngineAction::Answered(Answer { id: request.id, payload, took })
    }

    /// An ACK that matches no request of this connection.
    fn on_unclaimed<'i>(
        &mut self,
        input: &mut Input<'i>,
        next: &Next<'i>,
    ) -> Result<Option<EngineAction<'i>>, Violation> {
        let Header { ids, flags, .. } = next.header;
        if self.is_async() {
            self.link.skip(input, next.len);
            let payload = Bytes::copy_from_slice(next.payload);
            return Ok(Some(EngineAction::Unclaimed(UnclaimedAck { ids, flags, payload })));
        }
        self.link.skip(input, next.len);
        self.ignored += 1;
        if self.config.profile.late_ack_blocks && self.window() == 1 {
            if !self.pending.is_empty() {
                return Err(Violation::NoSuchNotify(ids));
            }
            self.late_ack = false;
        }
        Ok(None)
    }

    /// A fragment of an ACK, or an ABORT.
    fn on_ack_fragment<'i>(
        &mut self,
        input: &mut Input<'i>,
        next: &Next<'i>,
    ) -> Result<Option<EngineAction<'i>>, Violation> {
        let header = next.header;
        if !self.accepts_fragments() && self.skips(header) {
            self.link.skip(input, next.len);
            return Ok(None);
        }
        if !self.accepts_fragments() {
            return Err(Violation::FragmentationNotAnnounced(header));
        }
        let ids = header.ids;
        let fragment = next.payload;
        let limits = &self.config.limits;
        let now = self.link.now();
        let request = self.pending.find(ids).filter(|_| !self.link.is_leaving(ids));
        let sets = &mut self.link.reassembly;
        let failed = |error| request.map(|request| (request, error));
        let failed = match next.verdict {
            Verdict::Abort => {
                let known = sets.drop_set(ids).is_some();
                sets.forget_refused(ids);
                if known || header.frame_type == FrameType::Ack { failed(EngineError::Aborted) } else { None }
            }
            Verdict::First if request.is_none() => {
                self.ignored += 1;
                sets.refuse(ids, limits);
                None
            }
            Verdict::First => {
                sets.drop_set(ids);
                match sets.begin(now, ids, fragment, limits) {
                    Begun::Kept => None,
                    Begun::TooBig => failed(EngineError::Resources),
                    Begun::TooMany => {
                        return Err(Violation::TooManyPayloads { header, max: limits.max_payloads });
                    }
                }
            }
            _ => match sets.continue_with(ids, fragment, next.verdict == Verdict::Last, limits) {
                Continued::Kept | Continued::Swallowed => None,
                Continued::TooBig { .. } => failed(EngineError::Resources),
                Continued::Unknown => return Err(Violation::NoSuchPayload(header)),
                Continued::Done(payload, _) => {
                    self.link.skip(input, next.len);
                    return Ok(request.map(|request| self.answered(request, payload.into())));
                }
            },
        };
        self.link.skip(input, next.len);
        Ok(failed.and_then(|(request, error)| self.fail(request.id, error)).map(EngineAction::Failed))
    }

    /// Rejects identifiers that this side has not used, as HAProxy 3.1 and later does.
    fn check_ids(&self, input: &[u8]) -> Result<(), Violation> {
        let Some((prefix, rest)) = input.split_first_chunk::<4>() else { return Ok(()) };
        let len = u32::from_be_bytes(*prefix) as usize;
        // The link reports frames that do not decode.
        let Some(Ok(Frame { header, .. })) = rest.get(..len).map(Frame::decode) else { return Ok(()) };
        let Ids { stream, frame } = header.ids;
        if matches!(header.frame_type, FrameType::AgentDisconnect | FrameType::AgentHello) {
            return Ok(());
        }
        let known = self.pending.of_stream(stream).is_some();
        if stream == 0
            || frame == 0
            || self.highest.is_none_or(|highest| stream > highest)
            || known && frame > 1
        {
            return Err(Violation::NoSuchNotify(header.ids));
        }
        Ok(())
    }

    /// Whether HAProxy skips this frame, which the protocol does not allow in this phase.
    fn skips(&self, header: Header) -> bool {
        self.config.profile.skips_other_frames
            && self.link.phase == Phase::Established
            && header.flags.is_fin()
            && matches!(header.frame_type, FrameType::Notify | FrameType::AgentHello | FrameType::Unset)
    }

    /// Skips the first frame of the input. The caller knows that it is complete.
    fn skip_first(&mut self, input: &mut Input<'_>) {
        let Some((prefix, rest)) = input.bytes().split_first_chunk::<4>() else { return };
        let len = 4 + rest.len().min(u32::from_be_bytes(*prefix) as usize);
        self.link.skip(input, len);
    }

    fn accepts_fragments(&self) -> bool {
        self.config.capabilities.contains(Capabilities::FRAGMENTATION)
    }

    /// Rejects an incomplete AGENT-HELLO or AGENT-DISCONNECT, if the profile does.
    fn check_split(&self, input: &[u8]) -> Result<(), Violation> {
        if !self.config.profile.rejects_split_frames || self.link.is_closing() || input.len() < HELLO_HEADER {
            return Ok(());
        }
        match input.get(4).copied().map(FrameType::from_byte) {
            Some(split @ (FrameType::AgentHello | FrameType::AgentDisconnect)) => {
                Err(Violation::NotWhole(split))
            }
            _ => Ok(()),
        }
    }
}
