//! What may come at a place of a case.

use super::pattern::Pattern;
use crate::conversation::Received;

/// What comes next.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// In any order.
    pub(super) frames: Vec<Pattern>,
    pub(super) or: Vec<Alternative>,
}

/// What may come instead, and ends the case.
#[derive(Clone, Debug)]
pub(super) enum Alternative {
    Frame(Pattern),
    End,
    /// Nothing comes.
    Quiet,
}

impl Alternative {
    /// Whether what was received is this alternative.
    fn is(&self, received: &Received) -> bool {
        match (self, received) {
            (Self::Frame(pattern), Received::Frame(frame)) => pattern.matches(frame).is_ok(),
            (Self::End, Received::Eof(0) | Received::Broken(_)) | (Self::Quiet, Received::Nothing) => true,
            _ => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Frame(pattern) => format!(", or < {}", pattern.text),
            Self::End => ", or the agent closes the connection".into(),
            Self::Quiet => ", or nothing".into(),
        }
    }
}

/// Whether what was received is one of the alternatives.
pub(super) fn is_any(or: &[Alternative], received: &Received) -> bool {
    or.iter().any(|alternative| alternative.is(received))
}

/// The frames that have not come yet, and the alternatives, for people.
pub(super) fn describe(frames: &[&Pattern], or: &[Alternative]) -> String {
    let frames: Vec<_> = frames.iter().map(|pattern| format!("< {}", pattern.text)).collect();
    frames.join(", ") + &alternatives(or)
}

/// The alternatives, for people.
pub(super) fn alternatives(or: &[Alternative]) -> String {
    or.iter().map(Alternative::describe).collect()
}
