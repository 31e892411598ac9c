//! Parses transcripts.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt::Display, str::FromStr, time::Duration};

use spop_core::{
    AgentConfig,
    frame::Ids,
    link::{Layers, Progress},
    notation::{self, OwnedFrame},
};

use super::{Directive, Failure, Line, Scenario, Which, config};

/// Parses the scenarios of a file.
///
/// # Errors
/// The first line that does not parse.
pub fn parse(text: &str) -> Result<Vec<Scenario>, Failure> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let wrong = |why: String| Failure { line: number, message: format!("{line}: {why}") };
        if let Some(title) = line.strip_prefix("## ") {
            scenarios.push(Scenario {
                title: title.to_owned(),
                line: number,
                config: config(),
                layers: Layers::Plain,
                steps: Vec::new(),
            });
        } else if !line.is_empty() && !line.starts_with('#') {
            let scenario = scenarios.last_mut().ok_or_else(|| wrong("`## TITLE` comes first".to_owned()))?;
            one(scenario, number, line).map_err(wrong)?;
        }
    }
    Ok(scenarios)
}

fn one(scenario: &mut Scenario, number: usize, line: &str) -> Result<(), String> {
    let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    let step = match mark {
        ">" => Line::ToAgent(match rest.strip_prefix("raw ") {
            Some(hex) => bytes(hex)?,
            None => frame(rest)?.to_bytes(),
        }),
        "<" if rest.starts_with("raw ") => Line::Raw(bytes(rest.trim_start_matches("raw "))?),
        "<" => match rest.strip_suffix(" *") {
            Some(front) => Line::ToHaproxy { frame: frame(front)?, open: true },
            None => Line::ToHaproxy { frame: frame(rest)?, open: false },
        },
        "*" => match rest.split_once(' ').unwrap_or((rest, "")) {
            ("config", settings) => {
                for setting in settings.split_whitespace() {
                    config::set(scenario, setting)?;
                }
                return Ok(());
            }
            ("hello", items) => {
                scenario.steps.extend(hello(items)?.into_iter().map(|step| (number, step)));
                return Ok(());
            }
            (verb, words) => Line::Directive(directive(verb, words.trim())?),
        },
        _ => return Err("a line begins with `>`, `<`, `*` or `#`".to_owned()),
    };
    scenario.steps.push((number, step));
    Ok(())
}

/// A frame in the [notation].
fn frame(sentence: &str) -> Result<OwnedFrame, String> {
    notation::parse(sentence).map_err(|error| error.to_string())
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    Ok(frame(&format!("UNSET - 0 0 hex:{hex}"))?.payload)
}

/// The usual handshake, with these items in place of the usual ones.
fn hello(items: &str) -> Result<[Line; 3], String> {
    let mut line = "HAPROXY-HELLO fin 0 0".to_owned();
    for (key, value) in [
        ("supported-versions=", "string:2.0"),
        ("max-frame-size=", "uint32:16380"),
        ("capabilities=", "string:pipelining,async"),
        ("engine-id=", "string:e1"),
    ] {
        if !items.split_whitespace().any(|item| item.starts_with(key)) {
            line.extend([" ", key, value]);
        }
    }
    let sent = frame(&format!("{line} {items}"))?.to_bytes();
    Ok([
        Line::ToAgent(sent),
        Line::Directive(Directive::Expect("Established".to_owned())),
        Line::ToHaproxy { frame: frame("AGENT-HELLO fin 0 0")?, open: true },
    ])
}

fn directive(verb: &str, words: &str) -> Result<Directive, String> {
    let (first, rest) = words.split_once(' ').unwrap_or((words, ""));
    Ok(match verb {
        "expect" => Directive::Expect(words.to_owned()),
        "answer" => Directive::Answer(which(first)?, actions(rest)?),
        "answer-part" => Directive::AnswerPart(which(first)?, actions(rest)?),
        "abort-answer" => Directive::AbortAnswer(which(words)?),
        "fail" => Directive::Fail(which(words)?),
        "refuse" => Directive::Refuse(ids(words)?),
        "lame-duck" => Directive::LameDuck,
        "drain" => Directive::Drain,
        "disconnect" => Directive::Disconnect(number(first)?, rest.to_owned()),
        "eof" => Directive::Eof,
        "reset" => Directive::Reset,
        "read-blocked" => Directive::ReadBlocked,
        "wait" => Directive::Wait(duration(words)?),
        "back" => Directive::Back(duration(words)?),
        "ready" => Directive::Ready(number(words)?),
        "take" => Directive::Take(number(words)?),
        "shut" => Directive::Shut(match words {
            "done" => Progress::Done,
            "started" => Progress::Started,
            "wanted" => Progress::Requested,
            _ => return Err("done, started or wanted".to_owned()),
        }),
        "wants" => Directive::Wants(words.to_owned()),
        "timer" => Directive::Timer(words.to_owned()),
        "state" => {
            let pair = |item: &str| {
                let (key, value) = item.split_once('=').ok_or("key=value")?;
                Ok::<_, String>((key.to_owned(), value.to_owned()))
            };
            Directive::State(words.split_whitespace().map(pair).collect::<Result<_, _>>()?)
        }
        _ => return Err(format!("no such directive: {verb}")),
    })
}

fn actions(sentence: &str) -> Result<Vec<u8>, String> {
    Ok(frame(&format!("ACK fin 0 0 {sentence}"))?.payload)
}

fn which(word: &str) -> Result<Which, String> {
    let (front, count) = match word.split_once('#') {
        Some((front, count)) => (front, Some(number(count)?)),
        None => (word, None),
    };
    Ok(Which { ids: ids(front)?, number: count })
}

fn ids(word: &str) -> Result<Ids, String> {
    let (stream, frame) = word.split_once('/').ok_or("identifiers are STREAM/FRAME")?;
    Ok(Ids::new(number(stream)?, number(frame)?))
}

/// A number, or another token with a fixed form.
pub(super) fn number<T: FromStr<Err: Display>>(word: &str) -> Result<T, String> {
    word.parse().map_err(|error| format!("{word}: {error}"))
}

/// A number with a unit: ns, ms, s or m.
pub(super) fn duration(word: &str) -> Result<Duration, String> {
    let end = word.find(|ch: char| !ch.is_ascii_digit()).ok_or("a unit: ns, ms, s or m")?;
    let (digits, unit) = word.split_at(end);
    let number: u64 = number(digits)?;
    Ok(match unit {
        "ns" => Duration::from_nanos(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(60 * number),
        _ => return Err("a unit: ns, ms, s or m".to_owned()),
    })
}

/// The defaults without a timeout for answers: scenarios of late answers set it.
fn config() -> AgentConfig {
    let mut config = AgentConfig::default();
    // Off, so that the deadlines in scenarios are those of other timers.
    config.timeouts.memory = None;
    config.timeouts.message = None;
    config.processing = None;
    config
}
