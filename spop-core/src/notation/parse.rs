//! Parsing the notation.

use alloc::{string::ToString, vec::Vec};

use super::{
    OwnedFrame,
    cursor::{Cursor, Parsed, is_plain_in_name, is_space},
};
use crate::{
    Actions, Scope, Value,
    frame::{Flags, FrameType, Header, Ids},
    wire::put_string,
};

const FRAME_TYPE: &str = "a frame type, such as NOTIFY or TYPE:42";
const FLAGS: &str = "flags: `-`, or `fin`, `abort` and 0x… joined by commas";
const VALUE: &str = "a value: null or one of bool: int32: uint32: int64: uint64: ipv4: ipv6: string: binary:";

/// The kind of list in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Items,
    Messages,
    Actions,
    Raw,
}

impl Kind {
    /// The kind of list in the payload of this type of frame.
    pub(super) const fn of(frame_type: FrameType) -> Self {
        match frame_type {
            FrameType::Notify => Self::Messages,
            FrameType::Ack => Self::Actions,
            FrameType::Unset | FrameType::Unknown(_) => Self::Raw,
            _ => Self::Items,
        }
    }
}

pub(super) fn frame(cursor: &mut Cursor<'_>) -> Parsed<OwnedFrame> {
    let header = header(cursor)?;
    let payload = payload(cursor, Kind::of(header.frame_type))?;
    Ok(OwnedFrame { header, payload })
}

/// The payload of a NOTIFY.
pub(super) fn messages(cursor: &mut Cursor<'_>) -> Parsed<Vec<u8>> {
    payload(cursor, Kind::Messages)
}

fn header(cursor: &mut Cursor<'_>) -> Parsed<Header> {
    Ok(Header {
        frame_type: frame_type(cursor)?,
        flags: flags(cursor)?,
        ids: Ids::new(id(cursor, "a stream-id")?, id(cursor, "a frame-id")?),
    })
}

fn id(cursor: &mut Cursor<'_>, expected: &'static str) -> Parsed<u64> {
    cursor.more();
    cursor.parsed(expected)
}

fn frame_type(cursor: &mut Cursor<'_>) -> Parsed<FrameType> {
    cursor.more();
    if cursor.take("TYPE:") {
        return cursor.parsed("a number up to 255").map(FrameType::from_byte);
    }
    let place = cursor.rest();
    let name = cursor.span(|ch| !is_space(ch));
    let known = FrameType::KNOWN.into_iter().find(|known| known.to_string() == name);
    known.ok_or_else(|| cursor.error_at(place, FRAME_TYPE))
}

fn flags(cursor: &mut Cursor<'_>) -> Parsed<Flags> {
    cursor.more();
    let place = cursor.rest();
    let flag = |word: &str| match word {
        "fin" => Some(0b01),
        "abort" => Some(0b10),
        number => number
            .strip_prefix("0x")
            // `from_str_radix` accepts a sign.
            .filter(|digits| digits.starts_with(|ch: char| ch.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok()),
    };
    let flags = match cursor.span(|ch| !is_space(ch)) {
        "-" => Some(0),
        list => list.split(',').try_fold(0, |flags, word| Some(flags | flag(word)?)),
    };
    flags.map(Flags).ok_or_else(|| cursor.error_at(place, FLAGS))
}

fn payload(cursor: &mut Cursor<'_>, kind: Kind) -> Parsed<Vec<u8>> {
    const PARTS: [(&str, Kind); 3] =
        [("items[", Kind::Items), ("messages[", Kind::Messages), ("actions[", Kind::Actions)];
    let mut out = Vec::new();
    cursor.more();
    let Some((_, kind)) = PARTS.iter().find(|(part, _)| cursor.take(part)) else {
        list(cursor, kind, &mut out)?;
        return Ok(out);
    };
    let place = cursor.rest();
    let start = cursor.digits()?;
    if !cursor.take("..") {
        return Err(cursor.error("`..`"));
    }
    let end = cursor.digits()?;
    if !cursor.take("]") {
        return Err(cursor.error("`]`"));
    }
    cursor.gap()?;
    list(cursor, *kind, &mut out)?;
    let range = start.unwrap_or(0)..end.unwrap_or(out.len());
    out.get(range).map(Vec::from).ok_or_else(|| cursor.error_at(place, "a range inside the payload"))
}

fn list(cursor: &mut Cursor<'_>, kind: Kind, out: &mut Vec<u8>) -> Parsed<()> {
    match kind {
        Kind::Raw => {
            raw(cursor, out)?;
            if cursor.more() { Err(cursor.error("`raw:` or `hex:` data")) } else { Ok(()) }
        }
        Kind::Items => {
            while cursor.more() {
                if !raw(cursor, out)? {
                    pair(cursor, out)?;
                }
            }
            Ok(())
        }
        Kind::Messages => clauses(cursor, out, message),
        Kind::Actions => clauses(cursor, out, action),
    }
}

/// Reads a list separated by semicolons, whose elements are raw data or read by `one`.
fn clauses(
    cursor: &mut Cursor<'_>,
    out: &mut Vec<u8>,
    one: impl Fn(&mut Cursor<'_>, &mut Vec<u8>) -> Parsed<()>,
) -> Parsed<()> {
    if !cursor.more() {
        return Ok(());
    }
    loop {
        cursor.more();
        if !raw(cursor, out)? {
            one(cursor, out)?;
        }
        if !cursor.more() {
            return Ok(());
        }
        if !cursor.take(";") {
            return Err(cursor.error("`;` or the end of the line"));
        }
    }
}

/// Reads any number of raw data. True if there was any.
fn raw(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Parsed<bool> {
    let mut any = false;
    while cursor.more() {
        if cursor.take("raw:") {
            cursor.text(out)?;
        } else if cursor.take("hex:") {
            cursor.hex(out)?;
        } else {
            break;
        }
        cursor.gap()?;
        any = true;
    }
    Ok(any)
}

fn message(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Parsed<()> {
    let (mut name, mut args, mut count) = (Vec::new(), Vec::new(), 0_u8);
    cursor.name(&mut name, "the name of a message")?;
    cursor.gap()?;
    while cursor.more() && cursor.peek() != Some(';') {
        let place = cursor.rest();
        pair(cursor, &mut args)?;
        count = count
            .checked_add(1)
            .ok_or_else(|| cursor.error_at(place, "at most 255 arguments in a message"))?;
    }
    put_string(out, &name);
    out.push(count);
    out.append(&mut args);
    Ok(())
}

fn action(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Parsed<()> {
    let mut actions = Actions::new();
    let (mut name, mut text) = (Vec::new(), Vec::new());
    let place = cursor.rest();
    match cursor.span(|ch| !is_space(ch) && ch != ';') {
        "set" => {
            let scope = scope(cursor)?;
            let value = assignment(cursor, &mut name, &mut text)?;
            actions.set_var(scope, &name, value);
        }
        "unset" => {
            let scope = scope(cursor)?;
            cursor.name(&mut name, "the name of a variable")?;
            cursor.gap()?;
            actions.unset_var(scope, &name);
        }
        _ => return Err(cursor.error_at(place, "`set`, `unset`, or `raw:` or `hex:` data")),
    }
    out.extend_from_slice(actions.as_bytes());
    Ok(())
}

/// Reads a scope and the space behind it.
fn scope(cursor: &mut Cursor<'_>) -> Parsed<Scope> {
    cursor.more();
    let place = cursor.rest();
    let name = cursor.span(|ch| !is_space(ch) && ch != ';');
    let scope = Scope::ALL.into_iter().find(|scope| scope.name() == name);
    cursor.more();
    scope.ok_or_else(|| cursor.error_at(place, "a scope: proc, sess, txn, req or res"))
}

fn pair(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Parsed<()> {
    let (mut name, mut text) = (Vec::new(), Vec::new());
    let value = assignment(cursor, &mut name, &mut text)?;
    put_string(out, &name);
    value.encode(out);
    Ok(())
}

/// Reads `name=value`; the value borrows from `text`.
fn assignment<'t>(cursor: &mut Cursor<'_>, name: &mut Vec<u8>, text: &'t mut Vec<u8>) -> Parsed<Value<'t>> {
    if cursor.peek() != Some('=') {
        cursor.name(name, "a name or `=`")?;
    }
    if !cursor.take("=") {
        return Err(cursor.error("`=` and a value"));
    }
    let value = value(cursor, text)?;
    cursor.gap()?;
    Ok(value)
}

fn value<'t>(cursor: &mut Cursor<'_>, text: &'t mut Vec<u8>) -> Parsed<Value<'t>> {
    let place = cursor.rest();
    let value_type = cursor.span(is_plain_in_name);
    if value_type == "null" {
        return Ok(Value::Null);
    }
    if !cursor.take(":") {
        return Err(cursor.error_at(place, VALUE));
    }
    Ok(match value_type {
        "bool" => Value::Bool(cursor.parsed("true or false")?),
        "int32" => Value::Int32(cursor.parsed("a number of 32 bits, signed")?),
        "uint32" => Value::Uint32(cursor.parsed("a number of 32 bits, unsigned")?),
        "int64" => Value::Int64(cursor.parsed("a number of 64 bits, signed")?),
        "uint64" => Value::Uint64(cursor.parsed("a number of 64 bits, unsigned")?),
        "ipv4" => Value::Ipv4(cursor.parsed("an IPv4 address")?),
        "ipv6" => Value::Ipv6(cursor.parsed("an IPv6 address")?),
        "string" => {
            cursor.text(text)?;
            Value::String(text)
        }
        "binary" => {
            cursor.hex(text)?;
            Value::Binary(text)
        }
        _ => return Err(cursor.error_at(place, VALUE)),
    })
}
