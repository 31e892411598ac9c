//! A position in a line, and the tokens that can be read there.

use alloc::vec::Vec;
use core::str;

use super::{MAX_REPEATED, ParseError};

/// The length at which an error cuts the text that was found.
const FOUND_MAX: usize = 32;

/// Reads tokens from the front of a line.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    line: &'a str,
    number: Option<usize>,
    rest: &'a str,
    /// The number of bytes that repetitions may still add.
    room: usize,
}

pub(super) type Parsed<T> = Result<T, ParseError>;

impl<'a> Cursor<'a> {
    pub(super) const fn new(line: &'a str) -> Self {
        Self { line, number: None, rest: line, room: MAX_REPEATED }
    }

    /// At the start of a line of a transcript.
    pub(super) const fn numbered(line: &'a str, number: usize) -> Self {
        Self { number: Some(number), ..Self::new(line) }
    }

    /// The unread text, which is also a position for [`error_at`](Self::error_at).
    pub(super) const fn rest(&self) -> &'a str {
        self.rest
    }

    /// The error that the next token is not what was expected.
    pub(super) fn error(&self, expected: &'static str) -> ParseError {
        self.error_at(self.rest, expected)
    }

    /// The error that the text from `place` on is not what was expected.
    pub(super) fn error_at(&self, place: &str, expected: &'static str) -> ParseError {
        let before = self.line.strip_suffix(place).unwrap_or_default();
        let word = place.split(|ch| is_space(ch) || ch == ';').next().unwrap_or_default();
        // A separator stands where the token should continue.
        let found =
            word.chars().take(FOUND_MAX).chain(place.chars().take(usize::from(word.is_empty()))).collect();
        ParseError { line: self.number, column: before.chars().count() + 1, expected, found }
    }

    /// Skips spaces. True unless the line ends there.
    pub(super) fn more(&mut self) -> bool {
        self.rest = self.rest.trim_start_matches(is_space);
        !self.rest.is_empty()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Reads `prefix` if it comes next.
    pub(super) fn take(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads the longest run of characters of one kind.
    pub(super) fn span(&mut self, kind: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|ch| !kind(ch)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or_default();
        self.rest = rest;
        taken
    }

    /// Reads the next token as a `T`.
    pub(super) fn parsed<T: str::FromStr>(&mut self, expected: &'static str) -> Parsed<T> {
        let place = self.rest;
        self.span(|ch| !is_space(ch) && ch != ';').parse().map_err(|_| self.error_at(place, expected))
    }

    /// Checks that a token ends here.
    pub(super) fn gap(&self) -> Parsed<()> {
        match self.peek() {
            Some(ch) if !is_space(ch) && ch != ';' => Err(self.error("a space")),
            _ => Ok(()),
        }
    }

    /// Reads a name: plain, or in quotes.
    pub(super) fn name(&mut self, out: &mut Vec<u8>, expected: &'static str) -> Parsed<()> {
        if self.peek() == Some('"') {
            return self.quoted(out);
        }
        let name = self.span(is_plain_in_name);
        if name.is_empty() {
            return Err(self.error(expected));
        }
        out.extend_from_slice(name.as_bytes());
        Ok(())
    }

    /// Reads a text: plain, or in quotes.
    pub(super) fn text(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        if self.peek() == Some('"') {
            return self.quoted(out);
        }
        let text = self.span(is_plain_in_text);
        if text.is_empty() {
            return Err(self.error("a text, in quotes unless it is simple"));
        }
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn quoted(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        let (place, start) = (self.rest, out.len());
        self.take("\"");
        loop {
            out.extend_from_slice(self.span(|ch| ch != '"' && ch != '\\').as_bytes());
            if self.take("\"") {
                return self.repeated(out, start);
            }
            if self.rest.is_empty() {
                return Err(self.error_at(place, "a closing quote"));
            }
            out.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Parsed<u8> {
        const ESCAPES: [(&str, u8); 5] =
            [("\\\"", b'"'), ("\\\\", b'\\'), ("\\n", b'\n'), ("\\r", b'\r'), ("\\t", b'\t')];
        if let Some((_, byte)) = ESCAPES.iter().find(|(escape, _)| self.take(escape)) {
            return Ok(*byte);
        }
        let place = self.rest;
        let byte = if self.take("\\x") { self.hex_byte() } else { None };
        byte.ok_or_else(|| self.error_at(place, r#"one of \" \\ \n \r \t \xNN"#))
    }

    /// Reads bytes in hexadecimal digits.
    pub(super) fn hex(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        let start = out.len();
        while let Some(byte) = self.hex_byte() {
            out.push(byte);
        }
        if self.rest.starts_with(|ch: char| ch.is_ascii_hexdigit()) {
            return Err(self.error("two hexadecimal digits for each byte"));
        }
        self.repeated(out, start)
    }

    fn hex_byte(&mut self) -> Option<u8> {
        let mut chars = self.rest.chars();
        let (high, low) = (chars.next()?.to_digit(16)?, chars.next()?.to_digit(16)?);
        self.rest = chars.as_str();
        Some((high << 4 | low) as u8)
    }

    /// Reads a repetition (`*5`), and repeats the bytes of `out` from `start` on.
    fn repeated(&mut self, out: &mut Vec<u8>, start: usize) -> Parsed<()> {
        if !self.take("*") {
            return Ok(());
        }
        let place = self.rest;
        let times: usize = self.digits()?.ok_or_else(|| self.error_at(place, "a number of times"))?;
        let unit = out.split_off(start);
        let left = unit.len().checked_mul(times).and_then(|len| self.room.checked_sub(len));
        self.room = left.ok_or_else(|| self.error_at(place, "at most 16 MiB of repetitions"))?;
        out.extend(unit.repeat(times));
        Ok(())
    }

    /// Reads a plain number if one comes next.
    pub(super) fn digits(&mut self) -> Parsed<Option<usize>> {
        let place = self.rest;
        let digits = self.span(|ch| ch.is_ascii_digit());
        if digits.is_empty() {
            return Ok(None);
        }
        digits.parse().map(Some).map_err(|_| self.error_at(place, "a smaller number"))
    }
}

/// Whether a character separates tokens.
pub(super) const fn is_space(ch: char) -> bool {
    matches!(ch, ' ' | '\t')
}

/// Whether a name with this character needs no quotes.
pub(super) const fn is_plain_in_name(ch: char) -> bool {
    ch.is_ascii_alphanumeric() || matches!(ch, '-' | '_' | '.')
}

/// Whether a text with this character needs no quotes.
pub(super) const fn is_plain_in_text(ch: char) -> bool {
    ch.is_ascii_graphic() && !matches!(ch, '"' | '\\' | ';')
}
