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
/// [The guide](crate::guide::limits) lists what happens at each limit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The configuration of each session.
    pub agent: AgentConfig,
    /// The maximum number of open connections. Further ones are closed as soon as they are accepted. Each takes a file descriptor:
    /// a server raises the soft limit of its process when it starts, and warns if the hard limit is too low. Default 10,000.
    pub max_connections: usize,
    /// The maximum number of open connections from one source: an IPv4 address, or a /64 of IPv6, in which one host can use any
    /// address. It is the address of the transport's peer, not that of a PROXY header. Unix sockets have no source, and are not
    /// limited. All link-local addresses are in one /64. Default: no limit but `max_connections`.
    pub max_connections_per_source: Option<usize>,
    /// The maximum number of requests in progress on all connections together. A further one gets the reply of
    /// [`AgentConfig::on_failure`], and its handler is not called. A request counts until its handler has ended and the request
    /// is dropped, also after it was cancelled. Default: no limit but that of each connection and
    /// [`max_request_bytes`](Self::max_request_bytes).
    pub max_in_flight: Option<usize>,
    /// The bytes of requests that handlers keep, on all connections together: the payload and 1 KiB for each. Above it, a further
    /// request of a connection that has 24 KiB or more of them with it gets the reply of [`AgentConfig::on_failure`], and its
    /// handler is not called. A request counts until it is dropped, also after it was cancelled. Counted in steps of 16 KiB for
    /// each connection. Default 128 MiB.
    ///
    /// In any case one connection keeps at most twice what it can have in flight, and 256 requests: requests that were cancelled and not dropped
    /// count there too.
    pub max_request_bytes: usize,
    /// The bytes of unused input and unsent output, on all connections together: payloads whose last fragment has not arrived,
    /// frames that have arrived in part, input under backpressure, queued answers. Above it, a connection that grows and holds
    /// more than 32 KiB is disconnected with [`Status::RESOURCE`](spop_core::Status::RESOURCE), and what it holds is freed. Counted
    /// in steps of 16 KiB for each connection. Default 128 MiB.
    pub max_buffered_bytes: usize,
    /// How much work may go on after the answers of its requests, on all connections together:
    /// [`Request::background`](crate::Request::background) returns `None` above it. Default 1,000.
    pub max_background: usize,
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
            max_request_bytes: 128 << 20,
            max_buffered_bytes: 128 << 20,
            max_background: 1_000,
            lame_duck: Duration::ZERO,
        }
    }
}

impl From<AgentConfig> for ServerConfig {
    fn from(agent: AgentConfig) -> Self {
        Self { agent, ..Self::default() }
    }
}
