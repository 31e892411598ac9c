//! Transcripts: what HAProxy and an agent say to each other, line by line, and what follows from it.
//!
//! ```text
//! ## A title begins a scenario, on a connection of its own.
//! # A comment.
//! * config max-frame-size=1024 capabilities=pipelining     a setting; see `config.rs`
//! * hello                                                  the usual handshake, done before the rest
//! > NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7            HAProxy sends this frame
//! > raw 47455420                                           HAProxy sends these bytes
//! * expect RunMessages 5/1                                 the next action, or the front of its words
//! * answer 5/1 set sess score=int32:77                     the application decides
//! < ACK fin 5 1 set sess score=int32:77                    this frame leaves next
//! < AGENT-DISCONNECT fin 0 0 status-code=uint32:4 *        this frame, with any rest
//! * wait 5s                                                time passes, and timers are served
//! ```
//!
//! Every action must be expected, every byte that leaves must be written down, and nothing may be left at the end. Sentences
//! follow the grammar of [`notation`](spop_core::notation). What else can be said after a `*` is at [`Directive`].

// `tests/transcripts.rs` compiles this module once more, so that it needs no feature: no path begins with `crate`.

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
pub use run::{Trace, Way, run};

/// One connection.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its title.
    pub title: String,
    /// The line of the title.
    pub line: usize,
    /// The agent's configuration.
    pub config: AgentConfig,
    /// What lies above the socket.
    pub layers: Layers,
    /// What happens, with the line where it is written.
    pub steps: Vec<(usize, Line)>,
}

/// What a line says.
#[derive(Clone, Debug)]
pub enum Line {
    /// `>`: the peer sends these bytes.
    ToAgent(Vec<u8>),
    /// `<`: this frame leaves next.
    ToHaproxy {
        /// The frame.
        frame: OwnedFrame,
        /// Its payload may go on.
        open: bool,
    },
    /// `< raw 0102`: these bytes leave next.
    Raw(Vec<u8>),
    /// `*`.
    Directive(Directive),
}

/// A NOTIFY of the peer: the identifiers, and which of several that came with them (the last where it is not said).
#[derive(Clone, Copy, Debug)]
pub struct Which {
    /// The identifiers.
    pub ids: Ids,
    /// `5/1#2` is the second that came as 5/1 and is not settled.
    pub number: Option<usize>,
}

/// What a line after a `*` says.
#[derive(Clone, Debug)]
pub enum Directive {
    /// `expect WORDS`: the next action; or an error of the application's last decision.
    Expect(String),
    /// `answer 5/1 ACTIONS`.
    Answer(Which, Vec<u8>),
    /// `answer-part 5/1 ACTIONS`: more is to come.
    AnswerPart(Which, Vec<u8>),
    /// `abort-answer 5/1`.
    AbortAnswer(Which),
    /// `fail 5/1`: the handler has failed.
    Fail(Which),
    /// `refuse 5/1`: the rest of what is arriving is not wanted.
    Refuse(Ids),
    /// `lame-duck`: health checks are refused from now on.
    LameDuck,
    /// `drain`.
    Drain,
    /// `disconnect 99 the message`.
    Disconnect(u32, String),
    /// `eof`: the peer ends its side.
    Eof,
    /// `reset`: the transport fails.
    Reset,
    /// `read-blocked`: nothing more is there to be read now.
    ReadBlocked,
    /// `wait 5s`; units are ns, ms, s and m.
    Wait(Duration),
    /// `back 5s`: the clock goes backwards.
    Back(Duration),
    /// `ready 1000`: so many bytes may leave now.
    Ready(usize),
    /// `take 1000`: the peer takes so many bytes; the `<` lines that follow say what they were.
    Take(usize),
    /// `shut done`, `shut started`, `shut wanted`: what became of shutting the write side.
    Shut(Progress),
    /// `wants read write`: what the reactor is interested in, in the order read, write, read-now, resume, shut-data,
    /// shut-transport, close; or `wants nothing`.
    Wants(String),
    /// `timer idle 600s`: the next deadline and how far away it is; or `timer none`.
    Timer(String),
    /// `state in-flight=1 arriving=300 outgoing=0 skipped=2 phase=established`: any of these.
    State(Vec<(String, String)>),
}

/// What differs from what is written, or makes no sense, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

/// `LINE: MESSAGE`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

impl error::Error for Failure {}
