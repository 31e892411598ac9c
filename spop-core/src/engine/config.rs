//! What an engine wants of its connections, and the habits of the engines that there are.

use alloc::format;
use core::time::Duration;

use bytes::Bytes;

use super::handshake::hello;
use crate::{
    config::{Checked, ConfigError, Limits, Timeouts, at_least},
    frame::{Capabilities, Flags, FrameType, Header, Ids, MIN_FRAME_SIZE},
};

/// The configuration of an [`EngineReactor`](super::EngineReactor), shared by all connections of an engine: what a
/// `spoe-agent` section says about them. Where its other options are (section 2.2):
///
/// | option | here |
/// |---|---|
/// | `max-frame-size`, `max-waiting-frames`, `option send-frag-payload` | the fields of these names |
/// | `option async`, `option pipelining` | [`capabilities`](Self::capabilities) |
/// | `timeout hello`, `timeout idle`, `timeout processing` | [`timeouts`](Self::timeouts), `message` being `processing` |
/// | `maxconnrate`, `maxerrrate` | [`PoolConfig`](super::pool::PoolConfig) |
/// | `use-backend` | the pool's agents, which its driver knows how to reach |
/// | `option var-prefix`, `register-var-names`, `option force-set-var` | [`VarRules`](crate::haproxy::VarRules) |
/// | `option continue-on-error`, `option dontlog-normal` | [`AgentSection`](crate::haproxy::AgentSection) |
/// | `option set-on-error`, `set-process-time`, `set-total-time` | [`AgentSection`](crate::haproxy::AgentSection) |
/// | `messages`, `groups` | the caller's, who makes each a [`MessageList`](crate::MessageList) |
/// | `log` | the caller's, with a [`LogLine`](crate::haproxy::LogLine) |
///
/// ```
/// use spop_core::EngineConfig;
///
/// let mut config = EngineConfig::haproxy_2_6();
/// config.max_frame_size = 4096;
/// config.engine_id = Some("2b1e8b3c-8f0c-4d3e-9d2a-0e5d1c7a9f11".into());
/// let config = config.checked()?;
/// # Ok::<(), spop_core::config::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineConfig {
    /// `max-frame-size`: the longest frame, in bytes without its length prefix, from 256 to
    /// [`Limits::max_payload_bytes`]; the agent may lower it. Default 16380, which is `tune.bufsize` − 4.
    pub max_frame_size: u32,
    /// `max-waiting-frames`: requests that may wait for their answers when pipelining or async was negotiated. Without
    /// them it is one. Default 20.
    pub max_waiting_frames: usize,
    /// What this side announces: `option pipelining` and `option async`. Fragmentation says that fragmented ACKs are
    /// accepted, which no HAProxy does. Async counts only with an [`engine_id`](Self::engine_id).
    pub capabilities: Capabilities,
    /// `option send-frag-payload`: payloads over the frame size leave in fragments if the agent announced that it takes
    /// them. Default true, except where HAProxy has given it up.
    pub send_frag_payload: bool,
    /// The `engine-id`, which async needs: not empty, and short enough for the HELLO to fit a frame. Default none.
    pub engine_id: Option<Bytes>,
    /// Only asks whether the agent is well: announces no capability and no engine-id, and ends with the AGENT-HELLO.
    pub healthcheck: bool,
    /// What a peer can make grow, and how far.
    pub limits: Limits,
    /// How long to wait for what. `message` is `timeout processing`: from a request to its answer. `idle` is also how long
    /// the answer to a DISCONNECT is waited for; without it, `linger`.
    pub timeouts: Timeouts,
    /// What this engine does where engines differ.
    pub profile: Profile,
}

/// What engines do differently.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(clippy::struct_excessive_bools)] // Independent habits, not states.
pub struct Profile {
    /// Who numbers the requests.
    pub stream_ids: StreamIds,
    /// What becomes of the session when the agent breaks the protocol.
    pub on_error: OnError,
    /// Says goodbye with a DISCONNECT: when idle for too long, when the agent shuts its side, and when drained. Without it
    /// the connection is just closed.
    pub says_goodbye: bool,
    /// An ACK for something that was never asked is a breach: a stream above the highest used, a frame above 1 of a stream
    /// that waits, identifiers with a zero, or a frame of unknown type with 0/0. Otherwise it is ignored.
    pub strict_ids: bool,
    /// A missing `max-frame-size` is status 6. Otherwise this side's own counts.
    pub needs_frame_size: bool,
    /// Missing `capabilities` are status 7. Otherwise the agent has none.
    pub needs_capabilities: bool,
    /// A health check wants all three items, FIN as the only flag, and nothing after the AGENT-HELLO.
    pub strict_healthcheck: bool,
    /// An AGENT-HELLO or AGENT-DISCONNECT that does not arrive in one piece is a breach.
    pub splits_break: bool,
    /// A frame that an agent does not send at this point is skipped: a NOTIFY, an unfragmented UNSET, a second AGENT-HELLO.
    /// Otherwise it is a breach.
    pub skips_other_frames: bool,
    /// With [`OnError::Silence`]: the agent is told with a DISCONNECT what is wrong with its AGENT-HELLO, and the connection is
    /// closed without waiting for its own.
    pub tells_bad_hello: bool,
    /// The idle timeout runs while requests wait.
    pub idle_while_waiting: bool,
    /// Without pipelining, a request that timed out keeps the next one back until its late ACK has come; and an ACK that
    /// answers nothing while a request waits is status 12.
    pub awaits_late_ack: bool,
    /// Reads nothing more, for good, once this many bytes are there to be read at once. The connection stays in use:
    /// requests are sent on it as before, and each fails when its time is up.
    pub stalls_at: Option<usize>,
    /// When the agent shuts its side right behind an AGENT-DISCONNECT, requests that wait do not learn of either: they fail
    /// when their time is up. HAProxy loses some of them like this (15 of 60 measured), this engine all that wait when it
    /// notices both at once.
    pub fin_hides_disconnect: bool,
    /// A frame of length zero is not refused: the connection reads nothing more, for good.
    pub stalls_on_nothing: bool,
    /// What waits for a connection fails with it when it is closed, or cannot be had, before its session. Otherwise it goes
    /// on waiting for another, as it does everywhere after an AGENT-DISCONNECT.
    pub close_fails_queue: bool,
}

/// Who numbers the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamIds {
    /// The caller, who knows the streams: STREAM-ID is the stream's number, the first of a process being 0, and FRAME-ID
    /// counts its requests from 1. A caller that gives none gets the streams 0, 1, 2 … of the connection.
    Streams,
    /// The connection: STREAM-ID is 1, 3, 5 …, and FRAME-ID always 1.
    Odd,
}

/// What becomes of the session when the agent breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnError {
    /// The agent is told with a DISCONNECT, and its own is waited for.
    Disconnect,
    /// Nothing is said: after the handshake, the connection is dead, and requests wait on it for their timeouts.
    Silence,
}

impl Default for EngineConfig {
    /// An engine by the specification: pipelining, fragments in both directions, DISCONNECTs, and finite timeouts (hello
    /// 5 s, processing 10 s, idle 10 min).
    fn default() -> Self {
        let timeouts = Timeouts { message: Some(Duration::from_secs(10)), ..Timeouts::default() };
        Self {
            max_frame_size: 16_380,
            max_waiting_frames: 20,
            capabilities: Capabilities::PIPELINING | Capabilities::FRAGMENTATION,
            send_frag_payload: true,
            engine_id: None,
            healthcheck: false,
            limits: Limits::default(),
            timeouts,
            profile: Profile {
                stream_ids: StreamIds::Streams,
                on_error: OnError::Disconnect,
                says_goodbye: true,
                strict_ids: false,
                needs_frame_size: true,
                needs_capabilities: true,
                strict_healthcheck: false,
                splits_break: false,
                skips_other_frames: false,
                tells_bad_hello: false,
                idle_while_waiting: false,
                awaits_late_ack: false,
                stalls_at: None,
                fin_hides_disconnect: false,
                stalls_on_nothing: false,
                close_fails_queue: false,
            },
        }
    }
}

impl EngineConfig {
    /// Checks that it can work.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of its bounds:
    ///
    /// - `max_frame_size` below 256, or above `limits.max_payload_bytes`;
    /// - a limit, `max_waiting_frames` or `profile.stalls_at` of 0, or `limits.max_payload` above
    ///   `limits.max_payload_bytes`;
    /// - a timeout of zero, other than `timeouts.drain`;
    /// - an `engine_id` that is empty, or does not fit the HELLO.
    pub fn checked(self) -> Result<Checked<Self>, ConfigError> {
        self.check()?;
        Ok(Checked::new(self))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.limits.check(self.max_frame_size, MIN_FRAME_SIZE)?;
        self.timeouts.check()?;
        at_least("max_waiting_frames", self.max_waiting_frames, 1)?;
        at_least("profile.stalls_at", self.profile.stalls_at.unwrap_or(usize::MAX), 1)?;
        self.check_engine_id()
    }

    fn check_engine_id(&self) -> Result<(), ConfigError> {
        let Some(id) = &self.engine_id else { return Ok(()) };
        if id.is_empty() {
            return Err(ConfigError::new("engine_id", "empty", "`None`, or tell this engine from others"));
        }
        let header = Header { frame_type: FrameType::HaproxyHello, flags: Flags::FIN, ids: Ids::ZERO };
        let frame = header.encoded_len() + hello(self).len();
        let over = frame.saturating_sub(self.max_frame_size as usize);
        if over > 0 {
            let most = id.len().saturating_sub(over);
            let bound = format!("at most {most}, for the HELLO to fit `max_frame_size`");
            return Err(ConfigError::new("engine_id", format_args!("{} bytes long", id.len()), bound));
        }
        Ok(())
    }

    /// HAProxy 2.6 to 3.0, as measured with 2.6.12 and 3.0.11: announces pipelining and async, sends fragments, tells its
    /// errors. Without pipelining, a late ACK keeps the next request back. Its timeouts are endless unless they are set, as
    /// HAProxy's are.
    pub fn haproxy_2_6() -> Self {
        let mut config = Self {
            capabilities: Capabilities::PIPELINING | Capabilities::ASYNC,
            timeouts: endless(),
            ..Self::default()
        };
        config.profile.needs_capabilities = false;
        config.profile.skips_other_frames = true;
        config.profile.idle_while_waiting = true;
        config.profile.awaits_late_ack = true;
        config.profile.stalls_on_nothing = true;
        config
    }

    /// HAProxy 3.1, the releases of 3.2 and 3.4 before those of [`haproxy_3_2`](Self::haproxy_3_2), and 3.5-dev5, with which
    /// it was measured.
    ///
    /// Announces pipelining only, sends never a fragment or a DISCONNECT, is silent about errors, refuses an AGENT-HELLO in
    /// two segments, and is deaf after a full buffer. After `timeout processing` a connection is used again at once, also
    /// without pipelining: the next NOTIFY leaves before the late ACK has come, and the ACK is skipped. Up to 20 requests wait
    /// on a connection with pipelining, 1 without. Its timeouts are endless unless they are set, as HAProxy's are.
    pub fn haproxy_3_1() -> Self {
        Self {
            capabilities: Capabilities::PIPELINING,
            send_frag_payload: false,
            timeouts: endless(),
            profile: Profile {
                stream_ids: StreamIds::Odd,
                on_error: OnError::Silence,
                says_goodbye: false,
                strict_ids: true,
                needs_frame_size: false,
                needs_capabilities: false,
                strict_healthcheck: true,
                splits_break: true,
                skips_other_frames: true,
                tells_bad_hello: false,
                idle_while_waiting: false,
                awaits_late_ack: false,
                stalls_at: Some(16_384),
                fin_hides_disconnect: false,
                stalls_on_nothing: false,
                close_fails_queue: true,
            },
            ..Self::default()
        }
    }

    /// HAProxy 3.2 and 3.4, as measured with 3.2.26 and 3.4.7, which do the same.
    ///
    /// As [`haproxy_3_1`](Self::haproxy_3_1), with three differences: an AGENT-HELLO or AGENT-DISCONNECT in several segments
    /// is accepted; what is wrong with an AGENT-HELLO is told with a DISCONNECT; and the end of input right behind an
    /// AGENT-DISCONNECT leaves requests waiting until their time is up.
    pub fn haproxy_3_2() -> Self {
        let mut config = Self::haproxy_3_1();
        config.profile.splits_break = false;
        config.profile.tells_bad_hello = true;
        config.profile.fin_hides_disconnect = true;
        config
    }
}

impl Default for Checked<EngineConfig> {
    fn default() -> Self {
        Self::new(EngineConfig::default())
    }
}

/// No timeouts but those of closing.
fn endless() -> Timeouts {
    Timeouts { hello: None, frame: None, idle: None, write: None, message: None, ..Timeouts::default() }
}
