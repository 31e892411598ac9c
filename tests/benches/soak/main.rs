//! What takes too long for the tests: answers of many sizes on a busy machine, rolling restarts, and what the echo agents do in
//! a second. Each mode prints a table. `cargo bench -p spop-tests --bench soak -- --help`; README.md beside this file says how
//! to read it.

#![allow(missing_docs, unreachable_pub)]

mod answers;
mod busy;
mod restarts;
mod throughput;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use spop_tests::agent::AGENTS;
use spop_tests::haproxy::{Binary, VERSIONS};
use spop_tests::stage::Stage;

#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    mode: Mode,
    /// Versions of HAProxy.
    #[arg(long, value_delimiter = ',', global = true)]
    haproxy: Vec<String>,
    /// Agents.
    #[arg(long, value_delimiter = ',', global = true)]
    agents: Vec<String>,
    /// Arguments of the agents, such as "--capabilities fragmentation,pipelining".
    #[arg(long, default_value = "", allow_hyphen_values = true, global = true)]
    args: String,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Answers of many sizes to many clients: how many requests are lost.
    Answers(answers::Options),
    /// Two agents are restarted in turn: how many requests are lost.
    Restarts(restarts::Options),
    /// Requests per second, latencies, processor time of the agent for each request, and connections.
    Throughput(throughput::Options),
}

impl Options {
    /// Each of the agents with each version of HAProxy; without `--haproxy`, with `versions`.
    fn stages(&self, versions: &[&str]) -> Result<Vec<Stage>> {
        let versions = match &self.haproxy[..] {
            [] => versions.to_vec(),
            chosen => chosen.iter().map(String::as_str).collect(),
        };
        let agents: Vec<&'static str> = match &self.agents[..] {
            [] => AGENTS.to_vec(),
            chosen => {
                let known = |name: &String| AGENTS.iter().copied().find(|agent| agent == name);
                chosen.iter().map(|name| known(name).context("an agent is unknown")).collect::<Result<_>>()?
            }
        };
        let mut stages = Vec::new();
        for version in versions {
            ensure!(VERSIONS.contains(&version), "HAProxy {version} is none of {VERSIONS:?}");
            let binary = Binary::of(version)?;
            for agent in &agents {
                stages.push(Stage::new(agent, &binary)?);
            }
        }
        Ok(stages)
    }

    fn args(&self) -> Vec<&str> {
        self.args.split_whitespace().collect()
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.mode {
        Mode::Answers(mode) => answers::run(&options, mode),
        Mode::Restarts(mode) => restarts::run(&options, mode),
        Mode::Throughput(mode) => throughput::run(&options, mode),
    }
}
