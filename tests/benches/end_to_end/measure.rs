//! One measurement, and what many of them come to.

use std::{thread::sleep, time::Duration};

use anyhow::Result;

use super::{
    load::{Load, Outcome, Window},
    process::Process,
    question::Question,
};

/// What a connection does before it is measured.
const WARM_UP: Duration = Duration::from_millis(20);

/// How an agent is asked.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub connections: usize,
    /// Questions at once on each.
    pub depth: usize,
    pub question: Question,
    pub window: Window,
    /// All connections are of one engine, and async is in effect.
    pub shared: bool,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds of the agent's processor for each NOTIFY.
    pub cpu: f64,
    /// NOTIFYs in a second.
    pub rate: f64,
    pub latencies: [u32; 3],
}

/// Asks an agent for so long, on connections that are opened for it.
pub fn measure(process: &Process, shape: Shape, time: Duration) -> Result<Sample> {
    let mut load = Load::connect(process.address, shape.connections, shape.question, shape.shared)?;
    load.run(shape.depth, shape.window, WARM_UP)?;
    let before = cpu_at_rest(process)?;
    let outcome = load.run(shape.depth, shape.window, time)?;
    let after = cpu_at_rest(process)?;
    drop(load);
    // Closing connections is not a part of what is measured next.
    cpu_at_rest(process)?;
    Ok(Sample::new(after - before, outcome))
}

impl Sample {
    #[allow(clippy::cast_precision_loss)]
    pub fn new(cpu: u64, Outcome { answers, elapsed, latencies }: Outcome) -> Self {
        let answers = answers as f64;
        Self { cpu: cpu as f64 / answers, rate: answers / elapsed.as_secs_f64(), latencies }
    }
}

/// The processor time of an agent that has nothing to do any more.
pub fn cpu_at_rest(process: &Process) -> Result<u64> {
    let mut before = process.cpu()?;
    loop {
        sleep(Duration::from_millis(3));
        let now = process.cpu()?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
}

/// The middle one.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How far the middle half of the values spreads, as a part of their median.
pub fn spread(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values.get(values.len() * part / 4).copied().unwrap_or(f64::NAN);
    (at(3) - at(1)) / at(2)
}
