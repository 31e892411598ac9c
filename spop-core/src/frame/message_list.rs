//! Encoding the payload of a NOTIFY.

use alloc::vec::Vec;
use core::fmt;

use super::MessageIter;
use crate::wire::{HeaderError, Sink, ToValue, Value, encode_headers, put_string};

/// The messages of a NOTIFY, in their wire format.
///
/// ```
/// use std::net::Ipv4Addr;
/// use spop_core::{MessageList, Value};
///
/// let mut list = MessageList::new();
/// list.message("check-ip").arg("ip", Ipv4Addr::new(203, 0, 113, 7)).arg("port", 443_i64);
/// list.message("log").arg("", "no name");
/// assert_eq!(list.iter().count(), 2);
/// ```
///
/// The [notation](crate::notation) is shorter where a test writes it:
///
/// ```
/// # use spop_core::{MessageList, notation};
/// let list: MessageList = r#"check-ip ip=ipv4:203.0.113.7 port=int64:443 ; log =string:"no name""#.parse()?;
/// assert_eq!(list.iter().count(), 2);
/// # Ok::<(), notation::ParseError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MessageList {
    bytes: Vec<u8>,
}

impl MessageList {
    /// An empty list.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// A list of this payload, which was validated.
    pub(crate) const fn checked(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// Appends a message. Add its arguments to the returned value.
    pub fn message(&mut self, name: &str) -> MessageArgs<'_> {
        put_string(&mut self.bytes, name.as_bytes());
        let count = self.bytes.len();
        self.bytes.put(&[0]);
        MessageArgs { bytes: &mut self.bytes, count }
    }

    /// The messages so far, decoded.
    pub fn iter(&self) -> MessageIter<'_> {
        MessageIter::partial(&self.bytes)
    }

    /// Removes all messages, and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The payload of the NOTIFY.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'a> IntoIterator for &'a MessageList {
    type Item = super::Message<'a>;
    type IntoIter = MessageIter<'a>;

    fn into_iter(self) -> MessageIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for MessageList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The arguments of a message that was appended to a [`MessageList`].
#[derive(Debug)]
pub struct MessageArgs<'a> {
    bytes: &'a mut Vec<u8>,
    /// The position of the number of arguments.
    count: usize,
}

impl MessageArgs<'_> {
    /// Appends an argument: a value of any type that implements [`ToValue`], or a reference to one. A message has at most 255
    /// arguments; further ones are ignored.
    pub fn arg(&mut self, name: &str, value: impl ToValue) -> &mut Self {
        if let Some(count) = self.bytes.get_mut(self.count)
            && let Some(more) = count.checked_add(1)
        {
            *count = more;
            put_string(self.bytes, name.as_bytes());
            value.to_value().encode(self.bytes);
        }
        self
    }

    /// Appends an argument with headers, as `req.hdrs_bin` and `res.hdrs_bin` fetch them: pairs of a name and a value, or a reference to a
    /// `HeaderMap` of the `http` crate. HAProxy sends names in lower case.
    ///
    /// ```
    /// use spop_core::{MessageList, wire::Headers};
    ///
    /// let mut list = MessageList::new();
    /// let headers = [("host", "example.org"), ("cookie", "a=1")];
    /// list.message("check-request").arg("method", "GET").headers("hdrs", headers)?.arg("url", "/");
    /// let hdrs: Headers<'_> = list.iter().next().unwrap().arg("hdrs")?;
    /// assert_eq!(hdrs.get("host"), Some(&b"example.org"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`HeaderError`] names the first header that HTTP does not allow. Nothing is appended.
    pub fn headers(
        &mut self,
        name: &str,
        headers: impl IntoIterator<Item = (impl AsRef<[u8]>, impl AsRef<[u8]>)>,
    ) -> Result<&mut Self, HeaderError> {
        Ok(self.arg(name, Value::Binary(&encode_headers(headers)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::put_message;

    #[test]
    fn a_list_has_the_bytes_of_its_messages() {
        let mut list = MessageList::new();
        list.message("one").arg("a", 1_i32).arg("", Value::Null);
        list.message("none");
        let mut bytes = Vec::new();
        put_message(&mut bytes, "one", [("a", Value::Int32(1)), ("", Value::Null)]);
        put_message(&mut bytes, "none", []);
        assert_eq!(list.as_bytes(), bytes);
        assert_eq!(list.iter().count(), 2);
        assert_eq!(alloc::format!("{list:?}"), r#"[one {"a": Int32(1), "": Null}, none {}]"#);
        list.clear();
        assert_eq!((list.as_bytes(), list.iter().count()), (&[][..], 0));
    }

    #[test]
    fn at_most_255_arguments_are_written() {
        let mut list = MessageList::new();
        let mut message = list.message("many");
        for _ in 0..300 {
            message.arg("", Value::Null);
        }
        assert_eq!(list.iter().next().unwrap().args().count(), 255);
    }
}
