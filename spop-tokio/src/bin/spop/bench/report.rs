//! The result of a run, as text and as JSON.

use std::{iter, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;
use spop_core::haproxy::explain;

use super::{
    run::{End, Outcome, Settings},
    stats::Stats,
};
use crate::{
    exit::Failure,
    explain::number::Number,
    output::{Output, Paint, Table},
    time::millis,
};

/// The percentiles that are shown.
const PERCENTILES: [f64; 7] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// The width of the longest bar.
const BAR: u64 = 40;

#[derive(Serialize)]
struct RunObject<'a> {
    event: &'static str,
    address: &'a str,
    seconds: f64,
    sent: u64,
    answered: u64,
    per_second: f64,
    failed: u64,
    never_sent: u64,
    unfinished: u64,
    malformed: u64,
    mean_ms: f64,
    percentiles: Vec<PercentileObject>,
    histogram: Vec<BarObject>,
    errors: Vec<ErrorObject>,
    sessions_ended: Vec<EndObject<'a>>,
    agent_cpu_ms: Option<f64>,
    bench_cpu_ms: Option<f64>,
    interrupted: bool,
    gone: Option<&'a str>,
}

#[derive(Serialize)]
struct PercentileObject {
    percentile: f64,
    ms: f64,
}

#[derive(Serialize)]
struct BarObject {
    up_to_ms: f64,
    count: u64,
}

#[derive(Serialize)]
struct ErrorObject {
    code: u32,
    name: &'static str,
    meaning: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct EndObject<'a> {
    reason: &'a str,
    count: u64,
}

/// Prints the result of a run as an object.
pub(super) fn object(output: Output, address: &str, outcome: &Outcome) -> Result<(), Failure> {
    let Outcome { stats, elapsed, .. } = outcome;
    let errors = stats.failed.iter().map(|(code, count)| ErrorObject {
        code: *code,
        name: name(*code),
        meaning: explain(*code).map_or("", |found| found.meaning),
        count: *count,
    });
    output.object(&RunObject {
        event: "run",
        address,
        seconds: elapsed.as_secs_f64(),
        sent: stats.sent,
        answered: stats.answered,
        per_second: (outcome.rate() * 10.0).round() / 10.0,
        failed: stats.failures(),
        never_sent: stats.never_sent,
        unfinished: stats.unfinished,
        malformed: stats.malformed,
        mean_ms: millis(mean(stats)),
        percentiles: PERCENTILES
            .map(|percentile| PercentileObject { percentile, ms: millis(stats.quantile(percentile / 100.0)) })
            .into(),
        histogram: bars(&stats.latencies)
            .map(|(up_to, count)| BarObject { up_to_ms: millis(up_to), count })
            .collect(),
        errors: errors.collect(),
        sessions_ended: stats
            .ends
            .iter()
            .map(|(reason, count)| EndObject { reason, count: *count })
            .collect(),
        agent_cpu_ms: outcome.agent_cpu.map(millis),
        bench_cpu_ms: outcome.own_cpu.map(millis),
        interrupted: outcome.end == End::Interrupted,
        gone: if let End::Gone(reason) = &outcome.end { Some(reason) } else { None },
    })
}

/// Prints the result of a run as text.
pub(super) fn text(output: Output, outcome: &Outcome, settings: &Settings) -> Result<(), Failure> {
    let Outcome { stats, elapsed, .. } = outcome;
    output.line(format_args!(
        "{} answers in {:.3} s: {} per second",
        stats.answered,
        elapsed.as_secs_f64(),
        output.paint(Paint::Heading, format_args!("{:.1}", outcome.rate()))
    ))?;
    if !stats.latencies.is_empty() {
        let since = if settings.load.schedule.is_some() { "was due" } else { "was sent" };
        output.line(format_args!("\nLatency, from when a request {since} (mean {}):", time(mean(stats))))?;
        for percentile in PERCENTILES {
            let value = time(stats.quantile(percentile / 100.0));
            output.line(format_args!("  {:>7} %  {value:>9}", percentile.to_string()))?;
        }
        output.line("")?;
        output.table("  ", &histogram(&stats.latencies))?;
    }
    cpu(output, outcome, settings)?;
    problems(output, stats)
}

fn histogram(latencies: &Histogram<u64>) -> Table {
    let mut table = Table::new(["UP TO", "ANSWERS", ""]);
    let highest = bars(latencies).map(|(_, count)| count).max().unwrap_or_default().max(1);
    for (up_to, count) in bars(latencies) {
        // An answer is seen, whatever the others are.
        let width = (count * BAR / highest).max(u64::from(count > 0));
        let bar: String = iter::repeat_n('█', width as usize).collect();
        table.row(None, [format!("{:>9}", time(up_to)), format!("{count:>9}"), bar]);
    }
    table
}

fn cpu(output: Output, outcome: &Outcome, settings: &Settings) -> Result<(), Failure> {
    let seconds = outcome.elapsed.as_secs_f64();
    if let Some(cpu) = outcome.agent_cpu {
        output.line(format_args!(
            "\nProcessor time of the agent: {:.2} s, {:.0} % of a processor, {} per answer",
            cpu.as_secs_f64(),
            percent(cpu.as_secs_f64(), seconds),
            time(per_answer(cpu, &outcome.stats)),
        ))?;
    }
    if let Some(own) = outcome.own_cpu {
        let busy = percent(own.as_secs_f64(), seconds * threads(settings));
        let text = format!(
            "Processor time of this side: {:.2} s, {busy:.0} % of {} threads",
            own.as_secs_f64(),
            settings.threads
        );
        if outcome.agent_cpu.is_none() {
            output.line("")?;
        }
        if busy >= 90.0 {
            output.line(
                output.paint(Paint::Warning, format_args!("{text}: it may be the limit, try --threads")),
            )?;
        } else {
            output.line(output.paint(Paint::Dim, text))?;
        }
    }
    Ok(())
}

/// What went wrong, and what it means.
pub(super) fn problems(output: Output, stats: &Stats) -> Result<(), Failure> {
    if stats.unfinished > 0 {
        output.line(format_args!("\n{} requests were in flight at the end.", stats.unfinished))?;
    }
    if stats.failures() > 0 {
        let text = format!("{} requests failed; their time is not in the latencies.", stats.failures());
        output.line(format_args!("\n{}", output.paint(Paint::Bad, text)))?;
    }
    if stats.never_sent > 0 {
        output.line(format_args!(
            "{} of them timed out before a connection was free for them.",
            stats.never_sent
        ))?;
    }
    for (code, count) in &stats.failed {
        output.line(format_args!("\n{}", output.paint(Paint::Bad, format_args!("{count} requests:"))))?;
        match Number::error(*code) {
            Some(number) => number.show_text(output)?,
            None => output.line(format_args!("error {code}"))?,
        }
    }
    if stats.malformed > 0 {
        let text = format!(
            "{} answers are malformed: HAProxy ignores a part of them; see `spop send`",
            stats.malformed
        );
        output.line(format_args!("\n{}", output.paint(Paint::Bad, text)))?;
    }
    if !stats.ends.is_empty() {
        output.line("\nSessions that ended before the load did:")?;
    }
    for (reason, count) in &stats.ends {
        output.line(format_args!("  {count} × {reason}"))?;
    }
    Ok(())
}

impl Outcome {
    /// Answers per second.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.stats.answered as f64 / seconds } else { 0.0 }
    }
}

/// The bars of a histogram: steps of 1, 2, 5, 10 … nanoseconds, from the lowest that has a count to the highest.
fn bars(latencies: &Histogram<u64>) -> impl Iterator<Item = (Duration, u64)> + '_ {
    let bounds = iter::successors(Some(1_u64), |power| power.checked_mul(10));
    let bounds = bounds.flat_map(|power| [1, 2, 5].map(|step| power.saturating_mul(step)));
    let (lowest, highest) = (latencies.min(), latencies.max());
    let mut below = 0;
    let steps = bounds.map(move |bound| {
        let low = std::mem::replace(&mut below, bound);
        (low, bound)
    });
    let shown =
        steps.skip_while(move |(_, bound)| *bound <= lowest).take_while(move |(low, _)| *low <= highest);
    // A step includes its lower bound. What the histogram takes for one value counts once, also where it spans a bound.
    shown.map(|(low, bound)| {
        let values =
            latencies.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value()));
        let inside = values.filter(|(value, _)| (low..bound).contains(&latencies.lowest_equivalent(*value)));
        (Duration::from_nanos(bound), inside.map(|(_, count)| count).sum())
    })
}

/// The name of an error number.
pub(super) fn name(code: u32) -> &'static str {
    explain(code).map_or("unknown", |found| found.name)
}

/// A duration with three digits.
pub(super) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (value, unit) = match seconds {
        ..1e-6 => return format!("{} ns", duration.as_nanos()),
        ..0.999_5e-3 => (seconds * 1e6, "µs"),
        ..0.999_5 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let digits = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

pub(super) fn per_answer(cpu: Duration, stats: &Stats) -> Duration {
    let nanos = cpu.as_nanos() / u128::from(stats.answered.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn mean(stats: &Stats) -> Duration {
    Duration::try_from_secs_f64(stats.latencies.mean() / 1e9).unwrap_or_default()
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * 100.0 } else { 0.0 }
}

#[allow(clippy::cast_precision_loss)]
const fn threads(settings: &Settings) -> f64 {
    settings.threads as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        for (nanos, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_234, "1.23 µs"),
            (99_960, "100 µs"),
            (999_600, "1.00 ms"),
            (12_345_678, "12.3 ms"),
            (999_600_000, "1.00 s"),
            (123_456_000_000, "123 s"),
        ] {
            assert_eq!(time(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn every_answer_is_in_one_bar() {
        let mut stats = Stats::new();
        for micros in [3_u64, 5, 7, 19, 20, 21, 49, 300] {
            stats.answered(Duration::from_micros(micros));
        }
        let found: Vec<_> = bars(&stats.latencies).map(|(up_to, count)| (up_to.as_micros(), count)).collect();
        assert_eq!(found, [(5, 1), (10, 2), (20, 1), (50, 3), (100, 0), (200, 0), (500, 1)]);
        assert_eq!(bars(&Stats::new().latencies).map(|(_, count)| count).sum::<u64>(), 0);
        // Some of these the histogram takes for others, beyond a bound.
        for bound in [50_000, 200_000, 5_000_000] {
            let mut stats = Stats::new();
            for nanos in bound - 1_000..bound + 1_000 {
                stats.answered(Duration::from_nanos(nanos));
            }
            assert_eq!(bars(&stats.latencies).map(|(_, count)| count).sum::<u64>(), 2_000, "{bound}");
        }
    }
}
