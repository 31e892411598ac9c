//! The configuration of an engine's connections, and the profiles of HAProxy's versions.

use alloc::format;
use core::time::Duration;

use bytes::Bytes;

use super::handshake::hello;
use crate::{
    config::{Checked, ConfigError, Limits, Timeouts, at_least},
    frame::{Capabilities, Flags, FrameType, Header, Ids, MIN_FRAME_SIZE},
};

/// The configuration of an [`EngineReactor`](super::EngineReactor), shared by all connections of an engine. The options of a
/// `spoe-agent` section (section 2.2) are set here and elsewhere:
///
/// | option | set in |
/// |---|---|
/// | `max-frame-size`, `max-waiting-frames`, `option send-frag-payload` | the fields of these names |
/// | `option async`, `option pipelining` | [`capabilities`](Self::capabilities) |
/// | `timeout hello`, `timeout idle`, `timeout processing` | [`timeouts`](Self::timeouts), `message` being `processing` |
/// | `maxconnrate`, `maxerrrate` | [`PoolConfig`](super::pool::PoolConfig) |
/// | `use-backend` | [`PoolConfig::agents`](super::pool::PoolConfig::agents); the driver has the addresses |
/// | `option var-prefix`, `register-var-names`, `option force-set-var` | [`VarRules`](crate::haproxy::VarRules) |
/// | `option continue-on-error`, `option dontlog-normal` | [`AgentSection`](crate::haproxy::AgentSection) |
/// | `option set-on-error`, `set-process-time`, `set-total-time` | [`AgentSection`](crate::haproxy::AgentSection) |
/// | `messages`, `groups` | the caller encodes each as a [`MessageList`](crate::MessageList) |
/// | `log` | the caller logs a [`LogLine`](crate::haproxy::LogLine) |
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
    /// `max-waiting-frames`: the limit of requests in flight on a connection that negotiated pipelining or async. On any other
    /// it is 1. Default 20.
    pub max_waiting_frames: usize,
    /// The capabilities that this side announces: `option pipelining` and `option async`. Fragmentation announces that
    /// fragmented ACKs are accepted, which no HAProxy does. Async takes effect only with an [`engine_id`](Self::engine_id).
    pub capabilities: Capabilities,
    /// `option send-frag-payload`: payloads over the frame size are sent in fragments if the agent announced
    /// fragmentation. Default true; false in the profiles from 3.1 on, which never fragment.
    pub send_frag_payload: bool,
    /// The `engine-id`, which async requires: not empty, and short enough for the HELLO to fit a frame. Default none.
    pub engine_id: Option<Bytes>,
    /// Makes the connection a health check: it announces no capability and no engine-id, and ends with the AGENT-HELLO.
    pub healthcheck: bool,
    /// The limits of what a peer can make grow.
    pub limits: Limits,
    /// The timeouts. `message` is `timeout processing`: from a request to its answer. `idle` also limits the wait for the
    /// agent's DISCONNECT after this side's; without `idle`, `linger` does.
    pub timeouts: Timeouts,
    /// The behaviour in which engines differ.
    pub profile: Profile,
}

/// The behaviour in which engines differ, above all the versions of HAProxy.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(clippy::struct_excessive_bools)] // Independent options, not states.
pub struct Profile {
    /// How requests are numbered.
    pub stream_ids: StreamIds,
    /// How the session ends when the agent violates the protocol.
    pub on_error: OnError,
    /// Sends a DISCONNECT before closing: after the idle timeout, when the agent shuts its write side, and after a drain.
    /// Otherwise the connection closes without one.
    pub sends_disconnect: bool,
    /// An ACK with identifiers that were never used is a violation: a stream above the highest used, a frame above 1 of a
    /// stream in flight, or a zero in either. So is a frame of unknown type with 0/0. Otherwise they are ignored.
    pub strict_ids: bool,
    /// A missing `max-frame-size` is status 6. Otherwise the default is this side's own.
    pub needs_frame_size: bool,
    /// Missing `capabilities` are status 7. Otherwise the default is none.
    pub needs_capabilities: bool,
    /// A health check requires all three items, FIN as the only flag, and nothing after the AGENT-HELLO.
    pub strict_healthcheck: bool,
    /// An AGENT-HELLO or AGENT-DISCONNECT that does not arrive in one read is a violation.
    pub rejects_split_frames: bool,
    /// A frame that is not allowed in this phase is skipped: a NOTIFY, an unfragmented UNSET, a second AGENT-HELLO.
    /// Otherwise it is a violation.
    pub skips_other_frames: bool,
    /// With [`OnError::Silence`]: a bad AGENT-HELLO is answered with a DISCONNECT that names the fault, and the connection
    /// is closed without awaiting the agent's DISCONNECT.
    pub reports_bad_hello: bool,
    /// The idle timeout also runs while requests are in flight.
    pub idle_while_waiting: bool,
    /// Without pipelining, a request that timed out blocks the next one until its late ACK has come; an ACK that matches no
    /// request while another is in flight is status 12.
    pub late_ack_blocks: bool,
    /// Stops reading for good once this many bytes (HAProxy's receive buffer) are unread at once. The connection stays in
    /// use: requests are sent on it, and each fails with its processing timeout.
    pub stalls_at: Option<usize>,
    /// When the agent shuts its write side right behind an AGENT-DISCONNECT, the requests in flight are not failed: they end
    /// with their processing timeout. HAProxy loses some of them like this (15 of 60 measured); this engine loses all that
    /// are in flight when it sees both at once.
    pub fin_hides_disconnect: bool,
    /// A frame of length zero stops reading for good. Otherwise it is a violation.
    pub stalls_on_empty_frame: bool,
    /// When a connection is closed before its session is established, or cannot be opened, the queued requests that it would
    /// have carried fail. Otherwise they stay queued, as they always do after an AGENT-DISCONNECT.
    pub close_fails_queue: bool,
}

/// How requests are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamIds {
    /// The caller numbers them, as HAProxy up to 3.0 does: STREAM-ID is the number of the stream, 0 being the first of a
    /// process, and FRAME-ID counts the stream's requests from 1. Without the caller's identifiers a request gets the
    /// connection's next stream: 0, 1, 2 ….
    Streams,
    /// The connection numbers them: STREAM-ID is 1, 3, 5 …, and FRAME-ID is always 1.
    Odd,
}

/// How the session ends when the agent violates the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnError {
    /// The engine sends a DISCONNECT and awaits the agent's.
    Disconnect,
    /// The engine sends nothing. Before the session it closes; later it stops reading and sending, and requests in flight end
    /// with their processing timeouts.
    Silence,
}

impl Default for EngineConfig {
    /// An engine as specified: pipelining, fragments in both directions, DISCONNECTs, and finite timeouts (hello
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
                sends_disconnect: true,
                strict_ids: false,
                needs_frame_size: true,
                needs_capabilities: true,
                strict_healthcheck: false,
                rejects_split_frames: false,
                skips_other_frames: false,
                reports_bad_hello: false,
                idle_while_waiting: false,
                late_ack_blocks: false,
                stalls_at: None,
                fin_hides_disconnect: false,
                stalls_on_empty_frame: false,
                close_fails_queue: false,
            },
        }
    }
}

impl EngineConfig {
    /// Checks the bounds of all fields.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of its bounds:
    ///
    /// - `max_frame_size` below 256, or above `limits.max_payload_bytes`;
    /// - a limit, `max_waiting_frames` or `profile.stalls_at` of 0, or `limits.max_payload` above
    ///   `limits.max_payload_bytes`;
    /// - a timeout of zero, other than `timeouts.drain` and `timeouts.memory`;
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

    /// HAProxy 2.6 to 3.0, as measured with 2.6.12 and 3.0.11: announces pipelining and async, sends fragments, and reports
    /// errors with a DISCONNECT. Without pipelining, a late ACK blocks the next request. As in HAProxy, hello, frame, idle,
    /// write and processing timeouts are off unless set.
    pub fn haproxy_2_6() -> Self {
        let mut config = Self {
            capabilities: Capabilities::PIPELINING | Capabilities::ASYNC,
            timeouts: endless(),
            ..Self::default()
        };
        config.profile.needs_capabilities = false;
        config.profile.skips_other_frames = true;
        config.profile.idle_while_waiting = true;
        config.profile.late_ack_blocks = true;
        config.profile.stalls_on_empty_frame = true;
        config
    }

    /// HAProxy 3.1, the releases of 3.2 and 3.4 before those of [`haproxy_3_2`](Self::haproxy_3_2), and 3.5-dev5, with which
    /// it was measured.
    ///
    /// Announces only pipelining, never sends a fragment or a DISCONNECT, does not report errors, rejects an AGENT-HELLO in
    /// two segments, and stops reading for good after a full receive buffer. After `timeout processing` a connection is used
    /// again at once, even without pipelining: the next NOTIFY is sent before the late ACK has come, and that ACK is ignored.
    /// A connection carries up to 20 requests with pipelining, 1 without. As in HAProxy, hello, frame, idle, write and
    /// processing timeouts are off unless set.
    pub fn haproxy_3_1() -> Self {
        Self {
            capabilities: Capabilities::PIPELINING,
            send_frag_payload: false,
            timeouts: endless(),
            profile: Profile {
                stream_ids: StreamIds::Odd,
                on_error: OnError::Silence,
                sends_disconnect: false,
                strict_ids: true,
                needs_frame_size: false,
                needs_capabilities: false,
                strict_healthcheck: true,
                rejects_split_frames: true,
                skips_other_frames: true,
                reports_bad_hello: false,
                idle_while_waiting: false,
                late_ack_blocks: false,
                stalls_at: Some(16_384),
                fin_hides_disconnect: false,
                stalls_on_empty_frame: false,
                close_fails_queue: true,
            },
            ..Self::default()
        }
    }

    /// HAProxy 3.2 and 3.4, as measured with 3.2.26 and 3.4.7, which behave alike.
    ///
    /// As [`haproxy_3_1`](Self::haproxy_3_1), with three differences: an AGENT-HELLO or AGENT-DISCONNECT in several segments
    /// is accepted; a bad AGENT-HELLO is answered with a DISCONNECT; and after an AGENT-DISCONNECT with the end of input
    /// right behind it, requests in flight end with their processing timeouts.
    pub fn haproxy_3_2() -> Self {
        let mut config = Self::haproxy_3_1();
        config.profile.rejects_split_frames = false;
        config.profile.reports_bad_hello = true;
        config.profile.fin_hides_disconnect = true;
        config
    }
}

impl Default for Checked<EngineConfig> {
    fn default() -> Self {
        Self::new(EngineConfig::default())
    }
}

/// Only the timeouts of closing.
fn endless() -> Timeouts {
    Timeouts { hello: None, frame: None, idle: None, write: None, message: None, ..Timeouts::default() }
}
