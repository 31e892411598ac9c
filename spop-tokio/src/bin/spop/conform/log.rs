//! What was sent and what came, in one case.

use std::time::Duration;

use crate::{frames, text};

/// The characters after which a line is cut.
const CUT: usize = 300;

/// The most lines that are kept.
const LINES: usize = 100;

/// Lines in the notation.
#[derive(Debug, Default)]
pub(super) struct Log(Vec<String>);

impl Log {
    /// A frame without its length prefix, or an event, on a connection.
    pub(super) fn add(&mut self, connection: usize, line: &str) {
        if self.0.len() == LINES {
            self.0.push("…".to_owned());
        }
        if self.0.len() < LINES {
            let name = if connection > 1 { format!("#{connection} ") } else { String::new() };
            self.0.push(format!("{name}{}", text::cut(line, CUT)));
        }
    }

    pub(super) fn frame(&mut self, connection: usize, frame: &[u8]) {
        self.add(connection, &format!("< {}", frames::text(frame)));
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.0
    }
}

/// What came within a time limit, if no whole frame did, for people.
pub(super) fn within(limit: Duration, rest: &[u8]) -> String {
    match frames::part(rest) {
        Some(part) => format!("no whole frame within {limit:?}: {part}"),
        None => format!("nothing within {limit:?}"),
    }
}
