//! The configuration of the agent's reactor.

use alloc::{format, string::String};
use core::time::Duration;

use crate::{
    Actions, Status,
    config::{Checked, ConfigError, Limits, Timeouts, at_least, none_or_lasts},
    frame::{Capabilities, Flags, FrameType, Header, Ids, MIN_FRAME_SIZE},
    link::MESSAGE_MAX,
};

use super::DrainTiming;

/// The configuration of an [`AgentReactor`](super::AgentReactor), shared by all connections of a server.
///
/// ```
/// use std::sync::Arc;
/// use spop_core::{AgentConfig, AgentReactor, ConnectionId, Timestamp};
///
/// let mut config = AgentConfig::default();
/// config.max_frame_size = 4096;
/// config.limits.max_in_flight = 500;
/// let config = Arc::new(config.checked()?);
/// let agent = AgentReactor::new(Arc::clone(&config), ConnectionId(1), Timestamp::ZERO);
/// # Ok::<(), spop_core::config::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentConfig {
    /// The longest frame this side accepts, in bytes without its length prefix; a session uses the lower of both sides'
    /// values. From 256 to [`Limits::max_payload_bytes`]. Default 1 MiB, so that HAProxy's `tune.bufsize` decides. No
    /// memory is reserved for it. Before the handshake the limit is 16 KiB at most.
    ///
    /// HAProxy 3.1 and later never send fragments: a request that exceeds the session's frame size fails there with error
    /// 259, and the agent never sees it.
    pub max_frame_size: u32,
    /// The capabilities of this side (section 3.2.1). Default fragmentation and pipelining. Async is for servers that route
    /// answers with a [`Hub`](crate::hub::Hub).
    ///
    /// HAProxy 2.6 and 3.0 need fragmentation for requests that exceed the frame size; without it, each such request makes them
    /// reconnect.
    pub capabilities: Capabilities,
    /// The peers to which pipelining is announced, if `capabilities` has it. Default [`Auto`](PipeliningPolicy::Auto).
    pub pipelining: PipeliningPolicy,
    /// How long HAProxy waits for an answer: its `timeout processing`, or slightly longer. HAProxy abandons a request
    /// without notice. Default 500 ms; `None` if unknown. With a value below HAProxy's, requests can fail that HAProxy
    /// still waits for.
    ///
    /// A later answer is still sent, and reported as [`Settled::Late`](super::Settled::Late). At [`Limits::max_in_flight`],
    /// [`Limits::max_payload_bytes`] or `max_waiting_frames`, the oldest request is failed
    /// ([`Cancel::Overdue`](super::Cancel::Overdue)) once it is older than this; otherwise a connection full of abandoned
    /// requests would serve no new one. With `None`, no answer is late, and at a limit reading pauses until an answer was sent.
    pub processing: Option<Duration>,
    /// For HAProxy 2.6 and 3.0: their `max-waiting-frames`, or less. They send nothing more on a connection with this many
    /// unanswered requests, abandoned ones included. From this number on, the oldest request is failed once it is older
    /// than `processing`. Default 20, as in HAProxy.
    pub max_waiting_frames: usize,
    /// Drains a connection at this age, ± 10 % so that connections opened together do not end together. HAProxy then
    /// reconnects, and agents that were added behind the same address get their share of connections. Each drain costs
    /// HAProxy a new connection, and a request in transit can be lost: use minutes or hours. Default `None`.
    pub max_age: Option<Duration>,
    /// Limits on what a peer can make grow.
    pub limits: Limits,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// The reply to a NOTIFY that has no answer: [`fail`](super::AgentReactor::fail) was called, or a timer expired.
    /// Default an empty ACK. For a slow handler it comes after [`Timeouts::message`](crate::config::Timeouts::message), by default
    /// later than HAProxy waits.
    pub on_failure: OnFailure,
    /// Whether each fragment of a NOTIFY is reported ([`Action::FragmentArrived`](super::Action::FragmentArrived)), so that the
    /// application can inspect the part that has arrived and refuse the rest. Default false.
    pub watch_fragments: bool,
    /// Drains a connection on which no frame has arrived for this long after a payload was refused before its last
    /// fragment; `None` keeps it open. Default 50 ms.
    ///
    /// HAProxy 2.6 and 3.0 send nothing more on such a connection: their count of frames in flight is wrong, and requests
    /// assigned to it time out. After a close they open another.
    pub drain_after_refusal: Option<Duration>,
    /// When a drain sends its DISCONNECT, see [`DrainTiming`]. With `None`, as soon as no answer is outstanding and a read
    /// would block. Default on.
    pub drain_timing: Option<DrainTiming>,
    /// Sends nothing before the peer has shut its write side, for half-duplex transports. Default false.
    pub defer_output: bool,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            max_frame_size: 1 << 20,
            capabilities: Capabilities::FRAGMENTATION | Capabilities::PIPELINING,
            pipelining: PipeliningPolicy::default(),
            processing: Some(Duration::from_millis(500)),
            max_waiting_frames: 20,
            max_age: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            on_failure: OnFailure::default(),
            watch_fragments: false,
            drain_after_refusal: Some(Duration::from_millis(50)),
            drain_timing: Some(DrainTiming::default()),
            defer_output: false,
        }
    }
}

impl AgentConfig {
    /// Validates the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of bounds:
    ///
    /// - `max_frame_size` below 256, or above `limits.max_payload_bytes`;
    /// - a limit or `max_waiting_frames` of 0, or `limits.max_payload` above `limits.max_payload_bytes`;
    /// - a duration of zero, other than `timeouts.drain`, `timeouts.memory`, `drain_after_refusal` and those of
    ///   [`DrainTiming`];
    /// - `max_age` with a `timeouts.drain` of zero, with which `max_age` has no effect;
    /// - an `on_failure` whose answer does not fit `max_frame_size`, or whose message exceeds 180 bytes.
    pub fn checked(self) -> Result<Checked<Self>, ConfigError> {
        self.limits.check(self.max_frame_size, MIN_FRAME_SIZE)?;
        self.timeouts.check()?;
        at_least("max_waiting_frames", self.max_waiting_frames, 1)?;
        none_or_lasts("processing", self.processing, "says that it is not known")?;
        none_or_lasts("max_age", self.max_age, "keeps connections of any age")?;
        if self.max_age.is_some() && self.timeouts.drain.is_zero() {
            return Err(ConfigError::new("timeouts.drain", "zero", "longer for `max_age` to have an effect"));
        }
        self.on_failure.check(self.max_frame_size)?;
        Ok(Checked::new(self))
    }
}

impl Default for Checked<AgentConfig> {
    fn default() -> Self {
        Self::new(AgentConfig::default())
    }
}

/// The peers to which pipelining is announced.
///
/// HAProxy 3.1 and later announce pipelining without async. With pipelining, answers that fill HAProxy's receive buffer
/// (`tune.bufsize`) stall the connection for good, and HAProxy continues to use a connection whose requests it has abandoned.
/// Without pipelining, at most one answer is unread, and a new NOTIFY means that the previous one was abandoned; HAProxy then
/// opens one connection per concurrent request, up to `maxconn` of the server line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PipeliningPolicy {
    /// All peers that announce it, except HAProxy 3.1 and later as recognized by
    /// [`Session::peer_is_multiplexer`](super::Session::peer_is_multiplexer).
    #[default]
    Auto,
    /// All peers that announce it. For HAProxy 3.1 and later an ACK is limited to 1/21 of their buffer (780 bytes of
    /// 16384), so that 20 unread answers and a part of another never fill it. A longer answer is
    /// [`AckError::TooBig`](super::AckError::TooBig).
    Always,
}

/// The reply to a NOTIFY that the application does not answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OnFailure {
    /// An ACK with these actions, or without any if they do not fit an ACK of the session. Default without actions: HAProxy
    /// continues at once, and sets no variable.
    Answer(Actions),
    /// A DISCONNECT. The other requests in flight on the connection are lost.
    Disconnect {
        /// The status code. HAProxy reports it plus 256.
        status: Status,
        /// The message, at most 180 bytes.
        message: String,
    },
}

impl Default for OnFailure {
    fn default() -> Self {
        Self::Answer(Actions::new())
    }
}

impl OnFailure {
    fn check(&self, max_frame_size: u32) -> Result<(), ConfigError> {
        let (what, len, most) = match self {
            Self::Answer(actions) => {
                let shortest = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: Ids::ZERO };
                let most = (max_frame_size as usize).saturating_sub(shortest.encoded_len());
                ("an answer", actions.as_bytes().len(), most)
            }
            Self::Disconnect { message, .. } => ("a message", message.len(), MESSAGE_MAX),
        };
        if len <= most {
            return Ok(());
        }
        let value = format!("{what} of {len} bytes");
        Err(ConfigError::new("on_failure", value, format!("at most {most} bytes long")))
    }
}
