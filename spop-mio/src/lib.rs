//! Agents for HAProxy's SPOP on bare event loops: threads, readiness, and nothing between.
//!
//! A handler is a function from a [`Request`] to [`Actions`]; a [`Server`] runs it on any number of TCP and unix sockets.
//!
//! ```no_run
//! use std::net::IpAddr;
//! use spop_mio::{Actions, ArgError, Request, Scope, Server};
//!
//! fn reputation(request: Request<'_>) -> Result<Actions, ArgError> {
//!     let mut actions = Actions::new();
//!     if let Some(message) = request.message("get-ip-reputation") {
//!         let ip: IpAddr = message.arg("ip")?;
//!         actions.set_var(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 });
//!     }
//!     Ok(actions)
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     Server::new(reputation).bind("127.0.0.1:12345")?.serve()
//! }
//! ```
//!
//! # Workers
//!
//! Each worker is a thread with its own event loop, its own connections and its own clone of the handler. Between requests
//! no worker waits for another: there is no lock and no counter that they share. A TCP address has a listener for each
//! worker, and the system spreads connections over them; those of a unix socket, and of a listener that was open already,
//! go round.
//!
//! A handler answers before it returns, and the connections of its worker wait for it. What takes longer goes to another
//! thread as a [`Responder`] ([`Request::defer`]), and is answered from there, in any order:
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
//! # What a handler need not care about
//!
//! - All answers to what one read brought leave in one write; so do those that other threads gave meanwhile.
//! - A handler that returns an error, panics, drops its responder, or answers with more than HAProxy accepts costs its
//!   request only: HAProxy gets what [`AgentConfig::on_failure`] says, an empty answer by default, at once.
//! - Whether anybody waits for an answer any more: [`Responder::is_cancelled`] tells, and what comes too late is dropped.
//! - With [`Capabilities::ASYNC`] an answer may take any connection of its engine. They come together on one worker right
//!   after their handshakes, so that each can answer for the others, even when one is gone.
//!
//! # A loop of your own
//!
//! [`Connection`] is one connection without a server: any [`Stream`], on any loop.
//!
//! # Events
//!
//! What happened is told to [`tracing`]: `request_failed`, `watch_panicked`, `connection_failed` and `not_accepted` as
//! warnings, at a bounded rate for each worker with the number of those `suppressed`; the ordinary course of things
//! (`connection_opened`, `session_established`, `connection_closed`, `request_cancelled`, `payload_dropped`) for debugging.

mod answers;
mod app;
mod arrivals;
mod buffer;
mod connection;
mod control;
mod handler;
mod listen;
mod lobby;
mod mail;
mod passing;
mod pending;
mod request;
mod responder;
mod server;
mod shared;
mod spans;
mod stream;
mod swap;
mod tally;
mod timers;
#[cfg(feature = "tls")]
pub mod tls;
mod worker;

pub use buffer::ReadBuffer;
pub use connection::{Connection, Turn};
pub use control::ServerHandle;
pub use handler::{Handler, Outcome};
pub use listen::{Address, Endpoint};
pub use request::Request;
pub use responder::Responder;
pub use server::Server;
pub use spop_core::{
    self, Actions, AgentConfig, ArgError, Capabilities, CloseReason, Closed, FromValue, Headers, NameError,
    Partial, Reply, RouteError, Routes, Scope, Status, Unknown, Value, Watch,
    accept::{self, Peer},
};
pub use spop_server::{Cancelled, ConnectionInfo, Stats};
pub use stream::Stream;
pub use swap::Swap;
