//! Where a scenario plays: one agent program, one version of HAProxy, a directory and addresses of their own.

use std::fmt::{self, Write};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

use crate::agent::{AGENTS, Agent};
use crate::haproxy::{Binary, Config, Engine, Haproxy};
use crate::wait::{PATIENCE, until};

/// How much of each log a failure shows.
const LOG_LINES: usize = 40;

/// What a scenario comes to: a test returns it.
pub type Verdict = Result<(), Failures>;

/// Why a scenario failed, for each pair of agent and HAProxy, with the logs of those who took part.
pub struct Failures(Vec<String>);

impl fmt::Debug for Failures {
    // The form in which the test harness prints it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|failure| writeln!(out, "{failure}\n"))
    }
}

impl From<anyhow::Error> for Failures {
    fn from(error: anyhow::Error) -> Self {
        Self(vec![format!("{error:#}")])
    }
}

/// Plays a scenario with every agent and every HAProxy, at the same time.
///
/// # Errors
/// All failures.
pub fn everywhere(scenario: impl Fn(&Stage) -> Result<()> + Sync) -> Verdict {
    on_those(|_| true, scenario)
}

/// Plays a scenario with every agent and every HAProxy that has this engine: it is about what only that engine does, see
/// [`Engine`].
///
/// # Errors
/// All failures.
pub fn with_engine(engine: Engine, scenario: impl Fn(&Stage) -> Result<()> + Sync) -> Verdict {
    on_those(|haproxy| haproxy.engine() == engine, scenario)
}

/// Plays a scenario with every agent and those versions of HAProxy that are meant.
///
/// # Errors
/// All failures.
pub fn on_those(
    are_meant: impl Fn(&Binary) -> bool,
    scenario: impl Fn(&Stage) -> Result<()> + Sync,
) -> Verdict {
    let mut haproxys = Binary::all()?;
    haproxys.retain(are_meant);
    let mut failures = Vec::new();
    thread::scope(|scope| {
        let scenario = &scenario;
        let pairs = haproxys.iter().flat_map(|haproxy| AGENTS.iter().map(move |agent| (*agent, haproxy)));
        let threads: Vec<_> = pairs.map(|pair| (pair, scope.spawn(move || play(pair, scenario)))).collect();
        for ((agent, haproxy), thread) in threads {
            let panicked = |_| Err(anyhow!("{agent} with HAProxy {} panicked", haproxy.version()));
            let result = thread.join().unwrap_or_else(panicked);
            if let Err(error) = result {
                failures.push(format!("{error:#}"));
            }
        }
    });
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
}

fn play((agent, haproxy): (&'static str, &Binary), scenario: impl Fn(&Stage) -> Result<()>) -> Result<()> {
    let stage = Stage::new(agent, haproxy)?;
    scenario(&stage).map_err(|error| anyhow!("{stage}: {error:#}{}", stage.logs()))
}

/// One agent program and one version of HAProxy, to be started as the scenario wants.
#[derive(Debug)]
pub struct Stage {
    haproxy: Binary,
    agent: &'static str,
    dir: TempDir,
    host: Ipv4Addr,
    started: AtomicUsize,
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} with HAProxy {}", self.agent, self.haproxy.version())
    }
}

impl Stage {
    /// A stage for a scenario that does not play everywhere.
    ///
    /// # Errors
    /// There is no room for its directory.
    pub fn new(agent: &'static str, haproxy: &Binary) -> Result<Self> {
        Ok(Self {
            haproxy: haproxy.clone(),
            agent,
            dir: tempfile::Builder::new().prefix("spop-").tempdir()?,
            host: own_host(),
            started: AtomicUsize::new(0),
        })
    }

    /// Starts the echo agent; without `--listen` among the arguments, on a free port.
    ///
    /// # Errors
    /// It does not start.
    pub fn agent(&self, args: &[&str]) -> Result<Agent> {
        self.example(self.agent, args)
    }

    /// Starts another example with the same options for listening.
    ///
    /// # Errors
    /// It does not start.
    pub fn example(&self, name: &str, args: &[&str]) -> Result<Agent> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.path().join(format!("agent-{number}.log"));
        if args.contains(&"--listen") {
            return Agent::start(name, args, &log);
        }
        let listen = format!("{}:0", self.host);
        Agent::start(name, &[&["--listen", &listen], args].concat(), &log)
    }

    /// Starts an agent where another one listened, as soon as that one has let go of the address.
    ///
    /// # Errors
    /// The address does not become free.
    pub fn successor(&self, of: &Agent, args: &[&str]) -> Result<Agent> {
        let args = [&["--listen", of.address()], args].concat();
        let mut reason = None;
        let agent = until("the agent's address is free", PATIENCE, || {
            Ok(self.agent(&args).map_err(|error| reason = Some(error)).ok())
        });
        agent.with_context(|| format!("{reason:?}"))
    }

    /// Starts HAProxy.
    ///
    /// # Errors
    /// It does not start.
    pub fn haproxy(&self, config: &Config) -> Result<Haproxy> {
        Haproxy::start(&self.haproxy, self.dir.path(), config)
    }

    /// Starts one more HAProxy, which has its own directory: files of the scenario are to be named in full.
    ///
    /// # Errors
    /// It does not start.
    pub fn another_haproxy(&self, config: &Config) -> Result<Haproxy> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.path().join(format!("haproxy-{number}"));
        fs::create_dir(&dir)?;
        Haproxy::start(&self.haproxy, &dir, config)
    }

    /// The version of HAProxy that plays.
    pub fn binary(&self) -> &Binary {
        &self.haproxy
    }

    /// A loopback address that nobody else uses.
    pub fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// Which agent plays: one of [`AGENTS`].
    pub fn agent_name(&self) -> &'static str {
        self.agent
    }

    /// A directory for the scenario's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn logs(&self) -> String {
        let entries = fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        let logs =
            entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
        let mut text = String::new();
        for entry in logs {
            let log = fs::read(entry.path()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if log.is_empty() {
                continue;
            }
            let lines: Vec<_> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = write!(text, "\n-- {}\n{}", entry.file_name().display(), tail.join("\n"));
        }
        text
    }
}

// An agent that comes back must find its port free. On a loopback address that nobody else uses, no other test and no
// outgoing connection can take it in the meantime.
fn own_host() -> Ipv4Addr {
    static STAGES: AtomicU8 = AtomicU8::new(0);
    let stage = STAGES.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, stage)
}
