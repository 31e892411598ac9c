//! What the engine client of spop-tokio takes for a request, beside the bare load.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use spop_core::{EngineConfig, MessageList, Value, engine::pool::PoolConfig};
use spop_tests::process::cpu_nanos;
use spop_tokio::{Engine, EngineClient};

use super::{
    load::{Load, Window},
    measure::median,
    process::{AGENT_CORE, Process},
    question::{self, Question},
    serve::Agent,
};

/// Connections, and requests in flight on each.
const SHAPES: [(usize, usize); 6] = [(1, 1), (1, 32), (16, 16), (256, 1), (1_000, 1), (10_000, 1)];

/// How long the client may take to open its connections, and to get its answers.
const PATIENCE: Duration = Duration::from_secs(20);

const QUESTION: Question = Question::Small;

/// What a run came to.
struct Run {
    /// Requests in a second.
    rate: f64,
    /// Nanoseconds of the client's processor for each request.
    cpu: f64,
}

/// The client and the bare load in turns, each with one processor, against the floor with another.
pub fn run(rounds: usize, time: Duration) -> Result<()> {
    println!(
        "\nThe engine client, one processor, against the floor with another (small questions, sliding):\n"
    );
    println!(
        "| connections × in flight | bare load: requests/s | CPU, ns | client: requests/s | CPU, ns | CPU, of the load |"
    );
    println!("|---|---|---|---|---|---|");
    for (connections, depth) in SHAPES {
        let (mut loads, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            // Another port each time: a port of this side is free again at once towards another address only.
            let process = Process::start(Agent::Floor, &[AGENT_CORE])?;
            loads.push(load(&process, connections, depth, time)?);
            // Its own, so that its sockets are closed with it.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            clients.push(runtime.block_on(client(&process, connections, depth, time))?);
        }
        let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value));
        let ratio = median(clients.iter().zip(&loads).map(|(client, load)| client.cpu / load.cpu));
        println!(
            "| {connections} × {depth} | {:.0} | {:.0} | {:.0} | {:.0} | {ratio:.2} |",
            of(&loads, |run| run.rate),
            of(&loads, |run| run.cpu),
            of(&clients, |run| run.rate),
            of(&clients, |run| run.cpu),
        );
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn load(process: &Process, connections: usize, depth: usize, time: Duration) -> Result<Run> {
    let mut load = Load::connect(process.address, connections, QUESTION, false)?;
    let before = cpu_nanos(process::id())?;
    let outcome = load.run(depth, Window::Sliding, time)?;
    let cpu = cpu_nanos(process::id())? - before;
    let answers = outcome.answers as f64;
    Ok(Run { rate: answers / outcome.elapsed.as_secs_f64(), cpu: cpu as f64 / answers })
}

#[allow(clippy::cast_precision_loss)]
async fn client(process: &Process, connections: usize, depth: usize, time: Duration) -> Result<Run> {
    let mut engine = EngineConfig::default();
    engine.max_waiting_frames = depth;
    let mut pool = PoolConfig::new(engine, 1);
    pool.max_connections = connections;
    let client = Engine::with_pool(pool).agent(process.address.to_string()).start()?;
    let answers = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> =
        (0..connections * depth).map(|_| tokio::spawn(ask(client.clone(), Arc::clone(&answers)))).collect();
    // All connections are open.
    let begun = Instant::now();
    while client.stats().connections < connections || client.stats().queued > 0 {
        ensure!(
            begun.elapsed() < PATIENCE,
            "its connections were not all open in time: {:?}",
            client.stats()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
        ensure!(!callers.iter().any(tokio::task::JoinHandle::is_finished), "a request failed");
    }
    let (before, first, begun) = (cpu_nanos(process::id())?, answers.load(Relaxed), Instant::now());
    // Each caller has had some answers.
    let enough = first + (4 * connections * depth) as u64;
    while begun.elapsed() < time || answers.load(Relaxed) < enough {
        ensure!(begun.elapsed() < PATIENCE, "few answers came in time: {:?}", client.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let count = answers.load(Relaxed) - first;
    let (elapsed, cpu) = (begun.elapsed(), cpu_nanos(process::id())? - before);
    // All before the first is awaited: it ends after those that are ready to run.
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    for caller in callers {
        if let Ok(failed) = caller.await {
            failed.context("a request failed")?;
        }
    }
    client.stop();
    Ok(Run { rate: count as f64 / elapsed.as_secs_f64(), cpu: cpu as f64 / count as f64 })
}

/// Asks again and again.
async fn ask(client: EngineClient, answers: Arc<AtomicU64>) -> Result<()> {
    let mut messages = MessageList::new();
    messages.message("check-client-ip").arg("ip", question::IP).arg("ua", Value::String(question::AGENT));
    loop {
        client.notify(&messages).await?;
        answers.fetch_add(1, Relaxed);
    }
}
