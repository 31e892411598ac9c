//! Messages of log lines and DISCONNECTs.

use std::time::Duration;

use spop_core::AgentConfig;

/// To the peer whose connection exceeded the limit on buffered bytes.
pub const TOO_MUCH_BUFFERED: &str =
    "the agent holds too many bytes of unfinished requests and unread answers";

/// The error of a request that was failed as the oldest of `in_flight`, at this age.
pub(crate) fn overdue(config: &AgentConfig, in_flight: usize, age: Duration) -> String {
    let AgentConfig { limits, max_waiting_frames, processing, .. } = config;
    format!(
        "no answer after {age:?}, longer than `processing` ({:?}), and it was the oldest of {in_flight} in flight on its \
         connection (max_in_flight {}, max_waiting_frames {max_waiting_frames}): HAProxy has probably abandoned it; speed up \
         the handler, or set `processing` to HAProxy's `timeout processing`",
        processing.unwrap_or_default(),
        limits.max_in_flight,
    )
}
