//! Agents for HAProxy's SPOP on tokio.
//!
//! HAProxy can ask an agent about a connection or a request before it goes on. Here an agent is an async function from a
//! [`Request`] to [`Actions`], and a [`Server`] runs it on any number of TCP and unix sockets.
//!
//! # Quick start
//!
//! ```no_run
//! use std::net::IpAddr;
//! use spop_tokio::{Actions, ArgError, Request, Router, Scope, Server};
//!
//! async fn reputation(request: Request) -> Result<Actions, ArgError> {
//!     let ip: IpAddr = request.arg("ip")?;
//!     let mut actions = Actions::new();
//!     actions.set_var(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 });
//!     Ok(actions)
//! }
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let router = Router::new().on("get-ip-reputation", reputation);
//!     Server::new(router).bind("127.0.0.1:12345").await?.serve().await;
//!     Ok(())
//! }
//! ```
//!
//! It answers this part of an SPOE configuration, and HAProxy has the answer as `var(sess.iprep.ip_score)`:
//!
//! ```text
//! spoe-agent iprep-agent
//!     messages    get-ip-reputation
//!     option      var-prefix iprep
//!     timeout     processing 100ms
//!     use-backend agents
//!
//! spoe-message get-ip-reputation
//!     args  ip=src
//!     event on-client-session
//! ```
//!
//! # Handlers
//!
//! A handler is a function or closure, or a type that is a [`Handler`]: for state, and for looking at payloads while they
//! arrive. It returns [`Actions`], a [`Reply`], or a `Result` of either with any error that can be displayed.
//!
//! - An answer that is ready at once costs no task, and no allocation up to 120 bytes of actions. Slow ones run beside each
//!   other, and are answered in the order they are ready. All answers to what one read brought leave in one write.
//! - It must not block its thread. [`Deferred`] is for work that is done elsewhere, on a thread that may block for instance;
//!   `tokio::task::spawn_blocking` does as well.
//! - A handler whose answer nobody wants any more is dropped where it waits. [`Request::cancellation`] tells what it has
//!   spawned.
//! - A request keeps the buffer that it was read into, up to 64 KiB. Before a long wait take what is needed and drop it, or
//!   keep a copy: `request.messages().to_owned()`.
//! - [`Swap`] replaces a handler while requests are under way; `TowerHandler` (feature `tower`) takes a service of tower.
//! - With the `async` capability ([`AgentConfig::capabilities`]) an answer takes another connection of the same engine when
//!   its own is gone, or held up by a peer that does not read. The handlers of a connection that is lost go on while
//!   another of its engine lives.
//!
//! Arguments come as the types they are asked for: addresses, `&str`, `&[u8]`, `bool`, any integer that can hold the number,
//! [`Headers`] for `req.hdrs_bin`, [`Value`] for whatever it is, and an `Option` of these for what may be NULL or absent. The
//! error names message, argument and reason. Take text that a client controls as `Cow<str>` or `&[u8]`: `&str` fails where it
//! is not UTF-8, and the client would decide whether the check runs ([`FromValue`]).
//!
//! HAProxy drops a variable silently whose name it does not take: [`Actions::try_set_var`] says so instead, and a test can
//! check all names of an answer with [`Actions::check_names`].
//!
//! # Routing
//!
//! A [`Router`] gives each message to a handler of its own, and each handler sees a request with one message. The messages of
//! one NOTIFY are worked on beside each other, and their actions join in order.
//!
//! ```
//! use std::borrow::Cow;
//! use spop_tokio::{Actions, ArgError, Headers, Request, Router, Scope, Unknown};
//!
//! async fn inspect(request: Request) -> Result<Actions, ArgError> {
//!     let (path, headers): (Cow<'_, str>, Headers<'_>) = (request.arg("path")?, request.arg("hdrs")?);
//!     let mut actions = Actions::new();
//!     actions.set_var(Scope::Request, "odd", path.contains("..") || headers.get("host").is_none());
//!     Ok(actions)
//! }
//!
//! async fn log(request: Request) -> Actions {
//!     println!("{:?}", request.messages());
//!     Actions::new()
//! }
//!
//! let router = Router::new().on("check-request", inspect).on("log", log).unknown(Unknown::Fail);
//! # drop(router);
//! ```
//!
//! # When a handler fails
//!
//! A handler that returns an error, panics, drops its [`Responder`], takes longer than
//! [`Timeouts::message`](spop_core::config::Timeouts::message), or answers with more than HAProxy accepts, costs its
//! request only. HAProxy gets an answer at once: an empty one, or a variable; or a disconnect, which costs what else is in
//! flight on its connection. The event `request_failed` says which.
//!
//! ```
//! use std::time::Duration;
//! use spop_tokio::{Actions, AgentConfig, OnFailure, Scope, Server};
//! # async fn handler(_: spop_tokio::Request) -> Actions { Actions::new() }
//!
//! let mut failed = Actions::new();
//! failed.set_var(Scope::Session, "failed", true);
//! let mut config = AgentConfig::default();
//! config.on_failure = OnFailure::Answer(failed);
//! // Shorter than HAProxy's `timeout processing`, or the answer comes too late.
//! config.timeouts.message = Some(Duration::from_millis(80));
//! let server = Server::with_config(handler, config)?;
//! # drop(server);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Listeners
//!
//! [`Server::bind`] takes addresses, paths of unix sockets and open listeners. An [`Endpoint`] says more about one:
//! permissions of a socket file, taking it over from the process before, `SO_REUSEPORT`, keepalive. With the feature
//! `systemd`, `Endpoint::from_systemd` has the sockets that a supervisor has opened. [`Service::serve_connection`] serves any
//! other stream.
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
//! let server = Server::new(handler)
//!     .bind(Endpoint::from("0.0.0.0:12345").accept(config)).await?
//!     .bind(Endpoint::from("/run/agent.sock").mode(0o660)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! With `.with(ExpectProxy::new())` HAProxy's `send-proxy-v2` tells whom a connection is passed on for:
//! [`Request::source`] is that address then, and [`Request::peer`] still the other end of the connection. HAProxy 3.3 and
//! later ignore `send-proxy` for agents, and such a listener refuses them.
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
//! [`AgentConfig::timeouts`](spop_core::config::Timeouts). Others bound all connections together. What is over a limit is
//! refused at once and counted.
//!
//! ```
//! use spop_tokio::{AgentConfig, Server};
//! # async fn handler(_: spop_tokio::Request) -> spop_tokio::Actions { spop_tokio::Actions::new() }
//!
//! let mut config = AgentConfig::default();
//! config.limits.max_in_flight = 200;
//! config.limits.max_payload = 64 * 1024;
//! let server = Server::with_config(handler, config)?
//!     .max_connections(2_000)
//!     // HAProxy 3.1 and later have a connection for each concurrent request.
//!     .max_connections_per_source(1_000)
//!     .max_unfinished_bytes(64 << 20)
//!     .max_in_flight(10_000);
//! # drop(server);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # HAProxy's settings and the agent's
//!
//! | HAProxy | agent | how they go together |
//! |---|---|---|
//! | `timeout processing` of the `spoe-agent` | [`AgentConfig::processing`], default 500 ms | Set the agent's to HAProxy's, or a little more. HAProxy does not say when it gives a request up: the agent counts an answer that comes later ([`Stats::late`]) and warns, and lets the oldest request give way on a full connection ([`Stats::overdue`]). |
//! | `maxconn` on the server line | [`Server::max_connections`] | HAProxy 3.1 and later have one request at a time on a connection, so `maxconn` bounds the concurrent requests as well. Leave it out, or set it to what the agent can work on at once. |
//! | `tune.bufsize` | [`AgentConfig::max_frame_size`], default 1 MiB | HAProxy 3.1 and later never fragment: a request that is longer than its buffer, or than the agent's frame size, fails with error 259 (256 + 3). 2.6 and 3.0 send it in fragments, up to [`Limits::max_payload`](spop_core::config::Limits::max_payload). |
//! | `timeout processing` | [`Timeouts::message`](spop_core::config::Timeouts::message), default 30 s | Shorter, if `on_failure` is to reach HAProxy in time. |
//! | `option redispatch 1` | two agents or more | A refused connection costs HAProxy 3.1 and later a second. |
//! | `timeout idle`; `pool-purge-delay` since 3.1 | [`Timeouts::idle`](spop_core::config::Timeouts::idle), default 10 min | The agent's is the longer one, so that HAProxy closes first. |
//! | `check inter … fall …` and `option spop-check` | [`Server::lame_duck`] | At least `inter` times `fall`, and a little more: then a restart loses no request. |
//! | `max-waiting-frames` of 2.6 and 3.0, default 20 | [`AgentConfig::max_waiting_frames`] | The same number. |
//!
//! Pipelining is offered to HAProxy 2.6 and 3.0. Later versions gain nothing by it and stop reading for good once unread answers
//! fill their buffer; [`PipeliningPolicy::Always`] offers it to them as well, for answers of up to 780 bytes.
//!
//! # Shutdown
//!
//! [`Server::serve_until`] and [`ServerHandle::drain`] end gracefully, in two stages. *Lame duck*: for as long as
//! [`Server::lame_duck`] says, health checks and monitors are refused and everything else is served, so that HAProxy takes the
//! server out. *Drain*: the listeners close, each connection is served until nothing is owed on it, for
//! [`Timeouts::drain`](spop_core::config::Timeouts::drain) at most. [`ServerHandle::stop`] ends at once.
//!
//! Without health checks and a lame duck stage, HAProxy 3.1 and later lose a few requests in a restart: one whose connection is
//! refused waits a second before HAProxy tries another server, longer than most processing timeouts, and one that crosses
//! the agent's DISCONNECT fails with 257. Measured under load: 0 to 6 of 23,000 in a rolling restart of two agents, and none with
//! a lame duck stage.
//!
//! ```text
//! backend agents
//!     mode spop                      # tcp before HAProxy 3.1
//!     option spop-check              # a plain check only connects, and does not notice a lame duck
//!     option redispatch 1
//!     default-server check inter 200ms fall 2
//!     server a1 10.0.0.1:12345
//!     server a2 10.0.0.2:12345       # agents with lame_duck(500 ms)
//! ```
//!
//! With the feature `systemd` the server tells systemd `READY=1` when it serves and `STOPPING=1` when its shutdown begins, for
//! units of `Type=notify`: nothing where `NOTIFY_SOCKET` is not set. A program with several servers is ready when the first is.
//! `TimeoutStopSec=` must exceed the sum of lame duck, drain and about 15 s.
//!
//! A malicious peer can hold this up for longer than that: for
//! [`AcceptConfig::timeout`](spop_core::accept::AcceptConfig::timeout) before its session begins, and after it for some
//! twelve times [`Timeouts::linger`](spop_core::config::Timeouts::linger), by taking what is left a little at a time. With
//! the defaults it all ends within half a minute.
//!
//! ```no_run
//! # async fn handler(_: spop_tokio::Request) -> spop_tokio::Actions { spop_tokio::Actions::new() }
//! # async fn main_() -> std::io::Result<()> {
//! use spop_tokio::Server;
//! use tokio::signal::unix::{SignalKind, signal};
//!
//! let mut terminate = signal(SignalKind::terminate())?;
//! let server = Server::new(handler).bind("127.0.0.1:12345").await?;
//! server.serve_until(async { drop(terminate.recv().await) }).await;
//! # Ok(())
//! # }
//! ```
//!
//! To replace a process, start the new one beside it, on a shared TCP port ([`Endpoint::reuse_port`]), a socket of systemd,
//! or the same path ([`Endpoint::take_over`]); then have the old one drain, without a lame duck stage: on a shared listener it
//! would refuse health checks that the new one should answer.
//!
//! # What can be seen
//!
//! [`ServerHandle::stats`] has the numbers of a server, [`ServerHandle::connections`] what is open.
//!
//! With the feature `metrics`, a recorder of the `metrics` facade that is installed before the server is made gets:
//!
//! | name | what |
//! |---|---|
//! | `spop_connections` | connections with a session: a gauge |
//! | `spop_requests_in_flight` | requests that handlers work on: a gauge |
//! | `spop_handler_seconds` | how long handlers take: a histogram |
//! | `spop_closed_total` | sessions that have ended, `by` whom and with which `status` |
//! | `spop_connections_total`, `spop_connections_refused_total`, `spop_connections_rejected_total`, `spop_probes_total` | connections that came to a session, were too many, did not pass what comes before a session, or were a monitor's |
//! | `spop_notifies_total`, `spop_acks_total` (`spop_late_acks_total` of them late), `spop_failures_total`, `spop_overloaded_total`, `spop_cancelled_total`, `spop_aborted_total` | requests, what became of each (one of four), and payloads in fragments that were given up |
//! | `spop_received_bytes_total`, `spop_sent_bytes_total` | bytes of sessions |
//!
//! What happened is told to [`tracing`], by events with these names:
//!
//! | name | level | what |
//! |---|---|---|
//! | `request_failed` | warn | a request without an answer of its handler: `handler_failed`, `handler_panicked`, `timed_out`, `overdue`, `answer_unsendable`, `overloaded`, … |
//! | `message_unknown` | warn | a message that no [`Router`] has a route for |
//! | `watch_panicked` | warn | a handler that panicked over a payload on its way |
//! | `answered_late` | warn | an answer later than [`AgentConfig::processing`] |
//! | `request_abandoned` | warn | a request that HAProxy 3.1 or later gave up while its handler ran |
//! | `variable_dropped` | warn | a variable that HAProxy drops for its name: once for each name |
//! | `frame_size_reduced` | warn | a session in which HAProxy fails long requests with 259 |
//! | `not_spop` | warn | a client of another protocol: one line, then a count a minute |
//! | `service_manager` | warn | systemd could not be told |
//! | `connection_failed` | warn | a session that ended by a fault or a timeout |
//! | `stream_faulty` | warn | a stream of [`Service::serve_connection`] that claims to have written more than it was given |
//! | `not_accepted` | warn | a connection that was refused, rejected, or could not be accepted |
//! | `connection_panicked` | error | a fault of this library |
//! | `connection_opened`, `session_established`, `connection_closed`, `request_cancelled`, `payload_dropped` | debug | the ordinary course of things |
//! | `agent_unreachable`, `agent_down` | warn | an agent that an [`Engine`] cannot use |
//! | `agent_answers_nothing` | warn | an agent that ends its connections to an [`Engine`] before it has answered |
//! | `agent_connected`, `agent_disconnected`, `agent_up` | debug | its ordinary course |
//!
//! Warnings that a peer can cause come at a bounded rate, with the number of those `suppressed`. Connections run in a span
//! `connection` and handlers in a span `request`, both for debugging: with the filter `info,spop_tokio::spans=debug` every
//! line that a handler logs says whose request it is about.
//!
//! # Asking agents
//!
//! An [`Engine`] is HAProxy's side, for tests, load, health checks and other proxies: a pool of connections to one agent or
//! several, over TCP, unix sockets and TLS, with or without PROXY headers.
//!
//! ```no_run
//! use spop_tokio::{Engine, EngineConfig, MessageList, Scope};
//!
//! # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::new(EngineConfig::haproxy_3_1()).agent("127.0.0.1:12345").start()?;
//! let mut messages = MessageList::new();
//! messages.message("get-ip-reputation").arg("ip", std::net::Ipv4Addr::new(203, 0, 113, 7));
//! let answer = engine.notify(&messages).await?;
//! println!("score: {:?}", answer.var(Scope::Session, "ip_score"));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

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

pub use cancellation::Cancellation;
pub use client::{Answer, Engine, EngineClient, EngineStats, Target};
pub use handler::Handler;
pub use request::Request;
pub use responder::{Deferred, Responder, Response};
pub use router::{Route, RouteList, Router, Unrouted};
pub use server::{Server, ServerHandle};
pub use service::Service;
pub use spop_core::{
    self, Actions, AgentConfig, CloseReason, Closed, EngineConfig, MessageList, Scope, Status, Value,
    accept::{self, Peer},
    agent::{OnFailure, Partial, PipeliningPolicy, Reply, RouteError, Routes, Unknown, Watch},
    engine::{
        EngineError,
        pool::{AgentFailure, PoolConfig},
    },
    frame::{ArgError, Capabilities, FromValue, NameError},
    wire::{HeaderError, Headers},
};
pub use spop_server::{
    AbstractName, Address, Cancelled, ConnectionInfo, Endpoint, NameOrId, ParsedAddress, Stats,
};
pub use swap::Swap;
#[cfg(feature = "tower")]
pub use tower::TowerHandler;
