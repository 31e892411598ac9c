//! Where encoded bytes go.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::put_varint;

/// Something bytes can be appended to.
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

/// Appends a STRING without its type byte: a length and the bytes.
pub fn put_string(out: &mut (impl Sink + ?Sized), string: &[u8]) {
    put_varint(out, string.len() as u64);
    out.put(string);
}
