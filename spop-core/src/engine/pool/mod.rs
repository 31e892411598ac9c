//! Many connections of one engine: what HAProxy does above a single one.

mod action;
mod backoff;
mod counts;
mod dispatch;
mod rate;
#[cfg(test)]
mod tests;

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::fmt;

use super::{EngineConfig, EngineReactor, NotifyId};
use crate::{
    ConnectionId, Interest, MessageList, Timestamp,
    config::Checked,
    frame::Ids,
    link::{Layers, Misuse, Phase, Progress},
};
pub use action::{AskError, PoolAction, PoolConfig, RequestId};
pub use backoff::AgentFailure;
use backoff::Backoff;
pub use counts::{ConnectionCounts, Times};
use rate::Rate;

/// The connections of one engine to its agents, and the requests that wait for one.
///
/// It contains the [reactors](EngineReactor) of its connections and has their inputs, with the connection's number before
/// the others. One input may end many requests: after each, call [`next_action`](Self::next_action) until it returns `None`.
///
/// A request waits in the queue until a connection takes it, and fails with
/// [`EngineError::Timeout`](crate::engine::EngineError::Timeout) when its time is up. What was sent to an agent once is never sent
/// again, because the agent may have acted on it.
///
/// An agent that ends its connections before it has answered anything, in the handshake or after it, is connected to at
/// exponentially growing intervals, see [`PoolConfig::retry_after`]. The first ACK on a new connection ends that. A request
/// whose time is up meanwhile fails with what the agent said, see [`AgentFailure`].
#[derive(Debug)]
pub struct Pool {
    config: Checked<PoolConfig>,
    engine: Arc<Checked<EngineConfig>>,
    checks: Arc<Checked<EngineConfig>>,
    now: Timestamp,
    connections: BTreeMap<ConnectionId, Connection>,
    agents: Vec<Agent>,
    queue: VecDeque<Queued>,
    /// Requests whose connection is gone, and whose answer may come by another (`async`).
    adrift: Vec<Sent>,
    ready: VecDeque<PoolAction>,
    opened: Rate,
    failed: Rate,
    errors: u64,
    processed: u64,
    next_connection: u64,
    next_request: u64,
    next_stream: u64,
    /// Whose turn it is among equals.
    turn: usize,
    /// When it was drained: until when the queue may take.
    drain_by: Option<Timestamp>,
}

#[derive(Debug)]
struct Connection {
    reactor: EngineReactor,
    agent: usize,
    check: bool,
    /// The transport is there.
    open: bool,
    /// Its session is over, as far as the requests are concerned.
    over: bool,
    /// When it was opened; `None` once nothing more follows from it for the backoff of its agent: it has brought an ACK, or
    /// its end was counted.
    unproven_since: Option<Timestamp>,
    sent: Vec<Sent>,
}

impl Connection {
    /// Whether it is there for requests.
    fn serves(&self) -> bool {
        !self.check && !self.over
    }

    /// Whether its handshake is still to be done.
    fn is_opening(&self) -> bool {
        self.serves() && self.reactor.phase() < Phase::Established
    }
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    /// `None` if nobody wants to hear of it any more.
    request: Option<RequestId>,
    id: NotifyId,
    asked: Timestamp,
    left: Timestamp,
}

struct Queued {
    request: RequestId,
    ids: Option<Ids>,
    payload: Vec<u8>,
    asked: Timestamp,
}

/// The length only of what is asked.
impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, ids, payload, asked } = self;
        let mut queued = f.debug_struct("Queued");
        queued.field("request", request).field("ids", ids).field("len", &payload.len());
        queued.field("asked", asked).finish()
    }
}

#[derive(Debug)]
struct Agent {
    up: bool,
    /// Checks in a row that speak against `up`.
    against: u32,
    backoff: Backoff,
    check_at: Option<Timestamp>,
}

/// Decisions of the application.
impl Pool {
    /// A pool without a connection.
    pub fn new(config: Checked<PoolConfig>, now: Timestamp) -> Self {
        let check_at = config.check_every.map(|_| now);
        let agent = || Agent { up: true, against: 0, backoff: Backoff::new(&config, now), check_at };
        let (engine, checks) = config.engines();
        Self {
            engine: Arc::new(engine),
            checks: Arc::new(checks),
            now,
            connections: BTreeMap::new(),
            agents: (0..config.agents).map(|_| agent()).collect(),
            queue: VecDeque::new(),
            adrift: Vec::new(),
            ready: VecDeque::new(),
            opened: Rate::default(),
            failed: Rate::default(),
            errors: 0,
            processed: 0,
            next_connection: 0,
            next_request: 0,
            next_stream: 0,
            turn: 0,
            drain_by: None,
            config,
        }
    }

    /// Asks an agent, as soon as there is a connection for it. `ids` are the stream's, where the caller numbers them; a
    /// stream that has none gets the next of the pool.
    ///
    /// # Errors
    /// [`AskError`] when the pool does not take it.
    pub fn ask(
        &mut self,
        now: Timestamp,
        ids: Option<Ids>,
        messages: &MessageList,
    ) -> Result<RequestId, AskError> {
        let now = self.tick(now);
        if self.is_draining() {
            return Err(AskError::Draining);
        }
        if !self.failed.allows(now, self.config.max_err_rate) {
            return Err(AskError::TooManyErrors);
        }
        if !self.agents.iter().any(|agent| agent.up) && !self.connections.values().any(Connection::serves) {
            return Err(AskError::NoAgent);
        }
        if self.queue.len() >= self.config.max_queue {
            return Err(AskError::QueueFull);
        }
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.queue.push_back(Queued { request, ids, payload: messages.as_bytes().to_vec(), asked: now });
        self.dispatch();
        Ok(request)
    }

    /// Gives a request up: it is not sent any more if it was not yet, and nothing more is said about it. If it was sent,
    /// its place on the connection is free when its answer comes or its time is up.
    pub fn withdraw(&mut self, now: Timestamp, request: RequestId) {
        self.tick(now);
        let queued = self.queue.len();
        self.queue.retain(|queued| queued.request != request);
        let mut found = self.queue.len() < queued;
        // It may have ended, and nobody was told yet.
        self.ready.retain(|action| action.request() != Some(request));
        let connections = self.connections.values_mut().flat_map(|connection| &mut connection.sent);
        for sent in connections.chain(&mut self.adrift).filter(|sent| sent.request == Some(request)) {
            sent.request = None;
            found = true;
        }
        self.processed += u64::from(found);
        self.dispatch();
    }

    /// Takes no more requests, and ends each connection once nothing waits on it. What waits longer than the drain timeout
    /// fails.
    pub fn drain(&mut self, now: Timestamp) {
        let now = self.tick(now);
        let by = now + self.engine.timeouts.drain;
        self.drain_by = Some(self.drain_by.map_or(by, |earlier| earlier.min(by)));
        self.dispatch();
    }

    /// What is to be done. Call it after each input, until it returns `None`.
    pub fn next_action(&mut self) -> Option<PoolAction> {
        self.ready.pop_front()
    }
}

/// Inputs: something happened. Those of a connection that the pool does not know any more are ignored.
impl Pool {
    /// A connection that the pool wanted is there.
    pub fn on_open(&mut self, now: Timestamp, connection: ConnectionId) {
        self.on_open_with(now, connection, Layers::Plain);
    }

    /// As [`on_open`](Self::on_open), with layers that are to be shut one after the other.
    pub fn on_open_with(&mut self, now: Timestamp, connection: ConnectionId, layers: Layers) {
        let now = self.tick(now);
        if let Some(found) = self.connections.get_mut(&connection) {
            let config = if found.check { &self.checks } else { &self.engine };
            // The time to connect is not part of the handshake.
            found.reactor = EngineReactor::new(Arc::clone(config), connection, now).with_layers(layers);
            found.open = true;
            self.ready.push_back(PoolAction::Attend(connection));
        }
    }

    /// Bytes arrived. `input` is what was left of earlier input of this connection, followed by what was read since. Returns how
    /// many bytes were used; the rest is needed again when more has come.
    pub fn on_bytes(&mut self, now: Timestamp, connection: ConnectionId, input: &[u8]) -> usize {
        let now = self.tick(now);
        self.input(connection, input, |reactor, input| reactor.on_bytes(now, input))
    }

    /// The agent will send no more. Returns how many bytes were used.
    pub fn on_input_eof(&mut self, now: Timestamp, connection: ConnectionId, input: &[u8]) -> usize {
        let now = self.tick(now);
        self.input(connection, input, |reactor, input| reactor.on_input_eof(now, input))
    }

    /// The first `n` of the outgoing bytes have left.
    ///
    /// # Errors
    /// As [`EngineReactor::on_sent`].
    pub fn on_sent(&mut self, now: Timestamp, connection: ConnectionId, n: usize) -> Result<(), Misuse> {
        let now = self.tick(now);
        self.try_event(connection, |reactor| reactor.on_sent(now, n))
    }

    /// The write side was shut, as [`EngineReactor::on_write_shut`] has it.
    ///
    /// # Errors
    /// As there.
    pub fn on_write_shut(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        progress: Progress,
    ) -> Result<(), Misuse> {
        let now = self.tick(now);
        self.try_event(connection, |reactor| reactor.on_write_shut(now, progress))
    }

    /// The transport failed, or could not be had.
    pub fn on_transport_error(&mut self, now: Timestamp, connection: ConnectionId) {
        let now = self.tick(now);
        self.event(connection, |reactor| reactor.on_transport_error(now));
    }

    /// The transport was closed, as [`Interest::close`] wanted it. The number is not used again.
    pub fn on_closed(&mut self, now: Timestamp, connection: ConnectionId) {
        let now = self.tick(now);
        self.event(connection, |reactor| reactor.on_transport_error(now));
        self.connections.remove(&connection);
        self.ready.retain(|action| !matches!(action, PoolAction::Attend(gone) if *gone == connection));
        self.dispatch();
    }

    /// A deadline has passed.
    pub fn on_timeout(&mut self, now: Timestamp) {
        let now = self.tick(now);
        let is_due = |connection: &&Connection| {
            connection.open && connection.reactor.deadline().is_some_and(|(at, _)| at <= now)
        };
        let due: Vec<_> = self.connections.values().filter(is_due).map(|c| c.reactor.connection()).collect();
        for connection in due {
            self.event(connection, |reactor| reactor.on_timeout(now));
        }
        self.check_health();
        self.dispatch();
    }
}

/// What follows from the state.
impl Pool {
    /// Bytes to send on a connection, in order.
    pub fn outgoing(&self, connection: ConnectionId) -> &[u8] {
        self.open(connection).map_or(&[], |found| found.reactor.outgoing())
    }

    /// What the driver should do with a connection; close it, if the pool does not know it.
    pub fn interest(&self, connection: ConnectionId) -> Interest {
        match self.connections.get(&connection) {
            Some(found) if found.open => found.reactor.interest(),
            Some(found) if !found.over => Interest::default(),
            _ => Interest { close: true, ..Interest::default() },
        }
    }

    /// Until when [`on_timeout`](Self::on_timeout) must be called.
    pub fn deadline(&self) -> Option<Timestamp> {
        let open = self.connections.values().filter(|connection| connection.open);
        let connections = open.filter_map(|connection| connection.reactor.deadline()).map(|(at, _)| at);
        let checks = self.agents.iter().filter_map(|agent| agent.check_at).filter(|_| !self.is_draining());
        // The queue is in the order of asking.
        let queued = self.queue.front().map(|queued| queued.asked);
        let asked = queued.into_iter().chain(self.adrift.iter().map(|sent| sent.asked));
        let processing =
            self.engine.timeouts.message.zip(asked.min()).map(|(timeout, asked)| asked + timeout);
        let drain = self.drain_by.filter(|_| !self.queue.is_empty());
        connections.chain(checks).chain(processing).chain(self.reopen_at()).chain(drain).min()
    }

    /// The reactor of a connection.
    pub fn connection(&self, connection: ConnectionId) -> Option<&EngineReactor> {
        self.connections.get(&connection).map(|found| &found.reactor)
    }

    /// How many connections there are, those without a session included.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Requests that wait for a connection.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Requests that wait for their answers.
    pub fn waiting(&self) -> usize {
        self.connections.values().map(|connection| connection.sent.len()).sum::<usize>() + self.adrift.len()
    }

    /// Connections that have a session and no request.
    pub fn idles(&self) -> usize {
        let idle = |c: &&Connection| c.reactor.phase() == Phase::Established && c.sent.is_empty();
        self.connections.values().filter(idle).count()
    }

    /// How busy it is, as the log has it.
    pub fn load(&self) -> ConnectionCounts {
        ConnectionCounts {
            idles: self.idles(),
            applets: self.connections(),
            sending: self.queued(),
            waiting: self.waiting(),
            errors: self.errors,
            processed: self.processed,
        }
    }

    /// Whether an agent gets requests.
    pub fn is_up(&self, agent: usize) -> bool {
        self.agents.get(agent).is_some_and(|agent| agent.up)
    }

    /// Why connections to an agent are opened with pauses, if they are; `None` once it has answered again.
    pub fn failure(&self, agent: usize) -> Option<&AgentFailure> {
        self.agents.get(agent)?.backoff.last()
    }

    fn open(&self, connection: ConnectionId) -> Option<&Connection> {
        self.connections.get(&connection).filter(|found| found.open)
    }

    /// Whether it takes no more requests.
    pub const fn is_draining(&self) -> bool {
        self.drain_by.is_some()
    }

    fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }
}
