//! Error numbers and statuses.

use serde::Serialize;
use spop_core::{Status, haproxy::explain};

use crate::{
    exit::Failure,
    output::{Output, Paint},
};

/// A number, explained.
#[derive(Clone, Debug, Serialize)]
#[allow(clippy::struct_field_names)] // The names in JSON.
pub(crate) struct Number {
    event: &'static str,
    number: u32,
    /// `error` or `status`.
    kind: &'static str,
    name: &'static str,
    meaning: &'static str,
    culprit: &'static str,
    causes: Vec<Cause>,
}

#[derive(Clone, Debug, Serialize)]
#[allow(clippy::struct_field_names)] // The names in JSON.
struct Cause {
    versions: &'static str,
    cause: &'static str,
    remedy: &'static str,
}

/// Explains `258`, `st=258` or `status=2`. A bare number may mean both.
pub(super) fn parse(text: &str) -> Result<Vec<Number>, String> {
    let (kind, digits) = match text.split_once(['=', ':']) {
        Some(("st" | "error" | "set-on-error", digits)) => (Some("error"), digits),
        Some(("status" | "status-code", digits)) => (Some("status"), digits),
        Some(_) => return Err(unknown(text)),
        None => (None, text),
    };
    let number: u32 = digits.trim().parse().map_err(|_| unknown(text))?;
    let found: Vec<_> = match kind {
        Some("error") => Number::error(number).into_iter().collect(),
        Some(_) => Number::status(number).into_iter().collect(),
        None => {
            // Above 255 a status is one that an agent has invented, and the number is nearly always that of an error.
            let status = if number < 256 { Number::status(number) } else { None };
            Number::error(number).into_iter().chain(status).collect()
        }
    };
    if found.is_empty() {
        return Err(format!(
            "no HAProxy reports the error {number}: there are 0 to 5, 255, and 256 + the status of a DISCONNECT"
        ));
    }
    Ok(found)
}

fn unknown(text: &str) -> String {
    format!("{text:?} is neither a number nor a log line of SPOE: see `spop explain --help`")
}

impl Number {
    /// The number of `st=` and of `option set-on-error`.
    pub(crate) fn error(number: u32) -> Option<Self> {
        let found = explain(number)?;
        let causes = found.causes.iter();
        Some(Self {
            event: "number",
            number,
            kind: "error",
            name: found.name,
            meaning: found.meaning,
            culprit: culprit(number),
            causes: causes
                .map(|cause| Cause { versions: cause.versions, cause: cause.cause, remedy: cause.remedy })
                .collect(),
        })
    }

    /// The status of a DISCONNECT. `None` for one that the specification does not assign.
    fn status(number: u32) -> Option<Self> {
        Status(number).reason()?;
        Some(Self { number, kind: "status", ..Self::error(number.checked_add(256)?)? })
    }

    pub(super) fn is_error(&self) -> bool {
        self.number != 0 && self.number != 256
    }

    /// The number's meaning in a few words.
    pub(super) fn describe(&self) -> String {
        match self.number {
            0 => "success: the answer was applied".to_owned(),
            256.. => format!("{}: 256 + the status of a DISCONNECT", self.name),
            _ => self.name.to_owned(),
        }
    }

    /// The name, and where the number is seen.
    fn title(&self) -> String {
        let Self { number, name, .. } = self;
        match (self.kind, *number) {
            ("status", _) => {
                format!("status {number} of a DISCONNECT: {name} (HAProxy reports {})", number + 256)
            }
            (_, 0..=255) => format!("error {number}: {name}"),
            _ => format!("error {number}: {name} (the session ended with status {})", number - 256),
        }
    }

    pub(super) fn show(&self, output: Output) -> Result<(), Failure> {
        output.object(self)?;
        self.show_text(output)
    }

    pub(crate) fn show_text(&self, output: Output) -> Result<(), Failure> {
        output.line(output.paint(Paint::Heading, self.title()))?;
        output.line(format_args!("  {}", self.meaning))?;
        if !self.culprit.is_empty() {
            output.line(format_args!("  Who: {}", self.culprit))?;
        }
        for Cause { versions, cause, remedy } in &self.causes {
            let versions = if *versions == "all" { String::new() } else { format!(" (HAProxy {versions})") };
            output.line(format_args!("  - {cause}{}", output.paint(Paint::Dim, versions)))?;
            output.line(format_args!("    {}", output.paint(Paint::Good, remedy)))?;
        }
        Ok(())
    }
}

/// What causes an error, the likeliest first.
const fn culprit(number: u32) -> &'static str {
    match number {
        1 => "the agent, or the network between: no answer came in time",
        2 => "HAProxy: it has no connection for the request, or no memory",
        3 => "the configuration: the messages do not fit a frame",
        4 => "the agent (HAProxy up to 3.0), or the client or HAProxy (3.1 and later)",
        5 => "HAProxy's rules, which did not wait",
        256 => "no side: the session ended without an error",
        257 => "the agent, or the network between: the connection was lost",
        258 => "the side whose timeout ended: the agent, or HAProxy by `timeout hello` or `timeout idle`",
        259 => "the configuration of both sides: their `max-frame-size` differs",
        260 => "the agent, in most cases: HAProxy does not understand it, or it is no SPOP agent",
        261..=265 => "the agent: its AGENT-HELLO, or what it makes of HAProxy's",
        266 => "the agent: it does not announce fragmentation, or it fragments an ACK",
        0 | 255 => "",
        _ => "the agent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(text: &str) -> Vec<String> {
        parse(text).unwrap().iter().map(Number::title).collect()
    }

    #[test]
    fn a_number_below_256_may_be_a_status() {
        assert_eq!(titles("258"), ["error 258: a timeout occurred (the session ended with status 2)"]);
        assert_eq!(titles("st=2"), ["error 2: resources"]);
        let status = "status 2 of a DISCONNECT: a timeout occurred (HAProxy reports 258)";
        assert_eq!(titles("status=2"), [status]);
        assert_eq!(titles("2"), ["error 2: resources", status]);
        assert_eq!(
            titles("8"),
            ["status 8 of a DISCONNECT: unsupported version (HAProxy reports 264)"],
            "no error has the number 8"
        );
        assert_eq!(
            titles("298"),
            ["error 298: a code of the application (the session ended with status 42)"]
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "x", "st=", "st=x", "x=1", "-1", "4294967296", "st=8", "status=42", "77"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("4294967295").is_ok());
    }

    #[test]
    fn every_error_has_a_culprit() {
        for number in (1..6).chain(256..=269).chain([355, 1_000]) {
            assert!(!Number::error(number).unwrap().culprit.is_empty(), "{number}");
        }
    }
}
