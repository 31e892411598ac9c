//! What a program counts, for metrics and for the log.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use metrics::{Label, counter, describe_counter};

/// A number that a program counts.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts since the start: the name of each, what it counts, and how many there were. As text, it is `name=value` of each, for the log.
#[derive(Debug)]
pub struct Totals(pub Vec<(&'static str, &'static str, u64)>);

impl Totals {
    /// Sets them as metrics `PROGRAM_NAME_total` with these labels.
    pub fn publish(&self, program: &str, labels: &[(&'static str, &str)]) {
        for &(name, about, count) in &self.0 {
            let name = format!("{program}_{name}_total");
            let labels: Vec<_> =
                labels.iter().map(|&(key, value)| Label::new(key, value.to_owned())).collect();
            describe_counter!(name.clone(), about);
            counter!(name, labels).absolute(count);
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<_> = self.0.iter().map(|(name, _, count)| format!("{name}={count}")).collect();
        f.write_str(&pairs.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use spop_server::status::install_recorder;

    use super::*;

    #[test]
    fn metrics_and_the_log_have_the_same_names() {
        let recorder = install_recorder().unwrap();
        let count = Count::default();
        count.add();
        let totals = Totals(vec![
            ("sent", "Copies that were sent", count.get()),
            ("lost", "Copies that were lost", 0),
        ]);
        totals.publish("demo", &[("limit", "a")]);
        assert_eq!(totals.to_string(), "sent=1 lost=0");
        let metrics = recorder.render();
        for line in ["# HELP demo_sent_total Copies that were sent", "demo_sent_total{limit=\"a\"} 1"] {
            assert!(metrics.lines().any(|found| found == line), "{metrics}");
        }
    }
}
