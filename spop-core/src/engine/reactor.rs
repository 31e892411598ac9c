//! The engine's reactor.

use alloc::{boxed::Box, sync::Arc};

use super::{
    NotifyId,
    action::{Ended, EngineAction},
    config::EngineConfig,
    handshake::hello,
    pending::Pending,
};
use crate::{
    Status, Timestamp,
    agent::{ConnectionId, Session},
    config::Checked,
    frame::{Flags, FrameType, Header, Ids},
    link::{
        CloseReason, Due, Earliest, Input, Interest, Layers, Link, Misuse, Phase, Progress, Side, Step,
        TIMERS, Timer,
    },
};

/// The part of the frame size, in bytes, that HAProxy reserves for the header of a NOTIFY.
pub(super) const NOTIFY_HEADER: usize = 32;

/// One connection of an engine: HAProxy's side of the protocol.
///
/// It has the contract of the [agent's reactor](crate::AgentReactor). Methods that begin with `on_` are inputs and return an
/// [`EngineAction`]; [`interest`](Self::interest), [`outgoing`](Self::outgoing) and [`deadline`](Self::deadline) describe
/// the state; the other mutating methods are decisions. Every request that [`notify`](Self::notify) accepts ends exactly
/// once: in [`Answered`](EngineAction::Answered), in [`Failed`](EngineAction::Failed), in the answer that
/// [`claim`](Self::claim) returns, or among the [`unanswered`](Ended::unanswered) of [`Close`](EngineAction::Close).
///
/// ```text
///   Greeted ──AGENT-HELLO──▶ Established ──AGENT-DISCONNECT──────────────────────────────▶ Closing
///                                 │  ▲ └──own DISCONNECT──▶ awaiting the agent's ──────────▲
///                                 └──┘ NOTIFY, ACK, UNSET      (all else is ignored)
/// ```
///
/// [`Profile`](super::Profile) holds what differs between engines; [`EngineConfig::haproxy_2_6`],
/// [`EngineConfig::haproxy_3_1`] and [`EngineConfig::haproxy_3_2`] behave as those versions of HAProxy.
#[derive(Debug)]
pub struct EngineReactor {
    pub(super) connection: ConnectionId,
    pub(super) config: Arc<Checked<EngineConfig>>,
    pub(super) link: Link,
    pub(super) pending: Pending,
    pub(super) session: Option<Box<Session>>,
    /// The STREAM-ID of the next request without identifiers.
    pub(super) next_stream: u64,
    /// The highest STREAM-ID in use so far.
    pub(super) highest: Option<u64>,
    /// A request timed out, and its late ACK blocks the next one.
    pub(super) late_ack: bool,
    /// Why the session is ending, while requests may be in flight: the agent's DISCONNECT is awaited, or the link is silent.
    pub(in crate::engine) ending: Option<CloseReason>,
    /// Reading has stopped for good, see [`Profile::stalls_at`](super::Profile::stalls_at).
    pub(super) stalled: bool,
    /// ACKs that matched no request.
    pub(super) ignored: u64,
    /// The `Close` action that was not returned yet.
    pub(super) ended: Option<Box<Ended>>,
}

/// Inputs: something happened.
impl EngineReactor {
    /// A connection that has just been opened, with the HAPROXY-HELLO as its outgoing bytes. `connection` is the caller's
    /// number for it.
    pub fn new(config: Arc<Checked<EngineConfig>>, connection: ConnectionId, now: Timestamp) -> Self {
        let mut link = Link::new(Side::Engine, config.max_frame_size, now);
        link.spare((NOTIFY_HEADER - crate::frame::HEADER_MAX) as u32);
        let header = Header { frame_type: FrameType::HaproxyHello, flags: Flags::FIN, ids: Ids::ZERO };
        link.push(header, &hello(&config));
        link.phase = Phase::Greeted;
        Self {
            connection,
            config,
            link,
            pending: Pending::default(),
            session: None,
            next_stream: 0,
            highest: None,
            late_ack: false,
            ending: None,
            stalled: false,
            ignored: 0,
            ended: None,
        }
    }

    /// Sets the layers that are shut before the transport. Default [`Layers::Plain`].
    #[must_use]
    pub fn with_layers(mut self, layers: Layers) -> Self {
        self.link.set_layers(layers);
        self
    }

    /// Processes received bytes. `input` is the unused rest of earlier input, followed by what was read since; the reactor
    /// keeps none of it.
    ///
    /// Call it again with the unused rest until nothing is left, or until it returns [`SendFrames`](EngineAction::SendFrames),
    /// [`WantBytes`](EngineAction::WantBytes) or [`Close`](EngineAction::Close). Also call it, with the rest (perhaps empty),
    /// when [`Interest::resume`] is set.
    pub fn on_bytes<'i>(&mut self, now: Timestamp, input: &'i [u8]) -> Step<EngineAction<'i>> {
        self.link.tick(now);
        let mut input = Input::new(input);
        let action = self.on_frames(&mut input);
        if !self.is_reading() {
            // The end of the session may leave a driver with a full buffer: it must be able to read on.
            input.clear();
        }
        Step { consumed: input.consumed(), action }
    }

    fn on_frames<'i>(&mut self, input: &mut Input<'i>) -> EngineAction<'i> {
        if self.config.profile.stalls_at.is_some_and(|full| input.bytes().len() >= full)
            && self.link.phase == Phase::Established
        {
            self.link.forget_partial();
            self.stalled = true;
        }
        if self.stalled {
            input.clear();
            return self.stop_action(1);
        }
        loop {
            // A drain ends with the last answer: frames behind it in the same input are not processed.
            self.end_if_idle();
            if !self.is_reading() {
                input.clear();
                return self.stop_action(1);
            }
            match self.step(input) {
                Ok(Some(action)) => return action,
                Ok(None) => {}
                Err(violation) => self.on_violation(violation),
            }
        }
    }

    /// The input has ended (EOF, or `close_notify`): the agent sends no more. HAProxy does not support a half-closed
    /// connection, so the session ends.
    ///
    /// Call it with the unused rest of the input, even an empty one, until it returns one of the three actions at which
    /// [`on_bytes`](Self::on_bytes) stops.
    pub fn on_input_eof<'i>(&mut self, now: Timestamp, input: &'i [u8]) -> Step<EngineAction<'i>> {
        self.link.tick(now);
        if !self.stalled {
            self.link.input_ended();
        }
        self.on_bytes(now, input)
    }

    /// A read would block. An engine never requires this call, since [`Interest::read_now`] is never set; it is harmless at
    /// any time.
    pub fn on_read_blocked(&mut self, now: Timestamp) -> EngineAction<'static> {
        self.link.tick(now);
        self.stop_action(1)
    }

    /// A deadline has passed. Call it until it returns [`SendFrames`](EngineAction::SendFrames),
    /// [`WantBytes`](EngineAction::WantBytes) or [`Close`](EngineAction::Close). The next deadline lies after `now`. A call
    /// before the deadline does nothing.
    pub fn on_timeout(&mut self, now: Timestamp) -> EngineAction<'static> {
        self.link.tick(now);
        // Bounded: handling a timer re-arms it later than `now`, but the loop must not depend on that.
        for _ in 0..TIMERS {
            match self.link.expired(self.deadline()) {
                Some(Due::Timer(timer)) => {
                    if let Some(action) = self.on_timer(timer) {
                        return action;
                    }
                }
                Some(Due::Served | Due::Trimmed) => {}
                None => break,
            }
        }
        self.stop_action(1)
    }

    /// The transport has accepted the first `n` outgoing bytes.
    ///
    /// # Errors
    /// [`Misuse::SentTooMuch`] if there are fewer; the state is unchanged.
    pub fn on_sent(&mut self, now: Timestamp, n: usize) -> Result<EngineAction<'static>, Misuse> {
        self.link.tick(now);
        self.link.sent(n)?;
        self.link.memory.used();
        Ok(self.stop_action(1))
    }

    /// Reports progress in shutting the write side of the layer that [`Interest::shut`] names: done,
    /// [`Progress::Started`] if it must be retried, or [`Progress::Requested`] if it could not begin.
    ///
    /// # Errors
    /// [`Misuse::ShutNotRequested`] if no layer was named so far; the state is unchanged.
    pub fn on_write_shut(
        &mut self,
        now: Timestamp,
        progress: Progress,
    ) -> Result<EngineAction<'static>, Misuse> {
        self.link.tick(now);
        self.link.write_shut(progress)?;
        Ok(self.stop_action(1))
    }

    /// The transport failed, reading or writing: the session ends.
    pub fn on_transport_error(&mut self, now: Timestamp) -> EngineAction<'static> {
        self.link.tick(now);
        self.finish(CloseReason::Transport, Status::IO);
        self.link.abandon();
        self.stop_action(1)
    }
}

/// The state, level-triggered.
impl EngineReactor {
    /// The bytes to write next. Empty while nothing may be sent.
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.link.outgoing()
    }

    /// What the driver should do.
    pub fn interest(&self) -> Interest {
        let mut interest = self.link.interest(false, self.ended.is_some());
        interest.read &= !self.stalled;
        interest
    }

    /// When [`on_timeout`](Self::on_timeout) must be called, and for which timer.
    pub fn deadline(&self) -> Option<(Timestamp, Timer)> {
        let timeouts = &self.config.timeouts;
        let owes = !self.config.profile.idle_while_waiting && !self.pending.is_empty();
        let mut next = Earliest(self.link.deadline(timeouts, owes, || false));
        if let Some(timeout) = timeouts.message
            && let Some(oldest) = self.pending.oldest()
        {
            next.offer(Some(oldest.asked + timeout), Timer::Message);
        }
        next.0
    }

    /// The session, once it is established.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// The phase of the connection.
    pub fn phase(&self) -> Phase {
        self.link.phase
    }

    /// The caller's number for this connection.
    pub const fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// The requests in flight, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = NotifyId> + '_ {
        self.pending.iter()
    }

    /// Whether this request is in flight.
    pub fn is_waiting(&self, id: NotifyId) -> bool {
        self.pending.contains(id)
    }

    /// The number of queued outgoing bytes, those that may not be sent yet included.
    pub fn outgoing_bytes(&self) -> usize {
        self.link.outgoing_bytes()
    }

    /// The number of frames of unknown type that were skipped.
    pub fn skipped_frames(&self) -> u64 {
        self.link.skipped()
    }

    /// The number of ACKs that matched no request and were ignored: late, duplicate or invented.
    pub const fn ignored_acks(&self) -> u64 {
        self.ignored
    }
}
