//! The table: what each agent takes for a NOTIFY, next to the floor.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    load::{Load, Window},
    measure::{Sample, Shape, measure, median, spread},
    process::{AGENT_CORE, Process},
    question::Question,
    serve::Agent,
};

/// Connections, questions at once on each, and when they ask again.
const LOADS: [(usize, usize, Window); 6] = [
    (1, 1, Window::Sliding),
    (1, 32, Window::Burst),
    (16, 16, Window::Burst),
    (1, 32, Window::Sliding),
    (16, 16, Window::Sliding),
    (256, 1, Window::Sliding),
];
/// Connections that do nothing.
const IDLE: usize = 2_000;

pub fn run(agents: &[Agent], rounds: usize, time: Duration) -> Result<()> {
    let idle = agents.iter().map(|agent| idle_memory(*agent)).collect::<Result<Vec<_>>>()?;
    let processes =
        agents.iter().map(|agent| Process::start(*agent, &[AGENT_CORE])).collect::<Result<Vec<_>>>()?;
    let shapes: Vec<Shape> = LOADS
        .iter()
        .flat_map(|&(connections, depth, window)| {
            Question::ALL.map(|question| Shape { connections, depth, question, window, shared: false })
        })
        .collect();
    // By shape, then by agent.
    let mut samples = vec![vec![Vec::new(); agents.len()]; shapes.len()];
    for round in 0..rounds {
        for (shape, samples) in shapes.iter().zip(&mut samples) {
            for turn in 0..agents.len() {
                // Nobody is always the first.
                let index = (turn + round) % agents.len();
                let process = processes.get(index).context("no process")?;
                samples[index].push(measure(process, *shape, time)?);
            }
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    print_ratios("medians of the rounds", agents, &samples, &idle, |runs, first| {
        median(runs.iter().zip(first).map(|(run, first)| run.cpu / first.cpu))
    });
    print_ratios("the least of each", agents, &samples, &idle, |runs, first| least(runs) / least(first));
    print_spread(&samples);
    print_rest(agents, &shapes, &samples, &processes)
}

/// What an idle connection adds to the memory of an agent: one that has made its handshake and asked once.
fn idle_memory(agent: Agent) -> Result<u64> {
    let process = Process::start(agent, &[AGENT_CORE])?;
    // What is there once does not count.
    let _first = Load::connect(process.address, IDLE / 10, Question::Small, false)?;
    sleep(Duration::from_millis(1_500));
    let before = process.memory()?;
    let _all = Load::connect(process.address, IDLE, Question::Small, false)?;
    sleep(Duration::from_millis(1_500));
    Ok(process.memory()?.saturating_sub(before) / IDLE as u64)
}

fn name(connections: usize, depth: usize, window: Window) -> String {
    let bursts = if window == Window::Burst { " bursts" } else { "" };
    format!("{connections} × {depth}{bursts}")
}

fn least(runs: &[Sample]) -> f64 {
    runs.iter().map(|run| run.cpu).fold(f64::INFINITY, f64::min)
}

fn print_ratios(
    what: &str,
    agents: &[Agent],
    samples: &[Vec<Vec<Sample>>],
    idle: &[u64],
    ratio: impl Fn(&[Sample], &[Sample]) -> f64,
) {
    println!(
        "\nProcessor time of the agent for each NOTIFY, small / 1.1 KB, as multiples of the first; {what}:\n"
    );
    print!("| |");
    for (connections, depth, window) in LOADS {
        print!(" {} |", name(connections, depth, window));
    }
    println!(" bytes per idle connection |\n|---{}|", "|---".repeat(LOADS.len() + 1));
    let nanos: Vec<String> = samples.iter().map(|by_agent| format!("{:.0}", least(&by_agent[0]))).collect();
    let nanos: Vec<String> = nanos.chunks(2).map(|both| both.join(" / ")).collect();
    println!("| {}, least ns | {} | {} |", agents[0].name(), nanos.join(" | "), idle[0]);
    for (index, agent) in agents.iter().enumerate().skip(1) {
        print!("| {} |", agent.name());
        for both in samples.chunks(2) {
            let figures = both.iter().map(|by_agent| format!("{:.2}", ratio(&by_agent[index], &by_agent[0])));
            print!(" {} |", figures.collect::<Vec<_>>().join(" / "));
        }
        println!(" {} |", idle[index]);
    }
}

fn print_spread(samples: &[Vec<Vec<Sample>>]) {
    let spreads = samples.iter().flatten().map(|runs| spread(runs.iter().map(|sample| sample.cpu)));
    println!(
        "\nThe middle half of the runs of an agent spreads over {:.0} % of their median (in the middle of all cells).",
        100.0 * median(spreads)
    );
}

fn print_rest(
    agents: &[Agent],
    shapes: &[Shape],
    samples: &[Vec<Vec<Sample>>],
    processes: &[Process],
) -> Result<()> {
    println!("\nMedians of the runs; latencies in µs:\n");
    println!(
        "| load | question | agent | ns per NOTIFY | NOTIFYs per s | p50 | p99 | p99.9 |\n|---|---|---|---|---|---|---|---|"
    );
    for (shape, by_agent) in shapes.iter().zip(samples) {
        for (agent, runs) in agents.iter().zip(by_agent) {
            let middle = |value: fn(&Sample) -> f64| median(runs.iter().map(value));
            println!(
                "| {} | {:?} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} |",
                name(shape.connections, shape.depth, shape.window),
                shape.question,
                agent.name(),
                middle(|sample| sample.cpu),
                middle(|sample| sample.rate),
                middle(|sample| f64::from(sample.latencies[0]) / 1e3),
                middle(|sample| f64::from(sample.latencies[1]) / 1e3),
                middle(|sample| f64::from(sample.latencies[2]) / 1e3),
            );
        }
    }
    println!("\nMemory of the processes afterwards:");
    for (agent, process) in agents.iter().zip(processes) {
        println!("{}: {} KB", agent.name(), process.memory()? / 1024);
    }
    Ok(())
}
