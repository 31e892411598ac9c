//! HTTP headers as one BINARY value: what HAProxy's `req.hdrs_bin` and `res.hdrs_bin` fetch.

use alloc::{
    string::{String, ToString as _},
    vec::Vec,
};
use core::fmt;

use super::{Reader, Sink, put_string};
use crate::{
    DecodeError,
    excerpt::Escaped,
    wire::{Malformed, Piece},
};

/// The validated headers of a request or a response, in the order of arrival.
///
/// On the wire, each name and each value is a STRING without its type byte; an empty name and an empty value end the list. An
/// argument converts to it by its type:
///
/// ```
/// use spop_core::{frame::{ArgError, Message}, wire::Headers};
///
/// // spoe-message check-request
/// //     args hdrs=req.hdrs_bin
/// fn is_browser(message: &Message<'_>) -> Result<bool, ArgError> {
///     let headers: Headers<'_> = message.arg("hdrs")?;
///     Ok(headers.get("user-agent").is_some_and(|agent| agent.starts_with(b"Mozilla/")))
/// }
/// ```
///
/// HAProxy sends names in lower case. Values are bytes: a client may send any.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    /// The list without its end mark.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Validates `bytes`: a list of headers with its end mark, and nothing behind it.
    ///
    /// # Errors
    /// [`DecodeError`] says what is malformed and where.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        end(&mut reader).map_err(|what| reader.error(bytes, what))?;
        // The end mark is two lengths of one byte each.
        Ok(Self { bytes: bytes.split_last_chunk::<2>().map_or(bytes, |(list, _)| list) })
    }

    /// The headers, in order: names and values.
    pub const fn iter(&self) -> HeaderIter<'a> {
        HeaderIter { reader: Reader::new(self.bytes) }
    }

    /// The value of the first header of this name. Case is ignored.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.get_all(name).next()
    }

    /// The values of all headers of this name. Case is ignored.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let headers = self.iter();
        headers.filter_map(move |(is, value)| is.eq_ignore_ascii_case(name.as_bytes()).then_some(value))
    }
}

/// Reads to the end of a list, which must be the end of the data.
fn end(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    loop {
        if reader.is_empty() {
            return Err(Malformed::Truncated(Piece::Headers));
        }
        let name = reader.string()?;
        let value = reader.string()?;
        match (name.is_empty(), value.is_empty()) {
            (false, _) => {}
            (true, false) => return Err(Malformed::NamelessHeader),
            (true, true) if reader.is_empty() => return Ok(()),
            (true, true) => return Err(Malformed::BytesAfterHeaders),
        }
    }
}

impl<'a> IntoIterator for &Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.iter().map(|(name, value)| (name.escape_ascii(), value.escape_ascii()));
        f.debug_map().entries(texts.map(|(name, value)| (Text(name), Text(value)))).finish()
    }
}

struct Text<'a>(core::slice::EscapeAscii<'a>);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// An iterator over [`Headers`].
#[derive(Clone, Debug)]
pub struct HeaderIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = self.reader;
        let header = (reader.string().ok()?, reader.string().ok()?);
        self.reader = reader;
        Some(header)
    }
}

/// Appends headers in the form of `req.hdrs_bin`, which HAProxy 3.4's `set-headers-bin` and `add-headers-bin` take:
/// [`Actions::set_headers`](crate::Actions::set_headers) sets a variable for them.
///
/// HAProxy inserts such headers unchecked. A CR LF in a value would inject a header, or a request, so names and values are
/// validated here.
///
/// ```
/// use spop_core::wire::{Headers, put_headers};
///
/// let mut bytes = Vec::new();
/// put_headers(&mut bytes, [("host", "example.org"), ("accept", "*/*")])?;
/// assert_eq!(Headers::decode(&bytes)?.get("Host"), Some(b"example.org".as_slice()));
///
/// let error = put_headers(&mut bytes, [("x-user", "bob\r\nx-admin: 1")]).unwrap_err();
/// assert_eq!(error.to_string(), r#"header "x-user": byte 3 of its value is \r; CR, LF and NUL are not allowed"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`HeaderError`] names the first header that HTTP does not allow. Nothing is appended.
pub fn put_headers(
    out: &mut (impl Sink + ?Sized),
    headers: impl IntoIterator<Item = (impl AsRef<[u8]>, impl AsRef<[u8]>)>,
) -> Result<(), HeaderError> {
    out.put(&encode_headers(headers)?);
    Ok(())
}

/// The encoded list of [`put_headers`].
pub(crate) fn encode_headers(
    headers: impl IntoIterator<Item = (impl AsRef<[u8]>, impl AsRef<[u8]>)>,
) -> Result<Vec<u8>, HeaderError> {
    let mut list = Vec::new();
    for (name, value) in headers {
        let (name, value) = (name.as_ref(), value.as_ref());
        check_name(name)?;
        if let Some(at) = value.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            let byte = value.get(at).copied().unwrap_or_default();
            return Err(HeaderError::Value { name: Escaped(name).to_string(), byte, at });
        }
        put_string(&mut list, name);
        put_string(&mut list, value);
    }
    list.extend_from_slice(&[0, 0]);
    Ok(list)
}

/// Encodes names only, ended by an empty one: the form of `del-headers-bin`.
pub(crate) fn encode_header_names(
    names: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Result<Vec<u8>, HeaderError> {
    let mut list = Vec::new();
    for name in names {
        check_name(name.as_ref())?;
        put_string(&mut list, name.as_ref());
    }
    list.push(0);
    Ok(list)
}

fn check_name(name: &[u8]) -> Result<(), HeaderError> {
    if name.is_empty() {
        return Err(HeaderError::NoName);
    }
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.iter().all(token) { Ok(()) } else { Err(HeaderError::Name(Escaped(name).to_string())) }
}

/// A header whose name or value HTTP does not allow (RFC 9110, section 5).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The name is empty, which would end the list.
    #[error("a header has no name")]
    NoName,
    /// The name has a character that is not allowed in a token.
    #[error("header \"{0}\": a name has letters, digits and !#$%&'*+-.^_`|~ only")]
    Name(String),
    /// The value has a CR, LF or NUL.
    #[error("header \"{name}\": byte {at} of its value is {}; CR, LF and NUL are not allowed", byte.escape_ascii())]
    #[non_exhaustive]
    Value {
        /// The name of the header.
        name: String,
        /// The byte.
        byte: u8,
        /// Its position in the value, from 0.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// What HAProxy 2.6 sent of `curl -H 'X-Empty;' -H 'Cookie: a=b'`.
    const OF_CURL: &[u8] = b"\x04host\x0f127.0.0.1:18980\x0auser-agent\x0bcurl/7.88.1\x06accept\x03*/*\
        \x07x-empty\x00\x06cookie\x03a=b\x00\x00";

    #[test]
    fn what_haproxy_sends_is_read() {
        let headers = Headers::decode(OF_CURL).unwrap();
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(
            all,
            [
                (b"host".as_slice(), b"127.0.0.1:18980".as_slice()),
                (b"user-agent", b"curl/7.88.1"),
                (b"accept", b"*/*"),
                (b"x-empty", b""),
                (b"cookie", b"a=b"),
            ]
        );
        assert_eq!(headers.get("X-Empty"), Some(b"".as_slice()));
        assert_eq!(headers.get("x-none"), None);
        let mut again = Vec::new();
        put_headers(&mut again, all).unwrap();
        assert_eq!(again, OF_CURL);
    }

    #[test]
    fn a_header_may_come_often_and_be_long_or_no_text() {
        let long = [b'y'; 300];
        let mut bytes = Vec::new();
        put_headers(&mut bytes, [("a", b"1".as_slice()), ("b", &long), ("a", b"\xff\t")]).unwrap();
        // A length of 300 takes two bytes: fc 03.
        assert_eq!(bytes[4..8], [1, b'b', 0xfc, 3]);
        let headers = Headers::decode(&bytes).unwrap();
        assert_eq!(headers.get_all("A").collect::<Vec<_>>(), [b"1".as_slice(), b"\xff\t"]);
        assert_eq!(headers.get("b"), Some(long.as_slice()));
        let shown = format!("{headers:?}");
        assert!(shown.starts_with(r#"{"a": "1", "b": "yyy"#) && shown.ends_with(r#""a": "\xff\t"}"#));
    }

    #[test]
    fn no_headers_are_an_end_mark() {
        assert_eq!(Headers::decode(&[0, 0]).unwrap().iter().count(), 0);
    }

    #[test]
    fn errors_say_what_and_where() {
        let at = |offset, what| Err(DecodeError { what, offset });
        for cut in 0..OF_CURL.len() {
            let error = Headers::decode(&OF_CURL[..cut]).unwrap_err();
            assert!(matches!(error.what, Malformed::Truncated(_)) && error.offset <= cut, "{cut}: {error}");
        }
        assert_eq!(Headers::decode(b""), at(0, Malformed::Truncated(Piece::Headers)));
        assert_eq!(Headers::decode(b"\x01a\x01b"), at(4, Malformed::Truncated(Piece::Headers)));
        assert_eq!(Headers::decode(b"\0\x01b\0\0"), at(3, Malformed::NamelessHeader));
        assert_eq!(Headers::decode(b"\0\0\0"), at(2, Malformed::BytesAfterHeaders));
        // A length beyond the data.
        assert_eq!(Headers::decode(b"\xef\0"), at(1, Malformed::Truncated(Piece::String)));
    }

    #[test]
    fn what_is_no_header_is_refused_and_leaves_nothing() {
        for (name, value, says) in [
            ("", "x", "a header has no name"),
            ("x:y", "", r#"header "x:y": a name has letters, digits and !#$%&'*+-.^_`|~ only"#),
            ("x y", "", r#"header "x y": a name has letters, digits and !#$%&'*+-.^_`|~ only"#),
            ("x\r\ny", "", r#"header "x\r\ny": a name has letters, digits and !#$%&'*+-.^_`|~ only"#),
            ("é", "", r#"header "\xc3\xa9": a name has letters, digits and !#$%&'*+-.^_`|~ only"#),
            (
                "a",
                "b\r\n\r\nGET / HTTP/1.1",
                r#"header "a": byte 1 of its value is \r; CR, LF and NUL are not allowed"#,
            ),
            ("a", "\n", r#"header "a": byte 0 of its value is \n; CR, LF and NUL are not allowed"#),
            ("a", "bc\0", r#"header "a": byte 2 of its value is \x00; CR, LF and NUL are not allowed"#),
        ] {
            let mut bytes = b"before".to_vec();
            let error = put_headers(&mut bytes, [("good", "good"), (name, value)]).unwrap_err();
            assert_eq!((error.to_string().as_str(), &bytes[..]), (says, &b"before"[..]));
        }
        assert_eq!(encode_header_names(["good", "x y"]), Err(HeaderError::Name("x y".into())));
        assert_eq!(encode_header_names([""]), Err(HeaderError::NoName));
    }

    #[test]
    fn names_to_delete_are_a_list_without_values() {
        assert_eq!(encode_header_names(["x-a", "X-B"]).unwrap(), b"\x03x-a\x03X-B\0");
        assert_eq!(encode_header_names([""; 0]).unwrap(), b"\0");
    }

    /// Bytes that are mostly those of headers.
    fn bytes(usual: &'static str) -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![6 => usual.prop_map(String::into_bytes), 1 => any::<Vec<u8>>()]
    }

    proptest! {
        #[test]
        fn what_was_put_comes_back(list in vec((bytes("[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,300}"), bytes("[^\r\n\0]{0,300}")), 0..5)) {
            let mut bytes = Vec::new();
            let is_token = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
            let good = list.iter().all(|(name, value)| {
                !name.is_empty() && name.iter().all(is_token) && !value.iter().any(|byte| b"\r\n\0".contains(byte))
            });
            prop_assert_eq!(put_headers(&mut bytes, list.iter().map(|(name, value)| (name, value))).is_ok(), good);
            if good {
                let headers = Headers::decode(&bytes).unwrap();
                let list = list.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
                prop_assert!(list.eq(headers.iter()));
            } else {
                prop_assert!(bytes.is_empty());
            }
        }
    }
}
