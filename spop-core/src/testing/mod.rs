//! An engine and an agent, connected in memory and in virtual time.
//!
//! For tests of handlers and agents: the complete protocol, with the profile of any version of HAProxy, over a connection with
//! any latency, bandwidth, segmentation and loss. There are no sockets, threads or sleeps: in a release build, thousands of
//! requests take a millisecond. A run is reproducible: it depends on the seed only. A test of a handler:
//!
//! ```
//! use std::net::{IpAddr, Ipv4Addr};
//! use spop_core::{AgentConfig, EngineConfig, MessageList, agent::Router, Scope, testing::Pair};
//! use spop_core::haproxy::{Sample, VarRules};
//!
//! // The handler under test: any closure from a `Call` to a `Decision`. It has the messages and the virtual time.
//! let router = Router::new().on("check-ip", |message| {
//!     let ip: IpAddr = message.arg("ip")?;
//!     Ok((Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 }))
//! });
//! let mut pair = Pair::new(EngineConfig::haproxy_2_6(), AgentConfig::default(), |call| {
//!     router.reply(call.messages()).into()
//! });
//!
//! let mut question = MessageList::new();
//! question.message("check-ip").arg("ip", Ipv4Addr::LOCALHOST);
//! let outcome = pair.ask(&question)?;
//!
//! // The agent's answer, and the variable that HAProxy sets: `var(sess.iprep.ip_score)` in its rules.
//! assert_eq!(outcome.sentence(), "set sess ip_score=int32:100");
//! let vars = outcome.vars(&VarRules::new("iprep"));
//! assert_eq!(vars.get("sess.iprep.ip_score"), Some(&Sample::Int(100)));
//! # Ok::<(), spop_core::engine::NotifyError>(())
//! ```
//!
//! [`replay`](mod@replay) runs transcripts: the frames that HAProxy sends, and the answers expected, with every way to cut them.
//!
//! Handlers of the adapters, async ones included, have the same in `spop_tokio::testing` and `spop_mio::testing`.

mod agent_side;
mod call;
mod drive;
#[doc(hidden)]
pub mod engine_side;
mod outcome;
pub mod replay;
#[cfg(test)]
mod tests;
#[doc(hidden)]
pub mod transcript;
#[doc(hidden)]
pub mod wire;

use alloc::{
    boxed::Box,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, time::Duration};

use crate::{
    AgentConfig, AgentReactor, EngineConfig, EngineReactor, Interest, MessageList, Session, Status,
    Timestamp,
    agent::Partial,
    config::{Checked, ConfigError},
    engine::{Ended, NotifyError, NotifyId},
    frame::{Frame, Ids},
    link::{Closed, Side},
    notation::{self, print},
};

use agent_side::AgentSide;
pub use call::Call;
use engine_side::EngineSide;
pub use outcome::{Counts, Decision, Outcome, Why};
pub use replay::{ReplayError, replay};
pub use transcript::Inbox;
use wire::Wire;
pub use wire::{Conditions, Cuts};

/// An engine, an agent, and the connection between them.
///
/// Only [`ask`](Self::ask) and the methods that begin with `run_` process events; they advance the virtual time from one event
/// to the next.
#[derive(Debug)]
pub struct Pair<H> {
    now: Timestamp,
    engine: EngineSide,
    agent: AgentSide<H>,
}

/// Decides whether the agent refuses a payload, from the part that has arrived.
#[derive(Default)]
struct Refuses(Option<Box<Refusal>>);

type Refusal = dyn FnMut(Partial<'_>) -> bool;

impl fmt::Debug for Refuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map(|_| ..).fmt(f)
    }
}

/// One end of the connection, and its outgoing direction.
#[derive(Debug, Default)]
pub(crate) struct End {
    inbox: Inbox,
    out: Wire,
    /// EOF was read.
    eof: bool,
    /// The last read would have blocked, and this was reported.
    blocked: bool,
    /// This side has closed.
    closed: bool,
}

impl End {
    /// Closes the end if its reactor asks for it: its peer reads EOF.
    fn close(&mut self, interest: Interest, now: Timestamp) -> bool {
        if interest.close {
            self.closed = true;
            self.out.shut(now);
        }
        interest.close
    }
}

impl<H: FnMut(&Call<'_>) -> Decision> Pair<H> {
    /// An engine, and an agent with this handler, over a connection without latency, loss or segmentation.
    ///
    /// # Panics
    /// If a configuration is invalid, with the [`ConfigError`].
    #[track_caller]
    pub fn new(engine: EngineConfig, agent: AgentConfig, handler: H) -> Self {
        Self::with(Conditions::default(), engine, agent, handler)
    }

    /// As [`new`](Self::new), with these conditions in both directions.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[track_caller]
    pub fn with(conditions: Conditions, engine: EngineConfig, agent: AgentConfig, handler: H) -> Self {
        let (engine, agent) = (valid("engine", engine.checked()), valid("agent", agent.checked()));
        Self {
            now: Timestamp::ZERO,
            engine: EngineSide::new(engine, conditions.clone()),
            agent: AgentSide::new(agent, handler, conditions),
        }
    }

    /// Sets the conditions of the direction from the agent to the engine.
    #[must_use]
    pub fn with_way_back(mut self, conditions: Conditions) -> Self {
        self.agent.end.out = Wire::new(conditions, 1);
        self
    }

    /// Makes the agent refuse fragmented payloads while they arrive, if `refuses` returns true for the part so far. Requires
    /// [`AgentConfig::watch_fragments`].
    #[must_use]
    pub fn refusing(mut self, refuses: impl FnMut(Partial<'_>) -> bool + 'static) -> Self {
        self.agent.refuses = Refuses(Some(Box::new(refuses)));
        self
    }

    /// Sends one request, and runs until its outcome.
    ///
    /// # Errors
    /// [`NotifyError`] if it cannot be sent.
    pub fn ask(&mut self, messages: &MessageList) -> Result<Outcome, NotifyError> {
        self.run_handshake();
        let id = self.notify(None, messages)?;
        self.run_until_settled();
        let outcomes = &mut self.engine.outcomes;
        let index = outcomes.iter().rposition(|(settled, _)| *settled == id);
        Ok(index.map_or_else(Outcome::waiting, |index| outcomes.remove(index).1))
    }

    /// Sends a request, as [`EngineReactor::notify`].
    ///
    /// # Errors
    /// As [`EngineReactor::notify`].
    pub fn notify(&mut self, ids: Option<Ids>, messages: &MessageList) -> Result<NotifyId, NotifyError> {
        self.engine.notify(self.now, ids, messages)
    }

    /// Sends a request with this payload, as [`EngineReactor::notify_raw`].
    ///
    /// # Errors
    /// As [`EngineReactor::notify_raw`].
    pub fn notify_raw(&mut self, ids: Option<Ids>, payload: &[u8]) -> Result<NotifyId, NotifyError> {
        self.engine.reactor.notify_raw(self.now, ids, payload)
    }

    /// Runs until the session is established or the connection has ended. True if there is a session.
    pub fn run_handshake(&mut self) -> bool {
        while self.engine.session.is_none() && self.engine.ended.is_none() && self.advance(None) {}
        self.engine.session.is_some()
    }

    /// Runs until no request is in flight, or no event is left.
    pub fn run_until_settled(&mut self) {
        while self.engine.reactor.in_flight() > 0 && self.advance(None) {}
    }

    /// Runs for this time.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.advance(Some(until)) {}
        self.now = until;
    }

    /// Runs until no event is left: both sides have closed, or wait for each other without a timeout.
    pub fn run_to_end(&mut self) {
        while self.advance(None) {}
    }

    /// Drains the agent: it answers what is in flight and disconnects.
    pub fn drain_agent(&mut self) {
        self.agent.reactor.drain(self.now);
        self.agent.end.blocked = false;
    }

    /// Disconnects the agent at once.
    pub fn disconnect_agent(&mut self, status: Status, message: &str) {
        self.agent.reactor.disconnect(self.now, status, message);
        self.resume();
    }

    /// Drains the engine: it awaits the answers in flight and disconnects.
    pub fn drain_engine(&mut self) {
        self.engine.reactor.drain(self.now);
        self.resume();
    }

    /// Disconnects the engine at once.
    pub fn disconnect_engine(&mut self, status: Status) {
        self.engine.reactor.disconnect(self.now, status);
        self.resume();
    }

    /// Injects a frame, in the [notation], behind the bytes that the sender's reactor has sent so far.
    ///
    /// # Errors
    /// If the line does not parse.
    pub fn say(&mut self, sender: Side, line: &str) -> Result<(), notation::ParseError> {
        let bytes = notation::parse_bytes(line)?;
        self.inject_raw(sender, &bytes);
        Ok(())
    }

    /// As [`say`](Self::say), with any bytes.
    pub fn inject_raw(&mut self, sender: Side, bytes: &[u8]) {
        let now = self.now;
        self.end_mut(sender).out.put(now, bytes);
    }

    /// Breaks the connection now.
    pub fn lose(&mut self) {
        for side in [Side::Engine, Side::Agent] {
            self.end_mut(side).out.lose();
        }
    }

    /// Breaks the connection once this side has sent this many bytes in all.
    pub fn break_after(&mut self, sender: Side, bytes: u64) {
        self.end_mut(sender).out.break_after(bytes);
    }

    /// Shuts the write side of one end without its reactor: the peer reads EOF.
    pub fn half_close(&mut self, sender: Side) {
        let now = self.now;
        self.end_mut(sender).out.shut(now);
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Engine => &mut self.engine.end,
            Side::Agent => &mut self.agent.end,
        }
    }
}

#[track_caller]
#[expect(clippy::panic, reason = "a test with a configuration like this has no other way to go on")]
fn valid<C>(whose: &str, checked: Result<Checked<C>, ConfigError>) -> Checked<C> {
    checked.unwrap_or_else(|error| panic!("the configuration of the {whose}: {error}"))
}

/// The state and the results.
impl<H> Pair<H> {
    /// The virtual time.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The engine.
    pub const fn engine(&self) -> &EngineReactor {
        &self.engine.reactor
    }

    /// The agent.
    pub const fn agent(&self) -> &AgentReactor {
        &self.agent.reactor
    }

    /// The session, once it is established.
    pub const fn session(&self) -> Option<&Session> {
        self.engine.session.as_ref()
    }

    /// The end of the session, as the engine reported it.
    pub const fn engine_ended(&self) -> Option<&Ended> {
        self.engine.ended.as_ref()
    }

    /// The end of the session, as the agent reported it.
    pub const fn agent_closed(&self) -> Option<&Closed> {
        self.agent.closed.as_ref()
    }

    /// Whether both sides have closed the connection.
    pub const fn is_over(&self) -> bool {
        self.engine.end.closed && self.agent.end.closed
    }

    /// The requests that have ended, in the order of their ends, with their outcomes.
    pub fn outcomes(&self) -> &[(NotifyId, Outcome)] {
        &self.engine.outcomes
    }

    /// As [`outcomes`](Self::outcomes), and removes them.
    pub fn take_outcomes(&mut self) -> impl ExactSizeIterator<Item = (NotifyId, Outcome)> + '_ {
        self.engine.outcomes.drain(..)
    }

    /// Counts of events.
    pub const fn counts(&self) -> Counts {
        Counts {
            dropped_tickets: self.agent.reactor.dropped_tickets(),
            unclaimed: self.engine.unclaimed,
            ..self.agent.counts
        }
    }

    /// The bytes that a side has sent. Empty unless [`Conditions::record`] is set.
    pub fn sent_by(&self, side: Side) -> &[u8] {
        match side {
            Side::Engine => self.engine.end.out.recorded(),
            Side::Agent => self.agent.end.out.recorded(),
        }
    }

    /// The complete frames that a side has sent, in the notation. Empty unless [`Conditions::record`] is set.
    pub fn notation_of(&self, side: Side) -> Vec<String> {
        let mut rest = self.sent_by(side);
        let mut sentences = Vec::new();
        while let Some((prefix, more)) = rest.split_first_chunk::<4>()
            && let Some((frame, more)) = more.split_at_checked(u32::from_be_bytes(*prefix) as usize)
        {
            sentences.extend(Frame::decode(frame).ok().map(|frame| print(frame).to_string()));
            rest = more;
        }
        sentences
    }
}
