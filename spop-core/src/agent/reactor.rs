//! The agent's reactor.

use alloc::{boxed::Box, sync::Arc};
use core::time::Duration;

use bytes::Bytes;

use super::{
    action::{Action, Notify, Session},
    config::AgentConfig,
    drain::{NextDisconnect, with_jitter},
    dropped::Dropped,
    flight::Flight,
    handshake::first_frame_size,
    ticket::ConnectionId,
};
use crate::{
    Status, Timestamp,
    config::Checked,
    frame::{FrameType, NotifyPayload, Received, check_messages},
    link::{CloseReason, Closed, Input, Layers, Link, Misuse, Progress, Side, Step, Timer, Verdict},
};

/// The state machine of one agent connection.
///
/// Inputs are events of the transport and the clock (the methods named `on_…`) and decisions of the application (such as
/// [`acknowledge`](Self::acknowledge)). Outputs are one [`Action`] per event, the [bytes to send](Self::outgoing),
/// the [interest](Self::interest) and the next [deadline](Self::deadline). The [crate's front page](crate#the-loop)
/// describes the loop that drives it.
///
/// The phases of a connection, as [`judge`](crate::link::judge) defines them:
///
/// ```text
///   Connected ──HAPROXY-HELLO──▶ Greeted ──AGENT-HELLO──▶ Established ──DISCONNECT of either side──▶ Closing
///       │                           │                          │  ▲                                    ▲
///       │                           │                          └──┘ NOTIFY, ACK, UNSET                 │
///       └───────────────────────────┴──────── violation, timeout, end of input, failure ───────────────┘
/// ```
///
/// An agent answers a HELLO at once, so [`phase`](Self::phase) never returns `Greeted`.
#[derive(Debug)]
pub struct AgentReactor {
    pub(super) connection: ConnectionId,
    pub(super) config: Arc<Checked<AgentConfig>>,
    pub(super) link: Link,
    pub(super) flight: Flight,
    pub(super) session: Option<Arc<Session>>,
    /// With async: the engine-id. Answers may take any connection that has it.
    pub(super) shared_engine: Option<Arc<Bytes>>,
    /// A payload was refused before its last fragment arrived, and no NOTIFY has begun since.
    pub(super) payload_refused: bool,
    /// The number of requests that the peer has in flight at most. If it sends more, it has abandoned the oldest.
    pub(super) window: u32,
    /// The longest ACK in bytes, without its length prefix.
    pub(super) max_ack: u32,
    /// The age in nanoseconds above which an answer is late.
    pub(super) late_after: u64,
    /// When the connection reaches its maximum age.
    pub(super) max_age: Option<Timestamp>,
    /// Health checks are refused.
    pub(super) lame_duck: bool,
    /// The timer that started the drain; `None` if the application did.
    pub(super) drained_by: Option<Timer>,
    /// Boxed: few connections are draining.
    pub(super) next_disconnect: Option<Box<NextDisconnect>>,
    /// Tickets that were dropped unanswered.
    pub(super) dropped: Dropped,
    /// The end of the session, until `Action::Close` was returned.
    pub(super) ended: Option<Box<Closed>>,
}

/// Events of the transport.
impl AgentReactor {
    /// A connection that was just opened, under the caller's identifier.
    pub fn new(config: Arc<Checked<AgentConfig>>, connection: ConnectionId, now: Timestamp) -> Self {
        let mut link = Link::new(Side::Agent, first_frame_size(&config), now);
        if config.defer_output {
            link.defer_output();
        }
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            connection,
            late_after: config.processing.map_or(u64::MAX, nanos),
            max_age: config.max_age.map(|age| now + with_jitter(age, connection, now)),
            config,
            link,
            flight: Flight::new(),
            session: None,
            shared_engine: None,
            payload_refused: false,
            window: u32::MAX,
            max_ack: u32::MAX,
            lame_duck: false,
            drained_by: None,
            next_disconnect: None,
            dropped: Dropped::new(),
            ended: None,
        }
    }

    /// Sets the layers whose write sides are shut when the connection closes. Default [`Layers::Plain`].
    #[must_use]
    pub fn with_layers(mut self, layers: Layers) -> Self {
        self.link.set_layers(layers);
        self
    }

    /// Enters or leaves lame-duck mode: health checks are refused and everything else is served, so that HAProxy stops
    /// using this server before it shuts down.
    pub fn set_lame_duck(&mut self, lame_duck: bool) {
        self.lame_duck = lame_duck;
    }

    /// Bytes were received. `input` is the unused rest of earlier input followed by the bytes read since. The reactor copies
    /// what it keeps, such as fragments.
    ///
    /// Call it again with the rest after [`Step::consumed`] until the rest is empty or it returns
    /// [`SendFrames`](Action::SendFrames), [`WantBytes`](Action::WantBytes), [`Paused`](Action::Paused) or
    /// [`Close`](Action::Close). Call it also, without new bytes, when [`Interest::resume`](crate::Interest::resume) is
    /// set.
    pub fn on_bytes<'i>(&mut self, now: Timestamp, input: &'i [u8]) -> Step<Action<'i>> {
        self.link.tick(now);
        if self.is_full() {
            self.link.under_backpressure();
        } else if let Some((ids, payload, consumed)) = self.link.whole(input, Side::Engine, FrameType::Notify)
            && self.is_new(ids)
            && !payload.is_empty()
            && let Some(lengths) = check_messages(payload, self.config.limits.max_messages)
        {
            self.payload_refused = false;
            let ticket = self.ticket(ids, payload.len());
            self.link.took_frame();
            let payload = NotifyPayload::new(Received::in_input(payload), lengths);
            return Step { consumed, action: Action::RunMessages(Notify { ticket, payload }) };
        } else if input.is_empty() && !self.link.is_eof() && !self.link.is_closing() {
            self.link.rest(0);
            return Step { consumed: 0, action: self.at_rest(4) };
        }
        self.on_any_bytes(input)
    }

    /// Slow path of [`on_bytes`](Self::on_bytes): any input but a valid, unfragmented NOTIFY with new identifiers.
    #[inline(never)]
    fn on_any_bytes<'i>(&mut self, bytes: &'i [u8]) -> Step<Action<'i>> {
        let mut input = Input::new(bytes);
        let action = self.on_frames(&mut input);
        if self.link.is_closing() {
            // The end of the session may leave a driver with a full buffer: it must be able to read on.
            input.clear();
        }
        Step { consumed: input.consumed(), action }
    }

    /// Processes frames until one results in an action, or the input is exhausted.
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
                        self.end_if_nothing_outstanding();
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
                    let payload = Received::in_input(next.payload);
                    return self.run(next.header, payload, next.payload.len());
                }
                self.acknowledge_empty(ids);
                continue;
            }
            match self.on_frame(input, &next) {
                Ok(None) => {}
                Ok(Some(action)) => return action,
                Err(violation) => return self.violated(violation),
            }
        }
    }

    /// Input that cannot be processed: not yet under backpressure, never once closing.
    #[cold]
    fn at_limit(&mut self, input: &mut Input<'_>) -> Action<'static> {
        if self.overflows(input) {
            // Deferred output is at its limit: further requests could not be answered before the input ends.
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

    /// The peer has shut its write side. Outstanding requests are still answered; then the session ends with
    /// [`CloseReason::Eof`].
    ///
    /// Call it with the unused rest of the input, even if it is empty, until it returns one of the four actions at which
    /// [`on_bytes`](Self::on_bytes) stops.
    pub fn on_input_eof<'i>(&mut self, now: Timestamp, input: &'i [u8]) -> Step<Action<'i>> {
        self.tick(now);
        self.link.input_ended();
        self.on_bytes(now, input)
    }

    /// A read would block: all bytes received so far were passed on. If a drain is due, this queues the DISCONNECT.
    ///
    /// Needed only after [`Interest::read_now`](crate::Interest::read_now), and harmless after any other read that would block.
    pub fn on_read_blocked(&mut self, now: Timestamp) -> Action<'static> {
        self.tick(now);
        self.advance_drain();
        self.at_rest(1)
    }

    /// The first `n` bytes of [`outgoing`](Self::outgoing) were sent.
    ///
    /// # Errors
    /// [`Misuse::SentTooMuch`] if there are fewer. The reactor is unchanged.
    #[inline]
    pub fn on_sent(&mut self, now: Timestamp, n: usize) -> Result<Action<'static>, Misuse> {
        self.tick(now);
        if !self.link.sent_whole(n) {
            return self.on_sent_in_part(n);
        }
        // Fast path: nothing is queued, the session goes on, and no drain is under way.
        self.flight.all_sent();
        self.free_memory_early();
        Ok(if self.is_full() { Action::Paused } else { Action::WantBytes { at_least: 1 } })
    }

    /// Slow path of [`on_sent`](Self::on_sent): more is to be sent, or the end of the session is near.
    #[inline(never)]
    fn on_sent_in_part(&mut self, n: usize) -> Result<Action<'static>, Misuse> {
        self.link.sent(n)?;
        if self.link.nothing_to_send() {
            self.flight.all_sent();
            self.hold_answers();
            if self.link.is_eof() && !self.link.is_closing() {
                self.end_if_nothing_outstanding();
            }
        }
        self.free_memory_early();
        Ok(self.at_rest(1))
    }

    #[inline]
    fn free_memory_early(&mut self) {
        if self.link.memory.used() {
            self.link.trim();
            self.flight.trim();
        }
    }

    /// Reports the shutdown of the layer that [`Interest::shut`](crate::Interest::shut) names: [`Progress::Done`] if its
    /// write side is shut, or cannot be; [`Progress::Started`] if the shutdown is to be tried again, which need not be
    /// reported.
    ///
    /// # Errors
    /// [`Misuse::ShutNotRequested`] if `shut` was never set. The reactor is unchanged.
    pub fn on_write_shut(&mut self, now: Timestamp, progress: Progress) -> Result<Action<'static>, Misuse> {
        self.tick(now);
        self.link.write_shut(progress)?;
        Ok(self.at_rest(1))
    }

    /// The transport failed in either direction. Nothing more is read or sent. Returns `Close`, unless it was returned before.
    pub fn on_transport_error(&mut self, now: Timestamp) -> Action<'static> {
        self.tick(now);
        if !self.link.is_closing() {
            self.end(CloseReason::Transport);
        }
        self.link.abandon();
        self.at_rest(1)
    }
}
