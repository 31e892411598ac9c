//! What a pool is told once, what it says is to be done, and what it does not take.

use alloc::format;
use core::{fmt, time::Duration};

use bytes::Bytes;

use super::AgentFailure;
use crate::{
    ConnectionId,
    config::{Checked, ConfigError, at_least, lasts},
    engine::{EngineConfig, EngineError, pool::Times},
    frame::AckActions,
};

/// What a pool does with its connections.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// What each connection is. `timeout processing` counts from [`ask`](super::Pool::ask), and time in the queue is part of it.
    pub engine: EngineConfig,
    /// How many agents there are. They are known by their numbers, from 0.
    pub agents: usize,
    /// Connections to one agent. Default 100.
    pub max_connections: usize,
    /// Requests that wait for a connection; one more is refused. Default 10 000.
    pub max_queue: usize,
    /// `maxconnrate`: connections opened in a second. Default unlimited.
    pub max_conn_rate: Option<u32>,
    /// `maxerrrate`: errors in a second, at which nothing more is asked. Default unlimited.
    pub max_err_rate: Option<u32>,
    /// How long no connection is opened to an agent after one ended before it answered a request: it could not be reached,
    /// refused the handshake, or disconnected, closed or broke the protocol after it. The pause doubles with each further
    /// attempt that ends like this, up to [`max_retry_after`](Self::max_retry_after). 1 ms at least. HAProxy 2.6 comes back
    /// at once, in a storm. Default 100 ms.
    ///
    /// Not a failure is a connection that lived for `max_retry_after` after its handshake. After a DISCONNECT with status 0,
    /// which a draining agent sends, the first new attempt begins at once.
    pub retry_after: Duration,
    /// The longest pause between two attempts, and so how long after an agent's return it is noticed. As long as `retry_after`
    /// at least. Default 1 s.
    pub max_retry_after: Duration,
    /// How often each agent's health is checked, 1 ms apart at least. Default never, and every agent counts as well.
    pub check_every: Option<Duration>,
    /// After how many good checks an agent that was down is up. Default 2.
    pub rise: u32,
    /// After how many bad checks an agent that was up is down. Default 3.
    pub fall: u32,
}

impl PoolConfig {
    /// Connections like this to so many agents.
    pub fn new(engine: EngineConfig, agents: usize) -> Self {
        Self {
            engine,
            agents,
            max_connections: 100,
            max_queue: 10_000,
            max_conn_rate: None,
            max_err_rate: None,
            retry_after: Duration::from_millis(100),
            max_retry_after: Duration::from_secs(1),
            check_every: None,
            rise: 2,
            fall: 3,
        }
    }

    /// Checks that it can work.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of its bounds:
    ///
    /// - what [`EngineConfig::checked`] refuses in `engine`;
    /// - a number of 0: there is no agent, no connection, nothing can wait, `rise` or `fall`, and no connection or no error
    ///   in a second, where `None` is unlimited;
    /// - `retry_after` or `check_every` below 1 ms, or `max_retry_after` below `retry_after`.
    pub fn checked(self) -> Result<Checked<Self>, ConfigError> {
        self.engine.check().map_err(|error| error.within("engine"))?;
        at_least("agents", self.agents, 1)?;
        at_least("max_connections", self.max_connections, 1)?;
        at_least("max_queue", self.max_queue, 1)?;
        for (field, rate) in [("max_conn_rate", self.max_conn_rate), ("max_err_rate", self.max_err_rate)] {
            if rate == Some(0) {
                return Err(ConfigError::new(field, 0, "at least 1; `None` is unlimited"));
            }
        }
        let shortest = Duration::from_millis(1);
        lasts("retry_after", self.retry_after, shortest)?;
        if self.max_retry_after < self.retry_after {
            let bound = format!("at least the {:?} of `retry_after`", self.retry_after);
            return Err(ConfigError::new(
                "max_retry_after",
                format_args!("{:?}", self.max_retry_after),
                bound,
            ));
        }
        lasts("check_every", self.check_every.unwrap_or(Duration::MAX), shortest)?;
        at_least("rise", self.rise, 1)?;
        at_least("fall", self.fall, 1)?;
        Ok(Checked::new(self))
    }
}

impl Checked<PoolConfig> {
    /// What its connections are, those that ask and those that only check an agent's health.
    pub(super) fn engines(&self) -> (Checked<EngineConfig>, Checked<EngineConfig>) {
        // It was checked with the pool's, and a health check's HELLO is shorter.
        let engine = self.engine.clone();
        let check = EngineConfig { healthcheck: true, ..engine.clone() };
        (Checked::new(engine), Checked::new(check))
    }
}

/// Names a request for as long as the pool lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// A request that the pool does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Too many requests wait already.
    #[error("too many requests wait for a connection")]
    QueueFull,
    /// There were too many errors within a second (`maxerrrate`). The event is skipped, and this is no error of its own.
    #[error("there were too many errors within a second")]
    TooManyErrors,
    /// No agent is up, and no connection is left: [`EngineError::Resources`] at once, as with HAProxy.
    #[error("no agent is up")]
    NoAgent,
    /// The pool is drained.
    #[error("the pool is drained")]
    Draining,
}

/// What is to be done for a pool.
#[must_use = "an action that is not carried out leaves requests without their end"]
#[non_exhaustive]
pub enum PoolAction {
    /// Connect to this agent, and say what came of it with [`on_open`](super::Pool::on_open) or
    /// [`on_transport_error`](super::Pool::on_transport_error).
    Open {
        /// The number that the connection has from now on.
        connection: ConnectionId,
        /// The agent's.
        agent: usize,
    },
    /// A request was answered.
    Answered {
        /// Which one.
        request: RequestId,
        /// The payload of the ACK, see [`actions`](PoolAction::actions).
        payload: Bytes,
        /// Where the time went: in the queue, to the answer, and both together since [`ask`](super::Pool::ask).
        times: Times,
    },
    /// A request failed.
    Failed {
        /// Which one.
        request: RequestId,
        /// Why.
        error: EngineError,
        /// Where the time went.
        times: Times,
    },
    /// Look at this connection's [`interest`](super::Pool::interest): there is something to be sent, shut or closed.
    Attend(ConnectionId),
    /// A connection to an agent ended before it answered a request: no other is opened before the failure's `retry_at`.
    /// Worth a line in the log, at a bounded rate.
    Backoff {
        /// The agent's number.
        agent: usize,
        /// What happened.
        failure: AgentFailure,
    },
    /// An agent's health has changed.
    Health {
        /// The agent's number.
        agent: usize,
        /// Whether it gets requests.
        up: bool,
    },
}

/// The length only of an answer's payload; [`actions`](PoolAction::actions) show themselves.
impl fmt::Debug for PoolAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { connection, agent } => {
                f.debug_struct("Open").field("connection", connection).field("agent", agent).finish()
            }
            Self::Answered { request, payload, times } => {
                let mut answered = f.debug_struct("Answered");
                answered.field("request", request).field("len", &payload.len()).field("times", times).finish()
            }
            Self::Failed { request, error, times } => {
                let mut failed = f.debug_struct("Failed");
                failed.field("request", request).field("error", error).field("times", times).finish()
            }
            Self::Attend(connection) => f.debug_tuple("Attend").field(connection).finish(),
            Self::Backoff { agent, failure } => {
                f.debug_struct("Backoff").field("agent", agent).field("failure", failure).finish()
            }
            Self::Health { agent, up } => {
                f.debug_struct("Health").field("agent", agent).field("up", up).finish()
            }
        }
    }
}

impl PoolAction {
    /// The request that it ends.
    pub(super) const fn request(&self) -> Option<RequestId> {
        match self {
            Self::Answered { request, .. } | Self::Failed { request, .. } => Some(*request),
            _ => None,
        }
    }

    /// The actions of an answer.
    pub fn actions(&self) -> Option<AckActions<'_>> {
        match self {
            Self::Answered { payload, .. } => Some(AckActions::lenient(payload)),
            _ => None,
        }
    }
}
