//! Agents for HAProxy's SPOP on tokio.
//!
//! HAProxy can ask an agent about a connection or a request before it continues. Here an agent is an async function from a
//! [`Request`] to [`Actions`], and a [`Server`] runs it on any number of TCP and unix sockets.
//!
//! [Quick start](#quick-start) · [Handlers](#handlers) · [Routing](#routing) · [Errors and failures](#errors-and-failures) ·
//! [Testing](#testing-a-handler) · [Logs](#logs) · [The engine client](#the-engine-client) · [Features](#features) ·
//! [Compatibility](#compatibility) · [Examples, and where to go next](#examples-and-where-to-go-next)
//!
//! # Quick start
//!
//! ```sh
//! cargo add spop-tokio --features signals
//! cargo add tokio --features macros,rt-multi-thread
//! cargo add tracing-subscriber
//! ```
//!
//! ```no_run
//! use std::net::IpAddr;
//! use spop_tokio::{Actions, ArgError, Request, Router, Scope, Server};
//!
//! async fn reputation(request: Request) -> Result<Actions, ArgError> {
//!     let ip: IpAddr = request.arg("ip")?;
//!     Ok(Actions::new().set(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 }))
//! }
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let router = Router::new().on("get-ip-reputation", reputation);
//!     Server::new(router).bind("127.0.0.1:12345").await?.serve().await
//! }
//! ```
//!
//! HAProxy asks it with this in the frontend, where the answer is `var(sess.iprep.ip_score)`:
//!
//! ```text
//! filter spoe engine iprep config /etc/haproxy/spoe-iprep.conf
//! http-request deny if { var(sess.iprep.ip_score) -m int lt 60 }
//! ```
//!
//! this backend (since HAProxy 3.1 `mode spop` means the same):
//!
//! ```text
//! backend iprep-agents
//!     mode tcp
//!     timeout server 3m
//!     server iprep1 127.0.0.1:12345
//! ```
//!
//! and this file:
//!
//! ```text
//! [iprep]
//! spoe-agent iprep-agent
//!     messages get-ip-reputation
//!     option var-prefix iprep
//!     option set-on-error error
//!     timeout hello 2s
//!     timeout idle 2m
//!     timeout processing 500ms
//!     use-backend iprep-agents
//!
//! spoe-message get-ip-reputation
//!     args ip=src
//!     event on-client-session
//! ```
//!
//! Without an answer the variable is not set and the request passes: [the guide](spop_server::guide::open_or_closed) has the rules for
//! an agent that must not fail open.
//!
//! [The guide](spop_server::guide) has what is not specific to tokio: failures of handlers, listeners, PROXY headers, TLS, limits,
//! HAProxy's settings, shutdown, metrics and log events. A server with limits, a log and a graceful shutdown:
//!
//! ```no_run
//! # async fn handler(_: spop_tokio::Request) -> spop_tokio::Actions { spop_tokio::Actions::new() }
//! # async fn main_() -> std::io::Result<()> {
//! use std::time::Duration;
//! use spop_tokio::{Server, ServerConfig};
//!
//! tracing_subscriber::fmt().init();
//! let mut config = ServerConfig::default();
//! // HAProxy's `timeout processing`, and less: so the answer for failures is there in time.
//! config.agent.processing = Some(Duration::from_millis(500));
//! config.agent.timeouts.message = Some(Duration::from_millis(400));
//! config.max_connections = 2_000;
//! // Longer than `inter` times `fall` of HAProxy's health checks.
//! config.lame_duck = Duration::from_millis(500);
//! let server = Server::with_config(handler, config)?.bind("127.0.0.1:12345").await?;
//! // SIGTERM drains, and a second one stops.
//! server.handle().end_on_signals()?;
//! server.serve().await
//! # }
//! ```
//!
//! # Handlers
//!
//! A handler is an async function or closure from [`Request`], a [`Router`], or a type of your own that is a [`Handler`]: to decide
//! on payloads while they arrive. It returns [`Actions`], what converts into them (`()`, a tuple of scope, name and value), a
//! [`Reply`], or a `Result` of these with any error: that of `anyhow` or `Box<dyn Error + Send + Sync>` too. The causes of an error
//! are logged with it.
//!
//! - It is polled inline first, on the task of its connection. An answer that is ready at once costs no task, and no allocation
//!   if its actions take up to 112 bytes. Slow handlers run concurrently on the same task, and are answered in the order in which
//!   they are ready. All answers to the requests of one read leave in one write.
//! - It must not block its thread. Move blocking work to another thread, with [`Deferred`] or `tokio::task::spawn_blocking`.
//! - A handler whose answer is not needed any more is dropped at its current `await`. Work that it has spawned continues, and
//!   learns of it from a [`Cancellation`].
//! - A request counts under [`ServerConfig::max_in_flight`] and [`ServerConfig::max_request_bytes`] until it is dropped, also
//!   after it was cancelled: spawned work that keeps the [`Request`] should end when it is cancelled.
//! - Work may go on after the answer: see [`Request::background`](spop_server::Request::background), and below.
//! - A connection gives way to other tasks after 64 KiB of input.
//! - [`Swap`] replaces a handler while requests are in progress, a [`Route`] is one that is chosen at run time, and `TowerHandler`
//!   (feature `tower`) is a service of tower.
//!
//! Work that goes on after the answer, which a drain waits for. It keeps what it needs of the request, and has a timeout: what never ends
//! takes up [`ServerConfig::max_background`] for good.
//!
//! ```
//! use std::time::Duration;
//! use spop_tokio::{ArgError, Request};
//! use tokio::time::timeout;
//!
//! # async fn send_copy(_: Vec<u8>) {}
//! async fn mirror(request: Request) -> Result<(), ArgError> {
//!     let body = request.arg::<&[u8]>("body")?.to_owned();
//!     if let Some(background) = request.background() {
//!         tokio::spawn(async move {
//!             let _ = timeout(Duration::from_secs(5), send_copy(body)).await;
//!             drop(background);
//!         });
//!     }
//!     Ok(())
//! }
//! # let _ = spop_tokio::Server::new(mirror);
//! ```
//!
//! Spawned work that ends when its request is cancelled:
//!
//! ```
//! use spop_tokio::{Actions, Request, Scope};
//!
//! async fn search(request: Request) -> Result<Actions, tokio::task::JoinError> {
//!     let cancellation = request.cancellation();
//!     let found = tokio::task::spawn_blocking(move || {
//!         (0..1_000_000_u32).take_while(|_| !cancellation.is_cancelled()).filter(|n| n % 7 == 0).count()
//!     });
//!     Ok(Actions::new().set(Scope::Transaction, "found", found.await? as u64))
//! }
//! ```
//!
//! Arguments have the types they are asked for: addresses, `&str`, `&[u8]`, `bool`, any integer that can hold the number,
//! [`Headers`] for `req.hdrs_bin`, [`Value`] for any of them, and an `Option` of these for what may be NULL or absent, as a header is
//! that the client has not sent. The error names message, argument and reason. Take text that a client controls as `Cow<str>` or
//! `&[u8]`: `&str` and `String` fail if it is not UTF-8, and the client would decide whether the check runs ([`FromValue`]). In a
//! structure of serde (`Args`) a `String` does not fail: bytes that are not UTF-8 are replaced. With `args ua=req.fhdr(user-agent)`:
//!
//! ```
//! use std::borrow::Cow;
//! use spop_tokio::{Actions, ArgError, Request, Scope};
//!
//! async fn check_agent(request: Request) -> Result<Actions, ArgError> {
//!     let ua: Option<Cow<'_, str>> = request.arg("ua")?;
//!     Ok(Actions::new().set(Scope::Transaction, "robot", ua.is_none_or(|ua| ua.contains("bot"))))
//! }
//! # let _ = spop_tokio::Server::new(check_agent);
//! ```
//!
//! [The guide](spop_server::guide::arguments) has headers, paths, cookies, bodies and TLS, and how a variable gets into a header.
//!
//! HAProxy silently drops a variable whose name it does not accept: [`Actions::try_set_var`] returns an error instead, and a
//! test can check all names of an answer with [`Actions::check_names`].
//!
//! # Routing
//!
//! A [`Router`] dispatches each message to a handler by its name; the handler gets a request with this one message. The messages
//! of one NOTIFY are processed concurrently, and their actions are joined in the order of the messages.
//!
//! The handler of a route is a function of what it needs, in this order: the state of the router as a reference, up to four values
//! that are [`FromRequest`], the [`Request`]. It is async, or returns its reply at once and must not wait.
//!
//! ```
//! use std::{borrow::Cow, time::Duration};
//! use spop_tokio::{Actions, ArgError, BoxError, FromRequest, Headers, Request, Route, Router, Scope, Unknown};
//!
//! /// The state: what the handlers share.
//! struct Rules {
//!     forbidden: Vec<String>,
//! }
//!
//! async fn inspect(rules: &Rules, request: Request) -> Result<Actions, ArgError> {
//!     let (path, headers): (Cow<'_, str>, Headers<'_>) = (request.arg("path")?, request.arg("hdrs")?);
//!     let forbidden = rules.forbidden.iter().any(|part| path.contains(part));
//!     Ok(Actions::new().set(Scope::Request, "odd", forbidden || headers.get("host").is_none()))
//! }
//!
//! /// Taken from the request before the function is called.
//! struct User(String);
//!
//! impl FromRequest for User {
//!     fn from_request(request: &Request) -> Result<Self, BoxError> {
//!         Ok(Self(request.arg("user")?))
//!     }
//! }
//!
//! async fn group(User(name): User) -> (Scope, &'static str, &'static str) {
//!     (Scope::Transaction, "group", if name == "root" { "admin" } else { "user" })
//! }
//!
//! let group = Route::new(group)
//!     .timeout(Duration::from_millis(20))
//!     .on_failure((Scope::Transaction, "group", "unknown"));
//! let router: Router<Rules> = Router::with_state(Rules { forbidden: vec!["..".to_owned()] })
//!     .on("check-request", inspect)
//!     .on("log", |request: Request| println!("{:?}", request.messages()))
//!     .route("get-group", group)
//!     .unknown(Unknown::Fail);
//! # drop(router);
//! ```
//!
//! The arguments of a function, in this order, each optional:
//!
//! | argument | what it is |
//! |---|---|
//! | `&S` | the state of the router, of type `S` |
//! | [`Peer`] | as [`Request::peer`](spop_server::Request::peer) |
//! | [`Cancellation`] | tells spawned work that the answer is not needed any more |
//! | `Args<T>` (feature `serde`) | the arguments of the message, as a structure |
//! | a type of your own | what its [`FromRequest`] takes from the request; an error fails the request |
//! | [`Request`] | the request itself |
//!
//! [`IntoRoute`] says how to find out why the compiler does not accept a function, and what to do instead of an async closure that
//! captures, which Rust does not allow here.
//!
//! Middleware for all messages is a [`Handler`] around another one, or a layer of tower around a service (`TowerHandler`, feature
//! `tower`); that of one message is a [`Route`] to such a handler. What concerns failures, timeouts and limits needs none: [`Route`]
//! and [`ServerConfig`] have them.
//!
//! All [`Route`]s with one state have one type: make them in a loop, store them, and collect them into a router.
//!
//! # Errors and failures
//!
//! A handler returns errors with `?`. An error, a panic, a timeout, a limit or an answer that is too long fails one request, and no other:
//! HAProxy gets the answer of the route for failures ([`Route::on_failure`]), or else that of the configuration ([`OnFailure`]), at once.
//! The default has no actions: HAProxy goes on, and no variable is set. Failures are counted by their [`FailureKind`]
//! ([`Stats::failures`]) and logged with their causes. A handler can answer in spite of an error: it returns the actions, or as its error
//! a [`Failure`] with an answer, which is counted and logged too.
//!
//! The server itself fails only at its start: [`Server::with_config`] refuses a configuration that cannot work, by the name of the field,
//! and [`Server::bind`] an address. Whatever a peer sends ends the peer's connection at most.
//! [The guide](spop_server::guide::failures) has more.
//!
//! # Testing a handler
//!
//! With the feature `testing`, in `[dev-dependencies]`, a test calls a handler or a router with a request made by hand:
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use spop_tokio::testing::{self, TestRequest};
//! # use spop_tokio::{Actions, ArgError, Request, Scope};
//! # async fn reputation(request: Request) -> Result<Actions, ArgError> {
//! #     let ip: std::net::IpAddr = request.arg("ip")?;
//! #     Ok(Actions::new().set(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 }))
//! # }
//!
//! // #[tokio::test]
//! async fn clients_of_this_machine_have_the_best_score() {
//!     let outcome = testing::call(&reputation, TestRequest::new("check ip=ipv4:127.0.0.1")).await;
//!     assert_eq!(outcome.sentence(), "set sess ip_score=int32:100");
//! }
//! # let mut runtime = tokio::runtime::Builder::new_current_thread();
//! # runtime.enable_all().build()?.block_on(clients_of_this_machine_have_the_best_score());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The module `testing` has a handler with a mocked upstream, and the same through the protocol in virtual time, with timeouts, latency and
//! cuts; and it runs transcripts.
//!
//! # Logs
//!
//! Events go to [`tracing`], and are lost without a subscriber: the first line of `main` is `tracing_subscriber::fmt().init();`, or one of
//! your own. At level info a server tells where it listens and how it ends, warnings are failed requests and refused
//! connections, and debug follows each connection. What a peer can cause is limited in rate. With the filter
//! `info,spop_server::spans=debug` (feature `env-filter` of `tracing-subscriber`) each line that a handler logs names its request.
//! [The guide](spop_server::guide::observability) has all events, and the metrics.
//!
//! # The engine client
//!
//! An [`Engine`] is HAProxy's side, for tests, load generators, health checks and other proxies: a pool of connections to one
//! agent or several, over TCP, unix sockets and TLS, with or without PROXY headers.
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
//!
//! Its events for [`tracing`]:
//!
//! | name | level | what |
//! |---|---|---|
//! | `agent_unreachable`, `agent_down` | warn | an agent that the engine cannot use |
//! | `agent_answers_nothing` | warn | an agent that ends its connections before it has answered |
//! | `agent_connected`, `agent_disconnected`, `agent_up` | debug | the ordinary course of events |
//!
//! # Features
//!
//! None is enabled by default. Without any, these crates have 26 others below them on Linux; the table has what a feature adds.
//!
//! | name | what it brings | what it costs |
//! |---|---|---|
//! | `tls` | listeners with TLS 1.2 and 1.3, client certificates and reload (module `tls`); TLS of the [`Engine`] | rustls with ring: 9 crates, and a C compiler |
//! | `proxy` | listeners that expect a PROXY v1 or v2 header ([`accept`]) | 4 crates |
//! | `http` | headers, methods and URIs as types of the `http` crate, which are re-exported (module `http`) | 2 crates; a [`HeaderMap`](https://docs.rs/http) takes more memory than [`Headers`], which borrows |
//! | `serde` | the arguments of a message as a structure (`Args`, `Request::deserialize`) | 2 crates |
//! | `metrics` | counters and histograms for the recorder of the `metrics` facade | 2 crates; a few atomic operations for each read and each request |
//! | `status` | a page with the state of the server, as HTML and JSON, and what Prometheus collects ([module](spop_server::status)) | 44 crates, and a thread |
//! | `systemd` | sockets that systemd has opened, and messages to it | 1 crate |
//! | `signals` | SIGTERM and SIGINT drain, a second one stops (`ServerHandle::end_on_signals`) | 3 crates, and a thread |
//! | `tower` | a handler from a `tower::Service` (`TowerHandler`) | 1 crate; a clone of the service for each request |
//! | `testing` | requests made by hand, calls of handlers, HAProxy's side in memory (module `testing`) | `test-util` of tokio: for `[dev-dependencies]` |
//! | `cli` | the command line `spop` | 65 crates: `cargo install --locked spop-tokio --features cli`, not a dependency |
//!
//! # Compatibility
//!
//! - HAProxy 2.6 to 3.4: tested with 2.6, 3.0, 3.2 and 3.4. [The guide](spop_server::guide::versions) has the differences.
//! - Rust 1.88 or later. A later one may be required by a new minor version, and is six months old then.
//! - tokio 1, either flavor of the runtime, with its I/O and its timers enabled (`enable_all`, as `#[tokio::main]` does). Connections and
//!   handlers run on tasks of the runtime that serves, so their futures are `Send`.
//! - Linux and macOS; Windows without unix sockets.
//!
//! # Examples, and where to go next
//!
//! | to | see |
//! |---|---|
//! | share a state, answer messages by their names | [`Router`] |
//! | get a header, a path, a cookie or a body; set a header | the guide: [arguments](spop_server::guide::arguments) |
//! | give a message a timeout, a limit, an answer for failures; make handlers from a configuration | [`Route`] |
//! | take the arguments of a function from the request | [`FromRequest`], and `Args` with the feature `serde` |
//! | find out why a function is not accepted | [`IntoRoute`] |
//! | ask another HTTP service | module `http` |
//! | reload rules without a restart | [`Swap`] |
//! | answer from a thread of your own | [`Deferred`] |
//! | listen with TLS, behind a PROXY header, or for some addresses only | [`Endpoint`], [`accept`], and the guide: [tls](spop_server::guide::tls), [listeners](spop_server::guide::listeners) |
//! | serve connections that you have accepted | [`Service`] |
//! | stop without losing a request | [`Server::serve_until`], and the guide: [restarts](spop_server::guide::restarts) |
//! | see a whole program | the examples of the repository: `ip-reputation` (rules from a file, HAProxy's configuration) and `echo-tokio` (each option of a server) |
//! | set up HAProxy, and see what it asks | the guide: [quick start](spop_server::guide::quick_start), [command line](spop_server::guide::command_line) |
//! | decide what happens when there is no answer | the guide: [open or closed](spop_server::guide::open_or_closed) |
//! | do without an async runtime | `spop-mio`, and the guide: [adapters](spop_server::guide::adapters) |

#![forbid(unsafe_code)]
// On docs.rs, items say which feature they need.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod alarm;
mod calls;
mod client;
mod connection;
mod endpoint;
mod from_request;
mod handler;
mod into_route;
mod listen;
mod log;
mod responder;
mod route;
mod router;
mod server;
mod service;
mod slot;
mod stream;
mod swap;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tower")]
mod tower;
mod transport;

pub use client::{Answer, Engine, EngineClient, EngineFailures, EngineStats, Target};
pub use endpoint::IntoEndpoint;
#[cfg(feature = "serde")]
pub use from_request::Args;
pub use from_request::FromRequest;
pub use handler::Handler;
pub use into_route::IntoRoute;
pub use responder::{Deferred, Responder, Response};
pub use route::Route;
pub use router::Router;
pub use server::Server;
pub use service::Service;
#[cfg(feature = "http")]
pub use spop_core::http;
pub use spop_core::{
    self, Actions, AgentConfig, CloseReason, Closed, EngineConfig, MessageList, Scope, Status, Value,
    accept::{self, Peer},
    agent::{BoxError, Failure, FailureKind, OnFailure, Partial, PipeliningPolicy, Reply, Unknown, Watch},
    engine::{
        EngineError,
        pool::{AgentFailure, PoolConfig},
    },
    frame::{ArgError, Capabilities, FromValue, Message, NameError},
    wire::{HeaderError, Headers},
};
#[cfg(feature = "status")]
pub use spop_server::status;
pub use spop_server::{
    self, AbstractName, Address, Background, Cancellation, Cancelled, Connection, ConnectionInfo, Endpoint,
    Failures, HANDLER_SECONDS_BUCKETS, NameOrId, ParsedAddress, ServerConfig, ServerHandle, Stage, Stats,
    Usage,
};
pub use swap::Swap;
#[cfg(feature = "tower")]
pub use tower::TowerHandler;

/// One NOTIFY: the messages of one event, to be answered together. It has its own bytes.
pub type Request = spop_server::Request<'static>;
