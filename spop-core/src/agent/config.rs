//! What an agent wants of all its connections.

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
    /// The longest frame this side accepts, in bytes without its length prefix; the session uses the lower of both sides'.
    /// From 256 to [`Limits::max_payload_bytes`]. Default 1 MiB, so that HAProxy's `tune.bufsize` decides. No memory is
    /// reserved for it, and before the handshake no frame may take more than 16 KiB.
    ///
    /// HAProxy 3.1 and later never fragment: a request that exceeds the size of the session fails there with 259 before the
    /// agent sees it.
    pub max_frame_size: u32,
    /// What this side can do. Default fragmentation and pipelining.
    ///
    /// HAProxy 2.6 and 3.0 need fragmentation for what exceeds the frame size; without it they reconnect in a storm.
    pub capabilities: Capabilities,
    /// To which peers pipelining is offered, where `capabilities` has it. Default
    /// [`Auto`](PipeliningPolicy::Auto).
    pub pipelining: PipeliningPolicy,
    /// The longest HAProxy waits for an answer: its `timeout processing`, or slightly longer. HAProxy does not tell the agent
    /// when it gives a request up. Default 500 ms; `None` if unknown. A shorter value than HAProxy's fails requests that it
    /// still waits for.
    ///
    /// A later answer is sent all the same and reported as [`Settled::Late`](super::Settled::Late). At
    /// [`Limits::max_in_flight`], or `max_waiting_frames`, the oldest request is failed
    /// ([`Cancel::Overdue`](super::Cancel::Overdue)) once it is older than this; otherwise a connection full of abandoned
    /// requests would serve no new one. With `None` no answer is late, and at `max_in_flight` reading pauses until an answer
    /// leaves.
    pub processing: Option<Duration>,
    /// HAProxy 2.6 and 3.0: their `max-waiting-frames`, or less. They send nothing more on a connection with this many
    /// unanswered requests, abandoned ones included; from then on the oldest is failed once it is older than `processing`.
    /// Default 20, theirs.
    pub max_waiting_frames: usize,
    /// Drains a connection at this age, ± 10 % so that connections opened together do not end together. Lets agents added
    /// behind one address get their share. Each drain costs HAProxy a new connection, and a request that is sent just then can be
    /// lost: use minutes or hours. Default `None`.
    pub max_age: Option<Duration>,
    /// What a peer can make grow, and how far.
    pub limits: Limits,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// What a peer gets when [`fail`](super::AgentReactor::fail) says that there is no answer. Default an empty ACK.
    pub on_failure: OnFailure,
    /// Whether each fragment of a NOTIFY is reported ([`Action::FragmentArrived`](super::Action::FragmentArrived)), so
    /// that the application can look at what has arrived and refuse the rest. Default false.
    pub watch_fragments: bool,
    /// Drains a connection on which no frame has come for this long after a payload was refused in mid-fragments; `None`
    /// leaves it open. Default 50 ms.
    ///
    /// HAProxy 2.6 and 3.0 send nothing more on such a connection: their count of what is in flight goes wrong, and the
    /// requests that they give to it wait for their timeout. Once it is closed they open another.
    pub quiet_after_refusal: Option<Duration>,
    /// How a drain finds the moment of the disconnect, see [`DrainTiming`]. Default on; without it, a connection is
    /// disconnected as soon as nothing is owed and a read finds nothing.
    pub drain_timing: Option<DrainTiming>,
    /// Sends nothing before the peer has ended its input: for transports that carry one direction at a time. Default
    /// false.
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
            quiet_after_refusal: Some(Duration::from_millis(50)),
            drain_timing: Some(DrainTiming::default()),
            defer_output: false,
        }
    }
}

impl AgentConfig {
    /// Checks that it can work.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of its bounds:
    ///
    /// - `max_frame_size` below 256, or above `limits.max_payload_bytes`;
    /// - a limit or `max_waiting_frames` of 0, or `limits.max_payload` above `limits.max_payload_bytes`;
    /// - a time of zero, other than `timeouts.drain`, `quiet_after_refusal` and those of [`DrainTiming`];
    /// - `max_age` with a `timeouts.drain` of zero, in which no connection finds a moment to end;
    /// - an `on_failure` whose answer is longer than a frame, or whose message is longer than a DISCONNECT has room for.
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

/// To which peers pipelining is offered.
///
/// HAProxy 3.1 and later announce pipelining without async. With it, unread answers that fill their receive buffer
/// (`tune.bufsize`) stop the connection for good, and they keep using a connection whose requests they have abandoned.
/// Without it at most one answer is unread, and a new NOTIFY means that the previous one was abandoned. HAProxy then opens
/// one connection per concurrent request; `maxconn` on the server line limits both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PipeliningPolicy {
    /// To all peers that announce it but HAProxy 3.1 and later, which are known by what they announce
    /// ([`Session::peer_is_multiplexer`](super::Session::peer_is_multiplexer)).
    #[default]
    Auto,
    /// To all peers that announce it. With HAProxy 3.1 and later an ACK may take a twenty-first of their buffer (780 bytes of
    /// 16384): 20 unread answers and a part of another never fill it. A longer one is
    /// [`AckError::TooBig`](super::AckError::TooBig).
    Always,
}

/// What a peer gets for a NOTIFY that the application cannot answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OnFailure {
    /// An ACK with these actions, or with none on a connection whose frames are too short for them. None by default, so that
    /// HAProxy goes on at once as if nothing had been asked.
    Answer(Actions),
    /// A DISCONNECT; what else is in flight on the connection is lost.
    Disconnect {
        /// Its code, which HAProxy reports plus 256.
        status: Status,
        /// Its text, at most 180 bytes.
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
        let value = format_args!("{what} of {len} bytes");
        Err(ConfigError::new("on_failure", value, format!("at most {most} bytes long")))
    }
}
