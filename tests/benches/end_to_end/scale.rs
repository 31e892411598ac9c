//! What connections and workers cost.

use std::{sync::Barrier, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow};

use super::{
    load::{Load, Window},
    measure::{Sample, Shape, cpu_at_rest, measure, median},
    process::{AGENT_CORE, LOAD_CORE, Process, bind},
    question::Question,
    serve::Agent,
};

const CONNECTIONS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// For workers: connections of each load, and questions at once on each.
const BUSY: (usize, usize) = (16, 16);

/// The processor time of a NOTIFY as connections are added, one question at a time on each.
pub fn connections(agents: &[Agent], rounds: usize, time: Duration) -> Result<()> {
    let processes =
        agents.iter().map(|agent| Process::start(*agent, &[AGENT_CORE])).collect::<Result<Vec<_>>>()?;
    println!(
        "\nProcessor time of the agent for each NOTIFY (small), ns, one in flight on each of so many connections:\n"
    );
    print!("| connections |");
    for agent in agents {
        print!(" {} |", agent.name());
    }
    println!("\n|---|{}", "---|".repeat(agents.len()));
    for connections in CONNECTIONS {
        let shape =
            Shape { connections, depth: 1, question: Question::Small, window: Window::Burst, shared: false };
        let mut samples = vec![Vec::new(); agents.len()];
        for round in 0..rounds {
            for turn in 0..agents.len() {
                let index = (turn + round) % agents.len();
                let process = processes.get(index).context("no process")?;
                samples[index].push(measure(process, shape, time)?.cpu);
            }
        }
        print!("| {connections} |");
        for (index, runs) in samples.iter().enumerate() {
            let first = &samples[0];
            let ratio = median(runs.iter().zip(first).map(|(run, first)| run / first));
            let own = median(runs.iter().copied());
            if index == 0 { print!(" {own:.0} |") } else { print!(" {own:.0} ({ratio:.2}) |") }
        }
        println!();
    }
    Ok(())
}

/// The processor time of a NOTIFY on connections of one engine, without async and with it.
pub fn siblings(agents: &[Agent], rounds: usize, time: Duration) -> Result<()> {
    let (connections, depth) = BUSY;
    println!(
        "\nProcessor time for each NOTIFY (small), {connections} × {depth} on connections of one engine, ns:\n"
    );
    println!("| agent | without async | with | with / without |\n|---|---|---|---|");
    for agent in agents {
        let process = Process::start(*agent, &[AGENT_CORE])?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (shared, runs) in [(false, &mut without), (true, &mut with)] {
                let shape =
                    Shape { connections, depth, question: Question::Small, window: Window::Burst, shared };
                runs.push(measure(&process, shape, time)?.cpu);
            }
        }
        let ratio = median(with.iter().zip(&without).map(|(with, without)| with / without));
        let (without, with) = (median(without), median(with));
        println!("| {} | {without:.0} | {with:.0} | {ratio:.2} |", agent.name());
    }
    Ok(())
}

/// The processor time of a NOTIFY with one worker and with two. The load needs a processor as well: with two of them in
/// all, throughput says little, and the cost of a NOTIFY says whether workers are in each other's way.
pub fn workers(agents: &[Agent], rounds: usize, time: Duration) -> Result<()> {
    let workers: Vec<_> = agents.iter().filter(|agent| agent.has_workers()).collect();
    println!(
        "\nProcessor time for each NOTIFY (small) with one and two workers, two loads of {} × {}, ns:\n",
        BUSY.0, BUSY.1
    );
    println!("| agent | one | two | two / one | NOTIFYs per s, one | two |\n|---|---|---|---|---|---|");
    for agent in workers {
        let one = Process::start(*agent, &[AGENT_CORE])?;
        let two = Process::start(*agent, &[LOAD_CORE, AGENT_CORE])?;
        let (mut ones, mut twos) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ones.push(loads(&one, time)?);
            twos.push(loads(&two, time)?);
        }
        let cpu = |runs: &[Sample]| median(runs.iter().map(|run| run.cpu));
        let rate = |runs: &[Sample]| median(runs.iter().map(|run| run.rate));
        let ratio = median(twos.iter().zip(&ones).map(|(two, one)| two.cpu / one.cpu));
        println!(
            "| {} | {:.0} | {:.0} | {ratio:.2} | {:.0} | {:.0} |",
            agent.name(),
            cpu(&ones),
            cpu(&twos),
            rate(&ones),
            rate(&twos)
        );
    }
    Ok(())
}

/// Two loads at a time, each on a processor of its own.
fn loads(process: &Process, time: Duration) -> Result<Sample> {
    let (connections, depth) = BUSY;
    let ready = &Barrier::new(3);
    thread::scope(|scope| {
        let threads = [LOAD_CORE, AGENT_CORE].map(|core| {
            scope.spawn(move || {
                let load = bind(&[core]).and_then(|()| {
                    let mut load = Load::connect(process.address, connections, Question::Small, false)?;
                    load.run(depth, Window::Burst, Duration::from_millis(20))?;
                    Ok(load)
                });
                ready.wait();
                // Meanwhile the processor time is read.
                ready.wait();
                load.and_then(|mut load| load.run(depth, Window::Burst, time))
            })
        });
        ready.wait();
        let before = cpu_at_rest(process);
        ready.wait();
        let mut sum: Option<super::load::Outcome> = None;
        for thread in threads {
            let outcome = thread.join().map_err(|_| anyhow!("a load panicked"))??;
            sum = Some(match sum {
                Some(sum) => super::load::Outcome { answers: sum.answers + outcome.answers, ..sum },
                None => outcome,
            });
        }
        let after = cpu_at_rest(process)?;
        Ok(Sample::new(after - before?, sum.context("no load")?))
    })
}
