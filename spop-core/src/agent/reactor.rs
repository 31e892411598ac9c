//! The agent's reactor.

use alloc::{boxed::Box, string::ToString, sync::Arc};
use core::time::Duration;

use bytes::Bytes;

use super::{
    action::{Abort, Aborted, Action, Cancel, Cancelled, Notify, Session},
    config::{AgentConfig, OnFailure},
    drain::{DRAINED, with_jitter},
    dropped::Dropped,
    flight::Flight,
    fragments::Partial,
    handshake::first_frame_size,
    ticket::{ConnectionId, TicketId},
};
use crate::{
    Status, Timestamp,
    config::Checked,
    frame::{Flags, FrameType, Header, Ids, NotifyPayload, Received, check_messages},
    link::{
        CloseReason, Closed, Due, Earliest, Initiator, Input, Interest, Layers, Link, Lost, Misuse, Phase,
        Progress, Side, Step, TIMERS, Timer, Verdict, Violation,
    },
};

/// One connection of an agent: the whole of the protocol, and nothing else.
///
/// It is told what happened (the methods whose names begin with `on_`) and what was decided (the others), and says what
/// follows: one [`Action`] for each input, the bytes to send, what to wait for, and until when. See the [crate's front
/// page](crate) for the loop that drives it.
///
/// The states of a connection, as [`judge`](crate::link::judge) has them:
///
/// ```text
///   Connected ──HAPROXY-HELLO──▶ Greeted ──AGENT-HELLO──▶ Established ──DISCONNECT of either side──▶ Closing
///       │                           │                          │  ▲                                    ▲
///       │                           │                          └──┘ NOTIFY, ACK, UNSET                 │
///       └───────────────────────────┴──────── violation, timeout, end of input, failure ───────────────┘
/// ```
///
/// An agent answers a HELLO at once, so it is never seen in `Greeted`.
#[derive(Debug)]
pub struct AgentReactor {
    pub(super) connection: ConnectionId,
    pub(super) config: Arc<Checked<AgentConfig>>,
    pub(super) link: Link,
    pub(super) flight: Flight,
    pub(super) session: Option<Box<Session>>,
    /// With async: the engine whose other connections may carry the answers.
    pub(super) shared_engine: Option<Arc<Bytes>>,
    /// A payload was refused before its last fragment came, and no NOTIFY has begun since.
    pub(super) refused: bool,
    /// How many requests the peer has on a connection at most; when it sends more, it has given the oldest up.
    pub(super) window: usize,
    /// With how many requests in flight the oldest gives way once it is overdue.
    pub(super) crowded: usize,
    /// The longest ACK, without its length prefix.
    pub(super) max_ack: usize,
    /// In nanoseconds, the age from which an answer is late.
    pub(super) late_after: u64,
    /// When the connection is old enough to be drained.
    pub(super) max_age: Option<Timestamp>,
    /// The agent is about to shut down: health checks are refused.
    pub(super) lame_duck: bool,
    /// Which timer began the drain, if one did.
    pub(super) drained_by: Option<Timer>,
    /// The moment to disconnect that was announced by a timer, and when that was.
    pub(super) drain_moment: Option<(Timestamp, Timestamp)>,
    pub(super) dropped: Dropped,
    /// Tickets that were dropped while they waited.
    dropped_tickets: u64,
    /// Set when the session ended, until the action that says so was returned.
    ended: Option<Box<Closed>>,
}

/// Inputs: something happened.
impl AgentReactor {
    /// A connection that was just opened. It is known as `connection` to its caller.
    pub fn new(config: Arc<Checked<AgentConfig>>, connection: ConnectionId, now: Timestamp) -> Self {
        let mut link = Link::new(Side::Agent, first_frame_size(&config), now);
        if config.defer_output {
            link.defer_output();
        }
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            connection,
            crowded: config.limits.max_in_flight,
            late_after: config.processing.map_or(u64::MAX, nanos),
            max_age: config.max_age.map(|age| now + with_jitter(age, connection, now)),
            config,
            link,
            flight: Flight::new(),
            session: None,
            shared_engine: None,
            refused: false,
            window: usize::MAX,
            max_ack: usize::MAX,
            lame_duck: false,
            drained_by: None,
            drain_moment: None,
            dropped: Dropped::new(),
            dropped_tickets: 0,
            ended: None,
        }
    }

    /// Says which layers there are to be shut before the transport. Plain unless said otherwise.
    #[must_use]
    pub fn with_layers(mut self, layers: Layers) -> Self {
        self.link.set_layers(layers);
        self
    }

    /// Begins or ends lame duck: health checks are refused, everything else is served, so that HAProxy stops using this server
    /// before it shuts down.
    pub fn set_lame_duck(&mut self, lame_duck: bool) {
        self.lame_duck = lame_duck;
    }

    /// Bytes arrived. `input` is what was left of earlier input, followed by what was read since; the reactor keeps none of it.
    ///
    /// Call it with the unused rest until nothing is left, or it returns [`SendFrames`](Action::SendFrames),
    /// [`WantBytes`](Action::WantBytes), [`Paused`](Action::Paused) or [`Close`](Action::Close). Call it as well, without new
    /// bytes, when [`Interest::resume`] is set.
    pub fn on_bytes<'i>(&mut self, now: Timestamp, input: &'i [u8]) -> Step<Action<'i>> {
        self.link.tick(now);
        if self.is_full() {
            self.link.reading_stopped();
        } else if let Some((ids, payload, consumed)) = self.link.whole(input, Side::Engine, FrameType::Notify)
            && self.is_new(ids)
            && !payload.is_empty()
            && let Some(lengths) = check_messages(payload)
        {
            self.refused = false;
            let ticket = self.ticket(ids);
            self.link.took_frame();
            let payload = NotifyPayload::new(Received::in_input(payload), lengths);
            return Step { consumed, action: Action::RunMessages(Notify { ticket, payload }) };
        } else if input.is_empty() && !self.link.is_eof() && !self.link.is_closing() {
            self.link.rest(0);
            return Step { consumed: 0, action: self.at_rest(4) };
        }
        self.on_any_bytes(input)
    }

    /// Slow path of [`on_bytes`](Self::on_bytes): anything but a NOTIFY in one frame.
    #[inline(never)]
    fn on_any_bytes<'i>(&mut self, bytes: &'i [u8]) -> Step<Action<'i>> {
        let mut input = Input::new(bytes);
        let action = self.on_frames(&mut input);
        Step { consumed: input.consumed(), action }
    }

    fn on_frames<'i>(&mut self, input: &mut Input<'i>) -> Action<'i> {
        loop {
            if self.link.is_closing() || self.is_full() || self.overflows(input) {
                return self.at_limit(input);
            }
            let next = match self.link.next(input) {
                Ok(Ok(next)) => next,
                Ok(Err(at_least)) => {
                    self.link.rest(input.bytes().len());
                    if self.link.is_eof() {
                        self.end_if_nothing_owed();
                    }
                    return self.at_rest(at_least);
                }
                Err(violation) => return self.violated(violation),
            };
            if next.verdict == Verdict::Whole {
                let ids = next.header.ids;
                if let Some(action) = self.supersede(ids).or_else(|| self.abandon_oldest()) {
                    return action;
                }
                self.link.reassembly.forget_refused(ids);
                self.link.skip(input, next.len);
                if !next.payload.is_empty() {
                    return self.run(next.header, Received::in_input(next.payload));
                }
                self.acknowledge_nothing(ids);
                continue;
            }
            match self.on_frame(input, &next) {
                Ok(None) => {}
                Ok(Some(action)) => return action,
                Err(violation) => return self.violated(violation),
            }
        }
    }

    /// Bytes that cannot be used now, or never.
    #[cold]
    fn at_limit(&mut self, input: &mut Input<'_>) -> Action<'static> {
        if self.overflows(input) {
            // Nothing may leave before the input ends, and no more input can be answered.
            let message = "the answers exceed what can wait for the end of the input";
            self.link.forget_partial();
            self.disconnect_for(CloseReason::Disconnect(Status::RESOURCE), Status::RESOURCE, message);
        }
        if self.link.is_closing() {
            input.clear();
        } else {
            self.link.pause(input.bytes().len());
        }
        self.at_rest(1)
    }

    /// The peer will send no more. It still gets the answers it is owed.
    ///
    /// Called with the unused rest of the input until it returns one of the four actions at which [`on_bytes`](Self::on_bytes)
    /// stops, also when nothing is left.
    pub fn on_input_eof<'i>(&mut self, now: Timestamp, input: &'i [u8]) -> Step<Action<'i>> {
        self.tick(now);
        self.link.input_ended();
        self.on_bytes(now, input)
    }

    /// A read found nothing: all that the peer has sent so far was passed on. A drain disconnects at this moment if nothing is
    /// owed.
    pub fn on_read_blocked(&mut self, now: Timestamp) -> Action<'static> {
        self.tick(now);
        self.go_on_draining();
        self.at_rest(1)
    }

    /// A deadline has passed. To be called until it returns [`SendFrames`](Action::SendFrames),
    /// [`WantBytes`](Action::WantBytes), [`Paused`](Action::Paused) or [`Close`](Action::Close). The next deadline lies
    /// after `now`.
    pub fn on_timeout(&mut self, now: Timestamp) -> Action<'static> {
        self.tick(now);
        // Serving a timer moves it on; should one not, the loop ends all the same.
        for _ in 0..TIMERS {
            match self.link.expired(self.deadline()) {
                Some(Due::Timer(timer)) => {
                    if let Some(action) = self.on_timer(timer) {
                        return action;
                    }
                }
                Some(Due::Served) => {}
                Some(Due::Trimmed) => self.flight.trim(),
                None => break,
            }
        }
        self.at_rest(1)
    }

    /// The first `n` of the outgoing bytes have left.
    ///
    /// # Errors
    /// [`Misuse::SentTooMuch`] when there are fewer. Nothing has changed then.
    pub fn on_sent(&mut self, now: Timestamp, n: usize) -> Result<Action<'static>, Misuse> {
        self.tick(now);
        self.link.sent(n)?;
        if self.link.nothing_to_send() {
            self.flight.all_sent();
            self.hold_back();
            if self.link.is_eof() && !self.link.is_closing() {
                self.end_if_nothing_owed();
            }
        }
        if self.link.memory.used() {
            self.link.trim();
            self.flight.trim();
        }
        Ok(self.at_rest(1))
    }

    /// The write side of the layer that [`Interest::shut`] named was shut; with [`Progress::Started`] it is under way
    /// and must be tried again, with [`Progress::Wanted`] the attempt failed to begin.
    ///
    /// # Errors
    /// [`Misuse::ShutNotAsked`] when no layer was named so far. Nothing has changed then.
    pub fn on_write_shut(&mut self, now: Timestamp, progress: Progress) -> Result<Action<'static>, Misuse> {
        self.tick(now);
        self.link.write_shut(progress)?;
        Ok(self.at_rest(1))
    }

    /// The transport failed, in either direction: nothing can be received or sent any more.
    pub fn on_transport_error(&mut self, now: Timestamp) -> Action<'static> {
        self.tick(now);
        if !self.link.is_closing() {
            self.end(CloseReason::Transport);
        }
        self.link.abandon();
        self.at_rest(1)
    }
}

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

    /// Until when [`on_timeout`](Self::on_timeout) must be called, and what for.
    pub fn deadline(&self) -> Option<(Timestamp, Timer)> {
        let timeouts = &self.config.timeouts;
        let mut next = Earliest(self.link.deadline(timeouts, self.flight.waiting() > 0, self.is_full()));
        if let Some((_, _, arrived)) = self.flight.oldest() {
            next.offer(timeouts.message.map(|timeout| arrived + timeout), Timer::Message);
            if self.flight.waiting() >= self.crowded {
                next.offer(self.config.processing.map(|processing| arrived + processing), Timer::Processing);
            }
        }
        if !self.link.is_draining() && !self.link.is_closing() {
            next.offer(self.max_age, Timer::Age);
        }
        next.offer(self.next_of_drain(), Timer::Drain);
        if self.refused && !self.link.is_draining() && !self.link.is_closing() {
            let quiet = self.config.quiet_after_refusal.map(|quiet| self.link.last_active() + quiet);
            next.offer(quiet, Timer::Refused);
        }
        next.0
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

/// Timers, answers and the end.
impl AgentReactor {
    /// Moves the time on, at the start of every input.
    #[inline]
    pub(super) fn tick(&mut self, now: Timestamp) -> Timestamp {
        let now = self.link.tick(now);
        self.dropped_tickets += self.dropped.count(|id| self.flight.contains(id));
        if self.is_full() {
            self.link.reading_stopped();
        }
        now
    }

    pub(super) fn on_timer(&mut self, timer: Timer) -> Option<Action<'static>> {
        match timer {
            Timer::Message => self.fail_oldest(Cancel::TimedOut),
            Timer::Processing => self.fail_oldest(Cancel::Overdue),
            Timer::Idle | Timer::Age => {
                self.drain_by_timer(timer);
                None
            }
            Timer::Fragment => {
                let (ids, _) = self.link.reassembly.oldest()?;
                let received = self.link.reassembly.drop_set(ids)?;
                self.refuse(ids);
                Some(Action::AbortFragment(Aborted { ids, received, why: Abort::TimedOut }))
            }
            Timer::Write => {
                // A peer that reads nothing would not read a DISCONNECT either.
                self.end(CloseReason::Timeout(timer));
                self.link.abandon();
                None
            }
            Timer::Refused => {
                self.link.drain(self.link.now() + self.config.timeouts.drain);
                self.go_on_draining();
                None
            }
            Timer::Drain if self.link.drain_is_in_time() => {
                self.on_drain_timer();
                None
            }
            Timer::Drain if self.put_off_draining() => None,
            Timer::Drain => {
                let message = if self.drained_by.is_some() { DRAINED } else { "the agent is shutting down" };
                self.disconnect_for(CloseReason::Timeout(timer), Status::NORMAL, message);
                None
            }
            // Served by the link.
            Timer::Memory => None,
            Timer::Hello | Timer::Frame | Timer::Linger => {
                self.disconnect_for(CloseReason::Timeout(timer), Status::TIMEOUT, &timer.to_string());
                None
            }
        }
    }

    /// Ends the request that waits longest; the peer gets what it gets for a request without an answer.
    fn fail_oldest(&mut self, why: Cancel) -> Option<Action<'static>> {
        let (ticket, ids, arrived) = self.flight.oldest()?;
        self.flight.remove(ticket);
        self.flight.answered();
        self.push_failure(ids);
        let age = self.link.now().since(arrived);
        Some(Action::CancelMessages(Cancelled { ticket, ids, age, why }))
    }

    /// Answers a NOTIFY without messages: HAProxy 3.1, and 3.2 before August 2025, send one when the conditions of all messages are false.
    pub(super) fn acknowledge_nothing(&mut self, ids: Ids) {
        self.flight.answered();
        self.link.push(Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids }, &[]);
    }

    /// Tells the peer to stop sending a payload, and swallows what it has sent already.
    pub(super) fn refuse(&mut self, ids: Ids) {
        self.link.reassembly.refuse(ids, &self.config.limits);
        self.push_refusal(ids);
    }

    /// Tells the peer to stop sending a payload.
    pub(super) fn push_refusal(&mut self, ids: Ids) {
        self.refused = true;
        self.push_abort(ids);
    }

    pub(super) fn push_abort(&mut self, ids: Ids) {
        self.link.push(Header { frame_type: FrameType::Ack, flags: Flags::ABORT, ids }, &[]);
    }

    /// Gives the peer what it gets for a NOTIFY without an answer.
    pub(super) fn push_failure(&mut self, ids: Ids) {
        if self.link.abort_sending(ids) {
            return;
        }
        let config = Arc::clone(&self.config);
        match &config.on_failure {
            OnFailure::Answer(actions) => {
                let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids };
                let fits = header.encoded_len() + actions.as_bytes().len() <= self.max_ack;
                self.link.push(header, if fits { actions.as_bytes() } else { &[] });
            }
            OnFailure::Disconnect { status, message } => {
                self.disconnect_for(CloseReason::Disconnect(*status), *status, message);
            }
        }
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
    fn overflows(&self, input: &Input<'_>) -> bool {
        self.link.is_deferred() && self.outgoing_is_full() && !input.bytes().is_empty()
    }

    fn outgoing_is_full(&self) -> bool {
        self.link.outgoing_bytes() >= self.config.limits.max_outgoing
    }

    pub(super) fn violated(&mut self, violation: Violation) -> Action<'static> {
        // The frame that is at fault is no loss, however much of it has come.
        self.link.forget_partial();
        let message = violation.to_string();
        self.disconnect_for(CloseReason::Violation(violation), violation.status(), &message);
        self.at_rest(1)
    }

    pub(super) fn disconnect_for(&mut self, reason: CloseReason, status: Status, message: &str) {
        if !self.link.is_closing() {
            self.end(reason);
            self.link.disconnect(status, message);
        }
    }

    /// After the end of the input there may be nothing left to do.
    pub(super) fn end_if_nothing_owed(&mut self) {
        if self.flight.waiting() == 0 && self.link.nothing_to_send() && !self.link.is_paused() {
            self.end(CloseReason::Eof);
            self.link.close();
        }
    }

    /// Notes why the session ends and what is lost by it. The action that says so is returned by the input under way, or
    /// by the next where a decision of the application ended it.
    pub(super) fn end(&mut self, reason: CloseReason) {
        let arriving = self.link.reassembly.clear();
        let lost = Lost {
            messages: self.flight.clear(),
            payloads: arriving.len(),
            frame_bytes: self.link.partial_bytes(),
            answers: self.link.abort_all_sending(),
        };
        if reason.initiator() != Initiator::Peer {
            arriving.for_each(|ids| self.push_abort(ids));
        }
        self.ended = Some(Box::new(Closed { reason, lost }));
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
