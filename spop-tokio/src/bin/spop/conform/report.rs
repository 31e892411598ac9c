//! The results, as text and as JSON.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    player::{Fault, Outcome},
    script::{Case, Level},
};
use crate::{
    address::Address,
    exit::Failure,
    hello::Hello,
    output::{Output, Paint, Table},
    time::millis,
};

/// What a case has shown.
#[derive(Debug)]
pub(super) enum Verdict {
    Passed,
    Failed(Fault),
    /// After the case the agent did not serve a new connection.
    Dead {
        why: String,
        fault: Option<Fault>,
        /// It serves again.
        recovers: bool,
    },
    NotApplicable(String),
    /// The agent has stopped serving before.
    NotRun,
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Passed => Self::Passed,
            Outcome::NotApplicable(why) => Self::NotApplicable(why),
            Outcome::Failed(fault) => Self::Failed(fault),
        }
    }
}

impl Verdict {
    pub(super) const fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Dead { .. })
    }

    const fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Failed(fault) | Self::Dead { fault: Some(fault), .. } => Some(fault),
            _ => None,
        }
    }

    /// Why the case has not passed.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Passed => None,
            Self::Failed(fault) => Some(format!("expected {}; came: {}", fault.expected, fault.came)),
            Self::Dead { why, recovers: true, .. } => {
                Some(format!("afterwards a new connection was not served: {why}; later ones were"))
            }
            Self::Dead { why, .. } => Some(format!("afterwards the agent serves no new connection: {why}")),
            Self::NotApplicable(why) => Some(why.clone()),
            Self::NotRun => Some("the agent does not serve any more".into()),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) | Self::Dead { .. } => "failed",
            Self::NotApplicable(_) => "not-applicable",
            Self::NotRun => "not-run",
        }
    }

    /// As it is shown to people.
    const fn label(&self) -> (&'static str, Option<Paint>) {
        match self {
            Self::Passed => ("ok", Some(Paint::Good)),
            Self::Failed(_) | Self::Dead { .. } => ("FAILED", Some(Paint::Bad)),
            Self::NotApplicable(_) => ("not applicable", Some(Paint::Dim)),
            Self::NotRun => ("not run", Some(Paint::Warning)),
        }
    }
}

/// How a case ended.
pub(super) struct Finished {
    pub(super) topic: &'static str,
    pub(super) title: String,
    pub(super) level: Level,
    pub(super) reference: String,
    haproxy: Option<String>,
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
}

impl Finished {
    /// What is shown of a case that failed, a line each.
    pub(super) fn details(&self) -> Vec<String> {
        let mut lines = vec![origin(&self.reference)];
        if let Some(fault) = self.verdict.fault() {
            lines.extend(fault.log.iter().cloned());
            lines.push(format!("expected: {}", fault.expected));
            lines.push(format!("came: {}", fault.came));
        }
        if let Verdict::Dead { .. } = self.verdict {
            lines.extend(self.verdict.reason());
        }
        lines.extend(self.haproxy.as_ref().map(|text| format!("HAProxy: {text}")));
        lines
    }
}

/// The results so far.
pub(super) struct Report {
    output: Output,
    pub(super) address: String,
    begun: Instant,
    pub(super) cases: Vec<Finished>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Counts {
    passed: usize,
    failed: usize,
    not_applicable: usize,
    not_run: usize,
}

#[derive(Serialize)]
struct AgentObject<'a> {
    event: &'static str,
    address: &'a str,
    version: Option<&'a str>,
    max_frame_size: Option<i64>,
    capabilities: Option<&'a str>,
    answers: bool,
}

#[derive(Serialize)]
struct CaseObject<'a> {
    event: &'static str,
    topic: &'a str,
    title: &'a str,
    level: Level,
    reference: &'a str,
    result: &'a str,
    reason: Option<String>,
    expected: Option<&'a str>,
    came: Option<&'a str>,
    haproxy: Option<&'a str>,
    log: &'a [String],
    serves: bool,
    ms: f64,
}

#[derive(Serialize)]
struct ListedObject<'a> {
    event: &'static str,
    topic: &'a str,
    title: &'a str,
    level: Level,
    reference: &'a str,
}

#[derive(Serialize)]
struct Summary {
    event: &'static str,
    conforms: bool,
    must: Counts,
    should: Counts,
    survives: Counts,
    ms: f64,
}

impl Report {
    /// Begins, and says what the agent announces, and which messages it does not answer, if it does not.
    pub(super) fn new(
        output: Output,
        address: &Address,
        hello: &Hello,
        unanswered: Option<&str>,
    ) -> Result<Self, Failure> {
        let address = address.to_string();
        let (version, capabilities) = (hello.version.as_deref(), hello.capabilities.as_deref());
        let max_frame_size = hello.max_frame_size.and_then(|size| i64::try_from(size).ok());
        output.object(&AgentObject {
            event: "agent",
            address: &address,
            version,
            max_frame_size,
            capabilities,
            answers: unanswered.is_none(),
        })?;
        let size = max_frame_size.map_or_else(|| "none".into(), |size| size.to_string());
        let (version, capabilities) = (version.unwrap_or("none"), capabilities.unwrap_or("none"));
        let line =
            format!("{address}: version {version}, max-frame-size {size}, capabilities \"{capabilities}\"");
        output.line(output.paint(Paint::Dim, line))?;
        if let Some(messages) = unanswered {
            let line = format!(
                "no frame answers a NOTIFY with {messages}: if the agent must know it, see --message"
            );
            output.line(output.paint(Paint::Warning, line))?;
        }
        Ok(Self { output, address, begun: Instant::now(), cases: Vec::new() })
    }

    /// Adds a case, and shows it.
    pub(super) fn add(&mut self, case: &Case, verdict: Verdict, took: Duration) -> Result<(), Failure> {
        let Case { topic, title, level, reference, haproxy, .. } = case.clone();
        let finished = Finished { topic, title, level, reference, haproxy, verdict, took };
        let output = self.output;
        if self.cases.last().is_none_or(|last| last.topic != topic) {
            output.line(output.paint(Paint::Heading, topic))?;
        }
        let (label, paint) = finished.verdict.label();
        let label = format!("{label:<14}");
        let label = paint.map_or_else(|| label.clone(), |paint| output.paint(paint, &label));
        let why = match &finished.verdict {
            Verdict::NotApplicable(why) => output.paint(Paint::Dim, format_args!(" ({why})")),
            _ => String::new(),
        };
        output.line(format_args!("  {label}  {:<8}  {}{why}", level.name(), finished.title))?;
        if finished.verdict.is_failed() {
            for line in finished.details() {
                output.line(format_args!("      {line}"))?;
            }
        }
        output.object(&object(&finished))?;
        self.cases.push(finished);
        Ok(())
    }

    /// How many cases of a level have failed.
    pub(super) fn failed(&self, level: Level) -> usize {
        self.counts(level).failed
    }

    /// No rule of must and survives is broken, and the agent served to the end.
    pub(super) fn conforms(&self) -> bool {
        let broken = |case: &Finished| match case.verdict {
            Verdict::Failed(_) => case.level != Level::Should,
            Verdict::Dead { .. } | Verdict::NotRun => true,
            Verdict::Passed | Verdict::NotApplicable(_) => false,
        };
        !self.cases.iter().any(broken)
    }

    fn counts(&self, level: Level) -> Counts {
        let mut counts = Counts::default();
        for case in self.cases.iter().filter(|case| case.level == level) {
            *match case.verdict {
                Verdict::Passed => &mut counts.passed,
                Verdict::Failed(_) | Verdict::Dead { .. } => &mut counts.failed,
                Verdict::NotApplicable(_) => &mut counts.not_applicable,
                Verdict::NotRun => &mut counts.not_run,
            } += 1;
        }
        counts
    }

    pub(super) fn show_summary(&self) -> Result<(), Failure> {
        let output = self.output;
        let mut table = Table::new(["LEVEL", "PASSED", "FAILED", "NOT APPLICABLE", "NOT RUN"]);
        for level in Level::ALL {
            let Counts { passed, failed, not_applicable, not_run } = self.counts(level);
            let cells = [passed, failed, not_applicable, not_run].map(|count| count.to_string());
            let [passed, failed, not_applicable, not_run] = cells;
            table.row(None, [level.name().to_owned(), passed, failed, not_applicable, not_run]);
        }
        output.table("", &table)?;
        let [must, should, survives] = Level::ALL.map(|level| self.counts(level));
        if self.cases.iter().filter(|case| case.verdict.is_failed()).count() > 1 {
            let hint = "One cause can fail many cases: begin with the first that failed.";
            output.line(output.paint(Paint::Dim, hint))?;
        }
        let conforms = self.conforms();
        let ms = millis(self.begun.elapsed());
        output.object(&Summary { event: "summary", conforms, must, should, survives, ms })?;
        let paint = if conforms { Paint::Good } else { Paint::Bad };
        output.line(output.paint(paint, format_args!("{}: {}", self.address, self.verdict())))
    }

    /// The verdict, for people.
    pub(super) fn verdict(&self) -> String {
        let failed =
            |level: Level| Some((self.failed(level), level.name())).filter(|(failed, _)| *failed > 0);
        let of: Vec<_> = Level::ALL.into_iter().filter_map(failed).collect();
        let list = of.iter().map(|(failed, name)| format!("{failed} {name}")).collect::<Vec<_>>().join(", ");
        let not_run: usize = Level::ALL.into_iter().map(|level| self.counts(level).not_run).sum();
        match (self.conforms(), of.is_empty(), not_run) {
            (true, true, _) => "conforms".into(),
            (true, false, _) => format!("conforms, but for {list}"),
            (false, _, 0) => format!("does not conform: {list} failed"),
            (false, _, _) => format!("does not conform: {list} failed, and {not_run} were not run"),
        }
    }
}

fn object(case: &Finished) -> CaseObject<'_> {
    let fault = case.verdict.fault();
    CaseObject {
        event: "case",
        topic: case.topic,
        title: &case.title,
        level: case.level,
        reference: &case.reference,
        result: case.verdict.name(),
        reason: case.verdict.reason(),
        expected: fault.map(|fault| fault.expected.as_str()),
        came: fault.map(|fault| fault.came.as_str()),
        haproxy: case.haproxy.as_deref(),
        log: fault.map_or(&[], |fault| &fault.log),
        serves: !matches!(case.verdict, Verdict::Dead { .. } | Verdict::NotRun),
        ms: millis(case.took),
    }
}

/// Where a rule comes from, for people.
fn origin(reference: &str) -> String {
    let (sections, versions): (Vec<_>, Vec<_>) =
        reference.split(", ").partition(|part| part.starts_with(|first: char| first.is_ascii_digit()));
    let sections = match &sections[..] {
        [] => None,
        [one] => Some(format!("section {one} of the specification")),
        [first @ .., last] => Some(format!("sections {} and {last} of the specification", first.join(", "))),
    };
    let versions = (!versions.is_empty()).then(|| format!("known of {}", versions.join(", ")));
    let parts: Vec<_> = sections.into_iter().chain(versions).collect();
    format!("({})", parts.join("; "))
}

/// Lists cases that are not played.
pub(super) fn list(cases: &[Case], output: Output) -> Result<(), Failure> {
    let mut table = Table::new(["TOPIC", "LEVEL", "REFERENCE", "TITLE"]);
    for Case { topic, title, level, reference, .. } in cases {
        table.row(None, [(*topic).to_owned(), level.name().to_owned(), reference.clone(), title.clone()]);
        output.object(&ListedObject { event: "listed", topic, title, level: *level, reference })?;
    }
    output.table("", &table)
}
