//! Transcripts: the frames that two sides send to each other, one per line.

use alloc::vec::Vec;
use core::fmt;

use super::{
    OwnedFrame, ParseError,
    cursor::{Cursor, is_space},
    parse,
};

/// The direction of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// `>`: HAProxy sends it to the agent.
    ToAgent,
    /// `<`: the agent sends it to HAProxy.
    ToHaproxy,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToAgent => ">",
            Self::ToHaproxy => "<",
        })
    }
}

/// One line of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The number of the line, from 1.
    pub line: usize,
    /// The direction of the frame.
    pub direction: Direction,
    /// The frame.
    pub frame: OwnedFrame,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.direction, self.frame)
    }
}

/// Parses a transcript: each line is a direction, `>` or `<`, and a frame. Blank lines and lines that begin with `#` are
/// ignored.
///
/// # Errors
/// [`ParseError`] for the first line that does not parse.
pub fn transcript(text: &str) -> Result<Vec<Step>, ParseError> {
    let meaning = |(_, line): &(usize, &str)| !line.trim_start_matches(is_space).starts_with('#');
    let mut steps = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(meaning) {
        let mut cursor = Cursor::numbered(line, number);
        if !cursor.more() {
            continue;
        }
        let direction = if cursor.take(">") {
            Direction::ToAgent
        } else if cursor.take("<") {
            Direction::ToHaproxy
        } else {
            return Err(cursor.error("`>`, `<`, `#` or nothing"));
        };
        steps.push(Step { line: number, direction, frame: parse::frame(&mut cursor)? });
    }
    Ok(steps)
}
