//! SPOP, the protocol with which HAProxy consults external agents about live traffic, as a sans-IO state machine.
//!
//! HAProxy can consult an *agent* before it processes a connection or a request: is this address known, is this body an
//! attack, which user. This crate implements the protocol between them. It opens no socket, reads no clock and spawns
//! no task: its inputs are received bytes and the time, its outputs are actions, bytes to send and the next deadline. An
//! unfragmented NOTIFY with a short answer allocates nothing. The specification is `doc/SPOE.txt` in the sources of
//! HAProxy; section numbers refer to it. Where HAProxy deviates from it, the documentation says so.
//!
//! For a server on tokio or mio, use `spop-tokio` or `spop-mio`. This crate is for other event loops and runtimes, for tests
//! without sockets, and for tools. Any event loop can drive the reactor, and so can a unit test:
//!
//! ```
//! use std::sync::Arc;
//! use spop_core::{Action, Actions, AgentReactor, ConnectionId, Scope, Timestamp, notation};
//!
//! let now = Timestamp::ZERO;
//! let mut agent = AgentReactor::new(Arc::default(), ConnectionId(1), now);
//! let mut received = Vec::new();
//! for frame in [
//!     r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining,async"#,
//!     r#"NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7"#,
//! ] {
//!     received.extend(notation::parse_bytes(frame)?);
//! }
//!
//! let mut input = &received[..];
//! while !input.is_empty() {
//!     let step = agent.on_bytes(now, input);
//!     input = &input[step.consumed..];
//!     match step.action {
//!         Action::Established(session) => assert_eq!(session.max_frame_size, 16380),
//!         Action::RunMessages(notify) => {
//!             let ip = notify.messages().get("check-ip").and_then(|message| message.get("ip")?.as_ip());
//!             assert_eq!(ip, Some([203, 0, 113, 7].into()));
//!             let mut actions = Actions::new();
//!             actions.set_var(Scope::Session, "ip_score", 77_i32);
//!             if let Err(error) = agent.acknowledge(now, notify.ticket, &actions) {
//!                 // The ticket comes back: without an answer, HAProxy would wait for its timeout.
//!                 agent.fail(now, error.into_ticket())?;
//!             }
//!         }
//!         other => panic!("unexpected: {other:?}"),
//!     }
//! }
//! assert!(agent.interest().write);
//! assert!(agent.outgoing().ends_with(b"\x05\x01\x01\x03\x01\x08ip_score\x02\x4d"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The loop
//!
//! One [`AgentReactor`] is one connection. Its driver performs these steps, and no others:
//!
//! 1. **Input.** Call [`on_bytes`](AgentReactor::on_bytes) with the bytes that were read. The returned [`Step`] says how
//!    many were used and which [`Action`] to carry out. Repeat with the rest until it is empty, or the action
//!    [ends the input](Action::ends_input). Keep the rest: the next input begins with it. At the end of the input, call
//!    [`on_input_eof`](AgentReactor::on_input_eof) with the rest, even if it is empty, and repeat until an action ends the
//!    input. The reactor remembers the end; after it, both methods do the same.
//! 2. **Output.** Write [`outgoing`](AgentReactor::outgoing), in one write if possible, and report the number of bytes
//!    that the transport accepted to [`on_sent`](AgentReactor::on_sent). One write answers all frames of one read.
//! 3. **Interest.** Apply [`interest`](AgentReactor::interest). It is level-triggered: read it again after each event and
//!    decision, until nothing is left to do but to wait. Several fields can be set:
//!    - `resume`: step 1 with the rest, even if it is empty. This precedes `read`, because the rest can fill the buffer.
//!    - `write`: step 2; where that would block, again when the transport is writable.
//!    - `read`: when the transport is readable, read, then step 1. With `read_now`, do not wait for readiness.
//!    - `shut`: shut the write side of that layer, and report [`Progress::Done`](link::Progress::Done) to
//!      [`on_write_shut`](AgentReactor::on_write_shut), also if the shutdown fails. Where it would block, try again when the
//!      transport is writable.
//!    - `close`: close the transport; the connection is over, and the reactor can be dropped.
//! 4. **Blocked read.** If the read for `read_now` would block, call [`on_read_blocked`](AgentReactor::on_read_blocked).
//!    The call is harmless after any other read that would block.
//! 5. **Time.** Wait for readiness, for an answer, or until [`deadline`](AgentReactor::deadline). When the deadline has
//!    passed, first process the bytes that have arrived, so that the peer does not time out because the driver is late; then
//!    call [`on_timeout`](AgentReactor::on_timeout) until an action ends the input. A deadline that moves later needs no new
//!    timer: an early `on_timeout` does nothing.
//! 6. **Answers.** Return each ticket at any time and in any order with [`acknowledge`](AgentReactor::acknowledge). If there
//!    is no answer, or `acknowledge` returns the ticket in its error, [`fail`](AgentReactor::fail) it. Then step 3.
//! 7. **Errors.** Report an error of the transport, or a [`Misuse`], to
//!    [`on_transport_error`](AgentReactor::on_transport_error).
//!
//! `on_sent`, `on_write_shut`, `on_read_blocked` and `on_transport_error` always return an action that ends the input. Of the
//! four actions that do, only `Close` needs to be carried out: `interest` says the rest.
//!
//! **Buffer.** The input of one call is contiguous, and a frame is processed when it is whole. So the driver's buffer must be
//! able to hold a length prefix and the longest frame: 4 bytes and 16 KiB before the handshake, then 4 bytes and
//! [`Session::max_frame_size`]. The reactor keeps no unused input. A read into a full buffer would look like the end of the
//! input. If `resume` precedes `read`, and the rest is discarded at `Close`, a buffer of this size is never full when it is
//! read into: the reactor uses whole frames and refuses longer ones, and under backpressure `interest` has no `read`.
//!
//! **Time** is a [`Timestamp`], a duration since an epoch of the caller's choice; `Clock` (feature `std`) converts
//! `std::time::Instant` to it. The timeout of the handshake starts with [`new`](AgentReactor::new).
//!
//! **TLS** is the driver's. Create the reactor when the TLS handshake is complete,
//! [with](AgentReactor::with_layers) [`Layers::Data`](link::Layers::Data), so that `shut` asks for `close_notify` before the
//! FIN of the transport. A `close_notify` of the peer is the end of the input. `on_sent` counts bytes that TLS accepted;
//! flushing them to the socket is up to the driver, also while `write` is not set. While TLS holds decrypted bytes, the
//! transport counts as readable.
//!
//! Each event returns one action, and the reactor queues none. Decisions, such as `acknowledge`, `fail`,
//! [`drain`](AgentReactor::drain) and [`disconnect`](AgentReactor::disconnect), return success or an error, never an action;
//! their consequences appear in `interest`. Draining, orderly close and the release of idle memory need no further steps.
//!
//! # Modules
//!
//! The root has the types that nearly every user needs. The modules have the rest, in layers from top to bottom: a module
//! imports only from those below it.
//!
//! - `testing` (feature `testing`): an engine and an agent connected in virtual time. For tests of handlers and of agents.
//! - `http` (feature `http`): arguments as types of the `http` crate. For agents that ask other HTTP services.
//! - [`haproxy`]: HAProxy's behavior around an engine: the events of a stream, variables, timeouts, log lines. For tests
//!   and tools that need HAProxy's reaction to an answer.
//! - [`hub`]: routing of answers over other connections of the same engine (`async`). For servers with many connections.
//! - [`agent`], [`engine`]: the two reactors with their configuration, actions and errors. `agent` is the side that
//!   answers; `engine` is HAProxy's side, and [`engine::pool`] a pool of its connections, for load generators, health
//!   checks and proxies.
//! - [`accept`]: everything before the first SPOP frame: source rules, the PROXY header, probes of monitors, TLS. For servers.
//! - [`link`]: the interface of both reactors to their drivers: interest, timers, phases, close reasons, violations.
//! - [`notation`]: a text form of frames. For tests and logs.
//! - [`frame`], [`wire`]: frames and values. For other decoders and encoders.
//! - [`config`]: limits and timeouts of both reactors.
//! - [`excerpt`]: texts of a peer in messages, cut. For log lines.
//!
//! # Untrusted input
//!
//! Every byte of the peer is checked before it is used. A length prefix never causes an allocation. A payload is validated
//! once; iterating over it cannot fail afterwards. Everything that a peer can make grow has a limit in [`config::Limits`],
//! and everything that it can delay has a timer in [`config::Timeouts`]. An error of the peer is a [`Violation`], and ends
//! its connection with a status of section 3.5. An error of the caller is the `Err` of a method, and leaves the reactor
//! unchanged apart from its time.
//!
//! # Exhaustive types
//!
//! Types that may get more fields or variants are `non_exhaustive`: configurations, errors, and reports (actions, close
//! reasons, timers, counts, phases, verdicts). The other types are exhaustive on purpose:
//!
//! - types that the wire format fixes: values, frames and their parts, scopes, the two [`Side`](link::Side)s, PROXY versions;
//! - types that a driver or server must handle completely: [`Step`], [`Interest`], its [`Layer`](link::Layer) and
//!   [`Progress`](link::Progress), [`Notify`], [`hub::Route`];
//! - decisions of an application that a server must carry out: [`agent::Reply`], [`agent::Watch`], [`agent::Unknown`], and the
//!   fields of [`frame::Unusable`], which a [`frame::FromValue`] returns.
//!
//! Public signatures contain no type of a dependency below version 1.0. The `Debug` output of a reactor, a pool and their
//! reports contains the lengths of payloads and never their bytes; that of a payload itself ([`Messages`], [`Actions`])
//! contains its bytes.
#![no_std]
#![forbid(unsafe_code)]
// On docs.rs, items say which feature they need.
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
// Integration tests include the transcript runner by path: it uses this name for the crate.
#[cfg(any(test, feature = "testing"))]
extern crate self as spop_core;
#[cfg(feature = "std")]
extern crate std;

pub mod accept;
pub mod agent;
pub mod config;
pub mod engine;
mod error;
pub mod excerpt;
mod foreign;
pub mod frame;
pub mod haproxy;
#[cfg(feature = "http")]
pub mod http;
pub mod hub;
pub mod link;
pub mod notation;
mod steps;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
#[cfg(feature = "http")]
mod trace_parent;
pub mod wire;

pub use agent::{
    AckError, Action, AgentConfig, AgentReactor, ConnectionId, Notify, Session, Settled, Ticket,
};
pub use engine::{EngineAction, EngineConfig, EngineReactor};
pub use error::DecodeError;
pub use frame::{Actions, MessageList, Messages, Scope};
pub use link::{CloseReason, Closed, Interest, Misuse, Step, Timer, Violation};
#[cfg(feature = "std")]
pub use time::Clock;
pub use time::Timestamp;
pub use wire::{Status, Value};
