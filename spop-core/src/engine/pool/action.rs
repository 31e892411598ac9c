//! The configuration, the actions and the errors of a pool.

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

/// The configuration of a pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// The configuration of each connection. `timeout processing` begins with [`ask`](super::Pool::ask), so it includes the
    /// time in the queue.
    pub engine: EngineConfig,
    /// The number of agents. They are numbered from 0.
    pub agents: usize,
    /// The limit of connections to one agent. Default 100.
    pub max_connections: usize,
    /// The limit of queued requests, which wait for a connection. Default 10 000.
    pub max_queue: usize,
    /// `maxconnrate`: the limit of connections opened per second. Default unlimited.
    pub max_conn_rate: Option<u32>,
    /// `maxerrrate`: the errors per second at which requests are refused. Default unlimited.
    pub max_err_rate: Option<u32>,
    /// The backoff of an agent whose connection ended before it answered a request: the agent was unreachable, refused the
    /// handshake, disconnected, closed, or violated the protocol. No connection is opened to it meanwhile. The pause doubles
    /// with each consecutive failed attempt, up to [`max_retry_after`](Self::max_retry_after). At least 1 ms. Default
    /// 100 ms. (HAProxy 2.6 reconnects without a pause: 500 to 3600 connections in half a second.)
    ///
    /// A connection that lasted `max_retry_after` or longer is not a failure. After a DISCONNECT with status 0, which a
    /// draining agent sends, the first new attempt begins at once.
    pub retry_after: Duration,
    /// The longest pause between two attempts, and so the longest time until a recovered agent is noticed. At least
    /// `retry_after`. Default 1 s.
    pub max_retry_after: Duration,
    /// The interval of the health checks of each agent, at least 1 ms. Default none: every agent counts as up.
    pub check_every: Option<Duration>,
    /// The number of consecutive passed checks after which an agent is up again. Default 2.
    pub rise: u32,
    /// The number of consecutive failed checks after which an agent is down. Default 3.
    pub fall: u32,
}

impl PoolConfig {
    /// The defaults, for this number of agents.
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

    /// Checks the bounds of all fields.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of its bounds:
    ///
    /// - a field of `engine`, as in [`EngineConfig::checked`];
    /// - `agents`, `max_connections`, `max_queue`, `rise` or `fall` of 0, or `max_conn_rate` or `max_err_rate` of `Some(0)`,
    ///   where `None` is unlimited;
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
    /// The configurations of its connections: for requests, and for health checks.
    pub(super) fn engines(&self) -> (Checked<EngineConfig>, Checked<EngineConfig>) {
        // Checked with the pool's configuration, and the HELLO of a health check is shorter.
        let engine = self.engine.clone();
        let check = EngineConfig { healthcheck: true, ..engine.clone() };
        (Checked::new(engine), Checked::new(check))
    }
}

/// Identifies a request. It is unique in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// Why the pool refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The queue is at [`PoolConfig::max_queue`].
    #[error("too many requests wait for a connection")]
    QueueFull,
    /// The rate of errors is at [`PoolConfig::max_err_rate`] (`maxerrrate`). Skip the event: it does not count as an error.
    #[error("there were too many errors within a second")]
    TooManyErrors,
    /// No agent is up, and no connection is open. HAProxy reports [`EngineError::Resources`] at once.
    #[error("no agent is up")]
    NoAgent,
    /// The pool is draining.
    #[error("the pool is draining")]
    Draining,
}

/// What the driver of a pool must do.
#[must_use = "an action that is dropped leaves requests without their outcome"]
#[non_exhaustive]
pub enum PoolAction {
    /// Connect to this agent, and report the result with [`on_open`](super::Pool::on_open) or
    /// [`on_transport_error`](super::Pool::on_transport_error).
    Open {
        /// The number of the new connection.
        connection: ConnectionId,
        /// The number of the agent.
        agent: usize,
    },
    /// A request was answered.
    Answered {
        /// The request.
        request: RequestId,
        /// The payload of the ACK, see [`actions`](PoolAction::actions).
        payload: Bytes,
        /// The time in the queue, the time to the answer, and the sum of both since [`ask`](super::Pool::ask).
        times: Times,
    },
    /// A request failed.
    Failed {
        /// The request.
        request: RequestId,
        /// Why it failed.
        error: EngineError,
        /// The time in the queue, if it was sent, and the sum since [`ask`](super::Pool::ask).
        times: Times,
    },
    /// The [`interest`](super::Pool::interest) of this connection has changed: write, shut or close it. A connection that
    /// could not be opened is closed too.
    Drive(ConnectionId),
    /// A connection to an agent ended before it answered a request: no other is opened before the failure's `retry_at`.
    /// Log it at a bounded rate.
    Backoff {
        /// The number of the agent.
        agent: usize,
        /// How the connection ended.
        failure: AgentFailure,
    },
    /// The health of an agent has changed.
    Health {
        /// The number of the agent.
        agent: usize,
        /// Whether it gets requests.
        up: bool,
    },
}

/// Shows the length of an answer's payload, not its bytes.
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
            Self::Drive(connection) => f.debug_tuple("Drive").field(connection).finish(),
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
    /// The request whose outcome it is.
    pub(super) const fn request(&self) -> Option<RequestId> {
        match self {
            Self::Answered { request, .. } | Self::Failed { request, .. } => Some(*request),
            _ => None,
        }
    }

    /// The actions of an answer; `None` for any other action.
    pub fn actions(&self) -> Option<AckActions<'_>> {
        match self {
            Self::Answered { payload, .. } => Some(AckActions::lenient(payload)),
            _ => None,
        }
    }
}
