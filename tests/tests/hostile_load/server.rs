//! The server that is attacked: a process with a processor of its own.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use spop_tests::agent::{AGENTS, Agent, NOTHING_KEPT, optimized};
use spop_tests::process::{cpu_nanos, raise_descriptor_limit};
use spop_tests::stage::{Failures, Verdict};
use tempfile::TempDir;

/// The priority of those that are measured: a nice value.
const FIRST: i32 = -15;

/// Runs a scenario with each echo agent, while no other scenario runs.
pub(crate) fn each(scenario: impl Fn(&'static str) -> Result<()>) -> Verdict {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone: MutexGuard<'_, ()> = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    raise_descriptor_limit()?;
    // The server, which this thread starts, and the bystander come first whatever else the machine does. Who may not say so has
    // to measure on a machine that does nothing else.
    let _ = setpriority_process(None, FIRST);
    let failures: Vec<_> = AGENTS
        .iter()
        .filter(|name| name.starts_with("echo-"))
        .filter_map(|name| scenario(name).err().map(|error| format!("{name}: {error:#}")))
        .collect();
    if failures.is_empty() { Ok(()) } else { Err(Failures::from(anyhow!("{}", failures.join("\n")))) }
}

/// What the server's allocator does with memory that is free.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Allocator {
    /// What the system's does: glibc keeps most of it.
    Default,
    /// It keeps nothing.
    Exact,
}

/// An echo agent; killed on drop.
#[derive(Debug)]
pub(crate) struct Server {
    agent: Agent,
    // Its log.
    _dir: TempDir,
}

impl Server {
    /// Starts it on the second processor, and binds this thread, with those that it will start, to the first: the load must
    /// not take the processor time that is measured. With fewer processors both share one.
    pub(crate) fn start(name: &str, args: &[&str], allocator: Allocator) -> Result<Self> {
        let all = sched_getaffinity(None)?;
        let mut processors = (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor));
        if let (Some(load), Some(server)) = (processors.next(), processors.next()) {
            bind(server)?;
            let started = Self::spawn(name, args, allocator);
            bind(load)?;
            started
        } else {
            Self::spawn(name, args, allocator)
        }
    }

    fn spawn(name: &str, args: &[&str], allocator: Allocator) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (args, log) = ([&["--listen", "127.0.0.1:0"], args].concat(), dir.path().join("agent.log"));
        let variables: &[_] = match allocator {
            Allocator::Default => &[],
            Allocator::Exact => &NOTHING_KEPT,
        };
        let agent = Agent::start_program(&optimized(name)?, &args, &log, variables)?;
        Ok(Self { agent, _dir: dir })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.agent.address().parse()?)
    }

    /// Nanoseconds of processor time so far, when it has done what there was to do, or after this time.
    pub(crate) fn at_rest(&self, limit: Duration) -> Result<u64> {
        let (mut last, end) = (cpu_nanos(self.id())?, Instant::now() + limit);
        loop {
            sleep(Duration::from_millis(60));
            let now = cpu_nanos(self.id())?;
            // Timers run on.
            if now - last < 500_000 || Instant::now() >= end {
                return Ok(now);
            }
            last = now;
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.agent.id()
    }
}

fn bind(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}
