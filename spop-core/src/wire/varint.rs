//! The variable-length integers of HAProxy's peers protocol.
//!
//! Each number has exactly one encoding: each further byte continues where the range of the shorter forms ends, so there
//! are no overlong forms.

use super::Sink;

/// The length of the longest encoding, that of `u64::MAX`, in bytes.
pub const VARINT_MAX: usize = 10;

/// The length of the encoding of `value`, in bytes.
pub const fn varint_len(value: u64) -> usize {
    if value < 240 {
        return 1;
    }
    let mut rest = (value - 240) >> 4;
    let mut len = 2;
    while rest >= 128 {
        rest = (rest - 128) >> 7;
        len += 1;
    }
    len
}

/// Appends the encoding of `value`.
#[inline]
pub fn put_varint(out: &mut (impl Sink + ?Sized), value: u64) {
    if value < 240 {
        out.put(&[value as u8]);
    } else {
        put_long_varint(out, value);
    }
}

fn put_long_varint(out: &mut (impl Sink + ?Sized), value: u64) {
    out.put(&[value as u8 | 0xf0]);
    let mut rest = (value - 240) >> 4;
    while rest >= 128 {
        out.put(&[rest as u8 | 0x80]);
        rest = (rest - 128) >> 7;
    }
    out.put(&[rest as u8]);
}

/// The varint of two or more bytes at the front of `data`, and its length; the length is 0 if it is malformed.
///
/// Varints of up to four bytes, which nearly all identifiers and lengths are, are read without a loop.
#[inline]
pub(super) fn long_varint(data: &[u8]) -> (u64, usize) {
    if let [first, second, third, fourth, ..] = *data {
        let (first, second, third) = (u64::from(first), u64::from(second), u64::from(third));
        if second < 128 {
            return (first + (second << 4), 2);
        }
        if third < 128 {
            return (first + (second << 4) + (third << 11), 3);
        }
        if fourth < 128 {
            return (first + (second << 4) + (third << 11) + (u64::from(fourth) << 18), 4);
        }
    }
    any_long_varint(data)
}

fn any_long_varint(data: &[u8]) -> (u64, usize) {
    let Some((first, rest)) = data.split_first() else { return (0, 0) };
    let mut value = u64::from(*first);
    let mut shift = 4;
    for (taken, byte) in rest.iter().take(VARINT_MAX - 1).enumerate() {
        // The tenth byte adds at bit 60: only its low bits fit in 64 bits, a continuation bit does not.
        let part = u64::from(*byte);
        let Some(sum) = value.checked_add(part << shift) else { break };
        if shift == 60 && part > 15 {
            break;
        }
        value = sum;
        if *byte < 128 {
            return (value, taken + 2);
        }
        shift += 7;
    }
    (0, 0)
}

/// A varint of up to five bytes, the first one lowest, and its length. With ten thousand streams per second, the stream
/// number of HAProxy reaches five bytes within an hour, and six after five days.
#[inline]
pub(crate) const fn short_varint(value: u64) -> Option<(u64, u32)> {
    if value < 240 {
        return Some((value, 1));
    }
    // Larger numbers take six bytes.
    if value >= 4_328_786_160 {
        return None;
    }
    // Unrolled: a loop costs three times as much.
    let first = value & 0xff | 0xf0;
    let second = (value - 240) >> 4;
    if second < 128 {
        return Some((first | second << 8, 2));
    }
    let bytes = first | (second & 0x7f | 0x80) << 8;
    let third = (second - 128) >> 7;
    if third < 128 {
        return Some((bytes | third << 16, 3));
    }
    let bytes = bytes | (third & 0x7f | 0x80) << 16;
    let fourth = (third - 128) >> 7;
    if fourth < 128 {
        return Some((bytes | fourth << 24, 4));
    }
    Some((bytes | (fourth & 0x7f | 0x80) << 24 | ((fourth - 128) >> 7) << 32, 5))
}

/// The varint at the front of these bytes, the first one lowest, and its length; `None` if it is longer than five bytes.
#[inline]
pub(crate) const fn read_short_varint(bytes: u64) -> Option<(u64, u32)> {
    let first = bytes & 0xff;
    if first < 240 {
        return Some((first, 1));
    }
    let second = bytes >> 8 & 0xff;
    let value = first + (second << 4);
    if second < 128 {
        return Some((value, 2));
    }
    let third = bytes >> 16 & 0xff;
    let value = value + (third << 11);
    if third < 128 {
        return Some((value, 3));
    }
    let fourth = bytes >> 24 & 0xff;
    let value = value + (fourth << 18);
    if fourth < 128 {
        return Some((value, 4));
    }
    let fifth = bytes >> 32 & 0xff;
    if fifth < 128 { Some((value + (fifth << 25), 5)) } else { None }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::wire::{Malformed, Piece, Reader};

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        assert_eq!(out.len(), varint_len(value));
        out
    }

    #[test]
    fn the_boundaries_of_section_3_1() {
        for (value, len) in [
            (0, 1),
            (239, 1),
            (240, 2),
            (2_287, 2),
            (2_288, 3),
            (264_431, 3),
            (264_432, 4),
            (33_818_863, 4),
            (33_818_864, 5),
            (4_328_786_159, 5),
            (4_328_786_160, 6),
            (u64::MAX, 10),
        ] {
            let mut bytes = encoded(value);
            assert_eq!(bytes.len(), len, "{value}");
            // Whether more follows or not.
            for _ in 0..2 {
                let mut reader = Reader::new(&bytes);
                assert_eq!((reader.varint(), bytes.len() - reader.len()), (Ok(value), len));
                bytes.extend([0x80; 4]);
            }
        }
        assert_eq!(encoded(240), [0xf0, 0x00]);
        assert_eq!(encoded(2_288), [0xf0, 0x80, 0x00]);
        assert_eq!(encoded(u64::MAX), [0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e]);
    }

    #[test]
    fn what_needs_more_than_64_bits_is_refused() {
        for more in [1, 2, 0x12, 0x62, 0x71] {
            let mut too_long = encoded(u64::MAX);
            *too_long.last_mut().unwrap() += more;
            assert_eq!(Reader::new(&too_long).varint(), Err(Malformed::VarintTooLong), "{more} more");
        }
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(Malformed::VarintTooLong));
        assert_eq!(Reader::new(&[0xff; 9]).varint(), Err(Malformed::Truncated(Piece::Varint)));
        assert_eq!(Reader::new(&[]).varint(), Err(Malformed::Truncated(Piece::Varint)));
    }

    proptest::proptest! {
        #[test]
        fn what_was_encoded_decodes_to_itself(shift in 0_u32..64, value: u64) {
            let value = value >> shift;
            let bytes = encoded(value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
            for cut in 0..bytes.len() {
                assert_eq!(Reader::new(&bytes[..cut]).varint(), Err(Malformed::Truncated(Piece::Varint)));
            }
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes: [u8; 12]) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.varint() {
                assert_eq!(encoded(value), bytes[..bytes.len() - reader.len()]);
            }
        }
    }
}
