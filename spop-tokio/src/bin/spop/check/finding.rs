//! What was found in an agent.

use serde::Serialize;

use crate::{
    exit::Failure,
    haproxy::Version,
    output::{Output, Paint},
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// HAProxy cannot work with the agent, or the specification is violated.
    Wrong,
    /// HAProxy works with the agent, and some requests fail.
    Warning,
    /// Nothing is wrong.
    Note,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }

    const fn paint(self) -> Paint {
        match self {
            Self::Wrong => Paint::Bad,
            Self::Warning => Paint::Warning,
            Self::Note => Paint::Dim,
        }
    }
}

/// One thing that was found, in one greeting or several.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    event: &'static str,
    level: Level,
    /// A name for scripts.
    code: &'static str,
    /// The greetings in which it was found, or the versions that it concerns.
    haproxy: String,
    text: String,
    /// What HAProxy makes of it.
    effect: String,
}

impl Finding {
    pub(super) fn new(level: Level, code: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { event: "finding", level, code, haproxy: String::new(), text, effect: String::new() }
    }

    /// What HAProxy makes of it.
    pub(super) fn effect(mut self, effect: impl Into<String>) -> Self {
        self.effect = effect.into();
        self
    }

    /// The versions that it concerns, where they are not those that were greeted as.
    pub(super) fn concerns(mut self, versions: &str) -> Self {
        versions.clone_into(&mut self.haproxy);
        self
    }
}

/// All findings, each once.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding of a greeting. The same one of several greetings is one.
    pub(super) fn add(&mut self, mut finding: Finding, seen_in: Option<(Version, bool)>) {
        let greeting = seen_in.map(|(version, healthcheck)| {
            format!("{version}{}", if healthcheck { " health check" } else { "" })
        });
        let mut same =
            self.0.iter_mut().find(|known| known.code == finding.code && known.text == finding.text);
        if let Some(known) = &mut same
            && !known.effect.contains(&finding.effect)
        {
            known.effect.push_str("; ");
            known.effect.push_str(&finding.effect);
        }
        match (same, greeting) {
            (Some(known), Some(greeting)) if finding.haproxy.is_empty() => {
                known.haproxy.push_str(", ");
                known.haproxy.push_str(&greeting);
            }
            (Some(_), _) => {}
            (None, greeting) => {
                if finding.haproxy.is_empty() {
                    finding.haproxy = greeting.unwrap_or_default();
                }
                self.0.push(finding);
            }
        }
    }

    pub(super) fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    /// Shows them, the worst first.
    pub(super) fn show(&self, output: Output) -> Result<(), Failure> {
        for level in [Level::Wrong, Level::Warning, Level::Note] {
            for finding in self.0.iter().filter(|finding| finding.level == level) {
                output.object(finding)?;
                let name = output.paint(level.paint(), level.name());
                let versions = match finding.haproxy.as_str() {
                    "" => String::new(),
                    versions => output.paint(Paint::Dim, format_args!(" (HAProxy {versions})")),
                };
                output.line(format_args!("{name}: {}{versions}", finding.text))?;
                if !finding.effect.is_empty() {
                    output.line(format_args!("  {}", finding.effect))?;
                }
            }
        }
        Ok(())
    }
}
