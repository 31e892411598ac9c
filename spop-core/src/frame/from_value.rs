//! Conversion of values to Rust types.

use alloc::{
    borrow::{Cow, ToOwned},
    string::String,
    vec::Vec,
};
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str,
};

use bytes::Bytes;

use super::Unusable;
use crate::wire::{Headers, Value};

/// Conversion from the value of an argument.
///
/// | Rust | accepts |
/// |---|---|
/// | `bool` | BOOL |
/// | any integer type | an integer of any type, if it is in range |
/// | `IpAddr` | IPV4 and IPV6; `::ffff:192.0.2.1` becomes `192.0.2.1` |
/// | `Ipv4Addr` | IPV4, and IPV6 of that form |
/// | `Ipv6Addr` | IPV6, as it is |
/// | `Cow<str>` | STRING; invalid UTF-8 is replaced |
/// | `&str`, `String` | STRING, if it is UTF-8 |
/// | `&[u8]`, `Vec<u8>`, [`Bytes`] | STRING and BINARY |
/// | [`Headers`] | BINARY, from `req.hdrs_bin` or `res.hdrs_bin` |
/// | [`Value`] | everything, NULL included |
/// | `Option` of these | the value, or `None` for NULL and for a missing argument |
///
/// # Text that a client controls
///
/// The client of HAProxy controls paths, queries and header fields, and can send bytes that are not UTF-8. `&str` and
/// `String` then fail; if the handler returns this error, there is no answer, and by default HAProxy continues without one.
/// So a client could bypass the check. Use `Cow<str>`, which never fails for a STRING, or `&[u8]`.
#[diagnostic::on_unimplemented(
    message = "an argument cannot be taken as `{Self}`",
    label = "no type for an argument",
    note = "take it as a boolean, an integer, an IP address, `&str`, `Cow<str>`, `String`, `&[u8]`, `Vec<u8>`, `Headers` or `Value`, or an `Option` of these"
)]
pub trait FromValue<'a>: Sized {
    /// Converts the value.
    ///
    /// # Errors
    /// [`Unusable`] if it does not convert.
    fn from_value(value: Value<'a>) -> Result<Self, Unusable>;

    /// The value for a missing argument.
    ///
    /// # Errors
    /// [`Unusable::Missing`], except for types with a value for it, such as `Option`.
    fn absent() -> Result<Self, Unusable> {
        Err(Unusable::Missing)
    }
}

fn wrong(expected: &'static str, value: Value<'_>) -> Unusable {
    match value {
        Value::Null => Unusable::Null,
        other => Unusable::WrongType { expected, found: other.value_type() },
    }
}

/// The value as it is, NULL included.
impl<'a> FromValue<'a> for Value<'a> {
    fn from_value(value: Value<'a>) -> Result<Self, Unusable> {
        Ok(value)
    }
}

/// `None` for NULL and for a missing argument.
impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    fn from_value(value: Value<'a>) -> Result<Self, Unusable> {
        if value.is_null() { Ok(None) } else { T::from_value(value).map(Some) }
    }

    fn absent() -> Result<Self, Unusable> {
        Ok(None)
    }
}

impl FromValue<'_> for bool {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        value.as_bool().ok_or_else(|| wrong("BOOL", value))
    }
}

/// An IPv4-mapped IPv6 address, as a dual-stack listener reports it, becomes IPv4: `::ffff:192.0.2.1` is `192.0.2.1`, so that
/// lists of IPv4 networks match it.
impl FromValue<'_> for IpAddr {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        value.as_ip().ok_or_else(|| wrong("IPV4 or IPV6", value))
    }
}

/// The address of an IPV4, or of an IPV6 that is a mapped IPv4 address (`::ffff:192.0.2.1`).
impl FromValue<'_> for Ipv4Addr {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        if let Some(IpAddr::V4(address)) = value.as_ip() { Ok(address) } else { Err(wrong("IPV4", value)) }
    }
}

/// The address of an IPV6 as HAProxy sent it, mapped IPv4 addresses included.
impl FromValue<'_> for Ipv6Addr {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        if let Value::Ipv6(address) = value { Ok(address) } else { Err(wrong("IPV6", value)) }
    }
}

/// The bytes of a STRING or a BINARY.
impl<'a> FromValue<'a> for &'a [u8] {
    fn from_value(value: Value<'a>) -> Result<Self, Unusable> {
        value.as_bytes().ok_or_else(|| wrong("STRING or BINARY", value))
    }
}

/// The bytes of a STRING or a BINARY, copied.
impl FromValue<'_> for Vec<u8> {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        <&[u8]>::from_value(value).map(ToOwned::to_owned)
    }
}

/// The bytes of a STRING or a BINARY, copied: a borrowed message has no buffer to share.
impl FromValue<'_> for Bytes {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        <&[u8]>::from_value(value).map(Self::copy_from_slice)
    }
}

/// The text of a STRING. Invalid UTF-8 is replaced by U+FFFD, in a copy; valid text is borrowed.
///
/// Use this type for header fields, paths and any other text that a client controls: it accepts every STRING.
///
/// ```
/// use std::borrow::Cow;
/// use spop_core::{MessageList, wire::Value};
///
/// let mut list = MessageList::new();
/// list.message("waf").arg("path", Value::String(b"/\xff/../etc/passwd"));
/// let message = list.iter().next().unwrap();
/// assert!(message.arg::<&str>("path").is_err(), "a handler that returns this error lets the client bypass it");
/// let path: Cow<'_, str> = message.arg("path")?;
/// assert!(path.contains("/../"));
/// # Ok::<(), spop_core::frame::ArgError>(())
/// ```
impl<'a> FromValue<'a> for Cow<'a, str> {
    fn from_value(value: Value<'a>) -> Result<Self, Unusable> {
        let Value::String(bytes) = value else { return Err(wrong("STRING", value)) };
        Ok(String::from_utf8_lossy(bytes))
    }
}

/// The text of a STRING that is UTF-8.
///
/// HAProxy forwards a client's bytes without a check of the encoding, so the client decides whether this fails for a header
/// field, a path or a query. Use `Cow<str>` or `&[u8]` there.
impl<'a> FromValue<'a> for &'a str {
    fn from_value(value: Value<'a>) -> Result<Self, Unusable> {
        let Value::String(bytes) = value else { return Err(wrong("STRING", value)) };
        str::from_utf8(bytes).map_err(|_| Unusable::NotUtf8)
    }
}

/// The text of a STRING that is UTF-8, copied. As with `&str`, a client decides whether this fails for text that it controls;
/// [`Cow::into_owned`] makes a `String` of any STRING.
impl FromValue<'_> for String {
    fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
        <&str>::from_value(value).map(ToOwned::to_owned)
    }
}

/// The headers of a BINARY from `req.hdrs_bin` or `res.hdrs_bin`.
impl<'a> FromValue<'a> for Headers<'a> {
    fn from_value(value: Value<'a>) -> Result<Self, Unusable> {
        let Value::Binary(bytes) = value else { return Err(wrong("BINARY", value)) };
        Headers::decode(bytes).map_err(Unusable::NotHeaders)
    }
}

macro_rules! integers {
    ($($integer:ident),*) => {$(
        impl FromValue<'_> for $integer {
            #[inline]
            fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
                let number = value.as_integer().ok_or_else(|| wrong("an integer", value))?;
                number
                    .try_into()
                    .map_err(|_| Unusable::OutOfRange { expected: stringify!($integer), value: number })
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize);

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::{frame::Messages, notation};

    /// Takes argument `x` of a message.
    fn take<T: for<'a> FromValue<'a>>(argument: &str) -> Result<T, String> {
        let payload = notation::parse(&alloc::format!("NOTIFY fin 1 1 m {argument}")).unwrap().payload;
        let message = Messages::decode(&payload).unwrap().iter().next().unwrap();
        message.arg("x").map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_become_what_is_asked_for() {
        assert_eq!(take::<IpAddr>("x=ipv4:192.0.2.1"), Ok(IpAddr::from([192, 0, 2, 1])));
        assert_eq!(take::<IpAddr>("x=ipv6:::1"), Ok(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(take::<Ipv4Addr>("x=ipv4:192.0.2.1"), Ok(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(take::<bool>("x=bool:true"), Ok(true));
        assert_eq!(take::<String>(r#"x=string:"\xc3\xa9""#), Ok("é".into()));
        for wire in ["int32", "uint32", "int64", "uint64"] {
            let argument = alloc::format!("x={wire}:200");
            assert_eq!(take::<u8>(&argument), Ok(200));
            assert_eq!(take::<i64>(&argument), Ok(200));
            assert_eq!(
                take::<i8>(&argument).unwrap_err(),
                r#"argument "x" of message "m" is 200, which does not fit i8"#
            );
        }
        assert_eq!(take::<u64>("x=uint64:18446744073709551615"), Ok(u64::MAX));
        assert_eq!(take::<i64>("x=int64:-9223372036854775808"), Ok(i64::MIN));
        assert!(take::<u64>("x=int64:-1").is_err());
    }

    #[test]
    fn a_mapped_ipv4_address_is_ipv4_unless_ipv6_is_asked_for() {
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        let mapped = "x=ipv6:::ffff:192.0.2.1";
        assert_eq!(take::<IpAddr>(mapped), Ok(IpAddr::V4(v4)));
        assert_eq!(take::<Ipv4Addr>(mapped), Ok(v4));
        assert_eq!(take::<Ipv6Addr>(mapped), Ok(v4.to_ipv6_mapped()));
        // Compatible addresses are another form, and `::1` is one of them.
        let compatible = "x=ipv6:::192.0.2.1";
        assert_eq!(take::<IpAddr>(compatible), Ok(IpAddr::V6(v4.to_ipv6_compatible())));
        assert_eq!(
            take::<Ipv4Addr>(compatible).unwrap_err(),
            r#"argument "x" of message "m" is of type IPV6, not IPV4"#
        );
    }

    #[test]
    fn bytes_are_copied_and_text_that_is_not_utf8_is_replaced() {
        for (argument, expected) in [("x=binary:00ff", b"\x00\xff"), (r#"x=string:"\x00\xff""#, b"\x00\xff")]
        {
            assert_eq!(take::<Vec<u8>>(argument).unwrap(), expected);
            assert_eq!(take::<Bytes>(argument).unwrap(), expected.as_slice());
        }
        assert!(take::<Vec<u8>>("x=bool:true").is_err() && take::<Bytes>("x=null").is_err());

        let text = |argument: &str| take::<Text>(argument).map(|text| text.0);
        assert_eq!(text("x=string:abc"), Ok(("abc".into(), true)));
        assert_eq!(text(r#"x=string:"a\xffb""#), Ok(("a\u{fffd}b".into(), false)));
        assert_eq!(
            text("x=binary:61").unwrap_err(),
            r#"argument "x" of message "m" is of type BINARY, not STRING"#
        );
    }

    /// A `Cow<str>`, for `take`, and whether it is borrowed.
    struct Text((String, bool));

    impl FromValue<'_> for Text {
        fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
            let text = <Cow<'_, str>>::from_value(value)?;
            let borrowed = matches!(text, Cow::Borrowed(_));
            Ok(Self((text.into_owned(), borrowed)))
        }
    }

    #[test]
    fn nothing_is_missing_null_or_none() {
        assert_eq!(take::<Option<u8>>("x=null"), Ok(None));
        assert_eq!(take::<Option<u8>>("y=int32:1"), Ok(None));
        assert_eq!(take::<Option<u8>>("x=int32:1"), Ok(Some(1)));
        assert_eq!(take::<u8>("x=null").unwrap_err(), r#"argument "x" of message "m" is NULL"#);
        assert_eq!(take::<u8>("y=int32:1").unwrap_err(), r#"argument "x" of message "m" is missing"#);
    }

    #[test]
    fn errors_say_what_is_there() {
        let wrong = take::<IpAddr>("x=string:192.0.2.1").unwrap_err();
        assert_eq!(wrong, r#"argument "x" of message "m" is of type STRING, not IPV4 or IPV6"#);
        assert_eq!(
            take::<Option<bool>>("x=int32:1").unwrap_err(),
            r#"argument "x" of message "m" is of type INT32, not BOOL"#
        );
        assert_eq!(
            take::<String>(r#"x=string:"\xff""#).unwrap_err(),
            r#"argument "x" of message "m" is not UTF-8"#
        );
        assert!(take::<String>("x=binary:00").is_err());
        let headers = |argument: &str| take::<Option<()>>(argument).unwrap_err();
        assert_eq!(
            headers("x=binary:016100"),
            r#"argument "x" of message "m" is no list of headers: at byte 3: the data ends in the middle of a list of headers"#
        );
        assert_eq!(headers("x=string:a"), r#"argument "x" of message "m" is of type STRING, not BINARY"#);
    }

    /// Headers, for `take`, whose types may not borrow.
    impl FromValue<'_> for () {
        fn from_value(value: Value<'_>) -> Result<Self, Unusable> {
            Headers::from_value(value).map(drop)
        }
    }

    #[test]
    fn values_are_borrowed_from_the_message() {
        let payload = notation::parse(r#"NOTIFY fin 1 1 "\xff" t=string:abc b=binary:00ff"#).unwrap().payload;
        let message = Messages::decode(&payload).unwrap().iter().next().unwrap();
        let text: &str = message.arg("t").unwrap();
        let bytes: &[u8] = message.arg("b").unwrap();
        assert_eq!((text, bytes), ("abc", [0, 255].as_slice()));
        assert_eq!(message.arg("t"), Ok(Value::String(b"abc")));
        let names: Vec<_> = message.arg::<u8>("t").map_err(|error| error.message).err().into_iter().collect();
        assert_eq!(names, [r"\xff"]);
    }
}
