//! Output of encoders.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::put_varint;

/// A buffer to which bytes are appended.
pub trait Sink {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for BytesMut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Appends a STRING without its type byte: the length, then the bytes.
pub fn put_string(out: &mut (impl Sink + ?Sized), string: &[u8]) {
    put_varint(out, string.len() as u64);
    out.put(string);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_kind_of_memory_holds_the_same() {
        let (mut vec, mut bytes) = (Vec::new(), BytesMut::new());
        put_string(&mut vec, b"abc");
        put_string(&mut bytes, b"abc");
        assert_eq!((&vec[..], &bytes[..]), (&b"\x03abc"[..], &b"\x03abc"[..]));
    }
}
