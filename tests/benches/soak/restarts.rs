//! Rolling restarts, many of them.

use anyhow::Result;
use clap::Args;
use spop_tests::haproxy::VERSIONS;
use spop_tests::restarts::{Lost, Rolling};

#[derive(Debug, Args)]
pub struct Options {
    /// Restarts, of either of two agents in turn.
    #[arg(long, default_value_t = 20)]
    restarts: usize,
    /// Clients, each with one request at a time.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Requests between one restart and the next.
    #[arg(long, default_value_t = 5_000)]
    between: u64,
    /// HAProxy does not check the health of the agents.
    #[arg(long)]
    no_checks: bool,
}

pub fn run(all: &crate::Options, options: &Options) -> Result<()> {
    let Options { restarts, clients, between, no_checks } = *options;
    let checks = if no_checks { "no health checks" } else { "health checks every 100 ms" };
    println!(
        "{restarts} restarts under the load of {clients} clients; {checks}; agent arguments {:?}.\n",
        all.args
    );
    println!("| agent and HAProxy | requests | lost |\n|---|---|---|");
    for stage in all.stages(VERSIONS)? {
        let args = all.args();
        let Lost { counted, .. } =
            Rolling { restarts, clients, between, args: &args, checks: !no_checks }.run(&stage)?;
        println!("| {stage} | {} | {} |", counted.requests, counted.failed);
    }
    Ok(())
}
