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
    /// How many connections may be open. Further ones are closed as soon as they are accepted. Default 10000.
    pub max_connections: usize,
    /// How many connections may be open from one IP address: that of the peer, without its port. Unix sockets have none.
    /// Default: no limit but `max_connections`.
    pub max_connections_per_source: Option<usize>,
    /// How many requests may be worked on, on all connections together. A further one gets the reply that
    /// [`AgentConfig::on_failure`] names, and its handler is not called. Default: no limit but that of each connection.
    pub max_in_flight: Option<usize>,
    /// How many bytes of requests that have not arrived in full all connections together may hold: fragments, and long frames.
    /// A connection that exceeds it is disconnected with [`Status::RESOURCE`](spop_core::Status::RESOURCE). Counted in steps of
    /// 16 KiB for each connection. Default 256 MiB.
    pub max_unfinished_bytes: usize,
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
            max_unfinished_bytes: 256 << 20,
            lame_duck: Duration::ZERO,
        }
    }
}

impl From<AgentConfig> for ServerConfig {
    fn from(agent: AgentConfig) -> Self {
        Self { agent, ..Self::default() }
    }
}
