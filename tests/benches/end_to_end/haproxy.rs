//! HAProxy as the client: requests per second, and what they take of the agent.

use std::time::Duration;

use anyhow::Result;
use spop_tests::{
    clients::{Clients, Limits},
    haproxy::{Binary, Config, Haproxy},
};

use super::{
    load::Outcome,
    measure::{Sample, cpu_at_rest, median},
    process::{AGENT_CORE, Process},
    question::{SCORE, VARIABLE},
    serve::Agent,
};

/// Clients of HAProxy, each with one request at a time on a connection that stays.
const CLIENTS: [usize; 2] = [64, 512];
const VERSIONS: [&str; 2] = ["2.6", "3.4"];

pub fn run(agents: &[Agent], rounds: usize, time: Duration) -> Result<()> {
    for version in VERSIONS {
        for clients in CLIENTS {
            compare(&Binary::of(version)?, clients, agents, rounds, time)?;
        }
    }
    Ok(())
}

fn compare(binary: &Binary, count: usize, agents: &[Agent], rounds: usize, time: Duration) -> Result<()> {
    println!("\nHAProxy {} asks about each request of {count} clients:\n", binary.version());
    let mut pairs = Vec::new();
    for agent in agents {
        let dir = tempfile::tempdir()?;
        let process = Process::start(*agent, &[AGENT_CORE])?;
        // HAProxy closes connections that become idle while it uses more than so many percent of its file descriptors (20 by
        // default). Without pipelining it needs a connection for each request at a time.
        let config = Config::new(&process.address.to_string())
            .global("tune.pool-low-fd-ratio 90")
            .global("tune.pool-high-fd-ratio 95")
            .message("check-client-ip", "ip=src ua=req.fhdr(user-agent)")
            .show_in("sess", VARIABLE);
        let haproxy = Haproxy::start(binary, dir.path(), &config)?;
        pairs.push((process, haproxy, dir));
    }
    let mut samples = vec![Vec::new(); agents.len()];
    for round in 0..rounds {
        for turn in 0..agents.len() {
            let index = (turn + round) % agents.len();
            let (process, haproxy, _) = &pairs[index];
            let mut clients = Clients::connect(haproxy.address(), count)?;
            ask(&mut clients, Duration::from_millis(50))?;
            let before = cpu_at_rest(process)?;
            let outcome = ask(&mut clients, time)?;
            let after = cpu_at_rest(process)?;
            samples[index].push(Sample::new(after - before, outcome));
        }
    }
    println!(
        "| agent | requests per s | of the first's | agent's ns per request | p50 µs | p99 µs |\n|---|---|---|---|---|---|"
    );
    for (agent, runs) in agents.iter().zip(&samples) {
        let middle = |value: fn(&Sample) -> f64| median(runs.iter().map(value));
        let pairs = runs.iter().zip(&samples[0]);
        println!(
            "| {} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} |",
            agent.name(),
            middle(|sample| sample.rate),
            median(pairs.map(|(run, first)| run.rate / first.rate)),
            middle(|sample| sample.cpu),
            middle(|sample| f64::from(sample.latencies[0]) / 1e3),
            middle(|sample| f64::from(sample.latencies[1]) / 1e3),
        );
    }
    Ok(())
}

/// Asks for so long. Every reply must have the variable that the agent sets.
fn ask(clients: &mut Clients, time: Duration) -> Result<Outcome> {
    let variable = (&*format!("sess.{VARIABLE}"), &*SCORE.to_string());
    let replies = clients.run("/", variable, Limits::time(time))?;
    replies.expect_all()?;
    let nanos = |permille| u32::try_from(replies.latency(permille).as_nanos()).unwrap_or(u32::MAX);
    Ok(Outcome {
        answers: replies.answered as u64,
        elapsed: replies.elapsed,
        latencies: [500, 990, 999].map(nanos),
    })
}
