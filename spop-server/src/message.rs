//! Texts of log lines and DISCONNECTs that all servers have in common.

use std::time::Duration;

use spop_core::AgentConfig;

/// To the peer whose connection made the limit on unfinished bytes strike.
pub const TOO_MUCH_UNFINISHED: &str = "the agent holds too many bytes of unfinished requests";

/// Why a request gave way that had waited for `age`.
pub fn overdue(config: &AgentConfig, age: Duration) -> String {
    let limit = config.limits.max_in_flight;
    let processing = config.processing.unwrap_or_default();
    format!(
        "the connection has {limit} requests in flight, its limit, and this one was the oldest: {age:?} old, more than the \
         {processing:?} of `processing`, so HAProxy has given it up"
    )
}
