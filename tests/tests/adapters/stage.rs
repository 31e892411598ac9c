//! Where a scenario plays: one adapter, one kind of connection, and servers as the scenario wants them.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use spop_core::accept::AcceptConfig;
use spop_server::tls::{Tls, TlsFiles};
use spop_server::{ConnectionInfo, ServerConfig, Stats};
use spop_tests::peer::{Authority, Identity, Peer, trusting};
use spop_tests::stage::{Failures, Verdict};
use tempfile::TempDir;

use super::script::Gate;

/// Far longer than a scenario takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A crate that makes servers.
pub(crate) trait Adapter: Sync {
    /// The kinds of connections that its servers have.
    fn over(&self) -> &'static [Over] {
        ALL
    }

    /// Whether a handler that blocks its thread holds up other connections.
    fn shares_threads(&self) -> bool {
        true
    }

    /// Starts a server in this process.
    fn start(&self, plan: Plan) -> Result<Box<dyn Running>>;
}

/// A server in this process; stopped when it is dropped.
pub(crate) trait Running {
    /// Where it listens, as a peer takes it.
    fn address(&self) -> String;
    fn drain(&self);
    fn stop(&self);
    /// Waits for the end.
    fn wait(&mut self) -> Result<()>;
    fn stats(&self) -> Stats;
    fn connections(&self) -> Vec<ConnectionInfo>;
    /// Replaces the handler by one that says this generation.
    fn swap(&self, generation: u64);
}

/// What a server is to be.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) config: ServerConfig,
    pub(crate) accept: AcceptConfig,
    /// A unix socket, instead of a TCP port.
    pub(crate) path: Option<PathBuf>,
    pub(crate) tls: Option<Tls>,
    /// Threads; two unless given.
    pub(crate) workers: Option<usize>,
    pub(crate) gate: Gate,
}

/// What connections are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Unix,
    Tls,
}

/// Whatever is not about sockets holds on all.
pub(crate) const ALL: &[Over] = &[Over::Tcp, Over::Unix, Over::Tls];

/// The authorities of all scenarios, and a certificate of each.
pub(crate) struct Certificates {
    pub(crate) agents: Authority,
    pub(crate) clients: Authority,
    pub(crate) agent: Identity,
    pub(crate) client: Identity,
}

pub(crate) fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let (agents, clients) = (Authority::new("agents").unwrap(), Authority::new("clients").unwrap());
        let (agent, client) = (agents.sign().unwrap(), clients.sign().unwrap());
        Certificates { agents, clients, agent, client }
    })
}

/// Plays a scenario over each kind of connection, beside each other: some wait for seconds.
pub(crate) fn play(adapter: &dyn Adapter, kinds: &[Over], scenario: fn(&Stage<'_>) -> Result<()>) -> Verdict {
    let play_over = |over: Over| -> Result<()> {
        let dir = tempfile::tempdir()?;
        scenario(&Stage { adapter, over, dir, sockets: AtomicUsize::new(0) })
            .map_err(|error| anyhow!("over {over:?}: {error:#}"))
    };
    thread::scope(|scope| {
        let kinds = kinds.iter().filter(|kind| adapter.over().contains(kind));
        let plays: Vec<_> = kinds.map(|over| scope.spawn(|| play_over(*over))).collect();
        for play in plays {
            play.join().unwrap_or_else(|panicked| resume_unwind(panicked)).map_err(Failures::from)?;
        }
        Ok(())
    })
}

pub(crate) struct Stage<'a> {
    adapter: &'a dyn Adapter,
    over: Over,
    dir: TempDir,
    sockets: AtomicUsize,
}

impl Stage<'_> {
    /// A server with the default configuration, except for a longer `linger`.
    pub(crate) fn serve(&self) -> Result<Server> {
        self.serve_with(|_| {})
    }

    /// A server.
    pub(crate) fn serve_with(&self, adjust: impl FnOnce(&mut Plan)) -> Result<Server> {
        let mut plan = Plan::default();
        // Longer than a peer of this machine needs for the next step.
        plan.config.agent.timeouts.linger = Duration::from_secs(5);
        match self.over {
            Over::Tcp => {}
            Over::Unix => {
                let number = self.sockets.fetch_add(1, Ordering::Relaxed);
                plan.path = Some(self.file(&format!("agent-{number}.sock")));
            }
            Over::Tls => plan.tls = Some(Tls::from_files(self.files()?)?),
        }
        adjust(&mut plan);
        let gate = plan.gate.clone();
        let running = self.adapter.start(plan)?;
        Ok(Server { running, gate, over: self.over })
    }

    /// The files of a server with TLS that asks clients for nothing.
    pub(crate) fn files(&self) -> Result<TlsFiles> {
        let identity = self.file("agent.pem");
        certificates().agent.write(&identity)?;
        Ok(TlsFiles::new(&identity, &identity))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// As [`Adapter::shares_threads`].
    pub(crate) fn shares_threads(&self) -> bool {
        self.adapter.shares_threads()
    }

    pub(crate) fn over(&self) -> Over {
        self.over
    }
}

pub(crate) struct Server {
    pub(crate) running: Box<dyn Running>,
    pub(crate) gate: Gate,
    over: Over,
}

impl Server {
    /// A connection on which nothing was said yet.
    pub(crate) fn connect(&self) -> Result<Peer> {
        let peer = Peer::connect(&self.running.address())?;
        match self.over {
            Over::Tls => peer.into_tls(trusting(&certificates().agents, None)?),
            _ => Ok(peer),
        }
    }

    /// A session with pipelining.
    pub(crate) fn session(&self) -> Result<Peer> {
        self.session_with("capabilities=string:pipelining,async")
    }

    /// A session with these keys.
    pub(crate) fn session_with(&self, keys: &str) -> Result<Peer> {
        let mut peer = self.connect()?;
        peer.greet_with(keys).context("greeting")?;
        Ok(peer)
    }

    /// Another peer is served.
    pub(crate) fn expect_alive(&self) -> Result<()> {
        let mut peer = self.session()?;
        peer.ask("NOTIFY fin 0 1 m a=int32:1", "ACK fin 0 1 set txn a=int32:1")
            .context("it serves nobody any more")
    }

    /// As [`expect_alive`](Self::expect_alive), where a peer has so little time that a busy machine may use it up, and not again
    /// at once. Several peers are served: each of the workers.
    pub(crate) fn expect_alive_soon(&self) -> Result<()> {
        (0..4).try_for_each(|_| self.expect_alive().or_else(|_| self.expect_alive()))
    }

    /// Waits until the numbers are so.
    pub(crate) fn wait_for(&self, what: &str, so: impl Fn(&Stats) -> bool) -> Result<()> {
        spop_tests::wait::until(what, spop_tests::wait::PATIENCE, || {
            Ok(so(&self.running.stats()).then_some(()))
        })
        .with_context(|| format!("{:?}", self.running.stats()))
    }
}
