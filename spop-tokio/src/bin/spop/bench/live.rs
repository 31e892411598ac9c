//! The view of a run on a terminal, while it lasts.

use std::{collections::VecDeque, fmt::Write as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{report, stats::Stats};

/// How many values a sparkline shows.
const WIDTH: usize = 50;

/// The view; it shows nothing unless standard error is a terminal.
pub(super) struct Live {
    bar: ProgressBar,
    title: String,
    time: Option<Duration>,
    shown: Duration,
    rates: VecDeque<f64>,
    slow: VecDeque<f64>,
}

impl Live {
    pub(super) fn new(quiet: bool, time: Option<Duration>) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        // Without a style there is the default one, which shows no message.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            title: String::new(),
            time,
            shown: Duration::ZERO,
            rates: VecDeque::new(),
            slow: VecDeque::new(),
        }
    }

    /// Begins with another run.
    pub(super) fn begin(&mut self, title: String) {
        self.title = title;
        self.shown = Duration::ZERO;
        self.rates.clear();
        self.slow.clear();
    }

    /// Shows the counts so far, and those since the last call. `elapsed` is the time until they were taken.
    pub(super) fn show(&mut self, all: &Stats, part: &Stats, elapsed: Duration, open: usize) {
        if self.bar.is_hidden() {
            return;
        }
        let seconds = elapsed.saturating_sub(self.shown).as_secs_f64();
        self.shown = elapsed;
        if seconds > 0.0 {
            #[allow(clippy::cast_precision_loss)]
            push(&mut self.rates, part.answered as f64 / seconds);
            push(&mut self.slow, part.quantile(0.99).as_secs_f64());
        }
        self.bar.set_message(self.text(all, part, elapsed, open));
        self.bar.tick();
    }

    /// Removes the view from the terminal.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn text(&self, all: &Stats, part: &Stats, elapsed: Duration, open: usize) -> String {
        let mut text = format!("{}  {:.1} s", self.title, elapsed.as_secs_f64());
        // Writing to a string cannot fail.
        if let Some(time) = self.time {
            let _ = write!(text, " of {:.1} s", time.as_secs_f64());
        }
        let _ = write!(text, ", {open} connections\n  rate  {:>10.0}/s  ", self.rates.back().unwrap_or(&0.0));
        text.push_str(&sparkline(&self.rates));
        let _ =
            write!(text, "\n  p99   {:>12}  {}", report::time(part.quantile(0.99)), sparkline(&self.slow));
        let _ = write!(
            text,
            "\n  all   p50 {}, p90 {}, p99 {}, max {}, {} answers",
            report::time(all.quantile(0.5)),
            report::time(all.quantile(0.9)),
            report::time(all.quantile(0.99)),
            report::time(all.quantile(1.0)),
            all.answered
        );
        text.push_str("\n  errors  ");
        let mut errors: Vec<_> = all
            .failed
            .iter()
            .map(|(code, count)| format!("{count} × {code} ({})", report::name(*code)))
            .collect();
        let ends: u64 = all.ends.values().sum();
        if ends > 0 {
            errors.push(format!("{ends} sessions ended"));
        }
        if all.malformed > 0 {
            errors.push(format!("{} malformed answers", all.malformed));
        }
        // A line for each kind: together they may be longer than a line of the terminal.
        text.push_str(&if errors.is_empty() { "none".to_owned() } else { errors.join("\n          ") });
        text
    }
}

/// Nothing of the view remains above an error.
impl Drop for Live {
    fn drop(&mut self) {
        self.clear();
    }
}

fn push(values: &mut VecDeque<f64>, value: f64) {
    if values.len() == WIDTH {
        values.pop_front();
    }
    values.push_back(value);
}

/// The values as bars; the highest has the full height.
fn sparkline(values: &VecDeque<f64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        #[allow(clippy::cast_sign_loss)]
        let height = (value / highest * 7.0).round() as usize;
        BARS.get(height).copied().unwrap_or('▁')
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_has_a_bar_for_each_value() {
        assert_eq!(sparkline(&VecDeque::from([0.0, 1.0, 3.5, 7.0])), "▁▂▅█");
        assert_eq!(sparkline(&VecDeque::from([0.0, 0.0])), "▁▁");
        let mut values = VecDeque::new();
        for value in 0..100 {
            push(&mut values, f64::from(value));
        }
        assert_eq!((values.len(), values[0]), (WIDTH, 50.0));
    }

    #[test]
    fn the_view_has_rate_latency_and_errors() {
        let mut live = Live::new(true, Some(Duration::from_secs(10)));
        live.begin("agent:1".into());
        push(&mut live.rates, 1234.0);
        push(&mut live.slow, 0.002);
        let mut stats = Stats::new();
        stats.answered(Duration::from_millis(2));
        stats.failed(258, 3);
        stats.ended("x".into(), 2);
        let text = live.text(&stats, &stats, Duration::from_millis(1_500), 7);
        for part in [
            "agent:1  1.5 s of 10.0 s, 7 connections\n",
            "1234/s  █\n",
            "p99 2.00 ms",
            "1 answers\n",
            "\n  errors  3 × 258 (a timeout occurred)\n          2 sessions ended",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
        let column =
            |line: &str| text.lines().find(|text| text.contains(line)).and_then(|line| line.find('█'));
        assert_eq!(column("  rate "), column("  p99 "));
    }
}
