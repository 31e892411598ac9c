//! The connections of one engine: queue, dispatch, backoff, rate limits, health checks.

mod action;
mod backoff;
mod connection;
mod counts;
mod dispatch;
mod health;
mod orphans;
mod queue;
mod rate;
mod ready;
mod table;
#[cfg(test)]
mod tests;

use alloc::{
    boxed::Box,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    vec::Vec,
};

use super::{EngineConfig, EngineReactor};
use crate::{
    ConnectionId, Interest, MessageList, Timestamp,
    config::Checked,
    frame::Ids,
    link::{Layers, Misuse, Progress},
};
pub use action::{AskError, PoolAction, PoolConfig, RequestId};
pub use backoff::AgentFailure;
use backoff::Backoff;
use connection::{Connection, Counts, Kind, Sent};
pub use counts::{ConnectionCounts, Times};
use orphans::{Orphan, Orphans};
use queue::{Queue, Queued};
use rate::Rate;
use ready::Ready;
use table::Table;

/// The connections of one engine to its agents, and the queue of requests.
///
/// It owns the [reactors](EngineReactor) of its connections and has the same inputs, with the number of the connection. From
/// [`on_open`](Self::on_open) on, the driver applies the [`interest`](Self::interest) of each connection as that of a reactor;
/// when it has closed one, it calls [`on_closed`](Self::on_closed). One input may end many requests, so actions are queued:
/// after each input or decision, call [`next_action`](Self::next_action) until it returns `None`.
///
/// A request is queued until a connection accepts it, and fails with
/// [`EngineError::Timeout`](crate::engine::EngineError::Timeout) when its processing timeout ends. A request is sent once: the
/// agent may have acted on it even if no answer came.
///
/// An agent that ends its connections before it has answered a request gets new ones at exponentially growing intervals,
/// see [`PoolConfig::retry_after`]. The first ACK on a new connection ends this backoff. A request whose processing timeout
/// ends meanwhile fails with the status that the agent gave, see [`AgentFailure`].
#[derive(Debug)]
pub struct Pool {
    config: Checked<PoolConfig>,
    engine: Arc<Checked<EngineConfig>>,
    checks: Arc<Checked<EngineConfig>>,
    now: Timestamp,
    connections: Table<Box<Connection>>,
    counts: Counts,
    /// For each connection with a deadline one entry, which is not later.
    alarms: BTreeSet<(Timestamp, ConnectionId)>,
    agents: Vec<Agent>,
    /// Where each request is that has not ended.
    requests: Table<Place>,
    queue: Queue,
    orphans: Orphans,
    /// The requests in flight whose answers may arrive on another connection (`async`).
    sent_ids: BTreeSet<(Ids, ConnectionId)>,
    actions: VecDeque<PoolAction>,
    opened: Rate,
    failed: Rate,
    errors: u64,
    processed: u64,
    next_stream: u64,
    /// The agent that is preferred among equals (round robin).
    next_agent: usize,
    /// While draining: when the queued requests fail.
    drain_by: Option<Timestamp>,
    /// While draining: the queue is empty, and connections end as well.
    ends_connections: bool,
}

/// Where a request is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Queue,
    Connection(ConnectionId),
    Orphan(Orphan),
}

#[derive(Debug)]
struct Agent {
    up: bool,
    /// The number of consecutive checks whose result differs from `up`.
    contrary: u32,
    backoff: Backoff,
    check_at: Option<Timestamp>,
    /// A health check is running.
    checking: bool,
    /// The number of its connections, health checks aside.
    connections: usize,
    ready: Ready,
}

/// Decisions of the application.
impl Pool {
    /// A pool without connections.
    pub fn new(config: Checked<PoolConfig>, now: Timestamp) -> Self {
        let check_at = config.check_every.map(|_| now);
        let agent = || Agent {
            up: true,
            contrary: 0,
            backoff: Backoff::new(&config, now),
            check_at,
            checking: false,
            connections: 0,
            ready: Ready::default(),
        };
        let (engine, checks) = config.engines();
        Self {
            engine: Arc::new(engine),
            checks: Arc::new(checks),
            now,
            connections: Table::new(),
            counts: Counts::default(),
            alarms: BTreeSet::new(),
            agents: (0..config.agents).map(|_| agent()).collect(),
            requests: Table::new(),
            queue: Queue::default(),
            orphans: Orphans::default(),
            sent_ids: BTreeSet::new(),
            actions: VecDeque::new(),
            opened: Rate::default(),
            failed: Rate::default(),
            errors: 0,
            processed: 0,
            next_stream: 0,
            next_agent: 0,
            drain_by: None,
            ends_connections: false,
            config,
        }
    }

    /// Sends a request, as soon as a connection accepts it. `ids` are the stream's, if the
    /// [profile](super::Profile::stream_ids) lets the caller number requests; `None` takes the pool's next stream.
    ///
    /// # Errors
    /// [`AskError`] if the pool refuses it.
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
        if self.counts.serving == 0 && !self.agents.iter().any(|agent| agent.up) {
            return Err(AskError::NoAgent);
        }
        if self.queue.len() >= self.config.max_queue {
            return Err(AskError::QueueFull);
        }
        let request = RequestId(self.requests.insert_with(|_| Place::Queue));
        // Without a queue it is sent from where it is.
        if self.queue.is_empty()
            && let Some(id) = self.choose()
            && self.send(id, request, ids, messages.as_bytes(), now)
        {
            self.attend(id);
            return Ok(request);
        }
        self.queue.push_back(Queued { request, ids, payload: messages.as_bytes().to_vec(), asked: now });
        self.dispatch();
        Ok(request)
    }

    /// Withdraws a request: no action is returned for it, and it is not sent if it was queued. If it was sent, it counts as
    /// in flight on its connection until its answer arrives or its processing timeout ends.
    pub fn withdraw(&mut self, now: Timestamp, request: RequestId) {
        self.tick(now);
        let sent = match self.requests.remove(request.0) {
            // It may have ended, with the action not returned yet.
            None => {
                self.actions.retain(|action| action.request() != Some(request));
                return;
            }
            Some(Place::Queue) => {
                self.queue.withdraw(request);
                None
            }
            Some(Place::Connection(id)) => {
                let sent = self.connections.get_mut(id.0).map(|connection| &mut connection.sent);
                sent.and_then(|sent| sent.iter_mut().find(|sent| sent.request == Some(request)))
            }
            Some(Place::Orphan(orphan)) => self.orphans.get_mut(orphan),
        };
        if let Some(sent) = sent {
            sent.request = None;
        }
        self.processed += 1;
        self.dispatch();
    }

    /// Accepts no more requests, and ends each connection once no request is in flight on it. Requests that are not answered
    /// within the drain timeout fail.
    pub fn drain(&mut self, now: Timestamp) {
        let now = self.tick(now);
        let by = now + self.engine.timeouts.drain;
        self.drain_by = Some(self.drain_by.map_or(by, |earlier| earlier.min(by)));
        self.dispatch();
    }

    /// The next action. Call it after each input or decision, until it returns `None`.
    pub fn next_action(&mut self) -> Option<PoolAction> {
        loop {
            let action = self.actions.pop_front()?;
            let PoolAction::Drive(id) = action else { return Some(action) };
            // A connection may have gone since.
            if let Some(connection) = self.connections.get_mut(id.0) {
                connection.driven = false;
                return Some(action);
            }
        }
    }
}

/// Inputs: something happened. Inputs for a connection that the pool has removed are ignored.
impl Pool {
    /// The transport of a connection that [`PoolAction::Open`] asked for is connected.
    pub fn on_open(&mut self, now: Timestamp, connection: ConnectionId) {
        self.on_open_with(now, connection, Layers::Plain);
    }

    /// As [`on_open`](Self::on_open), with the layers that are shut one after the other.
    pub fn on_open_with(&mut self, now: Timestamp, connection: ConnectionId, layers: Layers) {
        let now = self.tick(now);
        if let Some(found) = self.connections.get_mut(connection.0) {
            let config = if found.kind == Kind::HealthCheck { &self.checks } else { &self.engine };
            // The hello timeout begins now, not when the transport began to connect.
            found.reactor = EngineReactor::new(Arc::clone(config), connection, now).with_layers(layers);
            found.open = true;
            self.update(connection);
            self.drive(connection);
        }
    }

    /// Processes received bytes. `input` is the unused rest of this connection's earlier input, followed by what was read since.
    /// Returns the number of bytes that were used; the rest must begin the next input.
    pub fn on_bytes(&mut self, now: Timestamp, connection: ConnectionId, input: &[u8]) -> usize {
        let now = self.tick(now);
        self.input(connection, input, |reactor, input| reactor.on_bytes(now, input))
    }

    /// The input has ended: the agent sends no more. Returns the number of bytes that were used.
    pub fn on_input_eof(&mut self, now: Timestamp, connection: ConnectionId, input: &[u8]) -> usize {
        let now = self.tick(now);
        self.input(connection, input, |reactor, input| reactor.on_input_eof(now, input))
    }

    /// The transport has accepted the first `n` outgoing bytes.
    ///
    /// # Errors
    /// As [`EngineReactor::on_sent`].
    pub fn on_sent(&mut self, now: Timestamp, connection: ConnectionId, n: usize) -> Result<(), Misuse> {
        let now = self.tick(now);
        self.try_event(connection, |reactor| reactor.on_sent(now, n))
    }

    /// Reports progress in shutting the write side.
    ///
    /// # Errors
    /// As [`EngineReactor::on_write_shut`].
    pub fn on_write_shut(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        progress: Progress,
    ) -> Result<(), Misuse> {
        let now = self.tick(now);
        self.try_event(connection, |reactor| reactor.on_write_shut(now, progress))
    }

    /// The transport failed, or could not be connected.
    pub fn on_transport_error(&mut self, now: Timestamp, connection: ConnectionId) {
        let now = self.tick(now);
        self.event(connection, |reactor| reactor.on_transport_error(now));
    }

    /// The transport was closed, as [`Interest::close`] asked for. The number is not used again.
    pub fn on_closed(&mut self, now: Timestamp, connection: ConnectionId) {
        let now = self.tick(now);
        self.event(connection, |reactor| reactor.on_transport_error(now));
        self.remove(connection);
        self.dispatch();
    }

    /// A deadline has passed.
    pub fn on_timeout(&mut self, now: Timestamp) {
        let now = self.tick(now);
        let due: Vec<_> = core::iter::from_fn(|| self.take_alarm()).collect();
        for connection in due {
            // Does nothing before the deadline, and sets the alarm again.
            self.event(connection, |reactor| reactor.on_timeout(now));
        }
        self.check_health();
        self.dispatch();
    }
}

/// The state, level-triggered.
impl Pool {
    /// The bytes to write next on a connection.
    pub fn outgoing(&self, connection: ConnectionId) -> &[u8] {
        self.open(connection).map_or(&[], |found| found.reactor.outgoing())
    }

    /// What the driver should do with a connection. `close`, if the pool has removed it.
    pub fn interest(&self, connection: ConnectionId) -> Interest {
        match self.connections.get(connection.0) {
            Some(found) if found.open => found.reactor.interest(),
            Some(found) if !found.ended => Interest::default(),
            _ => Interest { close: true, ..Interest::default() },
        }
    }

    /// When [`on_timeout`](Self::on_timeout) must be called. It may lie before the earliest deadline of a connection, since that
    /// moves with every frame.
    pub fn deadline(&self) -> Option<Timestamp> {
        let connections = self.alarms.first().map(|(at, _)| *at).into_iter();
        let checks = self.agents.iter().filter_map(|agent| agent.check_at).filter(|_| !self.is_draining());
        // The queue is ordered by the time of `ask`.
        let queued = self.queue.front().map(|queued| queued.asked);
        let asked = queued.into_iter().chain(self.orphans.oldest());
        let processing =
            self.engine.timeouts.message.zip(asked.min()).map(|(timeout, asked)| asked + timeout);
        let drain = self.drain_by.filter(|_| !self.queue.is_empty());
        connections.chain(checks).chain(processing).chain(self.reopen_at()).chain(drain).min()
    }

    /// The reactor of a connection.
    pub fn connection(&self, connection: ConnectionId) -> Option<&EngineReactor> {
        self.connections.get(connection.0).map(|found| &found.reactor)
    }

    /// The number of connections, those without a session included.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The number of queued requests.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The number of requests in flight, orphaned ones included.
    pub fn waiting(&self) -> usize {
        self.counts.waiting + self.orphans.len()
    }

    /// The number of connections with a session and no request in flight.
    pub fn idles(&self) -> usize {
        self.counts.idle
    }

    /// The counts of connections and requests, as HAProxy logs them.
    pub fn counts(&self) -> ConnectionCounts {
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

    /// The failure that began or extended the backoff of an agent; `None` if it is not in a backoff.
    pub fn failure(&self, agent: usize) -> Option<&AgentFailure> {
        self.agents.get(agent)?.backoff.last()
    }

    fn open(&self, connection: ConnectionId) -> Option<&Connection> {
        self.connections.get(connection.0).map(Box::as_ref).filter(|found| found.open)
    }

    /// Whether [`drain`](Self::drain) was called.
    pub const fn is_draining(&self) -> bool {
        self.drain_by.is_some()
    }

    fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }
}
