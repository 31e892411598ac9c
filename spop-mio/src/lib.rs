//! Agents for HAProxy's SPOP on bare event loops: threads and readiness, without an async runtime.
//!
//! HAProxy can ask an agent about a connection or a request before it continues. Here an agent is a function from a [`Request`]
//! to [`Actions`], and a [`Server`] runs it on any number of TCP and unix sockets. `spop-tokio` is the same server for async
//! functions. Both are built on `spop-server`.
//!
//! This page has what is specific to threads and event loops. [The guide](spop_server::guide) has the rest: failures of handlers,
//! listeners, PROXY headers, TLS, limits, HAProxy's settings, shutdown, metrics and log events.
//!
//! # Quick start
//!
//! ```sh
//! cargo add spop-mio
//! ```
//!
//! ```no_run
//! use std::net::IpAddr;
//! use spop_mio::{Router, Scope, Server};
//!
//! fn main() -> std::io::Result<()> {
//!     let router = Router::new().on("get-ip-reputation", |message| {
//!         let ip: IpAddr = message.arg("ip")?;
//!         Ok((Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 }))
//!     });
//!     Server::new(router).bind("127.0.0.1:12345")?.serve()
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
//! What a client may leave out, as a header, is NULL then and needs an `Option`; text that a client controls is `Cow<str>` or
//! `&[u8]`, because `&str` fails if it is not UTF-8. [The guide](spop_server::guide::arguments) has headers, paths, cookies, bodies and
//! TLS, and how a variable gets into a header.
//!
//! With a configuration, and a graceful end:
//!
//! ```no_run
//! # fn handler(_: spop_mio::Request<'_>) -> spop_mio::Actions { spop_mio::Actions::new() }
//! # fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use spop_mio::{Endpoint, Server, ServerConfig};
//!
//! let mut config = ServerConfig::default();
//! // HAProxy's `timeout processing`, and less: so the answer for failures is there in time.
//! config.agent.processing = Some(Duration::from_millis(500));
//! config.agent.timeouts.message = Some(Duration::from_millis(400));
//! config.max_connections = 2_000;
//! let server = Server::with_config(handler, config)?
//!     .bind("127.0.0.1:12345")?
//!     .bind(Endpoint::from("/run/agent.sock").mode(0o660))?;
//! // SIGTERM drains, and a second one stops (feature `signals`).
//! server.handle().end_on_signals()?;
//! server.serve()
//! # }
//! ```
//!
//! # Workers
//!
//! Each worker is a thread with its own event loop, its own connections, a read buffer of 64 KiB and its own clone of the
//! handler. A request that is answered at once takes no lock, and writes to no memory that workers share, except for the counter of
//! [`ServerConfig::max_in_flight`] if it is set, and, with `async`, the state of an engine whose connection has a send backlog.
//! The byte counts of a server are updated in steps of 16 KiB. A TCP address has a listener for each worker, and the system spreads
//! connections over them. Those of a unix socket, and of a listener that was open already, go to the workers in turn.
//!
//! A turn of a connection ends after 64 KiB of input. Connections that have more come after the others, so a busy connection
//! delays the others of its worker by one turn, and any number of them by four; a turn takes less than a millisecond and the time
//! of its handlers. Connections before their session get a limited number of turns in each round: a storm of TLS handshakes does
//! not delay requests for long.
//!
//! # Handlers
//!
//! A [`Handler`] is a function or closure, a [`Router`], or a type of your own: for state, and to decide on payloads while
//! they arrive. It returns [`Actions`], what converts into them (`()`, a tuple of scope, name and value), a [`Reply`], or a `Result` of
//! these with any error, whose causes are logged with it. A [`Router`] calls functions of one message, which return a `Result` with a
//! boxed error; a [`Route`] of it has an answer of its own for failures. What needs more of the request than the message, or
//! defers, is a handler of the whole request.
//!
//! - It answers before it returns, without an allocation (up to 112 bytes of actions) and without a lock, and the connections
//!   of its worker wait for it. All answers to what one read brought leave in one write.
//! - What takes longer goes to another thread as a [`Responder`] ([`Request::defer`]), and is answered from there, in any
//!   order. [`Responder::is_cancelled`] says that the answer is not needed any more; [`Cancellation`] does so for work that has
//!   no responder. A deferred request counts under [`ServerConfig::max_in_flight`] and [`ServerConfig::max_request_bytes`]
//!   until its responder is dropped, also after it was cancelled: drop cancelled responders from queues.
//! - Work on another thread may go on after the answer: [`Request::background`] is its permission, and a drain waits for it.
//! - [`Swap`] replaces a handler while requests are in progress.
//! - With the `async` capability ([`AgentConfig::capabilities`]) an answer takes another connection of the same engine, on
//!   any worker, if its own has ended or its peer has not read earlier answers.
//! - [`Timeouts::message`](spop_core::config::Timeouts::message) runs for deferred requests. A handler that does not return blocks
//!   the connections of its worker.
//!
//! ```no_run
//! use std::{sync::mpsc, thread};
//! use spop_mio::{Actions, Request, Responder, Server};
//!
//! fn main() -> std::io::Result<()> {
//!     let (pool, work) = mpsc::channel::<Responder>();
//!     thread::spawn(move || {
//!         for responder in work {
//!             if !responder.is_cancelled() {
//!                 // ... takes its time with `responder.messages()` ...
//!                 responder.reply(Actions::new());
//!             }
//!         }
//!     });
//!     let handler = move |request: Request<'_>| request.defer(|responder| drop(pool.send(responder)));
//!     Server::new(handler).workers(2).bind("127.0.0.1:12345")?.serve()
//! }
//! ```
//!
//! # Testing a handler
//!
//! With the feature `testing`, in `[dev-dependencies]`, a test calls a handler with a request made by hand, and runs transcripts
//! through the whole server, in virtual time and without a socket:
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use spop_mio::{Actions, ArgError, Request, Scope, testing::{self, TestRequest}};
//!
//! fn reputation(request: Request<'_>) -> Result<Actions, ArgError> {
//!     let ip: std::net::IpAddr = request.arg("ip")?;
//!     Ok(Actions::new().set(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 }))
//! }
//!
//! // #[test]
//! fn a_loopback_address_is_trusted() {
//!     let outcome = testing::call(&mut reputation, TestRequest::new("check-ip ip=ipv4:127.0.0.1"));
//!     assert_eq!(outcome.sentence(), "set sess ip_score=int32:100");
//! }
//! # a_loopback_address_is_trusted();
//! ```
//!
//! # Errors, failures, logs
//!
//! An error, a panic, a timeout or a limit fails one request, and no other: HAProxy gets the answer of the [`Route`] for failures, or else
//! that of the configuration ([`OnFailure`]), at once. Failures are counted by their [`FailureKind`] ([`Stats::failures`]) and
//! logged with their causes: [the guide](spop_server::guide::failures). The server itself fails only at its start.
//!
//! Events go to [`tracing`](https://docs.rs/tracing), and are lost without a subscriber: `cargo add tracing-subscriber`, and
//! `tracing_subscriber::fmt().init();` as the first line of `main`. [The guide](spop_server::guide::observability) has all events, and the
//! metrics.
//!
//! # Features
//!
//! None is enabled by default. The crates are those that a feature adds.
//!
//! | name | what it brings | what it costs |
//! |---|---|---|
//! | `tls` | listeners with TLS 1.2 and 1.3, client certificates and reload (module `tls`) | rustls with ring: 10 crates, and a C compiler |
//! | `proxy` | listeners that expect a PROXY v1 or v2 header ([`accept`]) | 4 crates |
//! | `http` | headers, methods and URIs as types of the `http` crate, which are re-exported (module `http`) | 2 crates |
//! | `serde` | the arguments of a message as a structure: [`Message::deserialize`](spop_core::frame::Message) | 2 crates |
//! | `metrics` | counters and histograms for the recorder of the `metrics` facade that is installed when [`Server::serve`] is called | 3 crates |
//! | `status` | a page with the state of the server, as HTML and JSON, and what Prometheus collects ([module](spop_server::status)) | 47 crates, and a thread |
//! | `systemd` | sockets that systemd has opened, and messages to it | 1 crate |
//! | `signals` | SIGTERM and SIGINT drain, a second one stops (`ServerHandle::end_on_signals`) | 3 crates, and a thread |
//! | `testing` | requests made by hand, calls of handlers, transcripts (module `testing`) | nothing: for `[dev-dependencies]` |
//!
//! # Compatibility
//!
//! HAProxy 2.6 to 3.4, tested with 2.6, 3.0, 3.2 and 3.4. Rust 1.88 or later; a later one may be required by a new minor version. Linux and
//! macOS; Windows without unix sockets. `spop-tokio` has what an agent needs that awaits something, and the engine client:
//! [the guide](spop_server::guide::adapters) has a table of the differences.

#![forbid(unsafe_code)]
// On docs.rs, items say which feature they need.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod listen;
mod messages;
mod run_queue;
mod server;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod timers;
mod worker;

pub use server::Server;
#[cfg(feature = "http")]
pub use spop_core::http;
pub use spop_core::{
    self, Actions, AgentConfig, CloseReason, Closed, Scope, Status, Value,
    accept::{self, Peer},
    agent::{
        BoxError, Failure, FailureKind, OnFailure, Partial, PipeliningPolicy, Reply, Route, Router, TicketId,
        Unknown, Watch,
    },
    frame::{ArgError, Capabilities, FromValue, Message, NameError},
    wire::{HeaderError, Headers},
};
#[cfg(feature = "status")]
pub use spop_server::status;
pub use spop_server::{
    self, AbstractName, Address, Background, Cancellation, Cancelled, Connection, ConnectionInfo, Endpoint,
    Failures, HANDLER_SECONDS_BUCKETS, Handler, NameOrId, Outcome, ParsedAddress, Request, Responder,
    ServerConfig, ServerHandle, Stage, Stats, Swap, Usage,
};

#[cfg(feature = "tls")]
pub mod tls {
    //! TLS, by rustls.

    pub use rustls;
    pub use spop_server::tls::{Tls, TlsFiles, TlsPeer};
}
