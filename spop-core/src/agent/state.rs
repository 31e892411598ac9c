//! Queries on the state of the agent's reactor.

use super::{
    AgentReactor, Session,
    action::Action,
    fragments::Partial,
    ticket::{ConnectionId, TicketId},
};
use crate::{
    Timestamp,
    frame::Ids,
    hub::FULL,
    link::{Input, Interest, Phase},
};

/// Queries.
impl AgentReactor {
    /// The bytes to send, in order. Empty while output is deferred or held for a drain.
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.link.outgoing()
    }

    /// What the driver should do now.
    #[expect(
        clippy::inline_always,
        reason = "packed into a register and taken apart again, the result costs as much as the work"
    )]
    #[inline(always)]
    pub fn interest(&self) -> Interest {
        let mut interest = self.link.interest(self.is_full(), self.ended.is_some());
        if self.link.is_draining() {
            interest.read_now = interest.read && self.is_disconnect_due();
        }
        interest
    }

    /// The session, once it is established.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// The phase of the connection.
    pub fn phase(&self) -> Phase {
        self.link.phase
    }

    /// Whether the session is draining: [`drain`](Self::drain) was called or a timer started a drain, and the session is
    /// not over.
    pub fn is_draining(&self) -> bool {
        self.link.is_draining() && !self.link.is_closing()
    }

    /// The caller's identifier of this connection.
    pub const fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The number of unanswered NOTIFYs. [`Limits::max_in_flight`](crate::config::Limits::max_in_flight) also counts those whose
    /// answer is not sent.
    pub fn in_flight(&self) -> usize {
        self.flight.waiting()
    }

    /// Whether the NOTIFY of this ticket is unanswered and not cancelled.
    pub fn is_waiting(&self, ticket: TicketId) -> bool {
        self.flight.contains(ticket)
    }

    /// The part of an unfinished, fragmented NOTIFY that has arrived.
    pub fn arriving(&self, ids: Ids) -> Option<Partial<'_>> {
        self.link.reassembly.get(ids).map(|(payload, before)| Partial { payload, before })
    }

    /// The memory of the payloads of unanswered NOTIFYs, in bytes: what a server keeps until they are answered. A payload that
    /// arrived in fragments counts as its allocation, another one as its length.
    ///
    /// It no longer counts once its NOTIFY is answered, cancelled or released, even if a handler still holds it.
    pub fn payload_bytes(&self) -> usize {
        self.flight.memory()
    }

    /// Allocated bytes of unfinished payloads.
    pub fn reassembly_bytes(&self) -> usize {
        self.link.reassembly.bytes()
    }

    /// Allocated bytes of unfinished payloads, plus the bytes of a frame that has arrived in part: for a memory limit over many
    /// connections.
    pub fn unfinished_bytes(&self) -> usize {
        self.link.reassembly.bytes() + self.link.partial_bytes()
    }

    /// The queued bytes: [`outgoing`](Self::outgoing), output that is deferred or held, and answers not yet in fragments.
    pub fn outgoing_bytes(&self) -> usize {
        self.link.outgoing_bytes()
    }

    /// The send backlog in bytes, by which [`Hub`](crate::hub::Hub) compares connections of an engine; `None` if this one
    /// can send no answer, because it has no session or is closing.
    ///
    /// With [`max_outgoing`](crate::config::Limits::max_outgoing) bytes queued it is [`hub::FULL`](crate::hub::FULL): no answer
    /// of a sibling is taken. After the end of the input it is `usize::MAX / 2`, so that every other connection is preferred: an
    /// HAProxy that has shut its write side reads nothing more.
    pub fn send_backlog(&self) -> Option<usize> {
        if self.link.is_closing() || self.session.is_none() {
            None
        } else if self.outgoing_is_full() {
            Some(FULL)
        } else if self.link.is_eof() {
            Some(usize::MAX / 2)
        } else {
            Some(self.link.outgoing_bytes())
        }
    }

    /// The number of tickets that were dropped unanswered, a bug of the application. Counted in debug builds with the
    /// feature `std`; otherwise 0. Updated by events other than [`on_bytes`](Self::on_bytes).
    pub const fn dropped_tickets(&self) -> u64 {
        self.dropped.unanswered()
    }

    /// The number of frames of unknown type, which are skipped.
    pub fn skipped_frames(&self) -> u64 {
        self.link.skipped()
    }
}

impl AgentReactor {
    /// Advances the time, at the start of an input.
    #[inline]
    pub(super) fn tick(&mut self, now: Timestamp) -> Timestamp {
        let now = self.link.tick(now);
        self.dropped.update(|id| self.flight.contains(id));
        if self.is_full() {
            self.link.under_backpressure();
        }
        now
    }

    /// Backpressure: the limit in flight, of outgoing bytes or of payload memory is reached. Deferred output does not count, or the
    /// EOF that releases it would never be read.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        // Every limit is at least 1.
        if self.flight.len() == 0 && self.link.nothing_to_send() {
            false
        } else if self.link.is_deferred() {
            self.flight.waiting() >= self.config.limits.max_in_flight || self.payloads_are_full()
        } else {
            self.flight.len() >= self.config.limits.max_in_flight
                || self.outgoing_is_full()
                || self.payloads_are_full()
        }
    }

    /// Whether the payloads of requests in flight and the unfinished ones are at their common limit. Unfinished payloads alone do
    /// not pause reading: one that would exceed the limit is refused.
    pub(super) fn payloads_are_full(&self) -> bool {
        self.flight.waiting() > 0
            && self.flight.memory() + self.link.reassembly.bytes() >= self.config.limits.max_payload_bytes
    }

    /// Whether deferred output is at its limit and input is left: no more requests can be answered before the input ends.
    pub(super) fn overflows(&self, input: &Input<'_>) -> bool {
        self.link.is_deferred() && self.outgoing_is_full() && !input.bytes().is_empty()
    }

    #[inline]
    pub(super) fn outgoing_is_full(&self) -> bool {
        self.link.outgoing_bytes() >= self.config.limits.max_outgoing
    }

    /// The action when the input can be processed no further.
    #[inline]
    pub(super) fn at_rest(&mut self, at_least: usize) -> Action<'static> {
        if let Some(closed) = self.ended.take() {
            Action::Close(*closed)
        } else if !self.link.outgoing().is_empty() {
            Action::SendFrames
        } else if !self.link.is_closing() && self.is_full() {
            Action::Paused
        } else {
            Action::WantBytes { at_least }
        }
    }
}
