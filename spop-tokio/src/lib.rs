//! Agents for HAProxy's SPOP on tokio.
//!
//! A handler is an async function from a [`Request`] to [`Actions`]; a [`Server`] runs it on any number of TCP and unix
//! sockets.
//!
//! ```no_run
//! use std::net::IpAddr;
//! use spop_tokio::{Actions, ArgError, Request, Scope, Server};
//!
//! async fn reputation(request: Request) -> Result<Actions, ArgError> {
//!     let mut actions = Actions::new();
//!     if let Some(message) = request.message("get-ip-reputation") {
//!         let ip: IpAddr = message.arg("ip")?;
//!         actions.set_var(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 });
//!     }
//!     Ok(actions)
//! }
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     Server::new(reputation).bind("127.0.0.1:12345").await?.serve().await;
//!     Ok(())
//! }
//! ```
//!
//! # Handlers
//!
//! - An answer that is ready at once costs no task and no allocation. Slow ones run beside each other, and are answered in
//!   the order they are ready. All answers to what one read brought leave in one write.
//! - A handler that returns an error, panics, or answers with more than HAProxy accepts costs its request only: HAProxy
//!   gets what [`AgentConfig::on_failure`] says, an empty answer by default, at once.
//! - A handler whose answer nobody wants any more is dropped where it waits.
//! - With the `async` capability ([`AgentConfig::capabilities`]) an answer takes another connection of the same engine when
//!   its own is gone, or held up by a peer that does not read. The handlers of a connection that is lost go on while
//!   another of its engine lives.
//!
//! [`Deferred`] is for work that is done elsewhere, on a thread that may block for instance; [`Swap`] replaces a handler
//! while requests are under way; `TowerHandler` (feature `tower`) takes a service of tower.
//!
//! # Listeners
//!
//! [`Server::bind`] takes addresses, paths of unix sockets and open listeners. An [`Endpoint`] says more about one:
//! permissions of a socket file, `SO_REUSEPORT`, keepalive. With the feature `systemd`, `Endpoint::from_systemd` has the
//! sockets that a supervisor has opened. [`Service::serve_connection`] serves any other stream.
//!
//! # Before the session
//!
//! What the connections of a listener pass before their first frame is a list in the order of your choice: rules on where
//! they come from, a PROXY header (feature `proxy`), a probe that is answered, TLS (feature `tls`). All of it has a
//! deadline. Whoever does not pass is closed, counted ([`Stats::rejected`]) and named in one line of the log.
//!
//! ```no_run
//! use spop_tokio::{Endpoint, Server, accept::{AcceptConfig, Monitor, Policy, SourceRules}};
//! # use spop_tokio::{Actions, Request};
//! # async fn handler(_: Request) -> Actions { Actions::new() }
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let inside = SourceRules::new(Policy::Deny).allow("10.0.0.0/8".parse()?);
//! let health = Monitor::new("GET /health ", "HTTP/1.0 200 OK\r\n\r\n");
//! let config = AcceptConfig::new().with(inside)?.with(health)?;
//! let server = Server::new(handler).bind(Endpoint::from("0.0.0.0:12345").accept(config)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! With `.with(ExpectProxy::new())` HAProxy's `send-proxy-v2` tells whom a connection is passed on for:
//! [`Request::source`] is that address then, and [`Request::peer`] still the other end of the connection.
//!
//! # TLS
//!
//! With the feature `tls`, for HAProxy's `server … ssl verify required ca-file … crt …`:
//!
#![cfg_attr(feature = "tls", doc = "```no_run")]
#![cfg_attr(not(feature = "tls"), doc = "```ignore")]
//! use spop_tokio::{Endpoint, Server, tls::{Tls, TlsFiles}};
//! # use spop_tokio::{Actions, Request};
//! # async fn handler(_: Request) -> Actions { Actions::new() }
//!
//! # async fn serve() -> std::io::Result<()> {
//! let tls = Tls::from_files(TlsFiles::new("agent.crt", "agent.key").require_clients_of("haproxy-ca.crt"))?;
//! let server = Server::new(handler).bind(Endpoint::from("0.0.0.0:12345").tls(&tls)).await?;
//! // When the files have changed; connections that are open go on.
//! tls.reload()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! What one connection may take is in [`AgentConfig::limits`](spop_core::config::Limits), and how long things may take in
//! [`AgentConfig::timeouts`](spop_core::config::Timeouts). [`Server::max_connections`],
//! [`Server::max_connections_per_source`] and [`Server::max_in_flight`] bound them all together. What is over a limit is
//! refused at once and counted.
//!
//! # Shutdown
//!
//! [`Server::serve_until`] and [`ServerHandle::drain`] end gracefully: the listeners close, each connection is served on
//! until nothing is owed on it, for [`Timeouts::drain`](spop_core::config::Timeouts::drain) at most. [`ServerHandle::stop`]
//! ends at once.
//!
//! # What can be seen
//!
//! [`ServerHandle::stats`] has the numbers of a server, [`ServerHandle::connections`] what is open. With the feature
//! `metrics`, a recorder of the `metrics` facade that is installed before the server is made gets `spop_connections`,
//! `spop_requests_in_flight`, the histogram `spop_handler_seconds`, `spop_closed_total` by initiator and status, and the
//! counters `spop_connections_total`, `spop_connections_refused_total`, `spop_connections_rejected_total`,
//! `spop_probes_total`, `spop_notifies_total`, `spop_acks_total`, `spop_failures_total`, `spop_overloaded_total`,
//! `spop_cancelled_total`, `spop_aborted_total`, `spop_received_bytes_total` and `spop_sent_bytes_total`.
//!
//! # Events
//!
//! What happened is told to [`tracing`]: `request_failed`, `watch_panicked`, `connection_failed`, `not_accepted` and
//! `connection_panicked` as warnings and errors, at a bounded rate with the number of those `suppressed`; the ordinary
//! course of things (`connection_opened`, `session_established`, `connection_closed`, `request_cancelled`,
//! `payload_dropped`) for debugging.

mod alarm;
mod calls;
mod cancellation;
mod client;
mod control;
mod driver;
mod entrance;
mod handler;
mod inbox;
mod listen;
mod live;
mod log;
mod request;
mod responder;
mod router;
mod server;
mod service;
mod session;
mod siblings;
mod spans;
mod stream;
mod swap;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tower")]
mod tower;
mod transfer;

pub use cancellation::{Cancellation, Cancelled};
pub use client::{Answer, Engine, EngineClient, EngineStats, Target};
pub use handler::Handler;
pub use listen::{Address, Endpoint};
pub use request::Request;
pub use responder::{Deferred, Responder, Response};
pub use router::{Route, RouteList, Router, Unrouted};
pub use server::{Server, ServerHandle};
pub use service::Service;
pub use spop_core::{
    self, Actions, AgentConfig, ArgError, Capabilities, CloseReason, Closed, EngineConfig, EngineError,
    FromValue, Headers, MessageList, NameError, OnFailure, Partial, PoolConfig, Reply, RouteError, Routes,
    Scope, Status, Unknown, Value, Watch,
    accept::{self, Peer},
};
pub use spop_server::{ConnectionInfo, Stats};
pub use swap::Swap;
#[cfg(feature = "tower")]
pub use tower::TowerHandler;
