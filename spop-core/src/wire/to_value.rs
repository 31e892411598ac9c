//! Conversion of Rust types to values.

use alloc::{
    borrow::{Cow, ToOwned},
    boxed::Box,
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::Value;

/// Conversion to a [`Value`]: of a type, a reference to it, or an `Option` of it.
///
/// | Rust | SPOP |
/// |---|---|
/// | `bool` | BOOL |
/// | `i8`, `i16`, `i32` | INT32 |
/// | `u8`, `u16`, `u32` | UINT32 |
/// | `i64`, `isize` | INT64 |
/// | `u64`, `usize` | UINT64 |
/// | `Ipv4Addr`, `Ipv6Addr`, `IpAddr` | IPV4, IPV6; `IpAddr` by its variant |
/// | `str`, `String`, `Cow<str>` | STRING |
/// | `[u8]`, `[u8; N]`, `Vec<u8>`, `Cow<[u8]>`, [`Bytes`] | BINARY; write [`Value::String`] where the peer expects a STRING |
/// | `Option` of these | the value, or NULL |
/// | `Box`, `Arc` or a reference | the value that it refers to |
///
/// SPOP has no type for `i128`, `u128` and floats. HAProxy stores all integers as INT64; a UINT64 above `i64::MAX` becomes
/// negative there.
///
/// ```
/// use spop_core::wire::{ToValue, Value};
///
/// /// A type of the application.
/// struct Score(u8);
///
/// impl ToValue for Score {
///     fn to_value(&self) -> Value<'_> {
///         self.0.to_value()
///     }
/// }
///
/// assert_eq!(Some(Score(77)).to_value(), Value::Uint32(77));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent as a value of SPOP",
    label = "not a value of SPOP",
    note = "SPOP has booleans, integers of up to 64 bits, IP addresses, strings, bytes, and NULL for `None`",
    note = "for another type convert it first, for instance with `.to_string()`, or implement `ToValue` for it"
)]
pub trait ToValue {
    /// The value. Strings and bytes are borrowed.
    fn to_value(&self) -> Value<'_>;
}

macro_rules! numbers {
    ($($from:ty => $variant:ident($to:ty)),*) => {$(
        impl ToValue for $from {
            #[inline]
            fn to_value(&self) -> Value<'_> {
                Value::$variant(<$to>::from(*self))
            }
        }

        impl From<$from> for Value<'_> {
            #[inline]
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

numbers! {
    bool => Bool(bool),
    i8 => Int32(i32), i16 => Int32(i32), i32 => Int32(i32),
    u8 => Uint32(u32), u16 => Uint32(u32), u32 => Uint32(u32),
    i64 => Int64(i64), u64 => Uint64(u64),
    Ipv4Addr => Ipv4(Ipv4Addr), Ipv6Addr => Ipv6(Ipv6Addr)
}

impl ToValue for isize {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        Value::Int64(*self as i64)
    }
}

impl ToValue for usize {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        Value::Uint64(*self as u64)
    }
}

impl ToValue for IpAddr {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        match self {
            Self::V4(address) => Value::Ipv4(*address),
            Self::V6(address) => Value::Ipv6(*address),
        }
    }
}

impl ToValue for str {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        Value::String(self.as_bytes())
    }
}

impl ToValue for String {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        self.as_str().to_value()
    }
}

impl ToValue for [u8] {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        Value::Binary(self)
    }
}

impl<const N: usize> ToValue for [u8; N] {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        Value::Binary(self)
    }
}

impl ToValue for Vec<u8> {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        Value::Binary(self)
    }
}

impl ToValue for Bytes {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        Value::Binary(self)
    }
}

impl ToValue for Value<'_> {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        *self
    }
}

impl<T: ToValue> ToValue for Option<T> {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, T::to_value)
    }
}

impl<T: ToValue + ToOwned + ?Sized> ToValue for Cow<'_, T> {
    #[inline]
    fn to_value(&self) -> Value<'_> {
        (**self).to_value()
    }
}

macro_rules! pointers {
    ($($pointer:ty),*) => {$(
        impl<T: ToValue + ?Sized> ToValue for $pointer {
            #[inline]
            fn to_value(&self) -> Value<'_> {
                (**self).to_value()
            }
        }
    )*};
}

pointers!(&T, &mut T, Box<T>, Arc<T>);

impl From<isize> for Value<'_> {
    fn from(value: isize) -> Self {
        Self::Int64(value as i64)
    }
}

impl From<usize> for Value<'_> {
    fn from(value: usize) -> Self {
        Self::Uint64(value as u64)
    }
}

impl From<IpAddr> for Value<'_> {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address),
            IpAddr::V6(address) => Self::Ipv6(address),
        }
    }
}

/// The value of any `ToValue`, borrowed: `Value::from(&string)`.
impl<'a, T: ToValue + ?Sized> From<&'a T> for Value<'a> {
    fn from(value: &'a T) -> Self {
        value.to_value()
    }
}

/// `None` is NULL.
impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{borrow::ToOwned, vec};

    use super::*;

    /// What a generic caller sees, as `Actions::set_var`.
    fn sent(value: impl ToValue) -> String {
        alloc::format!("{:?}", value.to_value())
    }

    #[test]
    fn each_integer_has_its_type_on_the_wire() {
        assert_eq!(sent(i8::MIN), "Int32(-128)");
        assert_eq!(sent(i16::MIN), "Int32(-32768)");
        assert_eq!(sent(-1), "Int32(-1)", "a literal without a type is an i32");
        assert_eq!(sent(u8::MAX), "Uint32(255)");
        assert_eq!(sent(u16::MAX), "Uint32(65535)");
        assert_eq!(sent(u32::MAX), "Uint32(4294967295)");
        assert_eq!(sent(i64::MIN), "Int64(-9223372036854775808)");
        assert_eq!(sent(-1_isize), "Int64(-1)");
        assert_eq!(sent(u64::MAX), "Uint64(18446744073709551615)");
        assert_eq!(sent(7_usize), "Uint64(7)");
    }

    #[test]
    fn text_bytes_and_addresses_are_taken_as_they_are_at_hand() {
        let text = "abc".to_owned();
        let string = "String([97, 98, 99])";
        assert_eq!(sent("abc"), string);
        assert_eq!(sent(&text), string);
        assert_eq!(sent([&text].first()), string, "an Option<&&String>");
        assert_eq!(sent(Cow::Borrowed("abc")), string);
        assert_eq!(sent(Cow::<str>::Owned(text.clone())), string);
        assert_eq!(sent(Box::<str>::from("abc")), string);
        assert_eq!(sent(Arc::<str>::from("abc")), string);
        assert_eq!(sent(text), string);
        let binary = "Binary([0, 255])";
        let bytes = vec![0, 255];
        assert_eq!(sent(bytes.as_slice()), binary);
        assert_eq!(sent(&bytes), binary);
        assert_eq!(sent(Cow::Borrowed(bytes.as_slice())), binary);
        assert_eq!(sent(bytes), binary);
        assert_eq!(sent(b"\x00\xff"), binary);
        assert_eq!(sent([0_u8, 255]), binary);
        assert_eq!(sent(Bytes::from_static(b"\x00\xff")), binary);
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(sent(v4), "Ipv4(192.0.2.1)");
        assert_eq!(sent(IpAddr::V4(v4)), "Ipv4(192.0.2.1)");
        assert_eq!(sent(IpAddr::V6(v4.to_ipv6_mapped())), "Ipv6(::ffff:192.0.2.1)");
        assert_eq!(sent(true), "Bool(true)");
    }

    #[test]
    fn none_is_null() {
        assert_eq!(sent(None::<String>), "Null");
        assert_eq!(sent(Some(7_u8)), "Uint32(7)");
        let some = Some("x".to_owned());
        assert_eq!(sent(&some), "String([120])");
        assert_eq!(sent(some), "String([120])");
        assert_eq!(sent(Some(&Value::Null)), "Null");
        assert_eq!(Value::from(None::<&str>), Value::Null);
    }

    #[test]
    fn conversions_agree() {
        assert_eq!(Value::from(7_u16), 7_u16.to_value());
        assert_eq!(Value::from(-7_isize), (-7_isize).to_value());
        assert_eq!(Value::from(7_usize), 7_usize.to_value());
        assert_eq!(Value::from(&"x".to_owned()), Value::String(b"x"));
        assert_eq!(Value::from(b"x"), Value::Binary(b"x"));
        assert_eq!(Value::from(Some(IpAddr::V6(Ipv6Addr::LOCALHOST))), Value::Ipv6(Ipv6Addr::LOCALHOST));
    }
}
