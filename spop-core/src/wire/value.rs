//! The ten types of typed data.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str,
};

use super::{Sink, put_varint, varint_len};

/// A typed value. STRING and BINARY borrow the bytes they were decoded from.
///
/// A STRING is bytes: the specification names no encoding, and HAProxy does not check any.
/// [`as_str`](Self::as_str) returns it if it is UTF-8.
///
/// The layout in memory (`repr`) is not part of the interface.
///
/// ```
/// use spop_core::wire::{Reader, Value};
///
/// let mut bytes = Vec::new();
/// Value::from("/login").encode(&mut bytes);
/// assert_eq!(bytes, b"\x08\x06/login");
/// assert_eq!(Reader::new(&bytes).value().unwrap().as_str(), Some("/login"));
/// ```
// `repr`: the compiler's own layout packs addresses next to the type byte, and the next load stalls on store forwarding
// (12 arguments: 237 ns, against 144 ns with this layout).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, u8)]
pub enum Value<'a> {
    /// NULL: HAProxy could not fetch the sample.
    Null,
    /// BOOL.
    Bool(bool),
    /// INT32.
    Int32(i32),
    /// UINT32.
    Uint32(u32),
    /// INT64: the type of every integer that HAProxy sends.
    Int64(i64),
    /// UINT64.
    Uint64(u64),
    /// IPV4.
    Ipv4(Ipv4Addr),
    /// IPV6.
    Ipv6(Ipv6Addr),
    /// STRING: bytes, usually but not always UTF-8.
    String(&'a [u8]),
    /// BINARY.
    Binary(&'a [u8]),
}

/// The type of a [`Value`]: the low four bits of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // The names of section 3.1.
pub enum ValueType {
    Null = 0,
    Bool = 1,
    Int32 = 2,
    Uint32 = 3,
    Int64 = 4,
    Uint64 = 5,
    Ipv4 = 6,
    Ipv6 = 7,
    String = 8,
    Binary = 9,
}

impl ValueType {
    /// The name in the specification, such as `INT64`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Bool => "BOOL",
            Self::Int32 => "INT32",
            Self::Uint32 => "UINT32",
            Self::Int64 => "INT64",
            Self::Uint64 => "UINT64",
            Self::Ipv4 => "IPV4",
            Self::Ipv6 => "IPV6",
            Self::String => "STRING",
            Self::Binary => "BINARY",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> Value<'a> {
    /// The value's type.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::Null => ValueType::Null,
            Self::Bool(_) => ValueType::Bool,
            Self::Int32(_) => ValueType::Int32,
            Self::Uint32(_) => ValueType::Uint32,
            Self::Int64(_) => ValueType::Int64,
            Self::Uint64(_) => ValueType::Uint64,
            Self::Ipv4(_) => ValueType::Ipv4,
            Self::Ipv6(_) => ValueType::Ipv6,
            Self::String(_) => ValueType::String,
            Self::Binary(_) => ValueType::Binary,
        }
    }

    /// Whether this is NULL.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The boolean of a BOOL; `None` for other types.
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The number of any of the four integer types, whose range an `i128` holds; `None` for other types.
    pub const fn as_integer(&self) -> Option<i128> {
        Some(match self {
            Self::Int32(value) => *value as i128,
            Self::Uint32(value) => *value as i128,
            Self::Int64(value) => *value as i128,
            Self::Uint64(value) => *value as i128,
            _ => return None,
        })
    }

    /// The address of an IPV4 or IPV6; `None` for other types. An IPv4-mapped IPv6 address becomes IPv4:
    /// `::ffff:192.0.2.1`, as a dual-stack listener reports it, is `192.0.2.1`, so that lists of IPv4 networks match it. The
    /// variant [`Ipv6`](Self::Ipv6) holds the address as received.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// use spop_core::Value;
    ///
    /// let mapped: IpAddr = "::ffff:192.0.2.1".parse()?;
    /// assert_eq!(Value::from(mapped).as_ip(), Some([192, 0, 2, 1].into()));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub const fn as_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ipv4(address) => Some(IpAddr::V4(*address)),
            Self::Ipv6(address) => Some(address.to_canonical()),
            _ => None,
        }
    }

    /// The bytes of a STRING or BINARY; `None` for other types.
    pub const fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::String(bytes) | Self::Binary(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The text of a STRING that is UTF-8; `None` for other types, and for a STRING that is not UTF-8. HAProxy forwards a
    /// client's bytes unchecked: [`as_bytes`](Self::as_bytes) returns any STRING.
    pub fn as_str(&self) -> Option<&'a str> {
        if let Self::String(bytes) = self { str::from_utf8(bytes).ok() } else { None }
    }

    /// The number of bytes that [`encode`](Self::encode) appends.
    pub const fn encoded_len(&self) -> usize {
        1 + match self {
            Self::Null | Self::Bool(_) => 0,
            Self::Int32(value) => varint_len((*value as i64).cast_unsigned()),
            Self::Uint32(value) => varint_len(*value as u64),
            Self::Int64(value) => varint_len(value.cast_unsigned()),
            Self::Uint64(value) => varint_len(*value),
            Self::Ipv4(_) => 4,
            Self::Ipv6(_) => 16,
            Self::String(bytes) | Self::Binary(bytes) => varint_len(bytes.len() as u64) + bytes.len(),
        }
    }

    /// Appends the value as typed data: the type byte, then the data.
    #[expect(clippy::inline_always, reason = "where the type is known, little is left of it")]
    #[inline(always)]
    pub fn encode(&self, out: &mut (impl Sink + ?Sized)) {
        let value_type = self.value_type() as u8;
        match self {
            Self::Null => out.put(&[value_type]),
            Self::Bool(value) => out.put(&[value_type | u8::from(*value) << 4]),
            Self::Int32(value) => put_integer(out, value_type, i64::from(*value).cast_unsigned()),
            Self::Uint32(value) => put_integer(out, value_type, u64::from(*value)),
            Self::Int64(value) => put_integer(out, value_type, value.cast_unsigned()),
            Self::Uint64(value) => put_integer(out, value_type, *value),
            Self::Ipv4(address) => {
                out.put(&[value_type]);
                out.put(&address.octets());
            }
            Self::Ipv6(address) => {
                out.put(&[value_type]);
                out.put(&address.octets());
            }
            Self::String(bytes) | Self::Binary(bytes) => {
                put_integer(out, value_type, bytes.len() as u64);
                out.put(bytes);
            }
        }
    }
}

#[inline]
fn put_integer(out: &mut (impl Sink + ?Sized), value_type: u8, value: u64) {
    if value < 240 {
        // Both bytes in one register: a word load after two byte stores stalls on store forwarding.
        out.put(&(u16::from(value_type) | (value as u16) << 8).to_le_bytes());
    } else {
        out.put(&[value_type]);
        put_varint(out, value);
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;
    use crate::wire::{Malformed, Piece, Reader, put_varint};

    fn round_trip(value: Value<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        assert_eq!(bytes.len(), value.encoded_len(), "{value:?}");
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.value(), Ok(value));
        assert!(reader.is_empty());
        for cut in 0..bytes.len() {
            assert!(
                matches!(Reader::new(&bytes[..cut]).value(), Err(Malformed::Truncated(_))),
                "{value:?} cut to {cut} bytes"
            );
        }
        bytes
    }

    #[test]
    fn each_type_has_its_bytes() {
        assert_eq!(round_trip(Value::Null), [0]);
        assert_eq!(round_trip(false.into()), [1]);
        assert_eq!(round_trip(true.into()), [0x11]);
        assert_eq!(round_trip(7_i32.into()), [2, 7]);
        assert_eq!(round_trip(7_u32.into()), [3, 7]);
        assert_eq!(round_trip(7_i64.into()), [4, 7]);
        assert_eq!(round_trip(7_u64.into()), [5, 7]);
        assert_eq!(round_trip(Ipv4Addr::new(192, 0, 2, 1).into()), [6, 192, 0, 2, 1]);
        assert_eq!(round_trip(Ipv6Addr::LOCALHOST.into())[..2], [7, 0]);
        assert_eq!(round_trip("é".into()), [8, 2, 0xc3, 0xa9]);
        assert_eq!(round_trip(Value::String(b"\xff\x00")), [8, 2, 0xff, 0]);
        assert_eq!(round_trip(b"".as_slice().into()), [9, 0]);
    }

    #[test]
    fn negative_numbers_are_the_twos_complement_of_64_bits() {
        let minus_one = [0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e];
        assert_eq!(round_trip((-1_i32).into())[1..], minus_one);
        assert_eq!(round_trip((-1_i64).into())[1..], minus_one);
        for value in [i32::MIN, i32::MAX] {
            round_trip(value.into());
        }
        for value in [i64::MIN, i64::MAX, -240, 239, 240] {
            round_trip(value.into());
        }
        round_trip(u32::MAX.into());
        round_trip(u64::MAX.into());
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused() {
        let mut bytes = vec![2];
        put_varint(&mut bytes, 1 << 31);
        assert_eq!(Reader::new(&bytes).value(), Err(Malformed::Int32OutOfRange));
        let mut bytes = vec![2];
        put_varint(&mut bytes, (i64::from(i32::MIN) - 1).cast_unsigned());
        assert_eq!(Reader::new(&bytes).value(), Err(Malformed::Int32OutOfRange));
        let mut bytes = vec![3];
        put_varint(&mut bytes, 1 << 32);
        assert_eq!(Reader::new(&bytes).value(), Err(Malformed::Uint32OutOfRange));
        for reserved in 10..=15 {
            assert_eq!(Reader::new(&[reserved]).value(), Err(Malformed::ReservedType(reserved)));
        }
    }

    #[test]
    fn flag_bits_without_a_meaning_are_ignored() {
        assert_eq!(Reader::new(&[0xe1]).value(), Ok(Value::Bool(false)));
        assert_eq!(Reader::new(&[0xf1]).value(), Ok(Value::Bool(true)));
        assert_eq!(Reader::new(&[0xf0]).value(), Ok(Value::Null));
        assert_eq!(Reader::new(&[0xf4, 5]).value(), Ok(Value::Int64(5)));
    }

    #[test]
    fn a_length_beyond_the_data_allocates_nothing_and_is_an_error() {
        let mut bytes = vec![9];
        put_varint(&mut bytes, u64::MAX);
        assert_eq!(Reader::new(&bytes).value(), Err(Malformed::Truncated(Piece::Binary)));
    }

    #[test]
    fn accessors_answer_for_their_types_only() {
        assert_eq!(Value::from(3_u32).as_integer(), Some(3));
        assert_eq!(Value::from(i64::MIN).as_integer(), Some(i128::from(i64::MIN)));
        assert_eq!(Value::from("x").as_integer(), None);
        assert_eq!(Value::from("x").as_str(), Some("x"));
        assert_eq!(Value::from("x").as_bytes(), Some(b"x".as_slice()));
        assert_eq!(Value::String(b"\xff").as_str(), None);
        assert_eq!(Value::Null.as_bytes(), None);
        assert_eq!(Value::Binary(b"x").as_str(), None);
        assert_eq!(Value::Binary(b"x").as_bytes(), Some(b"x".as_slice()));
        assert_eq!(Value::from(None::<bool>), Value::Null);
        assert_eq!(Value::from(IpAddr::from([1, 2, 3, 4])).as_ip(), Some(IpAddr::from([1, 2, 3, 4])));
        assert_eq!(Value::from(true).as_bool(), Some(true));
        assert!(Value::Null.is_null());
    }
}
