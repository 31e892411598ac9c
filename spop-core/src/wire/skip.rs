//! Stepping over what need not be read: the hot half of checking a payload.
//!
//! These functions agree with [`Reader`](super::Reader) on what is well formed, and say nothing about why something is not:
//! who wants to know reads it again. They pass slices by value, which stay in registers.

use super::Reader;

/// What comes after a STRING; `None` when it is malformed.
#[inline]
pub(crate) fn skip_string(data: &[u8]) -> Option<&[u8]> {
    match data {
        [len @ ..240, rest @ ..] => rest.get(usize::from(*len)..),
        _ => {
            let mut reader = Reader::new(data);
            reader.string().ok()?;
            Some(reader.rest())
        }
    }
}

/// What comes after a typed value; `None` when it is malformed.
#[inline]
pub(crate) fn skip_value(data: &[u8]) -> Option<&[u8]> {
    let (head, rest) = data.split_first()?;
    match head & 0x0f {
        0 | 1 => Some(rest),
        4 | 5 => match rest {
            [..240, rest @ ..] => Some(rest),
            _ => skip_long(data),
        },
        6 => rest.get(4..),
        7 => rest.get(16..),
        8 | 9 => skip_string(rest),
        _ => skip_long(data),
    }
}

fn skip_long(data: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(data);
    reader.value().ok()?;
    Some(reader.rest())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn stepping_over_is_reading(bytes: alloc::vec::Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            assert_eq!(skip_value(&bytes), reader.value().ok().map(|_| reader.rest()));
            let mut reader = Reader::new(&bytes);
            assert_eq!(skip_string(&bytes), reader.string().ok().map(|_| reader.rest()));
        }
    }
}
