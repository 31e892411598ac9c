//! The arguments of a message as a type that implements serde's `Deserialize`.

use alloc::{
    borrow::{Cow, ToOwned as _},
    string::{String, ToString as _},
};
use core::{
    fmt::{self, Write as _},
    slice, str,
};

use arrayvec::ArrayString;
use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeSeed, IntoDeserializer as _, MapAccess, Visitor,
        value::{BorrowedStrDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{ArgError, Args, FromValue, Message, Messages, Unusable};
use crate::{
    excerpt::{Escaped, Printable},
    wire::Value,
};

impl<'a> Message<'a> {
    /// The arguments as a `T`: a structure whose fields have their names. Feature `serde`.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// use spop_core::{MessageList, Value};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Check<'a> {
    ///     ip: IpAddr,
    ///     #[serde(rename = "dst-port")]
    ///     port: u16,
    ///     path: String,
    ///     agent: Option<&'a [u8]>,
    /// }
    ///
    /// let mut list = MessageList::new();
    /// list.message("check").arg("ip", IpAddr::from([192, 0, 2, 1])).arg("dst-port", 443).arg("path", Value::String(b"/\xff"));
    /// let check: Check = list.iter().next().unwrap().deserialize()?;
    /// assert_eq!((check.ip.is_ipv4(), check.port, &*check.path, check.agent), (true, 443, "/\u{fffd}", None));
    /// # Ok::<(), spop_core::frame::ArgsError>(())
    /// ```
    ///
    /// | field | accepts |
    /// |---|---|
    /// | `bool` | BOOL |
    /// | any integer type | an integer of any type, if it is in range |
    /// | `String`, `Cow<str>` | STRING; invalid UTF-8 is replaced, so that a client cannot have a check fail |
    /// | `&str`, and what parses one, such as enumerations | STRING, if it is UTF-8 |
    /// | `IpAddr`, `Ipv4Addr`, `Ipv6Addr` | IPV4, IPV6, and a STRING that is one; `::ffff:192.0.2.1` becomes `192.0.2.1` |
    /// | `&[u8]`, `Vec<u8>` | STRING and BINARY |
    /// | `Option` | the value, or `None` for NULL and for a missing argument |
    ///
    /// Of several arguments of one name, the first counts in a structure, and the last in a map; a structure with `flatten` fails. Arguments without a field are ignored.
    ///
    /// # Errors
    /// [`ArgsError`] names the message and the argument.
    pub fn deserialize<T: Deserialize<'a>>(&self) -> Result<T, ArgsError> {
        T::deserialize(OfMessage(self)).map_err(|fault| fault.of_message(self.name()))
    }
}

impl<'a> Messages<'a> {
    /// As [`Message::deserialize`], for the first message.
    ///
    /// # Errors
    /// As [`Message::deserialize`].
    pub fn deserialize<T: Deserialize<'a>>(self) -> Result<T, ArgsError> {
        match self.iter().next() {
            Some(message) => message.deserialize(),
            None => Err(ArgsError::Message { message: String::new(), why: "there is no message".to_owned() }),
        }
    }
}

/// Arguments that do not make the requested type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgsError {
    /// One of them is missing, or does not convert to the type of its field.
    #[error(transparent)]
    Argument(#[from] ArgError),
    /// All together do not.
    #[error("message \"{message}\": {why}")]
    #[non_exhaustive]
    Message {
        /// The message, as [`Escaped`] displays it.
        message: String,
        /// The error of the type.
        why: String,
    },
}

/// An error on the way.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct Fault {
    argument: Option<String>,
    why: Unusable,
}

impl Fault {
    #[cold]
    fn of_argument(mut self, name: &[u8]) -> Self {
        self.argument.get_or_insert_with(|| Escaped(name).to_string());
        self
    }

    #[cold]
    fn of_message(self, message: &[u8]) -> ArgsError {
        let (message, why) = (Escaped(message).to_string(), self.why);
        match self.argument {
            Some(argument) => ArgError { message, argument, why }.into(),
            None => ArgsError::Message { message, why: why.to_string() },
        }
    }
}

impl From<Unusable> for Fault {
    fn from(why: Unusable) -> Self {
        Self { argument: None, why }
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(error: T) -> Self {
        Unusable::Other(Printable(error).to_string()).into()
    }

    fn missing_field(field: &'static str) -> Self {
        Self { argument: Some(field.to_owned()), why: Unusable::Missing }
    }
}

struct OfMessage<'m, 'a>(&'m Message<'a>);

impl<'a> Deserializer<'a> for OfMessage<'_, 'a> {
    type Error = Fault;

    /// The fields are searched among the arguments, not the other way: the work is that of the program, whatever the peer sends.
    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(Fields { message: self.0, names: fields.iter(), found: None })
    }

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(All { args: self.0.args(), found: None })
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        <V: Visitor<'a>> bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// The arguments that are fields.
struct Fields<'m, 'a> {
    message: &'m Message<'a>,
    names: slice::Iter<'static, &'static str>,
    found: Option<(&'static str, Value<'a>)>,
}

impl<'a> MapAccess<'a> for Fields<'_, 'a> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.found = self.names.by_ref().find_map(|name| Some((*name, self.message.get(name)?)));
        self.found.map(|(name, _)| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (name, value) = self.found.take().unwrap_or(("", Value::Null));
        seed.deserialize(OfValue(value)).map_err(|fault| fault.of_argument(name.as_bytes()))
    }
}

/// All arguments, for maps.
struct All<'a> {
    args: Args<'a>,
    found: Option<(&'a str, Value<'a>)>,
}

impl<'a> MapAccess<'a> for All<'a> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        // A name that is not UTF-8 is that of no field.
        self.found = self.args.find_map(|(name, value)| Some((str::from_utf8(name).ok()?, value)));
        self.found.map(|(name, _)| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (name, value) = self.found.take().unwrap_or(("", Value::Null));
        seed.deserialize(OfValue(value)).map_err(|fault| fault.of_argument(name.as_bytes()))
    }
}

#[derive(Clone, Copy)]
struct OfValue<'a>(Value<'a>);

impl<'a> OfValue<'a> {
    fn ip<V: Visitor<'a>>(self, visitor: V) -> Option<Result<V::Value, Fault>> {
        let mut text = ArrayString::<45>::new();
        write!(text, "{}", self.0.as_ip()?).ok()?;
        Some(visitor.visit_str(&text))
    }
}

macro_rules! exact {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(<$type>::from_value(self.0)?)
        }
    )*};
}

impl<'a> Deserializer<'a> for OfValue<'a> {
    type Error = Fault;

    exact! {
        deserialize_bool visit_bool bool,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
        deserialize_bytes visit_borrowed_bytes &'a [u8],
        deserialize_byte_buf visit_borrowed_bytes &'a [u8],
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Ipv4(_) | Value::Ipv6(_) => self.deserialize_any(visitor),
            value => visitor.visit_borrowed_str(<&str>::from_value(value)?),
        }
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(_) => match <Cow<'a, str>>::from_value(self.0)? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            _ => self.deserialize_str(visitor),
        }
    }

    fn deserialize_char<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(SeqDeserializer::new(<&[u8]>::from_value(self.0)?.iter().copied()))
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(<&str>::from_value(self.0)?.into_deserializer())
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Int32(value) => visitor.visit_i32(value),
            Value::Uint32(value) => visitor.visit_u32(value),
            Value::Int64(value) => visitor.visit_i64(value),
            Value::Uint64(value) => visitor.visit_u64(value),
            Value::Ipv4(_) | Value::Ipv6(_) => {
                self.ip(visitor).unwrap_or_else(|| Err(Unusable::Other("no address".to_owned()).into()))
            }
            Value::String(bytes) => match str::from_utf8(bytes) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(bytes),
            },
            Value::Binary(bytes) => visitor.visit_borrowed_bytes(bytes),
        }
    }

    forward_to_deserialize_any! { <V: Visitor<'a>> f32 f64 unit unit_struct tuple_struct map struct identifier ignored_any }
}

#[cfg(test)]
mod tests {
    use alloc::{borrow::Cow, collections::BTreeMap, format, vec::Vec};
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::notation;

    fn take<T: for<'a> Deserialize<'a>>(args: &str) -> Result<T, String> {
        let payload = notation::parse(&format!("NOTIFY fin 1 1 m {args}")).unwrap().payload;
        Messages::decode(&payload).unwrap().deserialize().map_err(|error| error.to_string())
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct One<T> {
        #[serde(alias = "y")]
        x: T,
    }

    fn one<T: for<'a> Deserialize<'a>>(args: &str) -> Result<T, String> {
        take::<One<T>>(args).map(|one| one.x)
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Method {
        Get,
        Post,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Port(u16);

    #[test]
    fn fields_have_the_values_of_their_arguments() {
        assert_eq!(one::<bool>("x=bool:true"), Ok(true));
        assert_eq!(one::<u8>("x=int64:200"), Ok(200));
        assert_eq!(one::<u128>("x=uint64:7"), Ok(7));
        assert_eq!(one::<f64>("x=int32:7"), Ok(7.0));
        assert_eq!(one::<IpAddr>("x=ipv4:192.0.2.1"), Ok(IpAddr::from([192, 0, 2, 1])));
        assert_eq!(one::<IpAddr>("x=ipv6:::ffff:192.0.2.1"), Ok(IpAddr::from([192, 0, 2, 1])));
        assert_eq!(one::<Ipv4Addr>("x=string:192.0.2.1"), Ok(Ipv4Addr::new(192, 0, 2, 1)));
        let long: Ipv6Addr = "1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap();
        assert_eq!(one::<Ipv6Addr>(&format!("x=ipv6:{long}")), Ok(long));
        assert_eq!(one::<String>(r#"x=string:"a\xffb""#).as_deref(), Ok("a\u{fffd}b"));
        assert_eq!(one::<Cow<'_, str>>(r#"x=string:"a\xff""#).as_deref(), Ok("a\u{fffd}"));
        assert_eq!(one::<Vec<u8>>("x=binary:00ff"), Ok(alloc::vec![0, 255]));
        assert_eq!(one::<[u8; 2]>("x=string:ab"), Ok(*b"ab"));
        assert_eq!(one::<Method>("x=string:post"), Ok(Method::Post));
        assert_eq!(one::<char>("x=string:p"), Ok('p'));
        assert_eq!(one::<Port>("x=int32:443"), Ok(Port(443)));
        assert_eq!(one::<u8>("y=int32:1"), Ok(1), "an alias");
    }

    #[test]
    fn the_first_argument_of_a_name_counts_and_others_are_ignored() {
        assert_eq!(one::<u8>(r#"z=null x=int32:1 x=string:no ""=null "\xff"=null"#), Ok(1));
        let all = take::<BTreeMap<String, Option<i32>>>(r#"a=int32:1 "\xff"=int32:2 b=null"#).unwrap();
        assert_eq!(all, [("a".into(), Some(1)), ("b".into(), None)].into());
        assert_eq!(take::<Option<One<u8>>>("x=int32:1"), Ok(Some(One { x: 1 })));
    }

    #[test]
    fn nothing_is_missing_null_or_none() {
        assert_eq!(one::<Option<u8>>("x=null"), Ok(None));
        assert_eq!(one::<Option<u8>>("z=int32:1"), Ok(None));
        assert_eq!(one::<Option<u8>>("x=int32:1"), Ok(Some(1)));
        assert_eq!(one::<u8>("x=null").unwrap_err(), r#"argument "x" of message "m" is NULL"#);
        assert_eq!(one::<u8>("z=int32:1").unwrap_err(), r#"argument "x" of message "m" is missing"#);
        let error = Messages::decode(&[]).unwrap().deserialize::<One<u8>>().unwrap_err();
        assert_eq!(error.to_string(), r#"message "": there is no message"#);
    }

    #[test]
    fn errors_name_message_and_argument() {
        for (error, text) in [
            (one::<u8>("x=int32:256").unwrap_err(), "is 256, which does not fit u8"),
            (one::<bool>("x=int32:1").unwrap_err(), "is of type INT32, not BOOL"),
            (one::<String>("x=int32:1").unwrap_err(), "is of type INT32, not STRING"),
            (one::<Vec<u8>>("x=int32:1").unwrap_err(), "is of type INT32, not STRING or BINARY"),
            (one::<char>(r#"x=string:"\xff""#).unwrap_err(), "is not UTF-8"),
            (one::<IpAddr>("x=string:localhost").unwrap_err(), "is unusable: invalid IP address syntax"),
            (
                one::<Method>("x=string:put").unwrap_err(),
                "is unusable: unknown variant `put`, expected `get` or `post`",
            ),
        ] {
            assert_eq!(error, format!(r#"argument "x" of message "m" {text}"#));
        }
        let error = take::<u8>("x=int32:1").unwrap_err();
        assert!(error.starts_with(r#"message "m": is unusable: invalid type: map, expected u8"#), "{error}");
    }

    #[test]
    fn text_and_bytes_are_borrowed() {
        #[derive(Deserialize)]
        struct Borrowed<'a> {
            text: &'a str,
            bytes: &'a [u8],
        }

        let payload = notation::parse("NOTIFY fin 1 1 m text=string:abc bytes=binary:00ff").unwrap().payload;
        let Borrowed { text, bytes } = Messages::decode(&payload).unwrap().deserialize().unwrap();
        assert_eq!((text, bytes), ("abc", [0, 255].as_slice()));
    }
}
