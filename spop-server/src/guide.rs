//! The guide, for those who write agents and for those who run them beside HAProxy. It applies to `spop-tokio` and `spop-mio`;
//! differences between them are marked. Programs are for `spop_tokio`; `spop_mio` has what they use by the same name, apart from what is async, and
//! from the client of agents.
//!
//! - To begin: [`quick_start`], [`arguments`], [`events`], [`command_line`], [`errors`].
//! - To configure: [`open_or_closed`], [`timeouts`], [`bodies`], [`unix_sockets`], [`tls`], [`several_agents`], [`restarts`], [`limits`],
//!   [`settings`], [`observability`], [`performance`].
//! - To program: [`adapters`], [`failures`], [`listeners`], [`testing`], [`drivers`], [`moving`], [`versions`].
//!
//! Each configuration of HAProxy on these pages is loaded into HAProxy 2.6 and 3.4 by a test, and each command is run by it.

// The pages are in files of their own, where the tests read them. Their examples are tested in `tests/`, which has both adapters.

// Where links of the pages lead here. The pages define them again, for a forge that shows the files: the first definition counts.
#[cfg(all(doc, not(doctest)))]
macro_rules! links {
    () => {
        "
[arguments]: crate::guide::arguments
[bodies]: crate::guide::bodies
[command_line]: crate::guide::command_line
[drivers]: crate::guide::drivers
[errors]: crate::guide::errors
[events]: crate::guide::events
[failures]: crate::guide::failures
[limits]: crate::guide::limits
[observability]: crate::guide::observability
[open_or_closed]: crate::guide::open_or_closed
[performance]: crate::guide::performance
[quick_start]: crate::guide::quick_start
[restarts]: crate::guide::restarts
[settings]: crate::guide::settings
[several_agents]: crate::guide::several_agents
[spop-server]: crate
[timeouts]: crate::guide::timeouts
[`Abort`]: spop_core::agent::Abort
[`AcceptConfig::timeout`]: spop_core::accept::AcceptConfig::timeout
[`AgentConfig::capabilities`]: spop_core::AgentConfig::capabilities
[`AgentConfig::limits`]: spop_core::config::Limits
[`AgentConfig::max_frame_size`]: spop_core::AgentConfig::max_frame_size
[`AgentConfig::max_waiting_frames`]: spop_core::AgentConfig::max_waiting_frames
[`AgentConfig::on_failure`]: spop_core::AgentConfig::on_failure
[`AgentConfig::processing`]: spop_core::AgentConfig::processing
[`AgentConfig::timeouts`]: spop_core::config::Timeouts
[`AgentConfig`]: spop_core::AgentConfig
[`AgentReactor`]: spop_core::AgentReactor
[`CompletionDriver`]: crate::CompletionDriver
[`Conn`]: crate::Conn
[`Driver`]: crate::Driver
[`Endpoint::reuse_port`]: crate::Endpoint::reuse_port
[`Endpoint::take_over`]: crate::Endpoint::take_over
[`Endpoint`]: crate::Endpoint
[`FailureKind`]: crate::FailureKind
[`FromValue`]: spop_core::frame::FromValue
[`HANDLER_SECONDS_BUCKETS`]: crate::HANDLER_SECONDS_BUCKETS
[`Handler::watch`]: crate::Handler::watch
[`Headers`]: spop_core::wire::Headers
[`Interest::read`]: spop_core::Interest
[`Limits::max_payload`]: spop_core::config::Limits::max_payload
[`PipeliningPolicy::Always`]: spop_core::agent::PipeliningPolicy::Always
[`Reply::Disconnect`]: spop_core::agent::Reply
[`Request::background`]: crate::Request::background
[`Request::cancellation`]: crate::Request::cancellation
[`Request::defer`]: crate::Request::defer
[`Request::messages`]: crate::Request::messages
[`Request::peer`]: crate::Request::peer
[`Request::source`]: crate::Request::source
[`Request`]: crate::Request
[`Responder::is_cancelled`]: crate::Responder::is_cancelled
[`Responder::reply`]: crate::Responder::reply
[`Responder`]: crate::Responder
[`ServerConfig::lame_duck`]: crate::ServerConfig::lame_duck
[`ServerConfig::max_background`]: crate::ServerConfig::max_background
[`ServerConfig::max_connections`]: crate::ServerConfig::max_connections
[`ServerConfig`]: crate::ServerConfig
[`ServerHandle::connections`]: crate::ServerHandle::connections
[`ServerHandle::drain`]: crate::ServerHandle::drain
[`ServerHandle::stats`]: crate::ServerHandle::stats
[`ServerHandle::stop`]: crate::ServerHandle::stop
[`ServerHandle`]: crate::ServerHandle
[`Stats::background_refused`]: crate::Stats::background_refused
[`Stats::failures`]: crate::Stats::failures
[`Stats::late`]: crate::Stats::late
[`Stats::refused`]: crate::Stats::refused
[`Stats::rejected`]: crate::Stats::rejected
[`Swap::current`]: crate::Swap::current
[`Swap::replace`]: crate::Swap::replace
[`Timeouts::drain`]: spop_core::config::Timeouts::drain
[`Timeouts::frame`]: spop_core::config::Timeouts::frame
[`Timeouts::hello`]: spop_core::config::Timeouts::hello
[`Timeouts::idle`]: spop_core::config::Timeouts::idle
[`Timeouts::linger`]: spop_core::config::Timeouts::linger
[`Timeouts::message`]: spop_core::config::Timeouts::message
[`Timeouts::write`]: spop_core::config::Timeouts::write
[`agent::Router`]: spop_core::agent::Router
[`frame`]: spop_core::frame
[`haproxy::explain`]: spop_core::haproxy::explain()
[`max_background`]: crate::ServerConfig::max_background
[`max_buffered_bytes`]: crate::ServerConfig::max_buffered_bytes
[`max_connections_per_source`]: crate::ServerConfig::max_connections_per_source
[`max_connections`]: crate::ServerConfig::max_connections
[`max_in_flight`]: crate::ServerConfig::max_in_flight
[`max_request_bytes`]: crate::ServerConfig::max_request_bytes
[`spop relay`]: crate::guide::command_line#relay
[`wire`]: spop_core::wire
"
    };
}

/// Which adapter to take: `spop-tokio` or `spop-mio`.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/adapters.md"))]
pub mod adapters {}

/// Arguments: how a header, a cookie or a path gets to the handler, as which Rust type, and how a variable gets into a header.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/arguments.md"))]
pub mod arguments {}

/// Bodies of requests: what HAProxy sends of them, and how to get all of it.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/bodies.md"))]
pub mod bodies {}

/// The program `spop`: a session of each command.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/command_line.md"))]
pub mod command_line {}

/// Writing a driver: the protocol on another event loop, or in a program of another kind.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/drivers.md"))]
pub mod drivers {}

/// Error numbers: `st=` in HAProxy's log, the variable of `set-on-error`, and the status of a DISCONNECT.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/errors.md"))]
pub mod errors {}

/// Where agents are asked: events, groups, variables and their scopes, HTTP and TCP.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/events.md"))]
pub mod events {}

/// When a handler fails.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/failures.md"))]
pub mod failures {}

/// Limits: how much one connection, and all together, may take.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/limits.md"))]
pub mod limits {}

/// Listeners, and what a connection passes before its first frame.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/listeners.md"))]
pub mod listeners {}

/// Moving from the `spop` crate, and from agents in Go and Python.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/moving.md"))]
pub mod moving {}

/// Statistics, metrics and log events.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/observability.md"))]
pub mod observability {}

/// Performance and sizing, with measured figures.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/performance.md"))]
pub mod performance {}

/// Failing open and failing closed: what happens to a request without an answer.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/open_or_closed.md"))]
pub mod open_or_closed {}

/// Try it with your HAProxy in five minutes.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/quick_start.md"))]
pub mod quick_start {}

/// Restarts that lose no request.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/restarts.md"))]
pub mod restarts {}

/// HAProxy's settings and the agent's: which belong together.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/settings.md"))]
pub mod settings {}

/// Several agents: health checks, load balancing, and more than one SPOE filter.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/several_agents.md"))]
pub mod several_agents {}

/// Testing an agent: a handler alone, the protocol in virtual time, real HAProxy.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/testing.md"))]
pub mod testing {}

/// Timeouts of HAProxy and of the agent.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/timeouts.md"))]
pub mod timeouts {}

/// TLS between HAProxy and the agent, with certificates of both.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/tls.md"))]
pub mod tls {}

/// Unix sockets, and HAProxy in a chroot.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/unix_sockets.md"))]
pub mod unix_sockets {}

/// Versions of HAProxy: what works where.
#[cfg_attr(all(doc, not(doctest)), doc = "", doc = links!(), doc = include_str!("guide/versions.md"))]
pub mod versions {}
