//! SPOP, the protocol by which HAProxy asks external agents about live traffic, as a pure state machine.
//!
//! HAProxy can ask an *agent* about a connection or a request before it goes on: is this address known, is this body an
//! attack, who is the user. This crate is the protocol between them. It opens no socket, reads no clock and spawns no task;
//! it is told which bytes arrived and what time it is, and returns what is to be done. A NOTIFY in one frame with a short
//! answer allocates nothing. The specification is `doc/SPOE.txt` in the sources of HAProxy; section numbers refer to it.
//! Where HAProxy behaves differently, the documentation says so.
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
//!             agent.acknowledge(now, notify.ticket, &actions)?;
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
//! One [`AgentReactor`] is one connection. Its driver does this, and nothing else:
//!
//! 1. **Input.** Call [`on_bytes`](AgentReactor::on_bytes) with the bytes that were read. The [`Step`] says how many were used
//!    and which [`Action`] to carry out. Repeat with the rest until nothing is left, or the action is `SendFrames`, `WantBytes`,
//!    `Paused` or `Close`. Keep the rest: the next input begins with it. At the end of the input, call
//!    [`on_input_eof`](AgentReactor::on_input_eof) in the same way until it returns one of those four.
//! 2. **Output.** Write [`outgoing`](AgentReactor::outgoing), in one write if possible, and report to
//!    [`on_sent`](AgentReactor::on_sent) how many bytes have left. One write answers all frames of one read.
//! 3. **Wishes.** Follow [`interest`](AgentReactor::interest), which is level-triggered. `resume`: step 1 with the rest, even an
//!    empty one. `write`: step 2. `read`: read when the transport is readable, then step 1. `read_now`: read without waiting for
//!    readiness. `shut`: shut the write side of that layer and report it to [`on_write_shut`](AgentReactor::on_write_shut).
//!    `close`: close the transport; the connection is over.
//! 4. **Nothing to read.** When a read would block, call [`on_read_blocked`](AgentReactor::on_read_blocked).
//! 5. **Time.** Otherwise wait for readiness, for an answer, or until [`deadline`](AgentReactor::deadline). When that has passed,
//!    after reading what has arrived, call [`on_timeout`](AgentReactor::on_timeout) until it returns one of the four. A deadline
//!    that moves later needs no new timer: a timeout that comes too early does nothing.
//! 6. **Answers.** Give each ticket back at any time and in any order: [`acknowledge`](AgentReactor::acknowledge), or
//!    [`fail`](AgentReactor::fail) if there is no answer. Then step 3.
//! 7. **Failure.** Report an error of the transport to [`on_transport_error`](AgentReactor::on_transport_error).
//!
//! Every input returns one action at most, and no event is queued inside: there is no polling order to get wrong, and no queue to
//! bound. Decisions, such as `acknowledge`, `fail`, [`drain`](AgentReactor::drain) and
//! [`disconnect`](AgentReactor::disconnect), return success or a misuse, never an action; what follows from them is in
//! `interest`. Draining, closing in order, and giving memory back follow from these steps alone.
//!
//! # Modules
//!
//! The root has what nearly every user writes. The rest is in modules, top floor first; a module imports only from those
//! below it.
//!
//! - `testing` (feature `testing`): an engine and an agent joined in virtual time. For tests of handlers and of agents.
//! - [`haproxy`]: what HAProxy does around an engine: events of a stream, variables, times, log lines. For tests and tools that
//!   must see what HAProxy makes of an answer.
//! - [`agent`], [`engine`]: the two reactors with their configuration, actions and errors. `agent` is for whoever answers;
//!   `engine` is HAProxy's side, and [`engine::pool`] many of its connections: for load generators, health checks and proxies.
//! - [`hub`]: answers that take another connection of the same engine (`async`). For servers with many connections.
//! - [`accept`]: what happens before the first SPOP frame: source rules, the PROXY header, probes of monitors, TLS. For servers.
//! - [`link`]: what both reactors share with their drivers: phases, reasons of an end, violations.
//! - [`notation`]: frames as sentences. For tests, logs and people.
//! - [`frame`], [`wire`]: frames and values. For decoders and encoders of your own.
//! - [`config`]: limits and timeouts of both reactors.
//!
//! # What is checked
//!
//! Every byte of the peer, before it is believed: a length never causes an allocation, a payload is validated once, and
//! after that going through it cannot fail. What a peer can make grow has a limit in [`config::Limits`], and what it can
//! delay has a timer in [`config::Timeouts`]. A fault of the peer is a [`Violation`] and ends its connection with the status
//! of section 3.5; a fault of the caller is an error of the method, and changes nothing.
//!
//! # What may grow
//!
//! Types that may get more fields or variants are `non_exhaustive`: configurations; reports, which say what happened or how
//! things are (actions, ends, times, counts, phases, verdicts); and errors, with those of their variants that have fields.
//! The others are exhaustive, on purpose:
//!
//! - what the wire fixes: values, frames and their parts, scopes, the two [`Side`](link::Side)s, PROXY versions;
//! - what a driver or server must not overlook: [`Interest`], its [`Layer`](link::Layer) and
//!   [`Progress`](link::Progress), [`Notify`], [`hub::Route`];
//! - what an application decides and a server must carry out: [`agent::Reply`], [`agent::Watch`],
//!   [`agent::Unknown`], and the fields of [`frame::Unusable`], which a [`frame::FromValue`] returns.
//!
//! No type of a dependency whose version is 0.x stands in a public signature. `Debug` output of a reactor, a pool, or what
//! they report has the lengths of payloads and never their bytes; payloads themselves ([`Messages`], [`Actions`]) show theirs.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
// The name that the runner of transcripts has for this crate.
#[cfg(any(test, feature = "testing"))]
extern crate self as spop_core;
#[cfg(feature = "std")]
extern crate std;

pub mod accept;
pub mod agent;
pub mod config;
pub mod engine;
mod error;
mod foreign;
pub mod frame;
#[cfg(feature = "__fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod haproxy;
pub mod hub;
pub mod link;
pub mod notation;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
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
