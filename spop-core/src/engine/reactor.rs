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

/// How many bytes of the frame size HAProxy keeps for the header of a NOTIFY.
pub(super) const NOTIFY_HEADER: usize = 32;

/// One connection of an engine: HAProxy's side of the protocol, and nothing else.
///
/// It has the contract of the [agent's reactor](crate::AgentReactor): it is told what happened (the methods whose names
/// begin with `on_`) and what was decided (the others), and says what follows. Every request that
/// [`notify`](Self::notify) accepts ends once: [`Answered`](EngineAction::Answered), [`Failed`](EngineAction::Failed), or
/// among the [`unanswered`](Ended::unanswered) of the [`Close`](EngineAction::Close).
///
/// ```text
///   Greeted ──AGENT-HELLO──▶ Established ──AGENT-DISCONNECT──────────────────────────────▶ Closing
///                                 │  ▲ └──own DISCONNECT──▶ awaiting the agent's ──────────▲
///                                 └──┘ NOTIFY, ACK, UNSET      (all else is ignored)
/// ```
///
/// What engines do differently is in [`Profile`](super::Profile); [`EngineConfig::haproxy_2_6`],
/// [`EngineConfig::haproxy_3_1`] and [`EngineConfig::haproxy_3_2`] are what HAProxy does.
#[derive(Debug)]
pub struct EngineReactor {
    pub(super) connection: ConnectionId,
    pub(super) config: Arc<Checked<EngineConfig>>,
    pub(super) link: Link,
    pub(super) pending: Pending,
    pub(super) session: Option<Box<Session>>,
    /// The number of the next stream, for requests that come without.
    pub(super) next_stream: u64,
    /// The highest stream that was used.
    pub(super) highest: Option<u64>,
    /// A request timed out whose ACK keeps the next one back.
    pub(super) late_ack: bool,
    /// Why the session is ending, while requests may still wait on it: the agent's DISCONNECT is awaited, or the link is mute.
    pub(in crate::engine) ending: Option<CloseReason>,
    /// Nothing is read any more, see [`Profile::stalls_at`](super::Profile::stalls_at).
    pub(super) deaf: bool,
    /// ACKs that answered nothing.
    pub(super) ignored: u64,
    /// Set when the session ended, until the action that says so was returned.
    pub(super) ended: Option<Box<Ended>>,
}

/// Inputs: something happened.
impl EngineReactor {
    /// A connection that was just opened, with its HAPROXY-HELLO to be sent. It is known as `connection` to its caller.
    pub fn new(config: Arc<Checked<EngineConfig>>, connection: ConnectionId, now: Timestamp) -> Self {
        let mut link = Link::new(Side::Engine, config.max_frame_size, now);
        link.spare(NOTIFY_HEADER.saturating_sub(crate::frame::HEADER_MAX));
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
            deaf: false,
            ignored: 0,
            ended: None,
        }
    }

    /// Says which layers there are to be shut before the transport. Plain unless said otherwise.
    #[must_use]
    pub fn with_layers(mut self, layers: Layers) -> Self {
        self.link.set_layers(layers);
        self
    }

    /// Bytes arrived. `input` is what was left of earlier input, followed by what was read since; the reactor keeps none of it.
    ///
    /// Call it with the unused rest until nothing is left, or it returns [`SendFrames`](EngineAction::SendFrames),
    /// [`WantBytes`](EngineAction::WantBytes) or [`Close`](EngineAction::Close). Call it as well, without new bytes, when
    /// [`Interest::resume`] is set.
    pub fn on_bytes<'i>(&mut self, now: Timestamp, input: &'i [u8]) -> Step<EngineAction<'i>> {
        self.link.tick(now);
        let mut input = Input::new(input);
        let action = self.on_frames(&mut input);
        Step { consumed: input.consumed(), action }
    }

    fn on_frames<'i>(&mut self, input: &mut Input<'i>) -> EngineAction<'i> {
        if self.config.profile.stalls_at.is_some_and(|full| input.bytes().len() >= full)
            && self.link.phase == Phase::Established
        {
            self.link.forget_partial();
            self.deaf = true;
        }
        if self.deaf {
            input.clear();
            return self.at_rest(1);
        }
        loop {
            // A drain ends with the last answer, and not with what happened to arrive behind it.
            self.settle();
            if !self.is_reading() {
                input.clear();
                return self.at_rest(1);
            }
            match self.step(input) {
                Ok(Some(action)) => return action,
                Ok(None) => {}
                Err(violation) => self.violated(violation),
            }
        }
    }

    /// The agent will send no more. HAProxy does not keep half of a connection: the session is over.
    ///
    /// Called with the unused rest of the input until it returns one of the three actions at which [`on_bytes`](Self::on_bytes)
    /// stops, also when nothing is left.
    pub fn on_input_eof<'i>(&mut self, now: Timestamp, input: &'i [u8]) -> Step<EngineAction<'i>> {
        self.link.tick(now);
        if !self.deaf {
            self.link.input_ended();
        }
        self.on_bytes(now, input)
    }

    /// A read found nothing: all that the peer has sent so far was passed on.
    pub fn on_read_blocked(&mut self, now: Timestamp) -> EngineAction<'static> {
        self.link.tick(now);
        self.at_rest(1)
    }

    /// A deadline has passed. To be called until it returns [`SendFrames`](EngineAction::SendFrames),
    /// [`WantBytes`](EngineAction::WantBytes) or [`Close`](EngineAction::Close). The next deadline lies after `now`.
    pub fn on_timeout(&mut self, now: Timestamp) -> EngineAction<'static> {
        self.link.tick(now);
        // Serving a timer moves it on; should one not, the loop ends all the same.
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
        self.at_rest(1)
    }

    /// The first `n` of the outgoing bytes have left.
    ///
    /// # Errors
    /// [`Misuse::SentTooMuch`] when there are fewer. Nothing has changed then.
    pub fn on_sent(&mut self, now: Timestamp, n: usize) -> Result<EngineAction<'static>, Misuse> {
        self.link.tick(now);
        self.link.sent(n)?;
        self.link.memory.used();
        Ok(self.at_rest(1))
    }

    /// The write side of the layer that [`Interest::shut`] named was shut; with [`Progress::Started`] it is under way
    /// and must be tried again, with [`Progress::Wanted`] the attempt failed to begin.
    ///
    /// # Errors
    /// [`Misuse::ShutNotAsked`] when no layer was named so far. Nothing has changed then.
    pub fn on_write_shut(
        &mut self,
        now: Timestamp,
        progress: Progress,
    ) -> Result<EngineAction<'static>, Misuse> {
        self.link.tick(now);
        self.link.write_shut(progress)?;
        Ok(self.at_rest(1))
    }

    /// The transport failed, in either direction: nothing can be received or sent any more.
    pub fn on_transport_error(&mut self, now: Timestamp) -> EngineAction<'static> {
        self.link.tick(now);
        self.finish(CloseReason::Transport, Status::IO);
        self.link.abandon();
        self.at_rest(1)
    }
}

/// What follows from the state.
impl EngineReactor {
    /// Bytes to send, in order. Empty while nothing may be sent.
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.link.outgoing()
    }

    /// What the driver should do.
    pub fn interest(&self) -> Interest {
        let mut interest = self.link.interest(false, self.ended.is_some());
        interest.read &= !self.deaf;
        interest
    }

    /// Until when [`on_timeout`](Self::on_timeout) must be called, and what for.
    pub fn deadline(&self) -> Option<(Timestamp, Timer)> {
        let timeouts = &self.config.timeouts;
        let owes = !self.config.profile.idle_while_waiting && !self.pending.is_empty();
        let mut next = Earliest(self.link.deadline(timeouts, owes, false));
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

    /// How far the connection has come.
    pub fn phase(&self) -> Phase {
        self.link.phase
    }

    /// The number by which the caller knows this connection.
    pub const fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Requests that wait for their answers.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// The requests that wait for their answers, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = NotifyId> + '_ {
        self.pending.iter()
    }

    /// Whether this request still waits for its answer.
    pub fn is_waiting(&self, id: NotifyId) -> bool {
        self.pending.contains(id)
    }

    /// Bytes that wait to be sent.
    pub fn outgoing_bytes(&self) -> usize {
        self.link.outgoing_bytes()
    }

    /// Frames of unknown type that were skipped.
    pub fn skipped_frames(&self) -> u64 {
        self.link.skipped()
    }

    /// ACKs that answered nothing, and were ignored: late, duplicate or made up.
    pub const fn ignored_acks(&self) -> u64 {
        self.ignored
    }
}
