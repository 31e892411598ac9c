//! Answers of many sizes to many clients.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use spop_tests::clients::{Clients, Limits, Outcome};
use spop_tests::haproxy::Config;
use spop_tests::stage::Stage;

use crate::busy::Busy;

#[derive(Debug, Args)]
pub struct Options {
    /// Bytes in an answer.
    #[arg(long, value_delimiter = ',', default_value = "900,1500,3000,5000,8000,12000,16000")]
    sizes: Vec<usize>,
    /// Clients, each with one request at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,2,5,10,20,40,64")]
    clients: Vec<usize>,
    /// Requests for each size and number of clients.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Threads that use processors meanwhile.
    #[arg(long, default_value_t = 4)]
    busy: usize,
    /// A cell ends when so many requests were lost: a connection that has stalled loses everything.
    #[arg(long, default_value_t = 20)]
    give_up: usize,
    /// A cell ends after so long.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    time: u64,
}

pub fn run(all: &crate::Options, options: &Options) -> Result<()> {
    let Options { sizes, clients, requests, busy, .. } = options;
    println!(
        "Requests lost of {requests} (of fewer where a cell says so), by the size of the answer and the number of clients; {busy} \
         threads use processors meanwhile; agent arguments {:?}.",
        all.args
    );
    let mut total = (0, 0);
    for stage in all.stages(&["3.2", "3.4"])? {
        let start = Instant::now();
        println!("\n{stage}:\n");
        let heads: Vec<String> = clients.iter().map(ToString::to_string).collect();
        println!("| bytes \\ clients | {} |\n|---|{}", heads.join(" | "), "---|".repeat(heads.len()));
        let _busy = Busy::start(*busy);
        for size in sizes {
            let mut cells = Vec::new();
            for clients in clients {
                let outcome = cell(&stage, &all.args(), options, *size, *clients)?;
                let asked = outcome.answered + outcome.lost();
                total = (total.0 + outcome.lost(), total.1 + asked);
                cells.push(if asked == *requests {
                    outcome.lost().to_string()
                } else {
                    format!("{} of {asked}", outcome.lost())
                });
                if outcome.lost() > 0 {
                    eprintln!("{stage}, {size} bytes, {clients} clients: {:?}", outcome.lost);
                }
            }
            println!("| {size} | {} |", cells.join(" | "));
        }
        eprintln!("{stage}: {:?}", start.elapsed());
    }
    println!("\n{} of {} requests lost.", total.0, total.1);
    Ok(())
}

/// Each on an HAProxy and an agent of its own: nothing that has stalled stays.
fn cell(stage: &Stage, args: &[&str], options: &Options, size: usize, clients: usize) -> Result<Outcome> {
    let agent = stage.agent(args)?;
    let config = Config::new(agent.address())
        .agent("timeout processing 2s")
        .message("blob", &format!("size=int({size})"))
        .show("blob,length");
    let haproxy = stage.haproxy(&config)?;
    let limits =
        Limits { requests: options.requests, time: Duration::from_secs(options.time), lost: options.give_up };
    Clients::connect(haproxy.address(), clients)?.run("/", ("blob", &size.to_string()), limits)
}
