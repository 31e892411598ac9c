//! The lower bound of answering a NOTIFY: a bounds-checked walk over every argument, and a finished answer whose identifiers
//! are replaced. No protocol, no state.

// Otherwise the compiler inlines the walk in some callers only, and the figures do not compare.
#![allow(clippy::inline_always)]

use std::hint::black_box;

use spop_core::wire::Value;

/// Finished ACKs with these actions, one for each encoded length of the identifiers.
pub fn canned(actions: &[u8]) -> Vec<Vec<u8>> {
    let ack = |ids: usize| {
        let mut ack = (5 + ids + actions.len()).try_into().map(u32::to_be_bytes).unwrap_or_default().to_vec();
        ack.extend_from_slice(&[103, 0, 0, 0, 1]);
        ack.resize(9 + ids, 0);
        ack.extend_from_slice(actions);
        ack
    };
    (0..=20).map(ack).collect()
}

/// Answers the first NOTIFY of `bytes` with a copy of a finished ACK: the one in `canned` whose index is the length of the
/// identifiers. Returns the length of the NOTIFY.
#[inline(always)]
pub fn answer(bytes: &[u8], canned: &[Vec<u8>], out: &mut Vec<u8>) -> Option<usize> {
    let mut rest = bytes;
    let len = u32::from_be_bytes(*rest.split_off(..4)?.first_chunk()?);
    let frame = rest.split_off(..len as usize)?;
    let mut rest = frame;
    let [3, 0, 0, 0, 1] = rest.split_off(..5)? else { return None };
    varint(&mut rest)?;
    varint(&mut rest)?;
    let ids = frame.get(5..frame.len() - rest.len())?;
    while !rest.is_empty() {
        black_box(string(&mut rest)?);
        for _ in 0..*rest.split_off_first()? {
            black_box((string(&mut rest)?, value(&mut rest)?));
        }
    }
    let start = out.len();
    out.extend_from_slice(canned.get(ids.len())?);
    out.get_mut(start + 9..)?.get_mut(..ids.len())?.copy_from_slice(ids);
    Some(4 + len as usize)
}

#[inline(always)]
fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut value = u64::from(*data.split_off_first()?);
    if value < 240 {
        return Some(value);
    }
    for shift in (4..64).step_by(7) {
        let byte = *data.split_off_first()?;
        value = value.wrapping_add(u64::from(byte) << shift);
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

#[inline(always)]
fn string<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = varint(data)?;
    data.split_off(..usize::try_from(len).ok()?)
}

#[inline(always)]
fn value<'a>(data: &mut &'a [u8]) -> Option<Value<'a>> {
    let head = *data.split_off_first()?;
    Some(match head & 15 {
        0 => Value::Null,
        1 => Value::Bool(head & 16 != 0),
        2 => Value::Int32(varint(data)?.cast_signed().try_into().ok()?),
        3 => Value::Uint32(varint(data)?.try_into().ok()?),
        4 => Value::Int64(varint(data)?.cast_signed()),
        5 => Value::Uint64(varint(data)?),
        6 => Value::Ipv4((*data.split_off(..4)?.first_chunk::<4>()?).into()),
        7 => Value::Ipv6((*data.split_off(..16)?.first_chunk::<16>()?).into()),
        8 => Value::String(string(data)?),
        9 => Value::Binary(string(data)?),
        _ => return None,
    })
}
