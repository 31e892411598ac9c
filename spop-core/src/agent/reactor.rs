//! The agent's reactor.

use alloc::{boxed::Box, sync::Arc};
use core::time::Duration;

use bytes::Bytes;

use super::{
    action::{Action, Notify, Session},
    config::AgentConfig,
    drain::with_jitter,
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
    pub(super) overdue_limit: usize,
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
    pub(super) dropped_tickets: u64,
    /// Set when the session ended, until the action that says so was returned.
    pub(super) ended: Option<Box<Closed>>,
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
            overdue_limit: config.limits.max_in_flight,
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
            self.link.under_backpressure();
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
