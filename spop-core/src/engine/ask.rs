//! Decisions of the application: requests, drain, disconnect.

use super::{
    EngineReactor, NotifyId,
    action::{Answer, UnclaimedAck},
    config::StreamIds,
    error::NotifyError,
    reactor::NOTIFY_HEADER,
};
use crate::{
    MessageList, Status, Timestamp,
    frame::{Capabilities, Flags, FrameType, Header, Ids},
    link::{CloseReason, Phase},
};

/// Decisions of the application. Each returns success or a misuse, never an action. If one ends the session,
/// [`Interest::resume`](crate::Interest::resume) is set, and the next [`on_bytes`](Self::on_bytes) returns the
/// [`Close`](super::EngineAction::Close).
impl EngineReactor {
    /// Sends a request: a NOTIFY with these messages. `ids` are the stream's, if the
    /// [profile](super::Profile::stream_ids) lets the caller number requests; `None` takes the connection's next stream.
    ///
    /// A payload that exceeds a frame is sent in fragments if the agent accepts them and
    /// [`send_frag_payload`](super::EngineConfig::send_frag_payload) is set.
    ///
    /// # Errors
    /// [`NotifyError`] if it cannot be sent, now or at all. Nothing was queued.
    #[inline]
    pub fn notify(
        &mut self,
        now: Timestamp,
        ids: Option<Ids>,
        messages: &MessageList,
    ) -> Result<NotifyId, NotifyError> {
        self.notify_raw(now, ids, messages.as_bytes())
    }

    /// As [`notify`](Self::notify), with an encoded payload that is sent unchecked.
    ///
    /// # Errors
    /// As [`notify`](Self::notify).
    pub fn notify_raw(
        &mut self,
        now: Timestamp,
        ids: Option<Ids>,
        payload: &[u8],
    ) -> Result<NotifyId, NotifyError> {
        // Its time begins now, also where the clock has gone back.
        let now = self.link.tick(now);
        self.notify_since(now, now, ids, payload)
    }

    /// As [`notify_raw`](Self::notify_raw), for a request whose processing timeout began at `asked`.
    #[inline]
    pub(super) fn notify_since(
        &mut self,
        now: Timestamp,
        asked: Timestamp,
        ids: Option<Ids>,
        payload: &[u8],
    ) -> Result<NotifyId, NotifyError> {
        let now = self.link.tick(now);
        if self.link.phase != Phase::Established || self.link.is_draining() {
            return Err(NotifyError::NoSession);
        }
        if self.is_busy() {
            return Err(NotifyError::Busy);
        }
        let ids = self.choose(ids)?;
        let size = payload.len();
        let limit = (self.link.max_frame_size as usize).saturating_sub(NOTIFY_HEADER);
        if size <= limit {
            self.link.push(Header { frame_type: FrameType::Notify, flags: Flags::FIN, ids }, payload);
        } else if self.sends_fragments() {
            self.link.push_fragmented(FrameType::Notify, ids, payload, true);
        } else {
            return Err(NotifyError::TooBig { size, limit });
        }
        self.highest = self.highest.max(Some(ids.stream));
        self.next_stream = self.next_stream.max(ids.stream.saturating_add(1));
        Ok(self.pending.insert(ids, asked.min(now)))
    }

    /// Whether [`notify`](Self::notify) would accept a request now.
    pub fn is_ready(&self) -> bool {
        self.link.phase == Phase::Established && !self.link.is_draining() && !self.is_busy()
    }

    /// Matches an ACK that arrived on another connection of the engine (`async`) to a request of this one.
    ///
    /// # Errors
    /// Returns the ACK if it matches no request here.
    pub fn claim(&mut self, now: Timestamp, ack: UnclaimedAck) -> Result<Answer<'static>, UnclaimedAck> {
        self.link.tick(now);
        match self.pending.find(ack.ids) {
            Some(request) if self.is_async() && !self.link.is_leaving(ack.ids) => {
                self.pending.remove(request.id);
                let took = self.link.now().since(request.asked);
                self.end_if_idle();
                Ok(Answer { id: request.id, payload: ack.payload.into(), took })
            }
            _ => Err(ack),
        }
    }

    /// Accepts no more requests, and ends the session once none is in flight, or when the drain timeout ends.
    pub fn drain(&mut self, now: Timestamp) {
        let now = self.link.tick(now);
        self.link.drain(now + self.config.timeouts.drain);
        self.end_if_idle();
    }

    /// Ends the session at once, with a DISCONNECT where the profile sends one. Requests in flight fail with the status of
    /// the agent's DISCONNECT.
    pub fn disconnect(&mut self, now: Timestamp, status: Status) {
        self.link.tick(now);
        if self.link.phase == Phase::Established {
            self.disconnect_for(CloseReason::Disconnect(status), status);
        } else if !self.link.is_closing() {
            self.finish(CloseReason::Disconnect(status), status);
            self.link.abandon();
        }
    }

    /// The limit of requests in flight.
    pub(super) fn window(&self) -> usize {
        let many = self.session.as_ref().is_some_and(|session| session.capabilities.allow_overlap());
        if many { self.config.max_waiting_frames } else { 1 }
    }

    /// Whether answers may arrive on any connection of the engine.
    pub(super) fn is_async(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.capabilities.contains(Capabilities::ASYNC))
    }

    fn is_busy(&self) -> bool {
        self.pending.len() >= self.window()
            || self.late_ack
            || self.link.is_fragmenting()
            || self.link.outgoing_bytes() >= self.config.limits.max_outgoing
    }

    fn sends_fragments(&self) -> bool {
        let agent = self.session.as_ref().map_or(Capabilities::NONE, |session| session.peer_capabilities);
        self.config.send_frag_payload && agent.contains(Capabilities::FRAGMENTATION)
    }

    fn choose(&self, ids: Option<Ids>) -> Result<Ids, NotifyError> {
        match (self.config.profile.stream_ids, ids) {
            (StreamIds::Odd, Some(_)) => Err(NotifyError::OwnIds),
            (StreamIds::Odd, None) => Ok(Ids::new(self.next_stream | 1, 1)),
            (StreamIds::Streams, None) => Ok(Ids::new(self.next_stream, 1)),
            (StreamIds::Streams, Some(ids)) if self.pending.find(ids).is_some() => {
                Err(NotifyError::InUse(ids))
            }
            (StreamIds::Streams, Some(ids)) => Ok(ids),
        }
    }
}
