//! The configuration of a server.

use std::time::Duration;

use spop_core::AgentConfig;

/// The configuration of a server: that of its sessions, and the limits over all connections.
///
/// ```
/// use std::time::Duration;
/// use spop_server::ServerConfig;
///
/// let mut config = ServerConfig::default();
/// config.agent.limits.max_payload = 64 * 1024;
/// config.max_connections = 2_000;
/// // HAProxy 3.1 and later open a connection for each concurrent request.
/// config.max_connections_per_source = Some(1_000);
/// config.max_in_flight = Some(10_000);
/// config.lame_duck = Duration::from_millis(500);
/// ```
///
/// Whatever exceeds a limit is refused at once, and counted in [`Stats`](crate::Stats).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The configuration of each session.
    pub agent: AgentConfig,
    /// How many connections may be open. Further ones are closed as soon as they are accepted. Each takes a file descriptor: a
    /// server raises the soft limit of its process when it starts, and warns if the hard limit is too low. Default 10000.
    pub max_connections: usize,
    /// How many connections may be open from one source: an IPv4 address, or a /64 of IPv6, because one host has as many
    /// addresses there as it likes. It is the address of the peer, without its port; unix sockets have none. Link-local
    /// addresses are in one /64. Default: no limit but `max_connections`.
    pub max_connections_per_source: Option<usize>,
    /// How many requests may be worked on, on all connections together. A further one gets the reply that
    /// [`AgentConfig::on_failure`] names, and its handler is not called. A request counts until its handler has ended and has
    /// dropped it, also after it was cancelled. Default: no limit but that of each connection and
    /// [`max_request_bytes`](Self::max_request_bytes).
    pub max_in_flight: Option<usize>,
    /// How many bytes all connections together may hold of requests that handlers keep: their payloads, and 1 KiB for each.
    /// When there are more, a connection whose own are 16 KiB or more gets the reply that [`AgentConfig::on_failure`] names, and
    /// the handler is not called. Counted until the request is dropped, also after it was cancelled; in steps of 16 KiB for each
    /// connection. Default 256 MiB.
    pub max_request_bytes: usize,
    /// How many bytes all connections together may hold of input that is not used and of output that is not sent: payloads whose
    /// last fragment is still to come, frames under way, input that waits for a limit, queued answers. A connection that
    /// exceeds it is disconnected with [`Status::RESOURCE`](spop_core::Status::RESOURCE), unless it holds 32 KiB or less.
    /// Counted in steps of 16 KiB for each connection. Default 256 MiB.
    pub max_buffered_bytes: usize,
    /// The length of the lame duck stage of a shutdown: health checks (HAProxy's `option spop-check`) and monitors are refused,
    /// everything else is served. Then the drain begins. Default zero.
    ///
    /// HAProxy takes a server out after `fall` failed checks, `inter` apart: use more than `fall` × `inter` plus one check. A
    /// plain `check` only connects and does not notice. Without this stage HAProxy 3.1 and later lose requests in a restart: a
    /// request whose connection is refused waits a second before its next attempt. Leave it at zero if another process listens
    /// on the same socket.
    pub lame_duck: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            agent: AgentConfig::default(),
            max_connections: 10_000,
            max_connections_per_source: None,
            max_in_flight: None,
            max_request_bytes: 256 << 20,
            max_buffered_bytes: 256 << 20,
            lame_duck: Duration::ZERO,
        }
    }
}

impl From<AgentConfig> for ServerConfig {
    fn from(agent: AgentConfig) -> Self {
        Self { agent, ..Self::default() }
    }
}
