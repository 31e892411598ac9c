//! Cases: transcripts with patterns for what the agent sends.
//!
//! ```text
//! ## The title of a case.
//! * must 3.2.7                      its level (must, should or survives), and where the rule comes from
//! * haproxy it waits                what HAProxy does with an agent that fails
//! * hello                           the usual handshake; items replace those with the same key
//! * needs pipelining                the rest applies only to agents that announce this: a capability, or a size of frames
//! > NOTIFY fin 5 1 {message}        HAProxy sends this frame; lines that follow each other leave in one write
//! > hex:00ff raw:text               HAProxy sends these bytes
//! < ACK fin 5 1 *                   this frame comes; lines that follow each other may come in any order
//! <? ACK fin 3 1 *                  this frame may come, from here on
//! or < AGENT-DISCONNECT fin 0 0 *   or this comes in place of the lines above, and ends the case
//! or end                            or the agent closes the connection
//! ```
//!
//! Patterns are those of [`pattern`](super::pattern). `{message}` stands for the messages of `--message`, and `{arguments}` for
//! 255 arguments with different names. [`Step`] lists the lines that begin with `*`.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::Serialize;
use spop_core::{frame::Capabilities, notation};

use super::{
    expected::{Alternative, Expected},
    pattern::Pattern,
};

/// How binding a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// The specification requires it, or no HAProxy works without it
    Must,
    /// The specification recommends it, or some versions of HAProxy need it
    Should,
    /// The agent serves new connections after hostile or broken input
    Survives,
}

impl Level {
    pub(super) const ALL: [Self; 3] = [Self::Must, Self::Should, Self::Survives];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::Survives => "survives",
        }
    }
}

/// A rule, and how it is tried.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// The name of its file.
    pub(super) topic: &'static str,
    pub(super) title: String,
    pub(super) level: Level,
    /// The section of the specification, or a version of HAProxy.
    pub(super) reference: String,
    /// What HAProxy does with an agent that fails, where that is known.
    pub(super) haproxy: Option<String>,
    /// It is tried once for each byte at which the last write can be cut in two.
    pub(super) cut: bool,
    pub(super) steps: Vec<Step>,
}

/// A line of a case.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// `>`: one write.
    Send {
        /// As it is shown.
        lines: Vec<String>,
        bytes: Vec<u8>,
    },
    /// `<`
    Expect(Expected),
    /// `<?`
    Allow(Pattern),
    /// `* end`: the agent closes the connection, and sends nothing more.
    End(Vec<Alternative>),
    /// `* quiet`: for a short time nothing comes. The agent may close the connection.
    Quiet,
    /// `* one read`: the last frame came in one read.
    OneRead,
    /// `* at most 300`: the last frame is so long at most, with its length prefix.
    AtMost(usize),
    /// `* needs CAPABILITY`
    Needs(Capabilities),
    /// `* lacks CAPABILITY`
    Lacks(Capabilities),
    /// `* needs max-frame-size N`
    NeedsSize(u32),
    /// `* on 2`: another connection, which is opened when it is first used.
    On(usize),
    /// `* any connection`: answers may come on any connection.
    AnyConnection,
    /// `* byte by byte`: each byte is a write of its own from here on.
    Bytewise,
    /// `* pause`: what was sent is a segment of its own.
    Pause,
    /// `* shut`: this side shuts its write side, which to the agent is a close.
    Shut,
    /// `* reset`: this side closes the connection with unread data, which resets it.
    Reset,
    /// `* open 20`: opens so many connections, does the handshake, and leaves them open.
    Open(usize),
    /// `* serves`: a new connection is served while these are open.
    Serves,
}

const FILES: [(&str, &str); 7] = [
    ("handshake", include_str!("cases/handshake.spop")),
    ("requests", include_str!("cases/requests.spop")),
    ("pipelining", include_str!("cases/pipelining.spop")),
    ("fragments", include_str!("cases/fragments.spop")),
    ("closing", include_str!("cases/closing.spop")),
    ("violations", include_str!("cases/violations.spop")),
    ("hostile", include_str!("cases/hostile.spop")),
];

/// All cases.
///
/// # Errors
/// The first line that does not parse.
pub(super) fn all(message: &str) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for (topic, text) in FILES {
        parse(topic, text, message, &mut cases)?;
    }
    Ok(cases)
}

fn parse(topic: &'static str, text: &str, message: &str, cases: &mut Vec<Case>) -> Result<(), String> {
    let mut parser = Parser::default();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let wrong = |why: String| format!("{topic}.spop:{number}: {line}: {why}");
        if let Some(title) = line.strip_prefix("## ") {
            cases.extend(parser.finish(topic).map_err(wrong)?);
            parser.title = Some(title.to_owned());
        } else if !line.is_empty() && !line.starts_with('#') {
            let line = line.replace("{message}", message).replace("{arguments}", &arguments());
            parser.line(&line).map_err(wrong)?;
        }
    }
    cases.extend(parser.finish(topic)?);
    Ok(())
}

/// A case that is being read.
#[derive(Default)]
struct Parser {
    title: Option<String>,
    rule: Option<(Level, String)>,
    haproxy: Option<String>,
    steps: Vec<Step>,
    cut: bool,
    /// How often the next line is sent.
    times: Option<usize>,
}

impl Parser {
    fn finish(&mut self, topic: &'static str) -> Result<Option<Case>, String> {
        let Self { title, rule, haproxy, steps, cut, .. } = std::mem::take(self);
        let Some(title) = title else { return Ok(None) };
        let (level, reference) = rule.ok_or_else(|| format!("{title}: no level"))?;
        if steps.is_empty() {
            return Err(format!("{title}: no steps"));
        }
        Ok(Some(Case { topic, title, level, reference, haproxy, cut, steps }))
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if self.title.is_none() {
            return Err("`## TITLE` comes first".into());
        }
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match mark {
            ">" => self.send(rest)?,
            "<" => match self.steps.last_mut() {
                Some(Step::Expect(Expected { frames, or })) if or.is_empty() => {
                    frames.push(Pattern::parse(rest)?);
                }
                _ => self.steps.push(expect(rest)?),
            },
            "<?" => self.steps.push(Step::Allow(Pattern::parse(rest)?)),
            "or" => self.alternative(rest)?,
            "*" => self.directive(rest)?,
            _ => return Err("a line begins with `>`, `<`, `<?`, `or`, `*` or `#`".into()),
        }
        Ok(())
    }

    fn send(&mut self, sentence: &str) -> Result<(), String> {
        let is_raw = sentence.starts_with("hex:") || sentence.starts_with("raw:");
        let unit = if is_raw { raw(sentence)? } else { frame(sentence)? };
        let times = self.times.take();
        let line = match times {
            Some(times) => format!("> {sentence}   ({times} times)"),
            None => format!("> {sentence}"),
        };
        let sent = unit.repeat(times.unwrap_or(1));
        match self.steps.last_mut() {
            Some(Step::Send { lines, bytes }) => {
                lines.push(line);
                bytes.extend_from_slice(&sent);
            }
            _ => self.steps.push(Step::Send { lines: vec![line], bytes: sent }),
        }
        Ok(())
    }

    fn alternative(&mut self, words: &str) -> Result<(), String> {
        let alternative = match words {
            "end" => Alternative::End,
            "quiet" => Alternative::Quiet,
            _ => Alternative::Frame(Pattern::parse(
                words.strip_prefix("< ").ok_or("`< FRAME`, `end` or `quiet`")?,
            )?),
        };
        match self.steps.last_mut() {
            Some(Step::Expect(Expected { or, .. }) | Step::End(or)) => or.push(alternative),
            _ => return Err("it follows `<` or `* end`".into()),
        }
        Ok(())
    }

    fn directive(&mut self, words: &str) -> Result<(), String> {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        let rest = rest.trim();
        let step = match (verb, rest) {
            ("must" | "should" | "survives", reference) => {
                if self.rule.is_some() || reference.is_empty() {
                    return Err("one level, with a reference".into());
                }
                let level = Level::from_str(verb, false)?;
                self.rule = Some((level, reference.to_owned()));
                return Ok(());
            }
            ("haproxy", text) => {
                if text.is_empty() || self.haproxy.replace(text.to_owned()).is_some() {
                    return Err("one text".into());
                }
                return Ok(());
            }
            ("cut", "") => {
                self.cut = true;
                return Ok(());
            }
            ("times", count) => {
                self.times = Some(number(count)?);
                return Ok(());
            }
            ("hello", items) => {
                self.send(&hello(items))?;
                // Whether it is a good one is left to the cases about it.
                expect("AGENT-HELLO *")?
            }
            ("needs", words) => match words.strip_prefix("max-frame-size ") {
                Some(size) => Step::NeedsSize(number(size)?),
                None => Step::Needs(capability(words)?),
            },
            ("lacks", name) => Step::Lacks(capability(name)?),
            ("on", index) => Step::On(number(index)?),
            ("open", count) => Step::Open(number(count)?),
            ("at", words) => Step::AtMost(number(words.strip_prefix("most ").unwrap_or_default())?),
            ("any", "connection") => Step::AnyConnection,
            ("byte", "by byte") => Step::Bytewise,
            ("one", "read") => Step::OneRead,
            ("end", "") => Step::End(Vec::new()),
            ("quiet", "") => Step::Quiet,
            ("pause", "") => Step::Pause,
            ("shut", "") => Step::Shut,
            ("reset", "") => Step::Reset,
            ("serves", "") => Step::Serves,
            _ => return Err("no such directive".into()),
        };
        self.steps.push(step);
        Ok(())
    }
}

/// 255 arguments, the most that a message can have.
fn arguments() -> String {
    (1..=u8::MAX).fold(String::new(), |mut line, number| {
        // Writing to a string cannot fail.
        let _ = write!(line, "a{number}=bool:true ");
        line
    })
}

fn expect(pattern: &str) -> Result<Step, String> {
    Ok(Step::Expect(Expected { frames: vec![Pattern::parse(pattern)?], or: Vec::new() }))
}

fn frame(sentence: &str) -> Result<Vec<u8>, String> {
    notation::parse_bytes(sentence).map_err(|error| error.to_string())
}

fn raw(data: &str) -> Result<Vec<u8>, String> {
    notation::parse(&format!("UNSET - 0 0 {data}"))
        .map(|frame| frame.payload)
        .map_err(|error| error.to_string())
}

/// The engine of a usual HAPROXY-HELLO. Another is [put in its place](super::engine::Engine) when it is sent.
pub(super) const ENGINE: &str = "4d4602a4-4b2b-49e3-8f0b-0123456789ab";

/// The usual HAPROXY-HELLO, with these items in place of the usual ones.
pub(super) fn hello(items: &str) -> String {
    let mut line = "HAPROXY-HELLO fin 0 0".to_owned();
    let engine = format!("string:{ENGINE}");
    for (key, value) in [
        ("supported-versions=", "string:2.0"),
        ("max-frame-size=", "uint32:16380"),
        ("capabilities=", "string:pipelining,async"),
        ("engine-id=", &engine),
    ] {
        if !items.split_whitespace().any(|item| item.starts_with(key)) {
            line.extend([" ", key, value]);
        }
    }
    if !items.is_empty() {
        line.extend([" ", items]);
    }
    line
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number that fits"))
}

fn capability(name: &str) -> Result<Capabilities, String> {
    Capabilities::by_name(name.as_bytes()).ok_or_else(|| format!("there is no capability `{name}`"))
}
