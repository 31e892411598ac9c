//! A pool and its agents, over connections without latency.

use alloc::{collections::BTreeMap, vec};
use core::time::Duration;

use super::*;
use crate::{
    Action, Actions, AgentConfig, AgentReactor, Scope, Status, Ticket, engine::pool::Times,
    frame::Capabilities, link::Phase, testing::Inbox,
};

mod backoff;
#[cfg(feature = "std")]
mod scale;
mod scenes;
mod storm;
mod times;

/// An agent that ends each connection before it answers a request.
#[derive(Clone)]
struct Refusal {
    /// The answer to the HAPROXY-HELLO.
    hello: Vec<u8>,
    /// The bytes behind it; then the agent closes.
    ending: Vec<u8>,
    /// The end follows the first NOTIFY instead of the AGENT-HELLO.
    after_notify: bool,
}

impl Refusal {
    /// The handshake fails: the agent disconnects with status 8.
    fn of_handshake() -> Self {
        Self::with("", "AGENT-DISCONNECT fin 0 0 status-code=uint32:8 message=string:no")
    }

    fn with(hello: &str, ending: &str) -> Self {
        let bytes = |line: &str| {
            if line.is_empty() { vec![] } else { crate::notation::parse_bytes(line).unwrap() }
        };
        Self { hello: bytes(hello), ending: bytes(ending), after_notify: false }
    }
}

/// A pool, its agents, and the actions of the pool.
struct World {
    pool: Pool,
    /// `None` cannot be reached.
    agents: Vec<Option<AgentConfig>>,
    connections: BTreeMap<ConnectionId, (usize, AgentReactor, Inbox)>,
    tickets: Vec<Ticket>,
    answers: bool,
    /// No agent answers a request.
    refusal: Option<Refusal>,
    opened: Vec<usize>,
    ended: Vec<(RequestId, u32)>,
    times: Vec<Times>,
    failures: Vec<AgentFailure>,
    health: Vec<(usize, bool)>,
    now: Timestamp,
}

impl World {
    fn new(config: PoolConfig) -> Self {
        Self {
            agents: vec![Some(AgentConfig::default()); config.agents],
            pool: Pool::new(config.checked().unwrap(), Timestamp::ZERO),
            connections: BTreeMap::new(),
            tickets: vec![],
            answers: true,
            refusal: None,
            opened: vec![],
            ended: vec![],
            times: vec![],
            failures: vec![],
            health: vec![],
            now: Timestamp::ZERO,
        }
    }

    fn ask(&mut self) -> Result<RequestId, AskError> {
        let mut list = MessageList::new();
        list.message("m");
        let asked = self.pool.ask(self.now, None, &list);
        self.work();
        asked
    }

    fn wait(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        while let Some(at) = self.pool.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.pool.on_timeout(self.now);
            assert!(self.pool.deadline().is_none_or(|next| next > at), "{at} comes again");
            self.work();
        }
        self.now = until;
    }

    fn work(&mut self) {
        while let Some(action) = self.pool.next_action() {
            match action {
                PoolAction::Open { connection, agent } => {
                    self.opened.push(agent);
                    assert!(self.opened.len() <= 10_000, "connections are opened in a storm, {}", self.now);
                    if let Some(config) = self.agents[agent].clone() {
                        let reactor =
                            AgentReactor::new(Arc::new(config.checked().unwrap()), connection, self.now);
                        self.connections.insert(connection, (agent, reactor, Inbox::new()));
                        self.pool.on_open(self.now, connection);
                    } else {
                        self.pool.on_transport_error(self.now, connection);
                    }
                }
                PoolAction::Drive(connection) => self.attend(connection),
                PoolAction::Answered { request, times, .. } => self.end(request, 0, times),
                PoolAction::Failed { request, error, times } => self.end(request, error.code(), times),
                PoolAction::Backoff { failure, .. } => self.failures.push(failure),
                PoolAction::Health { agent, up } => self.health.push((agent, up)),
            }
        }
    }

    fn end(&mut self, request: RequestId, code: u32, times: Times) {
        self.ended.push((request, code));
        self.times.push(times);
    }

    fn attend(&mut self, id: ConnectionId) {
        let interest = self.pool.interest(id);
        if interest.write {
            let bytes = self.pool.outgoing(id).to_vec();
            self.pool.on_sent(self.now, id, bytes.len()).unwrap();
            let Some((_, agent, inbox)) = self.connections.get_mut(&id) else { return };
            inbox.extend_from_slice(&bytes);
            if let Some(refusal) = &self.refusal {
                let greets = agent.phase() == Phase::Connected;
                let _ = inbox.feed(|input| agent.on_bytes(self.now, input));
                let mut bytes = vec![];
                if greets {
                    bytes.extend_from_slice(&refusal.hello);
                }
                let ends = greets != refusal.after_notify;
                if ends {
                    bytes.extend_from_slice(&refusal.ending);
                }
                let used = self.pool.on_bytes(self.now, id, &bytes);
                if ends {
                    self.pool.on_input_eof(self.now, id, &bytes[used..]);
                }
                return;
            }
            loop {
                match inbox.feed(|input| agent.on_bytes(self.now, input)) {
                    Action::RunMessages(notify) if self.answers => {
                        agent.acknowledge(self.now, notify.ticket, &Actions::new()).unwrap();
                    }
                    Action::RunMessages(notify) => self.tickets.push(notify.ticket),
                    Action::SendFrames | Action::WantBytes { .. } | Action::Paused | Action::Close(_) => {
                        break;
                    }
                    _ => {}
                }
            }
            self.flush(id);
        } else if interest.shut.is_some() {
            self.pool.on_write_shut(self.now, id, Progress::Done).unwrap();
        } else if interest.close {
            self.connections.remove(&id);
            self.pool.on_closed(self.now, id);
        }
    }

    /// Delivers the outgoing bytes of an agent.
    fn flush(&mut self, id: ConnectionId) {
        let Some((_, agent, _)) = self.connections.get_mut(&id) else { return };
        let bytes = agent.outgoing().to_vec();
        let _ = agent.on_sent(self.now, bytes.len());
        if !bytes.is_empty() {
            self.pool.on_bytes(self.now, id, &bytes);
        }
    }

    /// Answers the oldest request of an agent.
    fn answer(&mut self) {
        let ticket = self.tickets.remove(0);
        let id = ticket.connection();
        let (_, agent, _) = self.connections.get_mut(&id).unwrap();
        agent.acknowledge(self.now, ticket, &Actions::new()).unwrap();
        self.flush(id);
        self.work();
    }

    /// Answers one request of an agent, if possible, even if its connection has ended.
    fn answer_any(&mut self, index: usize) {
        if index >= self.tickets.len() {
            return;
        }
        let ticket = self.tickets.swap_remove(index);
        let (id, ids) = (ticket.connection(), ticket.ids());
        if let Some((_, agent, _)) = self.connections.get_mut(&id) {
            let _ = agent.acknowledge(self.now, ticket, &Actions::new());
            self.flush(id);
        } else if let Some(other) = self.connections.keys().next().copied() {
            let line = alloc::format!("ACK fin {} {}", ids.stream, ids.frame);
            let bytes = crate::notation::parse_bytes(&line).unwrap();
            self.pool.on_bytes(self.now, other, &bytes);
        }
        self.work();
    }

    fn codes(&self) -> Vec<u32> {
        self.ended.iter().map(|(_, code)| *code).collect()
    }

    fn disconnect(&mut self, id: ConnectionId) {
        let (_, agent, _) = self.connections.get_mut(&id).unwrap();
        agent.disconnect(self.now, Status(7), "enough");
        self.flush(id);
        self.work();
    }
}

fn config(agents: usize) -> PoolConfig {
    let mut engine = EngineConfig::haproxy_2_6();
    engine.timeouts.message = Some(Duration::from_secs(1));
    engine.timeouts.hello = Some(Duration::from_secs(1));
    engine.engine_id = Some("an-id".into());
    PoolConfig::new(engine, agents)
}
