//! What an agent wants of all its connections.

use alloc::{string::String, sync::Arc};
use core::time::Duration;

use crate::{
    Actions, Capabilities, Status,
    config::{Limits, Timeouts},
    link::Pacing,
};

use super::Farewell;

/// The configuration of an [`AgentReactor`](super::AgentReactor), shared by all connections of a server.
///
/// ```
/// use spop_core::AgentConfig;
///
/// let mut config = AgentConfig::default();
/// config.max_frame_size = 4096;
/// config.limits.max_in_flight = 500;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentConfig {
    /// The longest frame this side accepts, in bytes without its length prefix; the session uses the lower of both sides'.
    /// Less than 256 counts as 256. Default 16380, HAProxy's own.
    pub max_frame_size: u32,
    /// What this side can do. Default fragmentation and pipelining.
    ///
    /// HAProxy 2.6 and 3.0 need fragmentation for what exceeds the frame size; without it they reconnect in a storm.
    pub capabilities: Capabilities,
    /// What a peer can make grow, and how far.
    pub limits: Limits,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// What a peer gets when [`fail`](super::AgentReactor::fail) says that there is no answer. Default an empty ACK.
    pub on_failure: OnFailure,
    /// A bound on bursts to peers without fragmentation, see [`Pacing`]. Default on.
    pub pacing: Option<Pacing>,
    /// Whether each fragment of a NOTIFY is reported ([`Action::FragmentArrived`](super::Action::FragmentArrived)), so
    /// that the application can look at what has arrived and refuse the rest. Default false.
    pub watch_fragments: bool,
    /// Drains a connection on which no frame has come for this long after a payload was refused in mid-fragments; `None`
    /// leaves it open. Default 50 ms.
    ///
    /// HAProxy 2.6 and 3.0 send nothing more on such a connection: their count of what is in flight goes wrong, and the
    /// requests that they give to it wait for their timeout. Once it is closed they open another.
    pub quiet_after_refusal: Option<Duration>,
    /// How a drain finds the moment of the disconnect, see [`Farewell`]. Default on; without it, a connection is
    /// disconnected as soon as nothing is owed and a read finds nothing.
    pub farewell: Option<Farewell>,
    /// Sends nothing before the peer has ended its input: for transports that carry one direction at a time. Default
    /// false.
    pub defer_output: bool,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            max_frame_size: 16_380,
            capabilities: Capabilities::FRAGMENTATION | Capabilities::PIPELINING,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            on_failure: OnFailure::default(),
            pacing: Some(Pacing::default()),
            watch_fragments: false,
            quiet_after_refusal: Some(Duration::from_millis(50)),
            farewell: Some(Farewell::default()),
            defer_output: false,
        }
    }
}

impl AgentConfig {
    /// With limits that let something through: 0 counts as 1. A copy for each connection is what it costs to write 0.
    pub(super) fn with_room(mut config: Arc<Self>) -> Arc<Self> {
        let limits = &config.limits;
        if limits.max_in_flight == 0 || limits.max_outgoing == 0 {
            let limits = &mut Arc::make_mut(&mut config).limits;
            limits.max_in_flight = limits.max_in_flight.max(1);
            limits.max_outgoing = limits.max_outgoing.max(1);
        }
        config
    }
}

/// What a peer gets for a NOTIFY that the application cannot answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OnFailure {
    /// An ACK with these actions, or with none if they do not fit a frame. None by default, so that HAProxy goes on at once
    /// as if nothing had been asked.
    Answer(Actions),
    /// A DISCONNECT; what else is in flight on the connection is lost.
    Disconnect {
        /// Its code, which HAProxy reports plus 256.
        status: Status,
        /// Its words.
        message: String,
    },
}

impl Default for OnFailure {
    fn default() -> Self {
        Self::Answer(Actions::new())
    }
}
