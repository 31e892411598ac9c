//! SPOP, the protocol by which HAProxy asks outside programs about live traffic, as a pure state machine.
//!
//! HAProxy can ask an *agent* about a connection or a request before it goes on: is this address known, is this body an
//! attack, who is the user. This crate is the protocol between them and nothing else. It opens no socket, reads no clock,
//! spawns no task, and allocates nothing for a request in one frame with a short answer; it is told which bytes arrived and
//! what time it is, and says what is to be done. The specification is `doc/SPOE.txt` in the sources of HAProxy, and section
//! numbers are its; where HAProxy does otherwise, the documentation says so.
//!
//! Any event loop can drive the reactor, and so can a unit test:
//!
//! ```
//! use std::sync::Arc;
//! use bytes::BytesMut;
//! use spop_core::{Action, Actions, AgentConfig, AgentReactor, ConnectionId, Notify, Scope, Timestamp, notation};
//!
//! let now = Timestamp::ZERO;
//! let mut agent = AgentReactor::new(Arc::new(AgentConfig::default()), ConnectionId(1), now);
//! let mut inbox = BytesMut::new();
//! for frame in [
//!     r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining,async"#,
//!     r#"NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7"#,
//! ] {
//!     inbox.extend_from_slice(&notation::parse_bytes(frame)?);
//! }
//!
//! assert!(matches!(agent.on_bytes(now, &mut inbox), Action::Established(_)));
//! match agent.on_bytes(now, &mut inbox) {
//!     Action::RunMessages(Notify { ticket, messages }) => {
//!         // Looked at where they arrived; `keep` takes them out of the inbox, for answers that come later.
//!         let ip = messages.get("check-ip").and_then(|message| message.get("ip")?.as_ip());
//!         assert_eq!(ip, Some([203, 0, 113, 7].into()));
//!         let mut actions = Actions::new();
//!         actions.set_var(Scope::Session, "ip_score", 77_i32);
//!         agent.acknowledge(now, ticket, &actions)?;
//!     }
//!     other => panic!("no NOTIFY: {other:?}"),
//! }
//! assert!(matches!(agent.on_bytes(now, &mut inbox), Action::SendFrames));
//! assert!(agent.outgoing().ends_with(b"\x05\x01\x01\x03\x01\x08ip_score\x02\x4d"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The loop
//!
//! One [`AgentReactor`] is one connection. Its driver does this, and no more:
//!
//! 1. Append what was read to an inbox that the driver owns. Call [`on_bytes`](AgentReactor::on_bytes) and carry out the
//!    [`Action`] it returns, again and again, until that is `SendFrames`, `WantBytes`, `Paused` or `Close`. At the end of
//!    the input call [`on_input_eof`](AgentReactor::on_input_eof) in the same way.
//! 2. Write what [`outgoing`](AgentReactor::outgoing) returns, in one write if the transport allows, and report to
//!    [`on_sent`](AgentReactor::on_sent) how much has left. This sends the answers to all that one read has brought.
//! 3. When a read finds nothing, call [`on_read_blocked`](AgentReactor::on_read_blocked).
//! 4. Look at [`interest`](AgentReactor::interest) and [`deadline`](AgentReactor::deadline), and wait until the transport
//!    is ready for what is of interest, an answer is ready, or the deadline has passed; then call
//!    [`on_timeout`](AgentReactor::on_timeout). `resume` means step 1 again at once; `shut` and `close` are done now, and
//!    a shut is reported to [`on_write_shut`](AgentReactor::on_write_shut).
//! 5. When an answer is ready, hand it in with its ticket ([`acknowledge`](AgentReactor::acknowledge)), at any time and
//!    in any order; or say that there is none ([`fail`](AgentReactor::fail)). Then step 2.
//! 6. A failure of the transport goes to [`on_transport_error`](AgentReactor::on_transport_error).
//!
//! All of these inputs return an [`Action`], `fail` among them: carry it out as in step 1. `on_timeout` is called again
//! until it returns one of the four that end step 1.
//!
//! An input returns one action at most, and no event waits inside: there is no queue to bound and no order to get wrong. A
//! deadline that moves later needs no new timer: let the old one fire, call `on_timeout`, and ask again.
//!
//! # The floors
//!
//! [`wire`] has bytes and values, [`frame`] whole frames, [`notation`] frames as sentences for tests and people, [`link`]
//! what both sides of a connection share, and the crate's root the agent. A module imports from those before it only.
//! [`hub`] lets answers take any connection of an engine (`async`).
//!
//! Beside the agent stands the other side, [`EngineReactor`], which is HAProxy's part with the habits of its versions;
//! [`Pool`] keeps many of its connections. [`accept`] is what happens on a connection before its first frame. And `pair`,
//! with the feature of that name, joins an engine and an agent in virtual time: a handler is tested with it in fewer than
//! 20 lines, without sockets.
//!
//! # What is checked
//!
//! Every byte of the peer, before it is believed: a length never causes an allocation, a payload is validated once, and
//! after that going through it cannot fail. What a peer can make grow has a limit in [`config::Limits`], and what it can
//! make wait a timer in [`config::Timeouts`]. A fault of the peer is a [`Violation`] and ends its connection with the right
//! status; a misuse by the caller is an error of the method and changes nothing.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
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
