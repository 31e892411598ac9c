//! The rule file.

use std::{fmt, sync::Arc};

use anyhow::{Context as _, anyhow, bail, ensure};
use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};
use spop_tokio::{Actions, Scope};

/// The memory of one compiled pattern, and of those of a part of a message together.
const PATTERN_BYTES: usize = 1 << 20;
const PATTERNS_BYTES: usize = 32 << 20;
/// What each worker remembers of texts, for each part of a message.
const WORKER_BYTES: usize = 1 << 20;

/// The prefix of the variables, as spoe.conf has it.
const VAR_PREFIX: &str = "waf";

/// The rules of a file, by the part of a message that they look at.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) groups: Vec<Group>,
}

/// The rules for a part.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) part: Part,
    /// A pattern for each of the rules, in one automaton.
    pub(crate) patterns: RegexSet,
    pub(crate) rules: Vec<Rule>,
}

/// What a match adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its line in the file, from 1.
    pub(crate) line: usize,
    pub(crate) score: i32,
    pub(crate) tag: Arc<str>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Method,
    Path,
    Query,
    /// Of this name, in lower case; or each.
    Header(Option<Box<str>>),
    Body,
    /// Not the text: whether it was cut.
    Cut,
    Status,
    ResponseHeader(Option<Box<str>>),
    ResponseBody,
    ResponseCut,
}

/// A line that makes no sense.
#[derive(Debug)]
pub(crate) struct BadLine {
    /// Which, from 1.
    number: usize,
    reason: anyhow::Error,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:#}", self.number, self.reason)
    }
}

impl std::error::Error for BadLine {}

impl Rules {
    /// Reads lines of `WHERE SCORE TAG HOW PATTERN`.
    ///
    /// # Errors
    /// [`BadLine`] for the first that makes no sense; or there is no rule, as in a file that is just being written.
    pub(crate) fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let mut lines: Vec<(Part, String, Rule)> = Vec::new();
        for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
            let line =
                str::from_utf8(line).context("it is not UTF-8").and_then(|line| parse_line(line, number));
            lines.extend(line.map_err(|reason| BadLine { number, reason })?);
        }
        ensure!(!lines.is_empty(), "there is no rule in it");
        let mut groups: Vec<Group> = Vec::new();
        while let Some((part, ..)) = lines.first() {
            let part = part.clone();
            let (of_part, others): (Vec<_>, Vec<_>) =
                lines.into_iter().partition(|(other, ..)| *other == part);
            lines = others;
            let (patterns, rules): (Vec<_>, Vec<_>) =
                of_part.into_iter().map(|(_, pattern, rule)| (pattern, rule)).unzip();
            let mut patterns = RegexSetBuilder::new(patterns);
            let patterns =
                patterns.unicode(false).size_limit(PATTERNS_BYTES).dfa_size_limit(WORKER_BYTES).build();
            let patterns = patterns.with_context(|| format!("the rules for {part} together"))?;
            groups.push(Group { part, patterns, rules });
        }
        Ok(Self { groups })
    }

    /// Whether there are any for responses.
    pub(crate) fn are_for_responses(&self) -> bool {
        self.groups.iter().any(|group| group.part.is_of_response())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.rules.len()).sum()
    }
}

/// The part, the pattern and the rest of a rule; nothing of a line that is empty or a comment.
fn parse_line(line: &str, number: usize) -> anyhow::Result<Option<(Part, String, Rule)>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        rest = after.trim_start();
        word
    };
    let (place, score, tag, how) = (word(), word(), word(), word());
    let part: Part = place.parse()?;
    let score = score.parse().ok().filter(|score| (-1000..=1000).contains(score));
    let score = score.with_context(|| format!("the score of {place} is not a number from -1000 to 1000"))?;
    check_tag(tag)?;
    let (part, pattern) = match (how, rest) {
        ("is-cut", "") => (part.cut()?, String::new()),
        ("is-cut", _) => bail!("is-cut has no pattern"),
        ("contains" | "regex", "") => bail!("the pattern is missing"),
        ("contains", text) => (part, regex::escape(text)),
        ("regex", pattern) => (part, pattern.to_owned()),
        ("", _) => bail!("expected WHERE SCORE TAG HOW PATTERN, found {line:?}"),
        (other, _) => bail!("{other:?} is none of contains, regex, is-cut"),
    };
    // By itself, so that an error has its line.
    let compiled = RegexBuilder::new(&pattern).unicode(false).size_limit(PATTERN_BYTES).build();
    let compiled = compiled.map_err(|error| anyhow!(in_one_line(&error.to_string())))?;
    ensure!(how == "is-cut" || !compiled.is_match(b""), "the pattern matches everything");
    Ok(Some((part, pattern, Rule { line: number, score, tag: tag.into() })))
}

/// An error of `regex` has lines, one of which points to a column of another.
fn in_one_line(error: &str) -> String {
    let lines = error.lines().map(str::trim).filter(|line| line.contains(|letter: char| letter != '^'));
    lines.collect::<Vec<_>>().join(" ")
}

fn check_tag(tag: &str) -> anyhow::Result<()> {
    ensure!(!tag.is_empty(), "the tag is missing");
    let no_variable = || format!("no variable of HAProxy can have the name of the tag {tag:?}");
    let mut actions = Actions::new();
    actions.try_set_var(Scope::Transaction, format!("response.tag.{tag}"), 1).with_context(no_variable)?;
    actions.check_names(VAR_PREFIX).with_context(no_variable)
}

impl Part {
    /// Whether the body that it means was cut.
    fn cut(self) -> anyhow::Result<Self> {
        match self {
            Self::Body => Ok(Self::Cut),
            Self::ResponseBody => Ok(Self::ResponseCut),
            other => bail!("{other} is not cut; body and response.body are"),
        }
    }

    /// Whether it is of a response.
    pub(crate) const fn is_of_response(&self) -> bool {
        matches!(self, Self::Status | Self::ResponseHeader(_) | Self::ResponseBody | Self::ResponseCut)
    }
}

impl std::str::FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let header = |name: &str| (!name.is_empty()).then(|| name.to_ascii_lowercase().into());
        Ok(match (text, text.split_once(':')) {
            ("method", _) => Self::Method,
            ("path", _) => Self::Path,
            ("query", _) => Self::Query,
            ("header", _) => Self::Header(None),
            ("body", _) => Self::Body,
            ("status", _) => Self::Status,
            ("response.header", _) => Self::ResponseHeader(None),
            ("response.body", _) => Self::ResponseBody,
            (_, Some(("header", name))) => Self::Header(header(name)),
            (_, Some(("response.header", name))) => Self::ResponseHeader(header(name)),
            _ => bail!(
                "{text:?} is none of method, path, query, header, header:NAME, body, status, response.header, \
                 response.header:NAME, response.body"
            ),
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("method"),
            Self::Path => f.write_str("path"),
            Self::Query => f.write_str("query"),
            Self::Header(None) => f.write_str("header"),
            Self::Header(Some(name)) => write!(f, "header:{name}"),
            Self::Body | Self::Cut => f.write_str("body"),
            Self::Status => f.write_str("status"),
            Self::ResponseHeader(None) => f.write_str("response.header"),
            Self::ResponseHeader(Some(name)) => write!(f, "response.header:{name}"),
            Self::ResponseBody | Self::ResponseCut => f.write_str("response.body"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_grouped_by_part() {
        let rules = Rules::parse(
            b"# a comment\n\npath 4 traversal contains ../\n  query 5 sqli regex (?i)union\\s+select # not a comment\r\n\
              path -2 known regex ^/static/\nheader:User-Agent 3 scanner contains sqlmap\nbody 2 cut is-cut\n",
        )
        .unwrap();
        assert_eq!(rules.len(), 5);
        let groups: Vec<_> =
            rules.groups.iter().map(|group| (&group.part, group.patterns.patterns())).collect();
        assert_eq!(groups[0], (&Part::Path, ["\\.\\./".to_owned(), "^/static/".to_owned()].as_slice()));
        assert_eq!(groups[1], (&Part::Query, ["(?i)union\\s+select # not a comment".to_owned()].as_slice()));
        assert_eq!(groups[2].0, &Part::Header(Some("user-agent".into())));
        assert_eq!(groups[3].0, &Part::Cut);
        assert_eq!(rules.groups[0].rules[1], Rule { line: 5, score: -2, tag: "known".into() });
    }

    #[test]
    fn a_bad_line_has_its_number_and_its_reason() {
        for (text, error) in [
            ("\npath", "line 2: the score of path is not a number from -1000 to 1000"),
            ("path 1001 a contains b", "line 1: the score of path is not a number from -1000 to 1000"),
            ("cookies 1 a contains b", "line 1: \"cookies\" is none of method, path"),
            ("path 1", "line 1: the tag is missing"),
            ("path 1 a", "line 1: expected WHERE SCORE TAG HOW PATTERN, found \"path 1 a\""),
            ("path 1 a-b contains c", "line 1: no variable of HAProxy can have the name of the tag \"a-b\""),
            ("path 1 a equals c", "line 1: \"equals\" is none of contains, regex, is-cut"),
            ("path 1 a regex", "line 1: the pattern is missing"),
            ("#\n#\npath 1 a regex (b", "line 3: regex parse error: (b error: unclosed group"),
            ("path 1 a regex b*", "line 1: the pattern matches everything"),
            ("path 1 a regex (b{1000}){1000}", "line 1: Compiled regex exceeds size limit"),
            ("path 1 a is-cut", "line 1: path is not cut; body and response.body are"),
            ("body 1 a is-cut b", "line 1: is-cut has no pattern"),
        ] {
            let found = Rules::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(found.starts_with(error) && found.lines().count() == 1, "{text:?}: {found}");
        }
        for text in ["", "# a comment\n\n"] {
            assert_eq!(Rules::parse(text.as_bytes()).unwrap_err().to_string(), "there is no rule in it");
        }
        let found = Rules::parse(b"# a\n# \xff\n").unwrap_err().to_string();
        assert!(found.starts_with("line 2: it is not UTF-8"), "{found}");
    }

    #[test]
    fn the_shipped_file_is_sound() {
        assert!(Rules::parse(include_bytes!("../rules.txt")).unwrap().len() > 10);
    }
}
