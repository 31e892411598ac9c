//! Processing of received frames.

use alloc::sync::Arc;

use super::{
    action::{Abort, Aborted, Action, Cancel, Cancelled, Notify},
    handshake::greet,
    reactor::AgentReactor,
    ticket::{Ticket, TicketId},
};
use crate::{
    Status,
    frame::{Capabilities, Disconnect, Flags, FrameType, Header, Ids, NotifyPayload, Received, Unfit},
    link::{Begun, CloseReason, Continued, Input, Next, Phase, Verdict, Violation},
};

/// The number of requests that HAProxy 3.1 and later have in flight on a connection with pipelining.
const STREAMS: u32 = 20;

impl AgentReactor {
    /// Processes a frame other than an unfragmented NOTIFY.
    pub(super) fn on_frame(
        &mut self,
        input: &mut Input<'_>,
        next: &Next<'_>,
    ) -> Result<Option<Action<'static>>, Violation> {
        match next.verdict {
            Verdict::First => self.on_first_fragment(input, next),
            Verdict::More => self.on_fragment(input, next, false),
            Verdict::Last => self.on_fragment(input, next, true),
            Verdict::Abort => self.on_abort(input, next),
            Verdict::Hello => self.on_hello(input, next).map(Some),
            Verdict::Disconnect => self.on_disconnect(input, next).map(Some),
            // Not reached: the caller handles `Whole`, and `Link::next` the others.
            Verdict::Whole | Verdict::Skip | Verdict::Discard | Verdict::Illegal(_) => {
                self.link.skip(input, next.len);
                Ok(None)
            }
        }
    }

    fn on_hello(&mut self, input: &mut Input<'_>, next: &Next<'_>) -> Result<Action<'static>, Violation> {
        let greeting = greet(&self.config, next.header, next.payload)?;
        self.link.skip(input, next.len);
        if greeting.healthcheck && self.lame_duck {
            self.disconnect_for(
                CloseReason::HealthCheckRefused,
                Status::NORMAL,
                "the agent is about to shut down",
            );
            return Ok(self.at_rest(1));
        }
        let header = Header { frame_type: FrameType::AgentHello, flags: Flags::FIN, ids: Ids::ZERO };
        self.link.push(header, &greeting.answer);
        if greeting.healthcheck {
            // No DISCONNECT may follow: HAProxy 3.5 counts it as a failed check.
            self.link.close();
            self.end(CloseReason::HealthCheck);
            return Ok(self.at_rest(1));
        }
        let session = greeting.session;
        self.link.phase = Phase::Established;
        self.link.max_frame_size = session.max_frame_size;
        self.max_ack = session.max_frame_size;
        if session.peer_is_multiplexer() {
            // Unread answers must not fill the peer's buffer, which holds one frame of maximum length with its length prefix.
            let buffer = session.peer_max_frame_size.saturating_add(4);
            if session.capabilities.contains(Capabilities::PIPELINING) {
                self.window = STREAMS;
                // One share for each request in flight, and one for a frame that the peer has read in part.
                self.max_ack = self.max_ack.min(buffer / (STREAMS + 1) - 4);
            } else {
                self.window = 1;
                self.max_ack = self.max_ack.min(buffer - 1 - 4);
            }
        }
        self.shared_engine = session.shared_engine().cloned();
        let session = Arc::new(session);
        self.session = Some(Arc::clone(&session));
        Ok(Action::Established(session))
    }

    /// Fast path: whether a NOTIFY with these identifiers supersedes, aborts or cancels nothing.
    #[inline]
    pub(super) fn is_new(&mut self, ids: Ids) -> bool {
        self.link.reassembly.is_idle()
            && !self.link.is_fragmenting()
            && !self.link.is_deferred()
            && self.flight.waiting() < self.window as usize
            && self.flight.find(ids).is_none()
    }

    /// Adds a NOTIFY whose payload takes this much memory to those in flight.
    #[expect(clippy::inline_always, reason = "once for each NOTIFY")]
    #[inline(always)]
    pub(super) fn ticket(&mut self, ids: Ids, memory: usize) -> Ticket {
        let id = self.flight.insert(ids, self.link.now(), memory);
        Ticket {
            connection: self.connection,
            id,
            ids,
            engine: self.shared_engine.clone(),
            guard: self.dropped.guard(id),
        }
    }

    /// Validates a complete NOTIFY and creates its ticket. Its identifiers must not be in flight.
    pub(super) fn run<'i>(&mut self, header: Header, payload: Received<'i>, memory: usize) -> Action<'i> {
        let (ids, received) = (header.ids, payload.len());
        match NotifyPayload::check(payload, self.config.limits.max_messages) {
            Ok(payload) => Action::RunMessages(Notify { ticket: self.ticket(ids, memory), payload }),
            Err(Unfit::Malformed(error)) => self.violated(Violation::Payload { header, error }),
            Err(Unfit::TooManyMessages) => {
                // No fragment is in transit: for the peer, the ABORT is an ordinary answer.
                self.flight.answered();
                self.push_abort(ids);
                Action::AbortFragment(Aborted { ids, received, why: Abort::TooManyMessages })
            }
        }
    }

    /// Cancels the older NOTIFY with the identifiers of one that begins. If that results in an action, the new frame stays
    /// in the input and is processed by the next call.
    pub(super) fn supersede(&mut self, ids: Ids) -> Option<Action<'static>> {
        self.payload_refused = false;
        if let Some(ticket) = self.flight.find(ids) {
            return Some(self.cancel(ticket, ids, Cancel::Superseded));
        }
        if self.link.reassembly.len() > 0
            && let Some(received) = self.link.reassembly.drop_set(ids)
        {
            return Some(Action::AbortFragment(Aborted { ids, received, why: Abort::Superseded }));
        }
        // HAProxy would take further fragments of an answer to the older one for an answer to the newer.
        self.link.withdraw(ids);
        None
    }

    /// Cancels the oldest request if the peer begins more than it keeps in flight. The new frame stays in the input and is
    /// processed by the next call.
    pub(super) fn abandon_oldest(&mut self) -> Option<Action<'static>> {
        if self.flight.waiting() < self.window as usize {
            return None;
        }
        let (ticket, ids, _) = self.flight.oldest()?;
        let action = self.cancel(ticket, ids, Cancel::Abandoned);
        if self.window > 1 {
            // The peer may have abandoned any of them. The oldest gets a reply, in case the peer still waits for it.
            self.flight.answered();
            self.push_failure(ids);
        }
        Some(action)
    }

    fn cancel(&mut self, ticket: TicketId, ids: Ids, why: Cancel) -> Action<'static> {
        let removed = self.flight.remove(ticket);
        self.link.withdraw(ids);
        let age = removed.map(|(_, arrived)| self.link.now().since(arrived)).unwrap_or_default();
        Action::CancelMessages(Cancelled { ticket, ids, age, why })
    }

    fn on_first_fragment(
        &mut self,
        input: &mut Input<'_>,
        next: &Next<'_>,
    ) -> Result<Option<Action<'static>>, Violation> {
        let (header, ids) = (next.header, next.header.ids);
        self.check_announced(header)?;
        if let Some(action) = self.supersede(ids).or_else(|| self.abandon_oldest()) {
            return Ok(Some(action));
        }
        let limits = &self.config.limits;
        let fragment = next.payload;
        let begun = self.link.reassembly.begin(self.link.now(), ids, fragment, limits);
        let received = fragment.len();
        self.link.skip(input, next.len);
        match begun {
            Begun::Kept => Ok(self.watched(ids, received)),
            Begun::TooMany => Err(Violation::TooManyPayloads { header, max: limits.max_payloads }),
            Begun::TooBig => {
                self.push_refusal(ids);
                Ok(Some(Action::AbortFragment(Aborted { ids, received, why: Abort::TooBig })))
            }
        }
    }

    fn on_fragment(
        &mut self,
        input: &mut Input<'_>,
        next: &Next<'_>,
        last: bool,
    ) -> Result<Option<Action<'static>>, Violation> {
        let (header, ids) = (next.header, next.header.ids);
        self.check_announced(header)?;
        let fragment = next.payload;
        let continued = self.link.reassembly.continue_with(ids, fragment, last, &self.config.limits);
        let size = fragment.len();
        self.link.skip(input, next.len);
        match continued {
            Continued::Kept => Ok(self.watched(ids, size)),
            Continued::Done(payload, _) if payload.is_empty() => {
                self.acknowledge_empty(ids);
                Ok(None)
            }
            Continued::Done(payload, memory) => Ok(Some(self.run(header, payload.into(), memory))),
            Continued::Swallowed => Ok(None),
            Continued::Unknown => Err(Violation::NoSuchPayload(header)),
            Continued::TooBig { received } => {
                // After the last fragment an ABORT is an ordinary answer: the peer goes on using the connection.
                if last {
                    self.push_abort(ids);
                } else {
                    self.push_refusal(ids);
                }
                let received = received + size;
                Ok(Some(Action::AbortFragment(Aborted { ids, received, why: Abort::TooBig })))
            }
        }
    }

    fn on_abort(
        &mut self,
        input: &mut Input<'_>,
        next: &Next<'_>,
    ) -> Result<Option<Action<'static>>, Violation> {
        let (header, ids) = (next.header, next.header.ids);
        let size = next.payload.len();
        if header.frame_type == FrameType::Notify {
            if let Some(action) = self.supersede(ids) {
                return Ok(Some(action));
            }
            self.link.reassembly.forget_refused(ids);
            self.link.skip(input, next.len);
            return Ok(Some(Action::AbortFragment(Aborted { ids, received: size, why: Abort::Peer })));
        }
        self.check_announced(header)?;
        self.link.skip(input, next.len);
        if let Some(received) = self.link.reassembly.drop_set(ids) {
            let received = received + size;
            return Ok(Some(Action::AbortFragment(Aborted { ids, received, why: Abort::Peer })));
        }
        if let Some(ticket) = self.flight.find(ids) {
            return Ok(Some(self.cancel(ticket, ids, Cancel::Aborted)));
        }
        if self.link.reassembly.forget_refused(ids) {
            Ok(None)
        } else {
            Err(Violation::NoSuchPayload(header))
        }
    }

    fn on_disconnect(
        &mut self,
        input: &mut Input<'_>,
        next: &Next<'_>,
    ) -> Result<Action<'static>, Violation> {
        let frame_type = next.header.frame_type;
        let disconnect =
            Disconnect::decode(next.payload).map_err(|error| Violation::Disconnect { frame_type, error })?;
        let status = disconnect.status;
        let reason = CloseReason::peer_disconnect(status, disconnect.message);
        self.link.skip(input, next.len);
        // HAProxy reports the status of this DISCONNECT instead of its own.
        self.disconnect_for(reason, status, "goodbye");
        Ok(self.at_rest(1))
    }

    fn check_announced(&self, header: Header) -> Result<(), Violation> {
        let announced = self.config.capabilities.contains(Capabilities::FRAGMENTATION);
        if announced { Ok(()) } else { Err(Violation::FragmentationNotAnnounced(header)) }
    }

    /// Reports a fragment of this many bytes. An empty one is not reported: a look at the payload would find nothing new, and
    /// costs the peer 11 bytes only.
    fn watched(&mut self, ids: Ids, size: usize) -> Option<Action<'static>> {
        if !self.config.watch_fragments || size == 0 {
            return None;
        }
        if self.link.reassembly.parse_on(ids) <= self.config.limits.max_messages {
            return Some(Action::FragmentArrived(ids));
        }
        let received = self.link.reassembly.drop_set(ids).unwrap_or_default();
        self.refuse(ids);
        Some(Action::AbortFragment(Aborted { ids, received, why: Abort::TooManyMessages }))
    }
}
