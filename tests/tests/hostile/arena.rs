//! One agent as a program, and what is measured of it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use spop_tests::agent::{AGENTS, Agent, NOTHING_KEPT};
use spop_tests::peer::Peer;
use spop_tests::process::{cpu_millis, descriptors, raise_descriptor_limit, resident};
use spop_tests::stage::{Failures, Verdict};
use spop_tests::wait::{PATIENCE, until_true};
use tempfile::TempDir;

/// The timeout of a well-behaved peer during an attack. Answers take milliseconds; the rest is for a busy machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(3);

/// Plays a scenario with each agent, one after the other.
pub(crate) fn each(scenario: impl Fn(&Arena) -> Result<()>) -> Verdict {
    for name in AGENTS.iter().copied().filter(|name| name.starts_with("echo-")) {
        let dir = tempfile::tempdir().map_err(anyhow::Error::from)?;
        let arena = Arena { name, dir };
        scenario(&arena).map_err(|error| {
            Failures::from(anyhow!("{name}: {error:#}\n{}", arena.log().unwrap_or_default()))
        })?;
    }
    Ok(())
}

/// The same for scenarios that take descriptors, ports or time enough to be in each other's way.
pub(crate) fn each_alone(scenario: impl Fn(&Arena) -> Result<()>) -> Verdict {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone: MutexGuard<'_, ()> = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    raise_descriptor_limit()?;
    each(scenario)
}

/// One agent, to be started as the scenario wants.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) name: &'static str,
    dir: TempDir,
}

impl Arena {
    /// Starts it on a TCP port, unless the arguments say where.
    pub(crate) fn start(&self, args: &[&str]) -> Result<Target> {
        let log = self.dir.path().join("agent.log");
        let agent = if args.contains(&"--listen") {
            Agent::start_with(self.name, args, &log, NOTHING_KEPT)
        } else {
            Agent::start_with(self.name, &[&["--listen", "127.0.0.1:0"], args].concat(), &log, NOTHING_KEPT)
        }?;
        let mut target = Target { agent, log, idle: 0 };
        // What is made once is made: threads, their stacks, their arenas.
        for _ in 0..8 {
            let mut peer = target.session()?;
            peer.send("NOTIFY fin 0 1 m")?;
            peer.receive()?;
        }
        target.idle = target.at_rest()?;
        Ok(target)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn log(&self) -> Result<String> {
        let log = fs::read_to_string(self.dir.path().join("agent.log"))?;
        let lines: Vec<_> = log.lines().collect();
        Ok(lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n"))
    }
}

/// An agent that runs.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) agent: Agent,
    log: PathBuf,
    /// The descriptors that it has without a connection.
    idle: usize,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    /// KiB of memory.
    pub(crate) memory: u64,
    pub(crate) descriptors: usize,
    /// Milliseconds of processor time.
    pub(crate) time: u64,
}

impl Target {
    pub(crate) fn address(&self) -> &str {
        self.agent.address()
    }

    /// Connects to the first address.
    pub(crate) fn connect(&self) -> Result<Peer> {
        Peer::connect(self.agent.address())
    }

    /// Connects from an address of its own: each has its own ports.
    pub(crate) fn connect_from(&self, source: Ipv4Addr) -> Result<Peer> {
        Peer::tcp_from(source, self.agent.address().parse()?)
    }

    pub(crate) fn session(&self) -> Result<Peer> {
        let mut peer = self.connect()?;
        peer.greet()?;
        Ok(peer)
    }

    pub(crate) fn holds(&self) -> Result<Holds> {
        let id = self.agent.id();
        Ok(Holds { memory: resident(id)?, descriptors: descriptors(id)?, time: cpu_millis(id)? })
    }

    /// Its descriptors, when they have come to be as few as they can: for a while, because it may be kept from running.
    fn at_rest(&self) -> Result<usize> {
        let mut least = descriptors(self.agent.id())?;
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_millis(400) {
            sleep(Duration::from_millis(10));
            let now = descriptors(self.agent.id())?;
            if now < least {
                (least, since) = (now, Instant::now());
            }
        }
        Ok(least)
    }

    /// Waits until as many connections are open, by its descriptors.
    pub(crate) fn until_open(&self, connections: usize) -> Result<()> {
        let (id, expected) = (self.agent.id(), self.idle + connections);
        until_true(&format!("{connections} connections are open"), PATIENCE, || {
            Ok(descriptors(id)? == expected)
        })
        .with_context(|| format!("{:?} descriptors instead of {expected}", descriptors(id)))
    }

    /// The lines it has logged so far.
    pub(crate) fn log_lines(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(&self.log)?.lines().map(ToOwned::to_owned).collect())
    }

    /// It serves.
    pub(crate) fn expect_alive(&self) -> Result<()> {
        let mut peer = self.session()?;
        peer.ask("NOTIFY fin 0 1 m a=null", "ACK fin 0 1 set txn m.a=null").context("it serves nobody")
    }

    /// It drains, and ends as if nothing had been.
    pub(crate) fn expect_end(&mut self) -> Result<()> {
        self.agent.terminate()?;
        let status = self.agent.wait_for_end(PATIENCE)?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}
