//! HTTP headers as one BINARY value: what HAProxy's `req.hdrs_bin` and `res.hdrs_bin` fetch.

use core::fmt;

use super::{Reader, Sink, put_string};
use crate::{DecodeError, Malformed, Piece};

/// The headers of a request or a response, checked, in the order they came.
///
/// The list is a name and a value after the other, each a STRING without its type, and ends with an empty name and an empty
/// value. An argument is taken as it by its type:
///
/// ```
/// use spop_core::{ArgError, Headers, frame::Message};
///
/// // spoe-message check-request
/// //     args hdrs=req.hdrs_bin
/// fn is_browser(message: &Message<'_>) -> Result<bool, ArgError> {
///     let headers: Headers<'_> = message.arg("hdrs")?;
///     Ok(headers.get("user-agent").is_some_and(|agent| agent.starts_with(b"Mozilla/")))
/// }
/// ```
///
/// HAProxy gives names in lower case. Values are bytes; what a client has sent need not be text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Without the end mark.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Checks that `bytes` is a list of headers from its first byte to its end mark, and nothing behind that.
    ///
    /// # Errors
    /// [`DecodeError`] says what is malformed and where.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        end(&mut reader).map_err(|what| reader.error(bytes, what))?;
        // The end mark has a byte for each length.
        Ok(Self { bytes: bytes.split_last_chunk::<2>().map_or(bytes, |(list, _)| list) })
    }

    /// The headers, in order: names and values.
    pub const fn iter(&self) -> HeaderIter<'a> {
        HeaderIter { reader: Reader::new(self.bytes) }
    }

    /// The value of the first header of this name, in letters of either case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.get_all(name).next()
    }

    /// The values of all headers of this name, in letters of either case.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let headers = self.iter();
        headers.filter_map(move |(is, value)| is.eq_ignore_ascii_case(name.as_bytes()).then_some(value))
    }
}

/// Reads up to the end of a list, which must be the end of the data.
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

/// Goes through [`Headers`].
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

/// Appends headers as HAProxy would give them. One without a name would end the list, and is left out.
///
/// ```
/// use spop_core::wire::{Headers, put_headers};
///
/// let mut bytes = Vec::new();
/// put_headers(&mut bytes, [("host", b"example.org".as_slice()), ("accept", b"*/*")]);
/// let headers = Headers::decode(&bytes)?;
/// assert_eq!(headers.get("Host"), Some(b"example.org".as_slice()));
/// # Ok::<(), spop_core::DecodeError>(())
/// ```
pub fn put_headers<'a>(
    out: &mut (impl Sink + ?Sized),
    headers: impl IntoIterator<Item = (impl AsRef<[u8]>, &'a [u8])>,
) {
    for (name, value) in headers {
        if !name.as_ref().is_empty() {
            put_string(out, name.as_ref());
            put_string(out, value);
        }
    }
    out.put(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec::Vec};

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
        put_headers(&mut again, all);
        assert_eq!(again, OF_CURL);
    }

    #[test]
    fn a_header_may_come_often_and_be_long_or_no_text() {
        let long = [b'y'; 300];
        let mut bytes = Vec::new();
        put_headers(&mut bytes, [("a", b"1".as_slice()), ("b", &long), ("a", b"\xff\0"), ("", b"left out")]);
        // A length of 300 takes two bytes: fc 03.
        assert_eq!(bytes[4..8], [1, b'b', 0xfc, 3]);
        let headers = Headers::decode(&bytes).unwrap();
        assert_eq!(headers.get_all("A").collect::<Vec<_>>(), [b"1".as_slice(), b"\xff\0"]);
        assert_eq!(headers.get("b"), Some(long.as_slice()));
        let shown = format!("{headers:?}");
        assert!(shown.starts_with(r#"{"a": "1", "b": "yyy"#) && shown.ends_with(r#""a": "\xff\x00"}"#));
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

    proptest::proptest! {
        #[test]
        fn what_was_put_comes_back(list: Vec<(Vec<u8>, Vec<u8>)>) {
            let mut bytes = Vec::new();
            put_headers(&mut bytes, list.iter().map(|(name, value)| (name, value.as_slice())));
            let headers = Headers::decode(&bytes).unwrap();
            let named = list.iter().filter(|(name, _)| !name.is_empty());
            assert!(named.map(|(name, value)| (name.as_slice(), value.as_slice())).eq(headers.iter()));
        }
    }
}
