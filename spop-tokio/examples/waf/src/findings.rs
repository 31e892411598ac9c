//! What the rules have found, and what it means to HAProxy.

use std::sync::Arc;

use spop_tokio::{Actions, Scope};

use crate::{
    options::{Mode, Options},
    rules::Rule,
};

/// Scores by tag, and the rules that gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    score: i32,
    tags: Vec<(Arc<str>, i32)>,
    /// Their lines in the file.
    rules: Vec<usize>,
}

/// When a message is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    mode: Mode,
    block_at: i32,
    block_on_failure: bool,
}

/// What is in an ACK besides the actions, and some.
const FRAME_OVERHEAD: usize = 64;

/// HAProxy 3.1 and later stall when an answer fills their receive buffer, which can be longer than a frame.
const LONGEST_ANSWER: usize = 16_000;

/// The first part of the names of the variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

impl Findings {
    /// Adds what a rule has found.
    pub(crate) fn add(&mut self, rule: &Rule) {
        self.rules.push(rule.line);
        self.add_score(&rule.tag, rule.score);
    }

    fn add_score(&mut self, tag: &Arc<str>, score: i32) {
        self.score = self.score.saturating_add(score);
        match self.tags.iter_mut().find(|(known, _)| known == tag) {
            Some((_, sum)) => *sum = sum.saturating_add(score),
            None => self.tags.push((Arc::clone(tag), score)),
        }
    }

    /// Adds those of another message.
    pub(crate) fn join(&mut self, other: &Self) {
        self.rules.extend(&other.rules);
        other.tags.iter().for_each(|(tag, score)| self.add_score(tag, *score));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    pub(crate) fn score(&self) -> i32 {
        self.score
    }

    /// The lines of the rules that matched.
    pub(crate) fn rules(&self) -> &[usize] {
        &self.rules
    }

    /// The tags with a comma between them.
    pub(crate) fn tags(&self) -> String {
        self.tags.iter().map(|(tag, _)| &**tag).collect::<Vec<_>>().join(",")
    }

    /// The memory that they take, apart from their own size. Texts of tags are those of the rules.
    pub(crate) fn bytes(&self) -> usize {
        self.tags.capacity() * size_of::<(Arc<str>, i32)>() + self.rules.capacity() * size_of::<usize>()
    }
}

impl Policy {
    pub(crate) fn new(options: &Options) -> Self {
        let blocks = options.mode == Mode::Block;
        Self {
            mode: options.mode,
            block_at: options.block_at,
            block_on_failure: blocks && options.on_failure.blocks(),
        }
    }

    /// Whether the score is enough.
    pub(crate) fn detects(self, findings: &Findings) -> bool {
        findings.score >= self.block_at
    }

    pub(crate) fn blocks(self, findings: &Findings) -> bool {
        self.mode == Mode::Block && self.detects(findings)
    }

    /// The variables for a message that was inspected: without those of single tags if HAProxy does not accept an answer that long,
    /// and without the list of them if it is still too long.
    pub(crate) fn answer(self, direction: Direction, findings: &Findings, max_frame_size: u32) -> Actions {
        let max = (max_frame_size as usize).saturating_sub(FRAME_OVERHEAD).min(LONGEST_ANSWER);
        let name = |name: &str| direction.name(name);
        let mut actions = Actions::new();
        actions
            .set_var(Scope::Transaction, name("block"), self.blocks(findings))
            .set_var(Scope::Transaction, name("detected"), self.detects(findings))
            .set_var(Scope::Transaction, name("score"), findings.score);
        let mut with_tags = actions.clone();
        if !findings.is_empty() {
            with_tags.set_var(Scope::Transaction, name("tags"), findings.tags());
        }
        let mut with_each = with_tags.clone();
        for (tag, score) in &findings.tags {
            with_each.set_var(Scope::Transaction, name(&format!("tag.{tag}")), *score);
        }
        let fits = |answer: &Actions| answer.as_bytes().len() <= max;
        [with_each, with_tags].into_iter().find(fits).unwrap_or(actions)
    }

    /// The variables for one that was not.
    pub(crate) fn failed(self, direction: Direction) -> Actions {
        Actions::new().set(Scope::Transaction, direction.name("block"), self.block_on_failure).set(
            Scope::Transaction,
            direction.name("failed"),
            true,
        )
    }
}

impl Direction {
    fn name(self, name: &str) -> String {
        match self {
            Self::Request => format!("request.{name}"),
            Self::Response => format!("response.{name}"),
        }
    }
}
