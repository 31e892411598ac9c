//! Transcripts: test scenarios of the frames that HAProxy and an agent exchange, with the actions and the state expected.
//!
//! ```text
//! ## A title begins a scenario, on a connection of its own.
//! # A comment.
//! * config max-frame-size=1024 capabilities=pipelining     the configuration; see `config.rs`
//! * hello                                                  the usual handshake, before the rest
//! > NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7            HAProxy sends this frame
//! > raw 47455420                                           HAProxy sends these bytes
//! * expect RunMessages 5/1                                 the next action, or the front of its text
//! * answer 5/1 set sess score=int32:77                     a decision of the application
//! < ACK fin 5 1 set sess score=int32:77                    the next frame that the agent sends
//! < AGENT-DISCONNECT fin 0 0 status-code=uint32:4 *        this frame, with any further payload
//! * wait 5s                                                advances the time and fires timers
//! ```
//!
//! Every action and every sent byte must be listed, and nothing may be left at the end. Frames follow the grammar of
//! [`notation`](spop_core::notation). [`Directive`] lists all lines with a `*`.

// `tests/transcripts.rs` also compiles this module, so that it needs no feature: no path may begin with `crate`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used
)] // It is a test.

mod config;
#[doc(hidden)]
pub mod driver;
mod inbox;
mod log;
mod parse;
#[doc(hidden)]
pub mod random;
mod run;
#[path = "../replay/way.rs"]
#[allow(clippy::duplicate_mod, reason = "a test that includes this module has no `replay`")]
mod way;

use alloc::{string::String, vec::Vec};
use core::{error, fmt, time::Duration};

use spop_core::{
    AgentConfig,
    frame::Ids,
    link::{Layers, Progress},
    notation::OwnedFrame,
};

pub use inbox::Inbox;
pub use parse::parse;
pub use run::{Trace, run};
pub use way::Way;

/// A scenario of one connection.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The title.
    pub title: String,
    /// The line of the title.
    pub line: usize,
    /// The agent's configuration.
    pub config: AgentConfig,
    /// The layers above the socket.
    pub layers: Layers,
    /// The lines, with their numbers.
    pub steps: Vec<(usize, Line)>,
}

/// A line of a scenario.
#[derive(Clone, Debug)]
pub enum Line {
    /// `>`: the peer sends these bytes.
    ToAgent(Vec<u8>),
    /// `<`: the agent sends this frame next.
    ToHaproxy {
        /// The frame.
        frame: OwnedFrame,
        /// The payload may continue.
        open: bool,
    },
    /// `< raw 0102`: the agent sends these bytes next.
    Raw(Vec<u8>),
    /// `*`.
    Directive(Directive),
}

/// A NOTIFY of the peer: its identifiers, and its index among those with the same identifiers (default the last).
#[derive(Clone, Copy, Debug)]
pub struct Which {
    /// The identifiers.
    pub ids: Ids,
    /// `5/1#2` is the second unsettled NOTIFY with the identifiers 5/1.
    pub number: Option<usize>,
}

/// A line that begins with `*`.
#[derive(Clone, Debug)]
pub enum Directive {
    /// `expect TEXT`: the next action, or the error of the application's last decision.
    Expect(String),
    /// `answer 5/1 ACTIONS`.
    Answer(Which, Vec<u8>),
    /// `answer-part 5/1 ACTIONS`: a part of an answer; more follow.
    AnswerPart(Which, Vec<u8>),
    /// `abort-answer 5/1`.
    AbortAnswer(Which),
    /// `fail 5/1`: the handler fails.
    Fail(Which),
    /// `refuse 5/1`: refuses a payload that is arriving.
    Refuse(Ids),
    /// `lame-duck`: health checks are refused from now on.
    LameDuck,
    /// `drain`.
    Drain,
    /// `disconnect 99 the message`.
    Disconnect(u32, String),
    /// `eof`: the peer shuts its write side.
    Eof,
    /// `reset`: the transport fails.
    Reset,
    /// `read-blocked`: a read would block.
    ReadBlocked,
    /// `wait 5s`; units are ns, ms, s and m.
    Wait(Duration),
    /// `back 5s`: sets the clock back.
    Back(Duration),
    /// `ready 1000`: this many bytes may be sent now.
    Ready(usize),
    /// `take 1000`: the peer reads this many bytes; the `<` lines that follow list them.
    Take(usize),
    /// `shut done`, `shut started`, `shut wanted`: the progress in shutting the write side.
    Shut(Progress),
    /// `wants read write`: the interest of the reactor, in the order read, write, read-now, resume, shut-data, shut-transport,
    /// close; or `wants nothing`.
    Wants(String),
    /// `timer idle 600s`: the next deadline and the time until then; or `timer none`.
    Timer(String),
    /// `state in-flight=1 arriving=300 outgoing=0 skipped=2 phase=established`: any of these.
    State(Vec<(String, String)>),
}

/// A mismatch or a syntax error, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The line, from 1.
    pub line: usize,
    /// The error.
    pub message: String,
}

/// `LINE: MESSAGE`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

impl error::Error for Failure {}
