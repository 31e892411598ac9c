//! Limits and timeouts of both roles, and the validation of configurations.
//!
//! A configuration is plain data. Its method `checked` returns a [`Checked`], which the reactors and the pool require, or a
//! [`ConfigError`] that names the field, its value and the bound. No value is adjusted: it is used as written, or refused.
//! (Values that are negotiated, such as the frame size, are the lower of both sides'.)
//!
//! Configurations are `non_exhaustive`, by a [rule of the whole crate](crate#exhaustive-types): take the default, and set
//! fields.

mod checked;
#[cfg(test)]
mod tests;

use core::time::Duration;

pub use checked::{Checked, ConfigError};
pub(crate) use checked::{at_least, at_most, lasts, none_or_lasts};

/// Limits on what a peer can make grow.
///
/// All are per connection, and at least 1. The defaults are well above HAProxy's needs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The longest payload reassembled from fragments, in bytes; at most `max_payload_bytes`. Default 1 MiB.
    pub max_payload: usize,
    /// The memory of all payloads together, in bytes: of those that are unfinished, and of the NOTIFYs in flight
    /// ([`payload_bytes`](crate::AgentReactor::payload_bytes)). At the limit reading pauses until a NOTIFY in flight is answered
    /// or, with [`AgentConfig::processing`](crate::AgentConfig::processing), the oldest is failed; the last payload can exceed
    /// the limit. A fragment with which the unfinished payloads alone would exceed it has its payload refused. Default 4 MiB,
    /// which is 16 KiB for each of 256 in flight.
    pub max_payload_bytes: usize,
    /// The number of unfinished payloads; one more ends the connection with [`Status::INTERLACED`](crate::Status::INTERLACED).
    /// Default 16.
    pub max_payloads: usize,
    /// The number of messages in a NOTIFY. One with more is refused
    /// ([`Abort::TooManyMessages`](crate::agent::Abort::TooManyMessages)), in fragments or not; the connection stays open.
    /// HAProxy sends a handful, the messages of one event or group whose conditions hold. A message can be as short as two
    /// bytes, and then costs a server up to 350 ns. The number of arguments needs no limit: the format allows 255 for each
    /// message. Default 128. Agents only.
    pub max_messages: usize,
    /// The number of NOTIFYs in flight: unanswered, or with an answer that is not sent. At the limit reading pauses; with
    /// [`AgentConfig::processing`](crate::AgentConfig::processing), the oldest is failed once it is older than that.
    /// Default 256; HAProxy has at most 20 in flight on a connection (`max-waiting-frames`). Agents only.
    pub max_in_flight: usize,
    /// The send backlog in bytes at which reading pauses. All that is queued counts: an answer in fragments must fit what is left
    /// of it, and once it is reached, an answer in one frame of more than 16 KiB (`max_outgoing / max_in_flight` if that is more) is
    /// [`AckError::TooBig`](crate::AckError::TooBig), and none to a request of another connection is taken
    /// ([`AckError::Full`](crate::AckError::Full)). So at most the limit, one frame, and 16 KiB for each request in flight are
    /// queued. Default 1 MiB.
    pub max_outgoing: usize,
    /// The longest `engine-id`, in bytes; HAProxy's have 36. Default 256. Agents only.
    pub max_engine_id: usize,
    /// The number of refused payloads whose remaining fragments are recognized and discarded. Beyond it the oldest is
    /// forgotten, and a further fragment of it is a violation. Default 256.
    pub max_refused: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_payload: 1 << 20,
            max_payload_bytes: 4 << 20,
            max_payloads: 16,
            max_messages: 128,
            max_in_flight: 256,
            max_outgoing: 1 << 20,
            max_engine_id: 256,
            max_refused: 256,
        }
    }
}

impl Limits {
    /// Validates the limits, and `max_frame_size`, which must be at least `least_frame` and at most `max_payload_bytes`.
    pub(crate) fn check(&self, max_frame_size: u32, least_frame: u32) -> Result<(), ConfigError> {
        at_least("max_frame_size", max_frame_size, least_frame)?;
        at_least("limits.max_payload", self.max_payload, 1)?;
        at_least("limits.max_payload_bytes", self.max_payload_bytes, 1)?;
        at_least("limits.max_payloads", self.max_payloads, 1)?;
        at_least("limits.max_messages", self.max_messages, 1)?;
        at_least("limits.max_in_flight", self.max_in_flight, 1)?;
        at_least("limits.max_outgoing", self.max_outgoing, 1)?;
        at_least("limits.max_engine_id", self.max_engine_id, 1)?;
        at_least("limits.max_refused", self.max_refused, 1)?;
        let (memory, total) = (self.max_payload_bytes, "limits.max_payload_bytes");
        at_most("max_frame_size", max_frame_size as usize, total, memory)?;
        at_most("limits.max_payload", self.max_payload, total, memory)
    }
}

/// Timeouts. `None` waits for ever. Zero is refused, except for `memory` and `drain`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the start of the connection to the end of the handshake. Default 5 s.
    pub hello: Option<Duration>,
    /// From the first byte of a frame to its last, and from the first fragment of a payload to its last: HAProxy sends all of
    /// them within milliseconds. Fragments that come one by one do not extend it. Time under backpressure does not count, up to
    /// ten times the timeout in total. Default 10 s.
    pub frame: Option<Duration>,
    /// While no frame is sent or received and no answer is outstanding. Default 10 min, longer than HAProxy's own timeout
    /// (`timeout idle`, or `pool-purge-delay` since 3.1), so that HAProxy closes first: a request that it sends within 0.25
    /// ms of the agent's DISCONNECT is lost.
    pub idle: Option<Duration>,
    /// From the last frame of a connection to the release of unused memory ([`Timer::Memory`](crate::Timer::Memory)).
    /// Default 1 s, so that a busy connection does not reallocate it for each request. The first two sends of a connection,
    /// and the first two after each release, free memory at once. `None` keeps it.
    pub memory: Option<Duration>,
    /// While bytes are queued and the transport accepts none. What is queued at one time may take ten times as long to leave,
    /// so that a peer that reads one byte now and then does not keep the queue without end. Default 30 s.
    pub write: Option<Duration>,
    /// From a NOTIFY to its answer. Default 30 s, well above HAProxy's `timeout processing`: it limits how long a handler
    /// that never answers occupies its connection.
    pub message: Option<Duration>,
    /// The longest time from [`drain`](crate::AgentReactor::drain) to the DISCONNECT, which is then sent even if answers are
    /// outstanding; zero disconnects at once. Default 10 s.
    pub drain: Duration,
    /// For each stage of closing while it makes no progress: the flush of queued bytes, the wait for the peer's close, and the
    /// shutdown of each layer. The flush takes at most ten times as long in total. Default 1 s.
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
    /// Validates the timeouts.
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
