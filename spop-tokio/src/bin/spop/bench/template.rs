//! Messages with values that differ from request to request.

mod marked;

use std::{
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use fastrand::Rng;
use spop_core::{
    Value,
    frame::Messages,
    wire::{Sink as _, put_string},
};

use self::marked::Marked;
use crate::text;

/// The help of placeholders.
pub(super) const HELP: &str = "\
Values that differ:
  {n}              the number of the request, from 0: a number, part of a string, or an IPv4 address
                   that is counted up from 0.0.0.0
  {random}         any value of the type; 16 characters in a string, 16 bytes in a binary
  {random:LENGTH}  so many characters in a string, or bytes in a binary
  {random:LOW..HIGH}  a number, both included
  In a string a placeholder may stand anywhere; elsewhere it is the whole value:
    'check ip=ipv4:{random} user=string:user-{random:1..500} body=binary:{random:64} n=int64:{n}'
  Other braces are sent as they are; \\x7b in a quoted text is { without a meaning.";

/// The longest random value.
const LENGTH_MAX: usize = 1 << 20;

/// The length of a random value without one.
const LENGTH: usize = 16;

/// The payload of a NOTIFY, and where it differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Fixed(Vec<u8>),
    Value(Kind, Vec<Piece>),
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Number,
    Random,
    Length(usize),
    Range(i64, i64),
}

/// The type of a value that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Ipv4,
    Ipv6,
    String,
    Binary,
}

impl Kind {
    const ALL: [(&str, Self); 9] = [
        ("bool", Self::Bool),
        ("int32", Self::Int32),
        ("uint32", Self::Uint32),
        ("int64", Self::Int64),
        ("uint64", Self::Uint64),
        ("ipv4", Self::Ipv4),
        ("ipv6", Self::Ipv6),
        ("string", Self::String),
        ("binary", Self::Binary),
    ];

    /// Whether a value of this type can be made from the placeholder.
    fn accepts(self, piece: &Piece) -> bool {
        let bounds = match self {
            Self::Int32 => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
            Self::Uint32 => Some((0, i64::from(u32::MAX))),
            Self::Int64 | Self::String => Some((i64::MIN, i64::MAX)),
            Self::Uint64 => Some((0, i64::MAX)),
            Self::Bool | Self::Ipv4 | Self::Ipv6 | Self::Binary => None,
        };
        match piece {
            Piece::Text(_) | Piece::Random => true,
            Piece::Number => bounds.is_some() || self == Self::Ipv4,
            Piece::Length(_) => matches!(self, Self::String | Self::Binary),
            Piece::Range(low, high) => bounds.is_some_and(|(least, most)| *low >= least && *high <= most),
        }
    }
}

impl Template {
    /// A payload that is always the same.
    pub(super) fn fixed(payload: Vec<u8>) -> Self {
        Self { parts: vec![Part::Fixed(payload)] }
    }

    /// Parses messages in the notation, with placeholders.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let marked = Marked::new(text)?;
        let payload = text::messages_of(&marked.text, |column| marked.column(column))?;
        if marked.is_plain() {
            return Ok(Self::fixed(payload));
        }
        let messages = Messages::decode(&payload).map_err(|error| error.to_string())?;
        let mut parts = Parts::default();
        for message in messages {
            parts.name(message.name(), &marked)?;
            let args = message.args();
            parts.fixed.put(&[u8::try_from(args.clone().count()).unwrap_or(u8::MAX)]);
            for (name, value) in args {
                parts.name(name, &marked)?;
                let pieces = if let Value::String(text) = value { marked.pieces(text) } else { None };
                match pieces {
                    Some((kind, pieces)) => parts.value(kind, pieces),
                    None => value.encode(&mut parts.fixed),
                }
            }
        }
        Ok(parts.finish())
    }

    /// The payload if it is always the same.
    pub(super) fn constant(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [Part::Fixed(payload)] => Some(payload),
            _ => None,
        }
    }

    /// Writes the payload of the request with this number.
    pub(super) fn fill(&self, number: u64, rng: &mut Rng, out: &mut Vec<u8>) {
        out.clear();
        for part in &self.parts {
            match part {
                Part::Fixed(bytes) => out.extend_from_slice(bytes),
                Part::Value(kind, pieces) => put_value(*kind, pieces, number, rng, out),
            }
        }
    }
}

fn put_value(kind: Kind, pieces: &[Piece], number: u64, rng: &mut Rng, out: &mut Vec<u8>) {
    let integer = |rng: &mut Rng| match pieces.first() {
        Some(Piece::Number) => number.cast_signed(),
        Some(Piece::Range(low, high)) => rng.i64(low..=high),
        _ => rng.i64(..),
    };
    // A counter wraps around at the width of its type.
    #[allow(clippy::cast_sign_loss)]
    match kind {
        Kind::Bool => Value::Bool(rng.bool()).encode(out),
        Kind::Int32 => Value::Int32(integer(rng) as i32).encode(out),
        Kind::Uint32 => Value::Uint32(integer(rng) as u32).encode(out),
        Kind::Int64 => Value::Int64(integer(rng)).encode(out),
        Kind::Uint64 => Value::Uint64(integer(rng).cast_unsigned()).encode(out),
        Kind::Ipv4 => Value::Ipv4(Ipv4Addr::from(integer(rng) as u32)).encode(out),
        Kind::Ipv6 => Value::Ipv6(Ipv6Addr::from(rng.u128(..))).encode(out),
        Kind::Binary => {
            let length = if let Some(Piece::Length(length)) = pieces.first() { *length } else { LENGTH };
            let mut bytes = vec![0; length];
            rng.fill(&mut bytes);
            Value::Binary(&bytes).encode(out);
        }
        Kind::String => Value::String(&string(pieces, number, rng)).encode(out),
    }
}

fn string(pieces: &[Piece], number: u64, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for piece in pieces {
        // Writing to a vector cannot fail.
        let _ = match piece {
            Piece::Text(text) => bytes.write_all(text),
            Piece::Number => write!(bytes, "{number}"),
            Piece::Range(low, high) => write!(bytes, "{}", rng.i64(low..=high)),
            Piece::Random | Piece::Length(_) => {
                let length = if let Piece::Length(length) = piece { *length } else { LENGTH };
                bytes.extend((0..length).map(|_| u8::try_from(rng.alphanumeric()).unwrap_or(b'x')));
                Ok(())
            }
        };
    }
    bytes
}

/// The parts of a payload that is being put together.
#[derive(Default)]
struct Parts {
    parts: Vec<Part>,
    fixed: Vec<u8>,
}

impl Parts {
    fn name(&mut self, name: &[u8], marked: &Marked) -> Result<(), String> {
        if marked.pieces(name).is_some() {
            return Err("placeholders are for values, not for names".into());
        }
        put_string(&mut self.fixed, name);
        Ok(())
    }

    fn value(&mut self, kind: Kind, pieces: Vec<Piece>) {
        self.end_fixed();
        self.parts.push(Part::Value(kind, pieces));
    }

    fn end_fixed(&mut self) {
        if !self.fixed.is_empty() {
            self.parts.push(Part::Fixed(std::mem::take(&mut self.fixed)));
        }
    }

    fn finish(mut self) -> Template {
        self.end_fixed();
        Template { parts: self.parts }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The requests with these numbers, in the notation.
    fn filled(text: &str, numbers: &[u64]) -> Vec<String> {
        let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let (mut rng, mut out) = (Rng::with_seed(1), Vec::new());
        let print = |number: &u64| {
            template.fill(*number, &mut rng, &mut out);
            let mut line = String::new();
            for message in Messages::decode(&out).unwrap() {
                let _ = write!(line, "{}", message.name().escape_ascii());
                for (name, value) in message.args() {
                    let _ = write!(line, " {}={}", name.escape_ascii(), text::value(value));
                }
            }
            line
        };
        numbers.iter().map(print).collect()
    }

    #[test]
    fn counters_are_values_and_parts_of_strings() {
        assert_eq!(
            filled("a i=int32:{n} u=uint64:{n} s=string:x{n}-{n} q=string:\"{n} \\\" {\" z=null", &[7, 300]),
            [
                "a i=int32:7 u=uint64:7 s=string:x7-7 q=string:\"7 \\\" {\" z=null",
                "a i=int32:300 u=uint64:300 s=string:x300-300 q=string:\"300 \\\" {\" z=null",
            ]
        );
        assert_eq!(filled("a ip=ipv4:{n}", &[258]), ["a ip=ipv4:0.0.1.2"]);
        assert_eq!(filled("a ; b =string:\"{n},\"*2", &[5]), ["ab =string:5,5,"]);
        assert_eq!(filled("a i=int32:{n}", &[u64::from(u32::MAX)]), ["a i=int32:-1"], "it wraps around");
    }

    #[test]
    fn random_values_have_their_types_and_bounds() {
        for number in 0..200 {
            let line =
                &filled("a i=int32:{random:-1..1} s=string:{random:3} b=binary:{random:2}", &[number])[0];
            let [_, i, s, b] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert!(["i=int32:-1", "i=int32:0", "i=int32:1"].contains(&i), "{line}");
            assert_eq!((s.len(), b.len()), ("s=string:abc".len(), "b=binary:0011".len()), "{line}");
        }
        let lines = filled("a t=bool:{random} u=uint32:{random} i=ipv6:{random} s=string:{random}", &[0, 1]);
        assert_ne!(lines[0], lines[1]);
        assert_eq!(lines[0].rsplit(':').next().unwrap().len(), LENGTH);
    }

    #[test]
    fn what_has_no_placeholder_is_constant() {
        let text = "check ip=ipv4:1.2.3.4 json=string:\"{\\\"a\\\":1} \\x7bn} {N} { }\"";
        let template = Template::parse(text).unwrap();
        assert_eq!(template.constant(), Some(&text::messages(text).unwrap().payload[..]));
        assert_eq!(Template::parse("a x=int32:{n}").unwrap().constant(), None);
    }

    #[test]
    fn errors_have_the_columns_of_the_text() {
        for (text, error) in [
            ("a x=int32:{m}", "column 11: there is no placeholder `{m}`"),
            ("a x=int32:{n", "column 11: a placeholder without its `}`"),
            ("a x=int32:1{n}", "column 12: outside of strings a placeholder is the whole value"),
            ("a x=int32:{n}1", "column 11: outside of strings"),
            ("a x=bool:{n}", "column 10: `{n}` makes no value of this type"),
            ("a x=binary:{random:1..2}", "column 12: `{random:1..2}` makes no value"),
            ("a x=uint32:{random:-1..2}", "column 12: `{random:-1..2}` makes no value"),
            ("a x=int32:{random:2..1}", "column 11: 2 is above 1"),
            ("a x=string:{random:1048577}", "column 12: at most 1048576 bytes"),
            ("a x=string:{n} y=int32:z", "column 24: expected a number of 32 bits, signed, found `z`"),
            ("a x=ipv6:{random} y=int32:z", "column 27: expected a number"),
            ("\"{n}\" x=null", "placeholders are for values"),
            ("", "expected a message"),
        ] {
            let found = Template::parse(text).unwrap_err();
            assert!(found.starts_with(error), "{text}: {found}");
        }
    }
}
