//! The limits and timeouts that both roles have.

use core::time::Duration;

/// What a peer can make grow, and how far.
///
/// Numbers are per connection. Each default is far above what HAProxy needs and far below what hurts. Where 0 would let
/// nothing through at all, in `max_in_flight` and `max_outgoing`, an agent takes it for 1.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The longest payload put together from fragments, in bytes. Default 1 MiB.
    pub max_payload: usize,
    /// The memory of all unfinished payloads together, in bytes. Default 4 MiB.
    pub max_payload_bytes: usize,
    /// Unfinished payloads at once; one more ends the connection with [`Status::INTERLACED`](crate::Status::INTERLACED).
    /// Default 16.
    pub max_payloads: usize,
    /// NOTIFYs that wait for their answer, or whose answer waits to be sent. At the limit reading pauses; with
    /// [`AgentConfig::processing`](crate::AgentConfig::processing) only until the oldest is older than that. Default 256,
    /// far above the 20 that HAProxy has waiting on a connection (`max-waiting-frames`).
    pub max_in_flight: usize,
    /// Bytes that wait to be sent, at which reading pauses; also the longest answer sent in fragments. Default 1 MiB.
    pub max_outgoing: usize,
    /// The longest `engine-id`, in bytes; HAProxy's have 36. Default 256.
    pub max_engine_id: usize,
    /// Refused payloads whose remaining fragments are recognised and swallowed; the oldest is forgotten first.
    /// Default 256.
    pub max_refused: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_payload: 1 << 20,
            max_payload_bytes: 4 << 20,
            max_payloads: 16,
            max_in_flight: 256,
            max_outgoing: 1 << 20,
            max_engine_id: 256,
            max_refused: 256,
        }
    }
}

/// How long to wait for what. `None` waits for ever.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the start of a connection to the end of its handshake. Default 5 s.
    pub hello: Option<Duration>,
    /// From the first byte of a frame to its last, and from one fragment of a payload to the next. Default 10 s.
    pub frame: Option<Duration>,
    /// While nothing is sent, received or owed. Default 10 min, longer than HAProxy's own (`timeout idle`, or
    /// `pool-purge-delay` since 3.1), so that HAProxy closes first: a request that is sent within 0.25 ms of the moment at
    /// which the agent leaves is lost.
    pub idle: Option<Duration>,
    /// From the last use of a connection to giving back the memory that its requests have left behind. Default 1 s, so that a
    /// busy connection does not allocate it again and again.
    pub memory: Option<Duration>,
    /// While bytes wait to be sent and none leaves. Default 30 s.
    pub write: Option<Duration>,
    /// From a NOTIFY to its answer. Default 30 s, far beyond any `timeout processing` of HAProxy: a handler that never
    /// answers must not hold its connection for ever.
    pub message: Option<Duration>,
    /// From [`drain`](crate::AgentReactor::drain) to a disconnect whatever is owed. Default 10 s.
    pub drain: Duration,
    /// How long each step of closing may take without progress; sending what is left takes ten times that at most. Default
    /// 1 s.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            hello: Some(Duration::from_secs(5)),
            frame: Some(Duration::from_secs(10)),
            idle: Some(Duration::from_secs(600)),
            memory: Some(Duration::from_secs(1)),
            write: Some(Duration::from_secs(30)),
            message: Some(Duration::from_secs(30)),
            drain: Duration::from_secs(10),
            linger: Duration::from_secs(1),
        }
    }
}
