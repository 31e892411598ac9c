//! Placeholders in a text, found before its messages are parsed.

use std::fmt::Write as _;

use fastrand::Rng;

use super::{Kind, LENGTH_MAX, Piece};

/// A placeholder, and the type of its value.
struct Hole {
    kind: Kind,
    piece: Piece,
}

/// Messages in which marks stand for placeholders: strings that occur nowhere else.
pub(super) struct Marked {
    pub(super) text: String,
    holes: Vec<Hole>,
    nonce: String,
    /// By how much each mark, from its end on, has moved what is behind it: its column, and the characters added.
    moved: Vec<(usize, usize)>,
}

impl Marked {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let nonce = loop {
            let nonce = format!("~{:016x}.", Rng::new().u64(..));
            if !text.contains(&nonce) {
                break nonce;
            }
        };
        let mut marked = Self { text: String::new(), holes: Vec::new(), nonce, moved: Vec::new() };
        let (mut quoted, mut escaped) = (false, false);
        let mut rest = text;
        while let Some(ch) = rest.chars().next() {
            let after = rest.get(ch.len_utf8()..).unwrap_or_default();
            if ch == '{' && after.starts_with(|ch: char| ch.is_ascii_lowercase()) {
                let column = text.chars().count() - after.chars().count();
                rest = marked.hole(after, quoted).map_err(|error| format!("column {column}: {error}"))?;
                continue;
            }
            quoted ^= ch == '"' && !escaped;
            escaped = ch == '\\' && !escaped;
            marked.text.push(ch);
            rest = after;
        }
        Ok(marked)
    }

    /// Whether there is no placeholder.
    pub(super) const fn is_plain(&self) -> bool {
        self.holes.is_empty()
    }

    /// Adds the placeholder whose text begins here, behind its brace. Returns what is behind it.
    fn hole<'t>(&mut self, text: &'t str, quoted: bool) -> Result<&'t str, String> {
        let (inside, after) = text.split_once('}').ok_or("a placeholder without its `}`")?;
        let piece = piece(inside)?;
        let (kind, whole) = if quoted { (Kind::String, false) } else { self.kind() };
        if kind != Kind::String && !(whole && (after.is_empty() || after.starts_with([' ', '\t', ';']))) {
            return Err("outside of strings a placeholder is the whole value".into());
        }
        if !kind.accepts(&piece) {
            return Err(format!("`{{{inside}}}` makes no value of this type"));
        }
        let before = self.text.chars().count();
        if let Some(start) = self.text.rfind('=').filter(|_| kind != Kind::String) {
            // Every mark is that of a string until the messages are parsed.
            self.text.truncate(start + 1);
            self.text.push_str("string:");
        }
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{}{}~", self.nonce, self.holes.len());
        let column = self.text.chars().count() + 1;
        let added = (column - 1).saturating_sub(before + inside.len() + 2);
        self.moved.push((column, added));
        self.holes.push(Hole { kind, piece });
        Ok(after)
    }

    /// The type of the value that the text ends in, and whether the value begins there.
    fn kind(&self) -> (Kind, bool) {
        let word = self.text.rsplit([' ', '\t', ';']).next().unwrap_or_default();
        let value = word.split_once('=').map_or("", |(_, value)| value);
        let found = Kind::ALL.iter().find_map(|(name, kind)| {
            let rest = value.strip_prefix(name)?.strip_prefix(':')?;
            Some((*kind, rest.is_empty()))
        });
        found.unwrap_or((Kind::String, false))
    }

    /// The column in the original text.
    pub(super) fn column(&self, column: usize) -> usize {
        let before = self.moved.iter().take_while(|(end, _)| *end <= column);
        column - before.map(|(_, added)| added).sum::<usize>().min(column)
    }

    /// The pieces of a text with marks, and the type of the value.
    pub(super) fn pieces(&self, text: &[u8]) -> Option<(Kind, Vec<Piece>)> {
        let nonce = self.nonce.as_bytes();
        let (mut kind, mut pieces, mut rest) = (Kind::String, Vec::new(), text);
        while let Some(at) = rest.windows(nonce.len()).position(|window| window == nonce) {
            let (before, mark) = rest.split_at_checked(at)?;
            let mark = mark.get(nonce.len()..)?;
            let end = mark.iter().position(|byte| *byte == b'~')?;
            let hole = self.holes.get(str::from_utf8(mark.get(..end)?).ok()?.parse::<usize>().ok()?)?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_vec()));
            }
            pieces.push(hole.piece.clone());
            kind = hole.kind;
            rest = mark.get(end + 1..)?;
        }
        if pieces.is_empty() {
            return None;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_vec()));
        }
        Some((kind, pieces))
    }
}

/// The inside of a placeholder.
fn piece(inside: &str) -> Result<Piece, String> {
    let unknown =
        || format!("there is no placeholder `{{{inside}}}`: see --help; \\x7b in a quoted text is a brace");
    match inside {
        "n" => return Ok(Piece::Number),
        "random" => return Ok(Piece::Random),
        _ => {}
    }
    let argument = inside.strip_prefix("random:").ok_or_else(unknown)?;
    match argument.split_once("..") {
        Some((low, high)) => {
            let low: i64 = low.parse().map_err(|_| unknown())?;
            let high: i64 = high.parse().map_err(|_| unknown())?;
            if low <= high { Ok(Piece::Range(low, high)) } else { Err(format!("{low} is above {high}")) }
        }
        None => {
            let length = argument.parse().map_err(|_| unknown())?;
            if length <= LENGTH_MAX {
                Ok(Piece::Length(length))
            } else {
                Err(format!("at most {LENGTH_MAX} bytes"))
            }
        }
    }
}
