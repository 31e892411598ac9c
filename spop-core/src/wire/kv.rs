//! Key/value lists: the payload of HELLO and DISCONNECT frames, and the arguments of a message.

use super::{Reader, Sink, ToValue, Value, put_string};
use crate::{DecodeError, wire::Malformed};

/// A validated list of names and values. Iteration cannot fail.
#[derive(Clone, Copy, Debug)]
pub struct KvList<'a> {
    bytes: &'a [u8],
}

impl<'a> KvList<'a> {
    /// Validates `bytes` as a list.
    ///
    /// # Errors
    /// [`DecodeError`] says what is malformed and where.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            pair(&mut reader).map_err(|what| reader.error(bytes, what))?;
        }
        Ok(Self { bytes })
    }

    /// The names and values, in order.
    pub fn iter(&self) -> KvIter<'a> {
        KvIter { reader: Reader::new(self.bytes) }
    }

    /// The value of the first item of this name.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.iter().find_map(|(found, value)| (found == name.as_bytes()).then_some(value))
    }
}

impl<'a> IntoIterator for &KvList<'a> {
    type Item = (&'a [u8], Value<'a>);
    type IntoIter = KvIter<'a>;

    fn into_iter(self) -> KvIter<'a> {
        self.iter()
    }
}

/// An iterator over a [`KvList`].
#[derive(Clone, Debug)]
pub struct KvIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for KvIter<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        pair(&mut self.reader).ok()
    }
}

#[expect(clippy::inline_always, reason = "as Reader::value")]
#[inline(always)]
pub(crate) fn pair<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Value<'a>), Malformed> {
    Ok((reader.string()?, reader.value()?))
}

/// Appends one item of a key/value list.
pub fn put_pair(out: &mut (impl Sink + ?Sized), name: &str, value: impl ToValue) {
    put_string(out, name.as_bytes());
    value.to_value().encode(out);
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_key_given_twice_counts_once() {
        let mut bytes = Vec::new();
        put_pair(&mut bytes, "a", 1_i32);
        put_pair(&mut bytes, "b", true);
        put_pair(&mut bytes, "a", 2_i32);
        let list = KvList::decode(&bytes).unwrap();
        assert_eq!(list.get("a"), Some(Value::Int32(1)));
        assert_eq!(list.get("b"), Some(Value::Bool(true)));
        assert_eq!(list.get("c"), None);
        assert_eq!(list.iter().count(), 3);
    }

    #[test]
    fn an_error_says_where() {
        let mut bytes = Vec::new();
        put_pair(&mut bytes, "a", 1_i32);
        bytes.extend([1, b'b', 0x0a]);
        let error = KvList::decode(&bytes).unwrap_err();
        assert_eq!(error, DecodeError { what: Malformed::ReservedType(10), offset: bytes.len() });
    }
}
