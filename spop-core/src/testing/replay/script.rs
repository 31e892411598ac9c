//! The lines of a transcript.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use super::ReplayError;
use crate::{
    frame::FrameType,
    notation::{self, OwnedFrame},
};

/// A scenario of one connection. Private: for the adapters.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    pub(super) steps: Vec<(usize, Step)>,
    /// The last line.
    pub(super) end: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// `>`
    Send(Vec<u8>),
    /// `<`
    Expect {
        frame: OwnedFrame,
        /// The payload may continue.
        open: bool,
    },
    /// `* wait`
    Wait(Duration),
    /// `* close`
    Shut,
}

/// The handshake of a scenario without one. The AGENT-HELLO has any payload.
const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async engine-id=string:engine";

/// Parses a transcript.
///
/// # Errors
/// The first line that does not parse.
#[doc(hidden)]
pub fn parse(text: &str) -> Result<Vec<Scenario>, ReplayError> {
    let mut scenarios = Vec::new();
    let mut scenario = Scenario::default();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.starts_with("## ") && !scenario.steps.is_empty() {
            scenarios.push(core::mem::take(&mut scenario));
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let step = step(line).map_err(|expected| ReplayError {
            line: number,
            way: None,
            expected,
            found: line.to_owned(),
            failure: None,
        })?;
        let greets =
            matches!(&step, Step::Send(bytes) if bytes.get(4) == Some(&FrameType::HaproxyHello.byte()));
        if scenario.steps.is_empty() && !greets {
            let hello = ["> ", HELLO].concat();
            for line in [&*hello, "< AGENT-HELLO fin 0 0 *"] {
                scenario.steps.extend(self::step(line).ok().map(|step| (number, step)));
            }
        }
        scenario.steps.push((number, step));
        scenario.end = number;
    }
    if !scenario.steps.is_empty() {
        scenarios.push(scenario);
    }
    Ok(scenarios)
}

/// A line; the error is what was expected.
fn step(line: &str) -> Result<Step, String> {
    let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
    let frame = |sentence: &str| notation::parse(sentence).map_err(|error| error.to_string());
    match mark {
        ">" => Ok(Step::Send(frame(rest)?.to_bytes())),
        "<" => match rest.strip_suffix(" *") {
            Some(front) => Ok(Step::Expect { frame: frame(front)?, open: true }),
            None => Ok(Step::Expect { frame: frame(rest)?, open: false }),
        },
        "*" => match rest.split_once(' ').unwrap_or((rest, "")) {
            ("wait", time) => duration(time.trim()).map(Step::Wait),
            ("close", "") => Ok(Step::Shut),
            _ => Err("`wait` with a time, or `close`".to_owned()),
        },
        _ => Err("`>`, `<`, `*`, `#` or nothing".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|ch: char| !ch.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "ns" => Duration::from_nanos(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return Err("a time in ns, ms, s or m".to_owned()),
    };
    let number: u32 = number.parse().map_err(|_| "a time in ns, ms, s or m".to_owned())?;
    Ok(unit * number)
}
