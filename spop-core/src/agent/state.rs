//! What follows from the state of a reactor.

use super::{
    AgentReactor, Session,
    action::Action,
    fragments::Partial,
    ticket::{ConnectionId, TicketId},
};
use crate::{
    Timestamp,
    frame::Ids,
    link::{Input, Interest, Phase},
};

/// What follows from the state.
impl AgentReactor {
    /// Bytes to send, in order. Empty while nothing may be sent.
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.link.outgoing()
    }

    /// What the driver should do.
    #[inline]
    pub fn interest(&self) -> Interest {
        let mut interest = self.link.interest(self.is_full(), self.ended.is_some());
        if self.link.is_draining() {
            interest.read_now = interest.read && self.is_moment();
        }
        interest
    }

    /// The session, once it is established.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// How far the connection has come.
    pub fn phase(&self) -> Phase {
        self.link.phase
    }

    /// Whether the session ends once nothing is owed: [`drain`](Self::drain) was called, or a timer began it.
    pub fn is_draining(&self) -> bool {
        self.link.is_draining() && !self.link.is_closing()
    }

    /// The number by which the caller knows this connection.
    pub const fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// NOTIFYs that wait for their answers.
    pub fn in_flight(&self) -> usize {
        self.flight.waiting()
    }

    /// Whether the NOTIFY of this ticket still waits for its answer.
    pub fn is_waiting(&self, ticket: TicketId) -> bool {
        self.flight.contains(ticket)
    }

    /// What has arrived of a NOTIFY in fragments whose last is still to come.
    pub fn arriving(&self, ids: Ids) -> Option<Partial<'_>> {
        self.link.reassembly.get(ids).map(|payload| Partial { payload })
    }

    /// Bytes of memory that unfinished payloads take.
    pub fn arriving_bytes(&self) -> usize {
        self.link.reassembly.bytes()
    }

    /// Bytes of memory that unfinished payloads and a frame under way take, for a limit over many connections.
    pub fn unfinished_bytes(&self) -> usize {
        self.link.reassembly.bytes() + self.link.partial_bytes()
    }

    /// Bytes that wait to be sent.
    pub fn outgoing_bytes(&self) -> usize {
        self.link.outgoing_bytes()
    }

    /// How many bytes are queued before an answer that would take this connection instead of its own (async); `None` if it can
    /// take none: there is no session, or it is closing. After the end of the input it is above all others, so that every
    /// sibling is preferred: an HAProxy that has closed its side reads nothing more.
    pub fn send_backlog(&self) -> Option<usize> {
        let open = !self.link.is_closing() && self.session.is_some();
        open.then(|| if self.link.is_eof() { usize::MAX / 2 } else { self.link.outgoing_bytes() })
    }

    /// Tickets that were dropped while their NOTIFY waited: a fault of the application, as of the last input. Noticed in debug
    /// builds with the feature `std` only; otherwise 0.
    pub const fn dropped_tickets(&self) -> u64 {
        self.dropped_tickets
    }

    /// Frames of unknown type that were skipped.
    pub fn skipped_frames(&self) -> u64 {
        self.link.skipped()
    }
}

impl AgentReactor {
    /// Moves the time on, at the start of every input.
    #[inline]
    pub(super) fn tick(&mut self, now: Timestamp) -> Timestamp {
        let now = self.link.tick(now);
        self.dropped_tickets += self.dropped.count(|id| self.flight.contains(id));
        if self.is_full() {
            self.link.under_backpressure();
        }
        now
    }

    /// Whether reading waits for room. Output that waits for the end of the input is no reason: the end must be read.
    pub(super) fn is_full(&self) -> bool {
        if self.link.is_deferred() {
            self.flight.waiting() >= self.config.limits.max_in_flight
        } else {
            self.flight.len() >= self.config.limits.max_in_flight || self.outgoing_is_full()
        }
    }

    /// Whether more input has come than can be answered before it ends.
    pub(super) fn overflows(&self, input: &Input<'_>) -> bool {
        self.link.is_deferred() && self.outgoing_is_full() && !input.bytes().is_empty()
    }

    fn outgoing_is_full(&self) -> bool {
        self.link.outgoing_bytes() >= self.config.limits.max_outgoing
    }

    /// What is left to say when there is nothing more to be done with the input.
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
