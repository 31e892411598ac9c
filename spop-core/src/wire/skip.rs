//! Skipping encoded items without decoding them: the fast path of validating a payload.
//!
//! These functions accept what [`Reader`] accepts. They do not report why an item is malformed: the caller decodes it again
//! with `Reader` for that. They take the position where an item starts, and return the position where it ends, which may lie
//! fewer than [`SHORT`] bytes behind the end of the data. A read from there fails, so only the last end needs a check.

use super::{Reader, varint::long_varint};

/// Lengths below this are encoded in one byte.
pub(crate) const SHORT: u8 = 240;

/// The end of the STRING that starts `at`; `None` if it is malformed.
#[inline]
pub(crate) fn skip_string(data: &[u8], at: usize) -> Option<usize> {
    let len = *data.get(at)?;
    if len < SHORT { Some(at + 1 + usize::from(len)) } else { skip_long_string(data, at) }
}

#[cold]
fn skip_long_string(data: &[u8], at: usize) -> Option<usize> {
    let rest = data.get(at..)?;
    let (len, taken) = long_varint(rest);
    let end = taken.checked_add(usize::try_from(len).ok()?)?;
    // Compared before the addition, which could overflow: a length may be up to 2^64 - 1.
    (taken > 0 && end <= rest.len()).then(|| at + end)
}

/// The end of the typed value that starts `at`; `None` if it is malformed.
#[inline]
pub(crate) fn skip_value(data: &[u8], at: usize) -> Option<usize> {
    let value = at + 1;
    match data.get(at)? & 0x0f {
        8 | 9 => skip_string(data, value),
        4 | 5 => match *data.get(value)? {
            ..SHORT => Some(value + 1),
            _ => match long_varint(data.get(value..)?) {
                (_, 0) => None,
                (_, taken) => Some(value + taken),
            },
        },
        0 | 1 => Some(value),
        6 => Some(value + 4),
        7 => Some(value + 16),
        _ => skip_rare(data, at),
    }
}

/// `skip_value` for the types that HAProxy does not send.
#[cold]
fn skip_rare(data: &[u8], at: usize) -> Option<usize> {
    let mut reader = Reader::new(data.get(at..)?);
    reader.value().ok()?;
    Some(data.len() - reader.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_may_be_as_large_as_can_be() {
        for huge in [u64::MAX, u64::MAX - 9, u64::MAX - 10, u64::MAX - 100, 1 << 63] {
            let mut bytes = alloc::vec![0; 100];
            crate::wire::put_varint(&mut bytes, huge);
            assert_eq!(skip_string(&bytes, 100), None, "{huge}");
        }
    }

    #[test]
    fn a_length_that_is_cut_off_or_too_long_has_no_end() {
        let endless = [&[0xff_u8][..], &[0x80; 10]].concat();
        for length in [&[0xf0][..], &[0xff, 0x80], &endless] {
            assert_eq!(skip_string(length, 0), None, "{length:02x?}");
            let number = [&[4][..], length].concat();
            assert_eq!(skip_value(&number, 0), None, "{number:02x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn stepping_over_is_reading(bytes: alloc::vec::Vec<u8>) {
            let within = |end: &usize| *end <= bytes.len();
            let mut reader = Reader::new(&bytes);
            let read = reader.value().ok().map(|_| bytes.len() - reader.len());
            assert_eq!(skip_value(&bytes, 0).filter(within), read);
            let mut reader = Reader::new(&bytes);
            let read = reader.string().ok().map(|_| bytes.len() - reader.len());
            assert_eq!(skip_string(&bytes, 0).filter(within), read);
        }
    }
}
