//! Decisions of the application: answers, refusals, the end of a session.

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

/// HAProxy's `tune.bufsize`, and so its longest frame, unless it is configured.
const USUAL_FRAME: usize = 16 * 1024;

/// Decisions of the application.
///
/// Each returns success or an error of the caller, never an action. If a decision ends the session,
/// [`Interest::resume`](crate::Interest::resume) is set, and the next [`on_bytes`](Self::on_bytes) returns the
/// [`Close`](crate::Action::Close). Read [`interest`](Self::interest) after every decision.
impl AgentReactor {
    /// Answers a NOTIFY.
    ///
    /// An answer that does not fit a frame is sent in fragments, if the peer accepts them.
    ///
    /// # Errors
    /// [`AckError::TooBig`] if the answer exceeds what can be sent, or what the queue takes now
    /// ([`Limits::max_outgoing`](crate::config::Limits::max_outgoing)). For a ticket of another connection,
    /// [`AckError::WrongConnection`] if that connection has another engine or async is not in effect, [`AckError::Closing`] if
    /// this connection is closing, and [`AckError::Full`] if its queue is full. Nothing was queued, and the error returns the
    /// ticket.
    #[inline]
    pub fn acknowledge(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        actions: &Actions,
    ) -> Result<Settled, AckError> {
        let payload = actions.as_bytes();
        if ticket.connection != self.connection
            || payload.len() + HEADER_MAX > self.max_ack as usize
            || self.link.is_fragmenting()
            || self.link.is_deferred()
            || self.outgoing_is_full()
        {
            return self.acknowledge_any(now, ticket, payload);
        }
        // No backpressure check: an answer moves its request from in flight to unsent, so it cannot end backpressure.
        self.link.tick(now);
        let Some(settled) = self.settle(&ticket) else { return self.not_in_flight(now, ticket, payload) };
        self.link.push(Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: ticket.ids }, payload);
        Ok(settled)
    }

    /// Queues a part of an answer, and returns the ticket for the next part. [`acknowledge`](Self::acknowledge) takes the
    /// last part.
    ///
    /// The peer must accept fragments. Even with async, the whole answer then takes this connection. If the NOTIFY was
    /// cancelled, nothing is queued.
    ///
    /// # Errors
    /// [`AckError::WrongConnection`] if the ticket is another connection's, [`AckError::NoFragmentation`] if the peer
    /// accepts no fragments, and [`AckError::TooBig`] if the part exceeds what is left of
    /// [`max_outgoing`](crate::config::Limits::max_outgoing); then try again after queued bytes were sent.
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

    /// Refuses to answer. An answer sent in part is aborted; otherwise the peer receives an ACK with ABORT, which HAProxy
    /// treats as an answer without actions.
    ///
    /// # Errors
    /// [`AckError::WrongConnection`], [`AckError::Closing`] or [`AckError::Full`], only for a ticket of another connection.
    pub fn abort_answer(&mut self, now: Timestamp, ticket: Ticket) -> Result<Settled, AckError> {
        self.tick(now);
        let ticket = self.check_owner(ticket)?;
        let Some(settled) = self.settle(&ticket) else { return Ok(Settled::Dropped) };
        if !self.link.abort_sending(ticket.ids) {
            self.push_abort(ticket.ids);
        }
        Ok(settled)
    }

    /// Fails a NOTIFY: the peer receives the reply that [`AgentConfig::on_failure`](crate::AgentConfig::on_failure) names.
    /// An answer sent in part is aborted instead.
    ///
    /// # Errors
    /// [`AckError::WrongConnection`], [`AckError::Closing`] or [`AckError::Full`], only for a ticket of another connection.
    pub fn fail(&mut self, now: Timestamp, ticket: Ticket) -> Result<Settled, AckError> {
        self.tick(now);
        let ticket = self.check_owner(ticket)?;
        let Some(settled) = self.settle(&ticket) else { return Ok(Settled::Dropped) };
        self.push_failure(ticket.ids);
        Ok(settled)
    }

    /// Removes a NOTIFY of this connection without an answer, because another connection of its engine carries the answer
    /// or it is no longer needed. An answer sent in part is aborted.
    ///
    /// # Errors
    /// [`NotWaiting`] if the NOTIFY was answered or cancelled before.
    pub fn release(&mut self, now: Timestamp, ticket: TicketId) -> Result<(), NotWaiting> {
        self.tick(now);
        let (ids, _) = self.flight.remove(ticket).ok_or(NotWaiting(ticket))?;
        self.link.withdraw(ids);
        if self.link.is_eof() && !self.link.is_closing() {
            self.end_if_nothing_outstanding();
        }
        Ok(())
    }

    /// Refuses a fragmented NOTIFY that is still arriving: the peer receives an ACK with ABORT, which HAProxy reports as
    /// error 4, and further fragments are discarded.
    ///
    /// # Errors
    /// [`NotArriving`] if there is no such NOTIFY: it is complete, or was dropped.
    pub fn abort(&mut self, now: Timestamp, ids: Ids) -> Result<(), NotArriving> {
        self.tick(now);
        self.link.reassembly.drop_set(ids).ok_or(NotArriving(ids))?;
        self.refuse(ids);
        Ok(())
    }

    /// Drains the session: disconnects when no answer is outstanding. New requests are served until then, because SPOP has
    /// no message that stops them.
    ///
    /// [`DrainTiming`](super::DrainTiming) says when the DISCONNECT is sent, so that no request is in transit. After
    /// [`Timeouts::drain`](crate::config::Timeouts::drain) the session ends even if answers are outstanding. A drain that a
    /// timer started is replaced.
    pub fn drain(&mut self, now: Timestamp) {
        let now = self.tick(now);
        if self.drained_by.take().is_some() {
            // The application's drain has a deadline of its own.
            self.link.stop_draining();
        }
        self.link.drain(now + self.config.timeouts.drain);
        self.hold_answers();
    }

    /// Has a drain send no DISCONNECT before `earliest`, for a caller that may have more to send on this connection: with async,
    /// the answer to a NOTIFY whose own connection is gone. Until then answers are not held for the DISCONNECT. The deadline of the
    /// drain stays.
    pub fn postpone_disconnect(&mut self, earliest: Timestamp) {
        self.next_disconnect.get_or_insert_default().earliest = earliest;
        self.link.hold_output(false);
    }

    /// Ends the session at once. Queued answers are sent before the DISCONNECT; unanswered requests are lost. The message
    /// is cut to 180 bytes. Does nothing if the session is over.
    pub fn disconnect(&mut self, now: Timestamp, status: Status, message: &str) {
        self.tick(now);
        self.disconnect_for(CloseReason::Disconnect(status), status, message);
    }
}

impl AgentReactor {
    /// Checks that this connection may answer the ticket: it is its own or, with async, of the same engine.
    #[cold]
    fn check_owner(&self, ticket: Ticket) -> Result<Ticket, AckError> {
        if ticket.connection == self.connection && ticket.id != TicketId::RELEASED {
            return Ok(ticket);
        }
        if self.shared_engine.is_none() || self.shared_engine != ticket.engine {
            Err(AckError::WrongConnection { ticket, connection: self.connection })
        } else if self.link.is_closing() {
            Err(AckError::Closing { ticket })
        } else if self.outgoing_is_full() {
            // The answers of siblings are not in flight here, which would bound them.
            Err(AckError::Full { ticket })
        } else {
            Ok(ticket)
        }
    }

    /// Whether the NOTIFY still needs an answer. Always true for a ticket of another connection: only that one, and the
    /// caller, know.
    fn is_live(&self, ticket: &Ticket) -> bool {
        ticket.connection != self.connection
            || self.flight.contains(ticket.id)
            || ticket.id == TicketId::RELEASED
    }

    /// Removes the request from those in flight, for an answer that is about to be queued; `None` if it was cancelled.
    #[inline]
    fn settle(&mut self, ticket: &Ticket) -> Option<Settled> {
        let mut settled = Settled::Queued;
        if ticket.connection == self.connection {
            if let Some((_, arrived)) = self.flight.remove(ticket.id) {
                let age = self.link.now().nanos_since(arrived);
                if age > self.late_after {
                    settled = Settled::Late { age: Duration::from_nanos(age) };
                }
            } else if ticket.id != TicketId::RELEASED || self.link.is_closing() {
                return None;
            }
        }
        self.flight.answered();
        Some(settled)
    }

    /// An answer to a NOTIFY of this connection that is not in flight: it was cancelled, or it returns after it was released.
    #[cold]
    fn not_in_flight(&mut self, now: Timestamp, ticket: Ticket, payload: &[u8]) -> Result<Settled, AckError> {
        if ticket.id == TicketId::RELEASED {
            return self.acknowledge_any(now, ticket, payload);
        }
        Ok(Settled::Dropped)
    }

    /// Slow path of [`acknowledge`](Self::acknowledge): another connection's ticket, fragments, or deferred output.
    #[inline(never)]
    fn acknowledge_any(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        payload: &[u8],
    ) -> Result<Settled, AckError> {
        self.tick(now);
        let mut ticket = self.check_owner(ticket)?;
        if !self.is_live(&ticket) {
            return Ok(Settled::Dropped);
        }
        let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: ticket.ids };
        let size = header.encoded_len() + payload.len();
        if !self.link.is_sending(ticket.ids) && size <= self.max_ack as usize {
            ticket = self.check_share(ticket, payload.len())?;
            self.link.push(header, payload);
        } else {
            ticket = self.check_size(ticket, payload.len())?;
            self.link.push_fragmented(FrameType::Ack, ticket.ids, payload, true);
        }
        Ok(self.settle(&ticket).unwrap_or(Settled::Dropped))
    }

    /// Checks an answer in one frame against the queue. A full one takes no longer answers than HAProxy's frames have as a rule, so
    /// that those of all requests in flight together have a bound.
    fn check_share(&self, ticket: Ticket, size: usize) -> Result<Ticket, AckError> {
        let limits = &self.config.limits;
        let limit = (limits.max_outgoing / limits.max_in_flight).max(USUAL_FRAME);
        if size > limit && self.outgoing_is_full() {
            return Err(AckError::TooBig { ticket, size, limit });
        }
        Ok(ticket)
    }

    /// Checks that an answer of this size can be sent, in fragments if the peer accepts them.
    fn check_size(&self, ticket: Ticket, size: usize) -> Result<Ticket, AckError> {
        let limit = if self.peer_accepts_fragments() {
            self.config.limits.max_outgoing.saturating_sub(self.link.outgoing_bytes())
        } else {
            let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: ticket.ids };
            (self.max_ack as usize).saturating_sub(header.encoded_len())
        };
        if size <= limit { Ok(ticket) } else { Err(AckError::TooBig { ticket, size, limit }) }
    }

    fn peer_accepts_fragments(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.peer_capabilities.contains(Capabilities::FRAGMENTATION))
    }
}
