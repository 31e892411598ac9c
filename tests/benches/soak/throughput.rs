//! What the agents do in a second, and what each request takes of them.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use spop_tests::clients::{Clients, Limits};
use spop_tests::haproxy::{Config, VERSIONS};
use spop_tests::process::{cpu_nanos, descriptors};

#[derive(Debug, Args)]
pub struct Options {
    /// Clients, each with one request at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    clients: Vec<usize>,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 2_000, value_name = "MS")]
    time: u64,
    /// Arguments of the agents to compare with, one table row each; `--args` is the first.
    #[arg(long, default_value = "--capabilities fragmentation,pipelining", allow_hyphen_values = true)]
    versus: Vec<String>,
}

pub fn run(all: &crate::Options, options: &Options) -> Result<()> {
    println!(
        "| agent and HAProxy | arguments | clients | requests/s | p50 µs | p99 µs | agent's µs per request | connections | lost |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for stage in all.stages(VERSIONS)? {
        for args in std::iter::once(&all.args).chain(&options.versus) {
            let agent = stage.agent(&args.split_whitespace().collect::<Vec<_>>())?;
            let unconnected = descriptors(agent.id())?;
            let config = Config::new(agent.address())
                .message("echo", "v=int(42) ip=src ua=req.fhdr(user-agent)")
                .show("echo.v");
            for clients in &options.clients {
                let haproxy = stage.haproxy(&config)?;
                let mut crowd = Clients::connect(haproxy.address(), *clients)?;
                let mut ask =
                    |time| crowd.run("/", ("echo.v", "42"), Limits::time(Duration::from_millis(time)));
                ask(100)?;
                let before = cpu_nanos(agent.id())?;
                let outcome = ask(options.time)?;
                // The few requests that the agent may still be at do not count among so many.
                let nanos = cpu_nanos(agent.id())? - before;
                let connections = descriptors(agent.id())?.saturating_sub(unconnected);
                println!(
                    "| {stage} | {args} | {clients} | {:.0} | {} | {} | {:.1} | {connections} | {} |",
                    outcome.rate(),
                    outcome.latency(500).as_micros(),
                    outcome.latency(990).as_micros(),
                    Duration::from_nanos(nanos).as_secs_f64() * 1e6
                        / (outcome.rate() * outcome.elapsed.as_secs_f64()),
                    outcome.lost(),
                );
            }
        }
    }
    Ok(())
}
