//! What agents take end to end, over sockets: this project's, that of the `spop` crate, and a bare epoll loop.
//! `cargo bench -p spop-tests --bench end_to_end`; README.md beside this folder says how to read it.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod engine;
mod floor;
mod foreign;
mod haproxy;
mod load;
mod measure;
mod process;
mod question;
mod scale;
mod serve;
mod table;
#[cfg(target_os = "linux")]
#[path = "../../../spop-server/examples/io-uring/driver.rs"]
#[allow(unsafe_code, dead_code, reason = "to give an address to the kernel is unsafe")]
mod uring;
#[path = "../../../spop-core/benches/round/walk.rs"]
mod walk;

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    load::{Load, Window},
    process::{LOAD_CORE, bind},
    question::Question,
    serve::Agent,
};

#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// The agents, the one to compare with first.
    #[arg(long, value_delimiter = ',', global = true)]
    agents: Vec<Agent>,
    /// How often each is measured.
    #[arg(long, default_value_t = 9, global = true)]
    rounds: usize,
    /// How long one measurement takes.
    #[arg(long, default_value_t = 150, value_name = "MS", global = true)]
    time: u64,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Compares the agents with the floor (the default).
    Table,
    /// What connections cost as there are more of them, and workers.
    Scale,
    /// What async costs: connections of one engine, without async and with it.
    Async,
    /// Real HAProxy as the client.
    Haproxy,
    /// The engine client of spop-tokio, beside the bare load.
    Engine,
    /// Asks an agent that runs already, under a profiler for instance, and says how often it was asked.
    Ask {
        address: SocketAddr,
        #[arg(default_value_t = 1)]
        connections: usize,
        #[arg(default_value_t = 32)]
        depth: usize,
        #[arg(default_value = "small")]
        question: Question,
        #[arg(default_value = "burst")]
        window: Window,
    },
    /// Is one of the agents, on these processors with a worker for each.
    #[command(hide = true)]
    Serve {
        agent: Agent,
        #[arg(value_delimiter = ',')]
        cores: Vec<usize>,
    },
}

fn main() -> Result<()> {
    let options = Options::parse();
    let agents = match options.mode {
        _ if !options.agents.is_empty() => options.agents,
        Some(Mode::Haproxy) => Agent::OF_HAPROXY.to_vec(),
        _ => Agent::ALL.to_vec(),
    };
    let time = Duration::from_millis(options.time);
    match options.mode {
        Some(Mode::Serve { agent, cores }) => {
            bind(&cores)?;
            serve::serve(agent, cores.len())
        }
        Some(Mode::Scale) => {
            bind(&[LOAD_CORE])?;
            scale::connections(&agents, options.rounds, time)?;
            scale::workers(&agents, options.rounds, time)
        }
        Some(Mode::Async) => {
            bind(&[LOAD_CORE])?;
            scale::siblings(&agents, options.rounds, time)
        }
        Some(Mode::Engine) => {
            bind(&[LOAD_CORE])?;
            engine::run(options.rounds, time)
        }
        Some(Mode::Haproxy) => {
            // HAProxy inherits the processor.
            bind(&[LOAD_CORE])?;
            haproxy::run(&agents, options.rounds, time)
        }
        Some(Mode::Ask { address, connections, depth, question, window }) => {
            let outcome = Load::connect(address, connections, question, false)?.run(depth, window, time)?;
            println!("{} NOTIFYs in {:?}", outcome.answers, outcome.elapsed);
            Ok(())
        }
        None | Some(Mode::Table) => {
            bind(&[LOAD_CORE])?;
            table::run(&agents, options.rounds, time)
        }
    }
}
