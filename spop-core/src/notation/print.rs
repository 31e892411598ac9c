//! Printing frames in the notation.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{
    cursor::{is_plain_in_name, is_plain_in_text},
    parse::Kind,
};
use crate::{
    Actions, Value,
    frame::{AckAction, AckActions, Flags, Frame, FrameType, Message, MessageIter},
    wire::{Reader, kv_pair, put_string},
};

/// The least number of equal bytes that is printed as a repetition.
const RUN: usize = 32;

/// Displays a frame in the notation.
pub const fn print(frame: Frame<'_>) -> Sentence<'_> {
    Sentence(frame)
}

/// Displays a frame as one line that [`parse`](super::parse()) turns into the same frame.
#[derive(Clone, Copy, Debug)]
pub struct Sentence<'a>(Frame<'a>);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frame { header, payload } = self.0;
        // An unknown type with the number of a known type is that type on the wire.
        let frame_type = FrameType::from_byte(header.frame_type.byte());
        match frame_type {
            FrameType::Unknown(byte) => write!(f, "TYPE:{byte}")?,
            known => write!(f, "{known}")?,
        }
        match header.flags {
            Flags(0) => f.write_str(" -")?,
            Flags(1) => f.write_str(" fin")?,
            Flags(2) => f.write_str(" abort")?,
            Flags(3) => f.write_str(" fin,abort")?,
            Flags(other) => write!(f, " {other:#x}")?,
        }
        write!(f, " {} {}", header.ids.stream, header.ids.frame)?;
        match Kind::of(frame_type) {
            Kind::Items => items(f, payload),
            Kind::Messages => messages(f, payload),
            Kind::Actions => actions(f, payload),
            Kind::Raw => raw(f, payload),
        }
    }
}

// Each of the lists below is printed as far as it encodes to exactly the bytes that it was decoded from. The rest is raw data:
// malformed items, and values with reserved flag bits.

fn items(f: &mut fmt::Formatter<'_>, mut rest: &[u8]) -> fmt::Result {
    let mut reader = Reader::new(rest);
    let mut encoded = Vec::new();
    while let Ok((key, item)) = kv_pair(&mut reader) {
        encoded.clear();
        put_string(&mut encoded, key);
        item.encode(&mut encoded);
        let Some(after) = rest.strip_prefix(encoded.as_slice()) else { break };
        pair(f, key, item)?;
        rest = after;
    }
    raw(f, rest)
}

fn messages(f: &mut fmt::Formatter<'_>, mut rest: &[u8]) -> fmt::Result {
    let mut separator = "";
    let mut encoded = Vec::new();
    for message in MessageIter::partial(rest) {
        encoded.clear();
        encode_message(&mut encoded, &message);
        let Some(after) = rest.strip_prefix(encoded.as_slice()) else { break };
        write!(f, "{separator} ")?;
        name(f, message.name())?;
        for (key, item) in message.args() {
            pair(f, key, item)?;
        }
        separator = " ;";
        rest = after;
    }
    clause_of_raw(f, separator, rest)
}

/// Encodes a message with the arguments that have arrived, which may be fewer than it announces.
fn encode_message(out: &mut Vec<u8>, message: &Message<'_>) {
    put_string(out, message.name());
    let count = out.len();
    out.push(0);
    let mut args = 0;
    for (key, item) in message.args() {
        put_string(out, key);
        item.encode(out);
        args += 1;
    }
    if let Some(count) = out.get_mut(count) {
        *count = args;
    }
}

fn actions(f: &mut fmt::Formatter<'_>, mut rest: &[u8]) -> fmt::Result {
    let mut separator = "";
    let mut encoded = Actions::new();
    for action in &AckActions::lenient(rest) {
        encoded.clear();
        match action {
            AckAction::SetVar { scope, name, value } => encoded.set_var(scope, name, value),
            AckAction::UnsetVar { scope, name } => encoded.unset_var(scope, name),
        };
        let Some(after) = rest.strip_prefix(encoded.as_bytes()) else { break };
        match action {
            AckAction::SetVar { scope, name, value } => {
                write!(f, "{separator} set {scope}")?;
                pair(f, name, value)?;
            }
            AckAction::UnsetVar { scope, name: variable } => {
                write!(f, "{separator} unset {scope} ")?;
                name(f, variable)?;
            }
        }
        separator = " ;";
        rest = after;
    }
    clause_of_raw(f, separator, rest)
}

fn clause_of_raw(f: &mut fmt::Formatter<'_>, separator: &str, rest: &[u8]) -> fmt::Result {
    if !rest.is_empty() {
        f.write_str(separator)?;
    }
    raw(f, rest)
}

/// Writes any bytes; a long run of one byte as a repetition.
fn raw(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let (mut start, mut end) = (0, 0);
    for run in bytes.chunk_by(|a, b| a == b) {
        if run.len() >= RUN {
            raw_part(f, bytes.get(start..end).unwrap_or_default())?;
            raw_part(f, run)?;
            start = end + run.len();
        }
        end += run.len();
    }
    raw_part(f, bytes.get(start..).unwrap_or_default())
}

fn raw_part(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    if bytes.is_empty() {
        return Ok(());
    }
    let readable = bytes.iter().filter(|byte| byte.is_ascii_graphic() || **byte == b' ').count();
    if readable > bytes.len() / 2 {
        f.write_str(" raw:")?;
        text(f, bytes)
    } else {
        f.write_str(" hex:")?;
        hex(f, bytes)
    }
}

fn pair(f: &mut fmt::Formatter<'_>, key: &[u8], item: Value<'_>) -> fmt::Result {
    f.write_char(' ')?;
    if !key.is_empty() {
        name(f, key)?;
    }
    f.write_char('=')?;
    match item {
        Value::Null => f.write_str("null"),
        Value::Bool(value) => write!(f, "bool:{value}"),
        Value::Int32(value) => write!(f, "int32:{value}"),
        Value::Uint32(value) => write!(f, "uint32:{value}"),
        Value::Int64(value) => write!(f, "int64:{value}"),
        Value::Uint64(value) => write!(f, "uint64:{value}"),
        Value::Ipv4(value) => write!(f, "ipv4:{value}"),
        Value::Ipv6(value) => write!(f, "ipv6:{value}"),
        Value::String(bytes) => {
            f.write_str("string:")?;
            text(f, bytes)
        }
        Value::Binary(bytes) => {
            f.write_str("binary:")?;
            hex(f, bytes)
        }
    }
}

fn name(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    plain_or_quoted(f, bytes, is_plain_in_name)
}

fn text(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    plain_or_quoted(f, bytes, is_plain_in_text)
}

fn plain_or_quoted(f: &mut fmt::Formatter<'_>, bytes: &[u8], is_plain: fn(char) -> bool) -> fmt::Result {
    let (unit, times) = run(bytes);
    if times == 1 && !bytes.is_empty() && bytes.iter().all(|byte| is_plain(char::from(*byte))) {
        return bytes.iter().try_for_each(|byte| f.write_char(char::from(*byte)));
    }
    f.write_char('"')?;
    for chunk in unit.utf8_chunks() {
        for ch in chunk.valid().chars() {
            quoted_char(f, ch)?;
        }
        escaped(f, chunk.invalid())?;
    }
    f.write_char('"')?;
    repeated(f, times)
}

fn quoted_char(f: &mut fmt::Formatter<'_>, ch: char) -> fmt::Result {
    match ch {
        '"' => f.write_str("\\\""),
        '\\' => f.write_str("\\\\"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        ' '..='~' => f.write_char(ch),
        // `escape_debug` escapes invisible and combining characters.
        '\u{80}'.. if ch.escape_debug().count() == 1 => f.write_char(ch),
        _ => escaped(f, ch.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

fn escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let (unit, times) = run(bytes);
    unit.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
    repeated(f, times)
}

/// The bytes to write, and how many times: one byte if `bytes` is a long run of it, else all of them once.
fn run(bytes: &[u8]) -> (&[u8], usize) {
    match bytes {
        [first, rest @ ..] if bytes.len() >= RUN && rest.iter().all(|byte| byte == first) => {
            (core::slice::from_ref(first), bytes.len())
        }
        _ => (bytes, 1),
    }
}

fn repeated(f: &mut fmt::Formatter<'_>, times: usize) -> fmt::Result {
    if times == 1 { Ok(()) } else { write!(f, "*{times}") }
}
