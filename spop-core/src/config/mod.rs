//! The limits and timeouts that both roles have, and the check of configurations.
//!
//! A configuration is plain data. Its method `checked` makes a [`Checked`] of it, which is what the reactors and the pool
//! take, or a [`ConfigError`] that names the field, its value and the bound. Nothing is corrected: a value counts as it was
//! written, or is refused. (Where two valid values meet, as the frame sizes of both sides do, the lower one counts.)
//!
//! Configurations are `non_exhaustive`, by a [rule of the whole crate](crate#what-may-grow): take the default, and set fields.

mod checked;
#[cfg(test)]
mod tests;

use core::time::Duration;

pub use checked::{Checked, ConfigError};
pub(crate) use checked::{at_least, at_most, lasts, none_or_lasts};

/// What a peer can make grow, and how far.
///
/// Numbers are per connection. Each default is far above what HAProxy needs and far below what hurts. Each is 1 at least: 0
/// would let nothing through.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The longest payload put together from fragments, in bytes; at most `max_payload_bytes`. Default 1 MiB.
    pub max_payload: usize,
    /// The memory of all unfinished payloads together, in bytes. Default 4 MiB.
    pub max_payload_bytes: usize,
    /// Unfinished payloads at once; one more ends the connection with [`Status::INTERLACED`](crate::Status::INTERLACED).
    /// Default 16.
    pub max_payloads: usize,
    /// NOTIFYs that wait for their answer, or whose answer waits to be sent. At the limit reading pauses; with
    /// [`AgentConfig::processing`](crate::AgentConfig::processing) only until the oldest is older than that. Default 256,
    /// far above the 20 that HAProxy has waiting on a connection (`max-waiting-frames`). For agents.
    pub max_in_flight: usize,
    /// Bytes that wait to be sent, at which reading pauses; also the longest answer sent in fragments. Default 1 MiB.
    pub max_outgoing: usize,
    /// The longest `engine-id`, in bytes; HAProxy's have 36. Default 256. For agents.
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

impl Limits {
    /// Checks them, and `max_frame_size`, which must be `least_frame` at least and no more than they allow.
    pub(crate) fn check(&self, max_frame_size: u32, least_frame: u32) -> Result<(), ConfigError> {
        at_least("max_frame_size", max_frame_size, least_frame)?;
        at_least("limits.max_payload", self.max_payload, 1)?;
        at_least("limits.max_payload_bytes", self.max_payload_bytes, 1)?;
        at_least("limits.max_payloads", self.max_payloads, 1)?;
        at_least("limits.max_in_flight", self.max_in_flight, 1)?;
        at_least("limits.max_outgoing", self.max_outgoing, 1)?;
        at_least("limits.max_engine_id", self.max_engine_id, 1)?;
        at_least("limits.max_refused", self.max_refused, 1)?;
        let (memory, total) = (self.max_payload_bytes, "limits.max_payload_bytes");
        at_most("max_frame_size", max_frame_size as usize, total, memory)?;
        at_most("limits.max_payload", self.max_payload, total, memory)
    }
}

/// How long to wait for what. `None` waits for ever, and zero is no time to wait: it is refused, but for `drain`.
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
    /// From [`drain`](crate::AgentReactor::drain) to a disconnect whatever is owed; zero disconnects at once. Default 10 s.
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

impl Timeouts {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (field, timeout) in [
            ("timeouts.hello", self.hello),
            ("timeouts.frame", self.frame),
            ("timeouts.idle", self.idle),
            ("timeouts.write", self.write),
            ("timeouts.message", self.message),
        ] {
            none_or_lasts(field, timeout, "waits for ever")?;
        }
        lasts("timeouts.linger", self.linger, Duration::ZERO)
    }
}
