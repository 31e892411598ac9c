//! An agent's process: its life, its processor, and what it takes.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use spop_tests::process::cpu_nanos;

use super::serve::Agent;

/// Where the load runs, and where the agents.
pub const LOAD_CORE: usize = 0;
pub const AGENT_CORE: usize = 1;

/// Binds this thread, and the threads and processes that it will start, to processors.
pub fn bind(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set).with_context(|| format!("this needs the processors {cores:?}"))
}

/// An agent that serves on loopback; killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts an agent with a processor for each of its workers.
    pub fn start(agent: Agent, cores: &[usize]) -> Result<Self> {
        let cores_text: Vec<String> = cores.iter().map(ToString::to_string).collect();
        let mut child = Command::new(env::current_exe()?)
            .args(["serve", agent.name(), &cores_text.join(",")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut process = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ");
        process.address =
            address.with_context(|| format!("the agent {} says {line:?}", agent.name()))?.parse()?;
        Ok(process)
    }

    /// Nanoseconds of processor time so far, of all its threads. Exact while it waits.
    pub fn cpu(&self) -> Result<u64> {
        cpu_nanos(self.child.id())
    }

    /// Bytes of memory that are resident and its own.
    pub fn memory(&self) -> Result<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let private = rollup.lines().filter_map(|line| line.strip_prefix("Private_"));
        let kilobytes = private.map(|line| {
            let number = line.split_whitespace().nth(1).context("no number in smaps_rollup")?;
            Ok(number.parse::<u64>()?)
        });
        Ok(kilobytes.sum::<Result<u64>>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
