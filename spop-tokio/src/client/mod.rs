//! The engine client: HAProxy's side of the protocol.

mod answer;
mod connection;
mod shared;
mod target;

use std::{fmt, io, sync::Arc, time::Duration};

use spop_core::{
    EngineConfig, MessageList,
    accept::{OpenConfig, ProxyVersion},
    engine::{
        EngineError,
        pool::{AgentFailure, PoolConfig},
    },
    frame::Ids,
};

pub use answer::Answer;
use shared::{Parts, Shared, timer};
pub use target::Target;

#[cfg(feature = "tls")]
use crate::tls::ClientTls;

/// Asks agents, as HAProxy does: for tests, load generators, health checks and other proxies.
///
/// ```no_run
/// use std::net::Ipv4Addr;
/// use spop_tokio::{Engine, EngineConfig, MessageList, Scope};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::new(EngineConfig::default()).agent("127.0.0.1:12345").agent("/run/agent.sock").start()?;
///
/// let mut messages = MessageList::new();
/// messages.message("get-ip-reputation").arg("ip", Ipv4Addr::new(203, 0, 113, 7));
/// match engine.notify(&messages).await {
///     Ok(answer) => println!("score: {:?}", answer.var(Scope::Session, "ip_score")),
///     Err(error) => println!("no answer: {error}"),
/// }
/// engine.drain().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an engine asks nothing before `start`"]
pub struct Engine {
    pool: PoolConfig,
    open: OpenConfig,
    #[cfg(feature = "tls")]
    tls: Option<ClientTls>,
    agents: Vec<Target>,
}

impl Engine {
    /// An engine whose connections are like this, without an agent yet.
    pub fn new(config: EngineConfig) -> Self {
        Self::with_pool(PoolConfig::new(config, 0))
    }

    /// As [`new`](Self::new), with all that a pool of connections can be told: limits, rates, health checks. The number of
    /// agents follows from [`agent`](Self::agent).
    pub fn with_pool(pool: PoolConfig) -> Self {
        Self {
            pool,
            open: OpenConfig::default(),
            #[cfg(feature = "tls")]
            tls: None,
            agents: Vec::new(),
        }
    }

    /// Asks this agent too. The agents share the load, and are known by their numbers, from 0.
    pub fn agent(mut self, target: impl Into<Target>) -> Self {
        self.agents.push(target.into());
        self
    }

    /// Sends a PROXY header before each session.
    pub const fn proxy(mut self, version: ProxyVersion) -> Self {
        self.open.proxy = Some(version);
        self
    }

    /// Talks TLS with the agents, after the PROXY header. Each must have a certificate in the name of its host, or in that
    /// of [`ClientTls::server_name`].
    ///
    /// ```no_run
    /// use spop_tokio::{Engine, EngineConfig, tls::{ClientTls, ClientTlsFiles}};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let tls = ClientTls::from_files(ClientTlsFiles::new("agents-ca.crt").certificate("engine.crt", "engine.key"))?;
    /// let engine = Engine::new(EngineConfig::default()).agent("agent.example:12345").tls(&tls);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &ClientTls) -> Self {
        self.tls = Some(tls.clone());
        self.open.tls = true;
        self
    }

    /// How long connecting may take, PROXY header and TLS included. Default 5 s.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.open.timeout = timeout;
        self
    }

    /// Begins. Connections are opened when there is something to ask, and kept.
    ///
    /// # Errors
    /// An agent's address is not in the format of [`ParsedAddress`](crate::ParsedAddress), the configuration cannot work
    /// (of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), with the
    /// [`ConfigError`](spop_core::config::ConfigError) inside), or there is no tokio runtime, on which the connections live.
    pub fn start(mut self) -> io::Result<EngineClient> {
        self.agents.iter().try_for_each(Target::check)?;
        self.pool.agents = self.agents.len();
        let (pool, open) = (self.pool.checked()?, self.open.checked()?);
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let parts = Parts {
            pool,
            open,
            #[cfg(feature = "tls")]
            tls: self.tls,
            agents: self.agents,
        };
        let shared = Arc::new(Shared::new(parts, runtime.clone()));
        let timer = runtime.spawn(timer(Arc::clone(&shared)));
        shared.started(timer.abort_handle());
        Ok(EngineClient { owner: Arc::new(Owner(shared)) })
    }
}

/// A running [`Engine`]. Its copies are the same engine; when the last is dropped, the engine is drained.
#[derive(Clone)]
pub struct EngineClient {
    owner: Arc<Owner>,
}

struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.drain();
    }
}

impl fmt::Debug for EngineClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineClient").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl EngineClient {
    /// Asks an agent, from any task and beside any number of others. A future that is dropped gives the request up: it is
    /// not sent any more if it was not yet.
    ///
    /// `timeouts.message` of the configuration (`timeout processing`) bounds the whole of it, the wait for a connection
    /// included.
    ///
    /// # Errors
    /// The errors that HAProxy sets in the variable of `option set-on-error`, see [`EngineError::code`]: the request timed out, the
    /// payload does not fit, the agent refused it, or disconnected. A request that timed out in the queue of an agent that ends each
    /// connection fails with the status of that end, see [`failure`](Self::failure). A full queue, too many errors or no agent that is
    /// up is [`Resources`](EngineError::Resources); an engine that is drained or stopped returns
    /// [`Interrupted`](EngineError::Interrupted).
    pub async fn notify(&self, messages: &MessageList) -> Result<Answer, EngineError> {
        self.owner.0.ask(None, messages).await
    }

    /// As [`notify`](Self::notify), for a stream that the caller numbers. Engines with
    /// [`StreamIds::Odd`](spop_core::engine::StreamIds::Odd) number their own.
    ///
    /// # Errors
    /// As [`notify`](Self::notify).
    pub async fn notify_as(&self, ids: Ids, messages: &MessageList) -> Result<Answer, EngineError> {
        self.owner.0.ask(Some(ids), messages).await
    }

    /// Ends the engine gracefully: nothing more is asked, each connection ends when nothing waits on it, and this returns
    /// when the last has ended. What waits longer than `timeouts.drain` fails.
    pub async fn drain(&self) {
        self.owner.0.drain();
        self.owner.0.ended().await;
    }

    /// Ends the engine at once. What waits fails with [`Interrupted`](EngineError::Interrupted).
    pub fn stop(&self) {
        self.owner.0.stop();
    }

    /// Whether an agent gets requests: false while its health checks say that it is down.
    pub fn is_up(&self, agent: usize) -> bool {
        self.owner.0.is_up(agent)
    }

    /// Why connections to an agent are opened with pauses, if they are: what ended the last one before it had answered a
    /// request. `None` once the agent has answered again, or if it is not known.
    ///
    /// While it is `Some`, [`notify`](Self::notify) fails with [`AgentFailure::error`] when its time is up; the message of the
    /// agent's DISCONNECT is in [`AgentFailure::reason`].
    pub fn failure(&self, agent: usize) -> Option<AgentFailure> {
        self.owner.0.failure(agent)
    }

    /// Its numbers: those of the moment, and those since it was started.
    pub fn stats(&self) -> EngineStats {
        self.owner.0.stats()
    }
}

/// The numbers of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Connections, those that are being opened included.
    pub connections: usize,
    /// Those of them on which nothing waits.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub queued: usize,
    /// Requests that wait for their answers.
    pub waiting: usize,
    /// Requests so far. Each is in the end answered, failed or withdrawn.
    pub asked: u64,
    /// Those of them that were answered.
    pub answered: u64,
    /// Those of them that failed, by error.
    pub failed: EngineFailures,
    /// Those of them whose future was dropped.
    pub withdrawn: u64,
    /// Connections that were opened so far.
    pub connects: u64,
    /// Connections that could not be opened: the event `agent_unreachable` has the reason.
    pub failed_connects: u64,
    /// Connections that were opened and have ended, for whatever reason.
    pub disconnects: u64,
}

/// The requests of an engine that failed, by [`EngineError`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineFailures {
    /// [`EngineError::Timeout`].
    pub timeout: u64,
    /// [`EngineError::Resources`].
    pub resources: u64,
    /// [`EngineError::TooBig`].
    pub too_big: u64,
    /// [`EngineError::Aborted`].
    pub aborted: u64,
    /// [`EngineError::Interrupted`].
    pub interrupted: u64,
    /// [`EngineError::Unreachable`].
    pub unreachable: u64,
    /// [`EngineError::Spop`], with any status.
    pub disconnected: u64,
    /// Any other.
    pub other: u64,
}

impl EngineFailures {
    fn count(&mut self, error: EngineError) {
        let count = match error {
            EngineError::Timeout => &mut self.timeout,
            EngineError::Resources => &mut self.resources,
            EngineError::TooBig => &mut self.too_big,
            EngineError::Aborted => &mut self.aborted,
            EngineError::Interrupted => &mut self.interrupted,
            EngineError::Unreachable => &mut self.unreachable,
            EngineError::Spop(_) => &mut self.disconnected,
            _ => &mut self.other,
        };
        *count += 1;
    }

    /// All together.
    pub const fn total(&self) -> u64 {
        let Self { timeout, resources, too_big, aborted, interrupted, unreachable, disconnected, other } =
            *self;
        timeout + resources + too_big + aborted + interrupted + unreachable + disconnected + other
    }
}
