//! What two sides say to each other, line by line.

use alloc::vec::Vec;
use core::fmt;

use super::{
    OwnedFrame, ParseError,
    cursor::{Cursor, is_space},
    parse,
};

/// Which way a frame goes.
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
    /// Which line it is, from 1.
    pub line: usize,
    /// Which way the frame goes.
    pub direction: Direction,
    /// The frame.
    pub frame: OwnedFrame,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.direction, self.frame)
    }
}

/// Reads a transcript: sentences after a `>` or `<` that says which way they go. Blank lines and those that begin with `#`
/// mean nothing.
///
/// # Errors
/// [`ParseError`] for the first line that makes no sense.
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
