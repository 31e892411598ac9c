//! Texts of log lines and DISCONNECTs that all servers have in common.

use std::time::Duration;

use spop_core::AgentConfig;

/// To the peer whose connection exceeded the limit on buffered bytes.
pub(crate) const TOO_MUCH_BUFFERED: &str =
    "the agent holds too many bytes of unfinished requests and unread answers";

/// Why a request gave way that had waited for `age`, the oldest of so many.
pub(crate) fn overdue(config: &AgentConfig, in_flight: usize, age: Duration) -> String {
    let AgentConfig { limits, max_waiting_frames, processing, .. } = config;
    format!(
        "no answer after {age:?}, longer than `processing` ({:?}), and it was the oldest of {in_flight} in flight on its \
         connection (max_in_flight {}, max_waiting_frames {max_waiting_frames}): HAProxy has probably given it up; speed up \
         the handler, or set `processing` to HAProxy's `timeout processing`",
        processing.unwrap_or_default(),
        limits.max_in_flight,
    )
}
