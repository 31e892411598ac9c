//! Transcripts for agents: the frames that HAProxy sends, and the answers expected.
//!
//! [`replay()`] runs a transcript against a handler. The adapters have the same for theirs, as `spop_tokio::testing::replay` and
//! `spop_mio::testing::replay`.
//!
//! ```
//! use std::net::IpAddr;
//! use spop_core::{AgentConfig, Scope, agent::Router, testing::{self, Call}};
//!
//! testing::replay(
//!     "
//!     ## A known address, and one that is not an address.
//!     > NOTIFY fin 5 1 check-ip ip=ipv4:127.0.0.1
//!     < ACK fin 5 1 set sess ip_score=int32:100
//!     > NOTIFY fin 6 1 check-ip ip=bool:true
//!     < ACK fin 6 1
//!     ",
//!     AgentConfig::default(),
//!     || {
//!         let router = Router::new().on("check-ip", |message| {
//!             let ip: IpAddr = message.arg("ip")?;
//!             Ok((Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 }))
//!         });
//!         move |call: &Call<'_>| router.reply(call.messages()).into()
//!     },
//! )?;
//! # Ok::<(), testing::ReplayError>(())
//! ```
//!
//! # The lines
//!
//! ```text
//! ## A title begins a scenario, on a connection of its own.
//! # A comment.
//! > NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7        HAProxy sends this frame
//! < ACK fin 5 1 set sess score=int32:77                the agent sends this frame next
//! < AGENT-DISCONNECT fin 0 0 status-code=uint32:2 *    this frame, with any further payload
//! * wait 80ms                                          this time passes; units are ns, ms, s and m
//! * close                                              HAProxy shuts its side of the connection
//! ```
//!
//! Frames are those of the [notation](crate::notation). Every frame of the agent is listed, in order, and before the `wait` in
//! which it is not sent. The handshake is not: unless a scenario begins with a HAPROXY-HELLO, it has one with pipelining and
//! async.
//!
//! # Every scenario runs several times
//!
//! With a frame in each read, with all frames up to the next answer in one read, with a byte in each read, and cut at random,
//! where a part of the next frame can follow earlier. The results must be the same. Each run has a connection and a handler of
//! its own.

mod player;
mod script;

use alloc::string::String;
use core::{error, fmt, time::Duration};

use super::{Call, Conditions, Decision, agent_side::AgentSide, wire::Wire};
use crate::{AgentConfig, Timestamp, frame::Ids};

#[doc(hidden)]
pub use player::{Player, Todo};
#[doc(hidden)]
pub use script::{Scenario, parse};
pub use way::Way;

/// A line of a transcript that does not parse, or an answer that is not the one expected.
///
/// ```
/// use spop_core::{Actions, AgentConfig, testing::{self, Call}};
///
/// let transcript = "
///     > NOTIFY fin 5 1 check-ip
///     < ACK fin 5 1 set sess ip_score=int32:100";
/// let error = testing::replay(transcript, AgentConfig::default(), || |_: &Call<'_>| Err::<Actions, _>("no database").into());
/// assert_eq!(error.unwrap_err().to_string(), "\
/// line 3, with a frame in each read:
///   expected  < ACK fin 5 1 set sess ip_score=int32:100
///   found     < ACK fin 5 1
///   because the handler failed: no database");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayError {
    /// The line, from 1.
    pub line: usize,
    /// How the bytes were cut, if it is about an answer.
    pub way: Option<Way>,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Why the handler gave no answer, if that is so.
    pub failure: Option<String>,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, way, expected, found, failure } = self;
        write!(f, "line {line}")?;
        if let Some(way) = way {
            write!(f, ", {way}")?;
        }
        write!(f, ":\n  expected  {expected}\n  found     {found}")?;
        failure.as_ref().map_or(Ok(()), |why| write!(f, "\n  because the handler failed: {why}"))
    }
}

/// As [`Display`](fmt::Display): a test that returns the error shows this.
impl fmt::Debug for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl error::Error for ReplayError {}

/// Runs a [transcript](self) against handlers that `make` makes, one for each connection, in virtual time.
///
/// # Errors
/// The first line that does not parse, or whose frame the agent does not send.
///
/// # Panics
/// If the configuration is invalid.
#[expect(clippy::needless_pass_by_value, reason = "as `Pair::new` and the adapters take it")]
pub fn replay<H>(text: &str, config: AgentConfig, mut make: impl FnMut() -> H) -> Result<(), ReplayError>
where
    H: FnMut(&Call<'_>) -> Decision,
{
    for scenario in parse(text)? {
        for way in Way::all() {
            let config = super::valid("agent", config.clone().checked());
            let agent = AgentSide::new(config, make(), Conditions::default());
            Replay { now: Timestamp::ZERO, agent, incoming: Wire::default() }
                .run(&mut Player::new(&scenario, way))?;
        }
    }
    Ok(())
}

struct Replay<H> {
    now: Timestamp,
    agent: AgentSide<H>,
    incoming: Wire,
}

impl<H: FnMut(&Call<'_>) -> Decision> Replay<H> {
    fn run(mut self, player: &mut Player<'_>) -> Result<(), ReplayError> {
        while let Some(todo) = player.next_todo()? {
            match todo {
                Todo::Send(bytes) => _ = self.incoming.put(self.now, &bytes),
                Todo::Shut => self.incoming.shut(self.now),
                Todo::Wait(time) => {
                    let until = self.now + time;
                    while self.next_event().is_some_and(|at| at <= until) {
                        self.advance();
                    }
                    self.now = until;
                }
                Todo::Receive if !self.advance() => return Err(player.nothing_comes()),
                Todo::Receive | Todo::Settle => {}
            }
            while self.agent.turn(self.now, &mut self.incoming) {}
            player.failures.append(&mut self.agent.failures);
            player.receive(self.agent.end.out.take());
        }
        Ok(())
    }

    fn next_event(&self) -> Option<Timestamp> {
        self.agent.next_event(&self.incoming)
    }

    /// Advances the time to the next event. False if there is none.
    fn advance(&mut self) -> bool {
        let Some(next) = self.next_event() else { return false };
        self.now = self.now.max(next);
        self.agent.fire(self.now);
        while self.agent.turn(self.now, &mut self.incoming) {}
        true
    }
}

/// Why handlers gave no answer, by the identifiers of their requests.
type Failures = alloc::vec::Vec<(Ids, super::Why)>;

/// How long an adapter waits for an answer, at most.
#[doc(hidden)]
pub const LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
#[allow(clippy::duplicate_mod, reason = "see `transcript`")]
mod way;
