//! Two agents in turns, and the ratios of what was measured.

use serde::Serialize;

use super::{
    live::Live,
    report,
    run::{self, End, Outcome, Settings},
    stats::Stats,
};
use crate::{
    address::Connector,
    exit::{Exit, Failure, Interrupt},
    output::{Output, Table},
};

/// An agent that is measured, and its process.
pub(super) struct Agent {
    pub(super) connector: Connector,
    pub(super) pid: Option<u32>,
}

/// The name in JSON, that in the table, and the value of a run.
type Metric = (&'static str, &'static str, fn(&Outcome) -> Option<f64>);

/// What is compared. All are numbers of which only the ratio counts.
const METRICS: [Metric; 6] = [
    ("rate", "answers per second", |outcome| Some(outcome.rate())),
    ("p50", "p50, ms", |outcome| Some(quantile(outcome, 0.5))),
    ("p90", "p90, ms", |outcome| Some(quantile(outcome, 0.9))),
    ("p99", "p99, ms", |outcome| Some(quantile(outcome, 0.99))),
    ("p99.9", "p99.9, ms", |outcome| Some(quantile(outcome, 0.999))),
    ("cpu", "processor time per answer, µs", |outcome| {
        let cpu = report::per_answer(outcome.agent_cpu?, &outcome.stats);
        Some(cpu.as_secs_f64() * 1e6)
    }),
];

fn quantile(outcome: &Outcome, quantile: f64) -> f64 {
    outcome.stats.quantile(quantile).as_secs_f64() * 1e3
}

#[derive(Serialize)]
struct RatioObject {
    event: &'static str,
    metric: &'static str,
    rounds: usize,
    first: f64,
    second: f64,
    ratio: f64,
    lowest: f64,
    highest: f64,
}

/// Measures both in turns. Each is the first in every other round, so that what changes evenly over time favors neither.
pub(super) async fn run(
    agents: &[Agent; 2],
    rounds: usize,
    settings: &Settings,
    interrupt: &mut Interrupt,
    live: &mut Live,
    output: Output,
) -> Result<Exit, Failure> {
    let mut results = Vec::new();
    let mut stats = [Stats::new(), Stats::new()];
    let mut end = End::Done;
    'rounds: for round in 0..rounds {
        let mut outcomes = [None, None];
        for turn in 0..2 {
            let index = (round + turn) % 2;
            let (Some(agent), Some(outcome), Some(stats)) =
                (agents.get(index), outcomes.get_mut(index), stats.get_mut(index))
            else {
                continue;
            };
            let address = agent.connector.address().to_string();
            live.begin(format!("round {} of {rounds}: {address}", round + 1));
            let measured = match run::run(&agent.connector, agent.pid, settings, interrupt, live).await {
                Err(failure) if failure.exit == Exit::Interrupted && !results.is_empty() => {
                    end = End::Interrupted;
                    break 'rounds;
                }
                measured => measured?,
            };
            report::object(output, &address, &measured)?;
            stats.add(&measured.stats);
            if measured.end != End::Done {
                end = measured.end;
                break 'rounds;
            }
            *outcome = Some(measured);
        }
        if let [Some(first), Some(second)] = outcomes {
            results.push((first, second));
        }
    }
    live.clear();
    show(agents, &results, &stats, output)?;
    match end {
        End::Done => Ok(Exit::unless(stats.iter().any(Stats::is_bad))),
        End::Interrupted => Err(Failure::interrupted()),
        End::Gone(reason) => Err(super::gone(&reason)),
    }
}

fn show(
    agents: &[Agent; 2],
    results: &[(Outcome, Outcome)],
    stats: &[Stats; 2],
    output: Output,
) -> Result<(), Failure> {
    let [first, second] = agents;
    let (first, second) = (first.connector.address(), second.connector.address());
    let rounds = results.len();
    output.line(format_args!("\nMedians of {rounds} rounds; A is {first}, B is {second}:\n"))?;
    let mut table = Table::new(["", "A", "B", "B / A", "LOWEST", "HIGHEST"]);
    for (metric, name, value) in METRICS {
        let pairs: Option<Vec<_>> = results.iter().map(|(a, b)| Some((value(a)?, value(b)?))).collect();
        let Some(pairs) = pairs.filter(|pairs| !pairs.is_empty()) else { continue };
        let ratios = sorted(pairs.iter().map(|(a, b)| b / a));
        // Too little was measured, as a processor time of less than a tick.
        if ratios.iter().any(|ratio| !ratio.is_finite()) {
            continue;
        }
        let (Some(lowest), Some(highest)) = (ratios.first().copied(), ratios.last().copied()) else {
            continue;
        };
        let a = middle(&sorted(pairs.iter().map(|(a, _)| *a)));
        let b = middle(&sorted(pairs.iter().map(|(_, b)| *b)));
        let ratio = middle(&ratios);
        output.object(&RatioObject {
            event: "ratio",
            metric,
            rounds,
            first: a,
            second: b,
            ratio,
            lowest,
            highest,
        })?;
        let number =
            |number: f64| if number >= 100.0 { format!("{number:.0}") } else { format!("{number:.3}") };
        let ratios = [ratio, lowest, highest].map(|ratio| format!("{ratio:.2}"));
        let [ratio, lowest, highest] = ratios;
        table.row(None, [name.to_owned(), number(a), number(b), ratio, lowest, highest]);
    }
    output.table("  ", &table)?;
    for (stats, address) in stats.iter().zip([first, second]) {
        if stats.is_bad() {
            output.line(format_args!("\n{address}:"))?;
            report::problems(output, stats)?;
        }
    }
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn middle(sorted: &[f64]) -> f64 {
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.wrapping_sub(1)), at(half)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(middle(&sorted([3.0, 1.0, 2.0].into_iter())).to_bits(), 2.0_f64.to_bits());
        assert_eq!(middle(&sorted([4.0, 1.0, 2.0, 3.0].into_iter())).to_bits(), 2.5_f64.to_bits());
        assert!(middle(&[]).is_nan());
    }
}
