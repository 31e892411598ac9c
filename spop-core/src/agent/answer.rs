//! What the application decides: answers, refusals, the end.

use super::{
    fragments::NotArriving,
    reactor::AgentReactor,
    ticket::{AckError, NotWaiting, Settled, Ticket, TicketId},
};
use core::time::Duration;

use crate::{
    Actions, Status, Timestamp,
    frame::{Capabilities, Flags, FrameType, HEADER_MAX, Header, Ids},
    link::CloseReason,
};

/// Decisions of the application. Each returns success or a misuse, never an action: what follows from it is collected by
/// [`on_bytes`](Self::on_bytes) when [`Interest::resume`](crate::Interest::resume) is set.
impl AgentReactor {
    /// Answers a NOTIFY.
    ///
    /// An answer that does not fit a frame leaves in fragments if the peer accepts them.
    ///
    /// # Errors
    /// [`AckError::TooBig`]; and where the ticket is another connection's, [`AckError::WrongConnection`], or
    /// [`AckError::Closing`] if this one ends. Nothing was queued, and the ticket comes back.
    #[inline]
    pub fn acknowledge(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        actions: &Actions,
    ) -> Result<Settled, AckError> {
        let payload = actions.as_bytes();
        if ticket.connection != self.connection
            || payload.len() + HEADER_MAX > self.max_ack
            || self.link.is_fragmenting()
            || self.link.is_deferred()
        {
            return self.acknowledge_any(now, ticket, payload);
        }
        // An answer takes no less room than its NOTIFY: reading that has stopped does not go on by it.
        self.link.tick(now);
        let Some(settled) = self.settle(&ticket) else { return Ok(Settled::Dropped) };
        self.link.push(Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: ticket.ids }, payload);
        Ok(settled)
    }

    /// Hands in a part of an answer that has more to come; the last goes to [`acknowledge`](Self::acknowledge). For
    /// peers that accept fragments. With async, too, the answer stays on this connection then.
    ///
    /// # Errors
    /// [`AckError::WrongConnection`] where the ticket is another connection's, or when the peer accepts no fragments, or
    /// the part is too big. One that is too big because others wait to be sent can be handed in again when they have left.
    pub fn acknowledge_part(
        &mut self,
        now: Timestamp,
        mut ticket: Ticket,
        actions: &Actions,
    ) -> Result<Ticket, AckError> {
        self.tick(now);
        if ticket.connection != self.connection {
            return Err(AckError::WrongConnection { ticket, connection: self.connection });
        }
        if !self.peer_accepts_fragments() {
            return Err(AckError::NoFragmentation { ticket });
        }
        let size = actions.as_bytes().len();
        let limit = self.config.limits.max_outgoing.saturating_sub(self.link.outgoing_bytes());
        if size > limit {
            return Err(AckError::TooBig { ticket, size, limit });
        }
        if self.is_live(&ticket) {
            self.link.push_fragmented(FrameType::Ack, ticket.ids, actions.as_bytes(), false);
            ticket.engine = None;
        }
        Ok(ticket)
    }

    /// Refuses to answer: an answer that was handed in in parts is aborted; otherwise the peer gets an ACK with ABORT,
    /// which HAProxy treats as an answer without actions.
    ///
    /// # Errors
    /// [`AckError::WrongConnection`] or [`AckError::Closing`] with the ticket.
    pub fn abort_answer(&mut self, now: Timestamp, ticket: Ticket) -> Result<Settled, AckError> {
        self.tick(now);
        let ticket = self.own(ticket)?;
        let Some(settled) = self.settle(&ticket) else { return Ok(Settled::Dropped) };
        if !self.link.abort_sending(ticket.ids) {
            self.push_abort(ticket.ids);
        }
        Ok(settled)
    }

    /// Says that there is no answer; the peer gets what [`AgentConfig::on_failure`](crate::AgentConfig::on_failure) says. An
    /// answer that was begun in parts is aborted instead.
    ///
    /// # Errors
    /// [`AckError::WrongConnection`] or [`AckError::Closing`] with the ticket.
    pub fn fail(&mut self, now: Timestamp, ticket: Ticket) -> Result<Settled, AckError> {
        self.tick(now);
        let ticket = self.own(ticket)?;
        let Some(settled) = self.settle(&ticket) else { return Ok(Settled::Dropped) };
        self.push_failure(ticket.ids);
        Ok(settled)
    }

    /// Gives up a NOTIFY of this connection without an answer, because another connection of its engine carries it or its
    /// answer is no longer wanted; the rest of an answer that was begun in parts is withdrawn.
    ///
    /// # Errors
    /// [`NotWaiting`] when it was answered or cancelled before.
    pub fn release(&mut self, now: Timestamp, ticket: TicketId) -> Result<(), NotWaiting> {
        self.tick(now);
        let (ids, _) = self.flight.remove(ticket).ok_or(NotWaiting(ticket))?;
        self.link.withdraw(ids);
        if self.link.is_eof() && !self.link.is_closing() {
            self.end_if_nothing_owed();
        }
        Ok(())
    }

    /// Refuses the rest of a NOTIFY that is still arriving: the peer gets an ACK with ABORT, which HAProxy reports as
    /// error 4, and the fragments that are under way are swallowed.
    ///
    /// # Errors
    /// [`NotArriving`] when there is no such NOTIFY: it is complete, or was dropped.
    pub fn abort(&mut self, now: Timestamp, ids: Ids) -> Result<(), NotArriving> {
        self.tick(now);
        self.link.reassembly.drop_set(ids).ok_or(NotArriving(ids))?;
        self.refuse(ids);
        Ok(())
    }

    /// Ends the session when nothing is owed; until then requests are served on, because SPOP has no way to say that no
    /// more are wanted. The moment is chosen so that no request is on its way, see [`DrainTiming`](super::DrainTiming). After
    /// the drain timeout the session ends whatever is owed.
    pub fn drain(&mut self, now: Timestamp) {
        let now = self.tick(now);
        if self.drained_by.take().is_some() {
            // It has its own time.
            self.link.stop_draining();
        }
        self.link.drain(now + self.config.timeouts.drain);
        self.hold_back();
    }

    /// Ends the session at once. What was acknowledged is sent before the DISCONNECT; what was not is lost. The message
    /// is cut to 180 bytes. A session that is over already is left as it is.
    pub fn disconnect(&mut self, now: Timestamp, status: Status, message: &str) {
        self.tick(now);
        self.disconnect_for(CloseReason::Disconnect(status), status, message);
    }
}

impl AgentReactor {
    /// A ticket that this connection may answer: its own, or with async one of its engine.
    #[cold]
    fn own(&self, ticket: Ticket) -> Result<Ticket, AckError> {
        if ticket.connection == self.connection {
            return Ok(ticket);
        }
        if self.shared_engine.is_none() || self.shared_engine != ticket.engine {
            Err(AckError::WrongConnection { ticket, connection: self.connection })
        } else if self.link.is_closing() {
            Err(AckError::Closing { ticket })
        } else {
            Ok(ticket)
        }
    }

    /// Whether the answer is still wanted. Of a ticket of another connection that one knows, and the caller.
    fn is_live(&self, ticket: &Ticket) -> bool {
        ticket.connection != self.connection || self.flight.contains(ticket.id)
    }

    /// Takes the ticket for an answer that is about to be queued; `None` if the request was cancelled.
    #[inline]
    fn settle(&mut self, ticket: &Ticket) -> Option<Settled> {
        let mut settled = Settled::Queued;
        if ticket.connection == self.connection {
            let (_, arrived) = self.flight.remove(ticket.id)?;
            let age = self.link.now().as_nanos().saturating_sub(arrived.as_nanos());
            if age > self.late_after {
                settled = Settled::Late { age: Duration::from_nanos(age) };
            }
        }
        self.flight.answered();
        Some(settled)
    }

    /// What [`acknowledge`](Self::acknowledge) does when there is more to it than one frame behind the others.
    #[inline(never)]
    fn acknowledge_any(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        payload: &[u8],
    ) -> Result<Settled, AckError> {
        self.tick(now);
        let mut ticket = self.own(ticket)?;
        if !self.is_live(&ticket) {
            return Ok(Settled::Dropped);
        }
        let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: ticket.ids };
        let size = header.encoded_len() + payload.len();
        if !self.link.is_sending(ticket.ids) && size <= self.max_ack {
            self.link.push(header, payload);
        } else {
            ticket = self.check_size(ticket, payload.len())?;
            self.link.push_fragmented(FrameType::Ack, ticket.ids, payload, true);
        }
        Ok(self.settle(&ticket).unwrap_or(Settled::Dropped))
    }

    /// Whether an answer of this size can be sent at all, in fragments if need be.
    fn check_size(&self, ticket: Ticket, size: usize) -> Result<Ticket, AckError> {
        let limit = if self.peer_accepts_fragments() {
            self.config.limits.max_outgoing
        } else {
            let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: ticket.ids };
            self.max_ack.saturating_sub(header.encoded_len())
        };
        if size <= limit { Ok(ticket) } else { Err(AckError::TooBig { ticket, size, limit }) }
    }

    fn peer_accepts_fragments(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.peer_capabilities.contains(Capabilities::FRAGMENTATION))
    }
}
