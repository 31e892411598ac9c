//! Reads transcripts.

use std::time::Duration;

use anyhow::{Context as _, bail};
use spop_core::{
    AgentConfig,
    frame::Ids,
    link::{Layers, Progress},
    notation,
};

use super::{Directive, Scenario, Step, Which, config};

/// Reads the scenarios of a file. Errors begin with the number of the line.
///
/// # Errors
/// A line that makes no sense.
pub fn parse(text: &str) -> anyhow::Result<Vec<Scenario>> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(title) = line.strip_prefix("## ") {
            scenarios.push(Scenario {
                title: title.to_owned(),
                line: number,
                config: config(),
                layers: Layers::Plain,
                steps: Vec::new(),
            });
        } else if !line.is_empty() && !line.starts_with('#') {
            let scenario =
                scenarios.last_mut().with_context(|| format!("{number}: `## TITLE` comes first"))?;
            one(scenario, number, line).with_context(|| format!("{number}: {line}"))?;
        }
    }
    Ok(scenarios)
}

fn one(scenario: &mut Scenario, number: usize, line: &str) -> anyhow::Result<()> {
    let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    let step = match mark {
        ">" => Step::ToAgent(match rest.strip_prefix("raw ") {
            Some(hex) => bytes(hex)?,
            None => notation::parse_bytes(rest)?,
        }),
        "<" if rest.starts_with("raw ") => Step::Raw(bytes(rest.trim_start_matches("raw "))?),
        "<" => match rest.strip_suffix(" *") {
            Some(front) => Step::ToHaproxy { frame: notation::parse(front)?, open: true },
            None => Step::ToHaproxy { frame: notation::parse(rest)?, open: false },
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
            (verb, words) => Step::Directive(directive(verb, words.trim())?),
        },
        _ => bail!("a line begins with `>`, `<`, `*` or `#`"),
    };
    scenario.steps.push((number, step));
    Ok(())
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    Ok(notation::parse(&format!("UNSET - 0 0 hex:{hex}"))?.payload)
}

/// The usual handshake. Items given replace the usual ones.
fn hello(items: &str) -> anyhow::Result<[Step; 3]> {
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
    let sent = notation::parse_bytes(&format!("{line} {items}"))?;
    Ok([
        Step::ToAgent(sent),
        Step::Directive(Directive::Expect("Established".to_owned())),
        Step::ToHaproxy { frame: notation::parse("AGENT-HELLO fin 0 0")?, open: true },
    ])
}

fn directive(verb: &str, words: &str) -> anyhow::Result<Directive> {
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
        "disconnect" => Directive::Disconnect(first.parse()?, rest.to_owned()),
        "eof" => Directive::Eof,
        "reset" => Directive::Reset,
        "read-blocked" => Directive::ReadBlocked,
        "wait" => Directive::Wait(duration(words)?),
        "back" => Directive::Back(duration(words)?),
        "ready" => Directive::Ready(words.parse()?),
        "take" => Directive::Take(words.parse()?),
        "shut" => Directive::Shut(match words {
            "done" => Progress::Done,
            "started" => Progress::Started,
            "wanted" => Progress::Wanted,
            _ => bail!("done, started or wanted"),
        }),
        "wants" => Directive::Wants(words.to_owned()),
        "timer" => Directive::Timer(words.to_owned()),
        "state" => {
            let pair = |item: &str| {
                let (key, value) = item.split_once('=').context("key=value")?;
                anyhow::Ok((key.to_owned(), value.to_owned()))
            };
            Directive::State(words.split_whitespace().map(pair).collect::<Result<_, _>>()?)
        }
        _ => bail!("no such directive: {verb}"),
    })
}

fn actions(sentence: &str) -> anyhow::Result<Vec<u8>> {
    Ok(notation::parse(&format!("ACK fin 0 0 {sentence}"))?.payload)
}

fn which(word: &str) -> anyhow::Result<Which> {
    let (front, number) = match word.split_once('#') {
        Some((front, number)) => (front, Some(number.parse()?)),
        None => (word, None),
    };
    Ok(Which { ids: ids(front)?, number })
}

fn ids(word: &str) -> anyhow::Result<Ids> {
    let (stream, frame) = word.split_once('/').context("identifiers are STREAM/FRAME")?;
    Ok(Ids::new(stream.parse()?, frame.parse()?))
}

/// A number with a unit: ns, ms, s or m.
pub(super) fn duration(word: &str) -> anyhow::Result<Duration> {
    let end = word.find(|ch: char| !ch.is_ascii_digit()).context("a unit: ns, ms, s or m")?;
    let (digits, unit) = word.split_at(end);
    let number: u64 = digits.parse()?;
    Ok(match unit {
        "ns" => Duration::from_nanos(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(60 * number),
        _ => bail!("a unit: ns, ms, s or m"),
    })
}

/// The defaults, but no time limits for answers: a scenario about answers that come late says so itself.
fn config() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.timeouts.message = None;
    config.processing = None;
    config
}
