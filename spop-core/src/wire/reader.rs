//! A cursor over received bytes. Every read is bounds-checked; nothing is copied.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{SHORT, VARINT_MAX, Value, long_varint};
use crate::{
    DecodeError,
    wire::{Malformed, Piece},
};

/// Reads values from the front of a slice.
///
/// After an error the position is that of the fault.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The number of unread bytes.
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything was read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The unread bytes.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The error with its position in the `whole` data.
    pub(crate) fn error(&self, whole: &[u8], what: Malformed) -> DecodeError {
        DecodeError { what, offset: whole.len() - self.rest.len() }
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if none is left; `what` names the item it belongs to.
    #[inline]
    pub fn byte(&mut self, what: Piece) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed::Truncated(what))?;
        self.rest = rest;
        Ok(first)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if fewer are left; `what` names the item they belong to.
    #[inline]
    pub fn array<const N: usize>(&mut self, what: Piece) -> Result<[u8; N], Malformed> {
        let (&first, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated(what))?;
        self.rest = rest;
        Ok(first)
    }

    /// A variable-length integer.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], or [`Malformed::VarintTooLong`] if it exceeds 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        match self.rest {
            [first @ ..SHORT, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            data => match long_varint(data) {
                (_, 0) => Err(self.varint_fault()),
                (value, taken) => {
                    self.rest = data.get(taken..).unwrap_or_default();
                    Ok(value)
                }
            },
        }
    }

    /// The fault of the malformed varint that comes next. Moves the position there.
    #[cold]
    fn varint_fault(&mut self) -> Malformed {
        let too_long = self.rest.get(VARINT_MAX..);
        self.rest = too_long.unwrap_or_default();
        if too_long.is_some() { Malformed::VarintTooLong } else { Malformed::Truncated(Piece::Varint) }
    }

    /// A STRING without its type byte: a length and that many bytes, of any content.
    ///
    /// # Errors
    /// [`Malformed`] if the length is malformed or exceeds the unread bytes.
    #[inline]
    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        self.counted(Piece::String)
    }

    #[inline]
    fn counted(&mut self, what: Piece) -> Result<&'a [u8], Malformed> {
        let len = self.varint()?;
        let taken = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let (bytes, rest) = taken.ok_or(Malformed::Truncated(what))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A typed value.
    ///
    /// # Errors
    /// [`Malformed`] if the type is reserved, a 32-bit integer is out of range, or the value is truncated.
    #[expect(
        clippy::inline_always,
        reason = "a value that passes through memory costs more than taking it apart"
    )]
    #[inline(always)]
    pub fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let head = self.byte(Piece::TypedData)?;
        Ok(match head & 0x0f {
            0 => Value::Null,
            1 => Value::Bool(head & 0x10 != 0),
            2 => {
                // A negative number is encoded as its 64-bit two's complement.
                let wide = self.varint()?.cast_signed();
                Value::Int32(i32::try_from(wide).map_err(|_| Malformed::Int32OutOfRange)?)
            }
            3 => {
                let wide = self.varint()?;
                Value::Uint32(u32::try_from(wide).map_err(|_| Malformed::Uint32OutOfRange)?)
            }
            4 => Value::Int64(self.varint()?.cast_signed()),
            5 => Value::Uint64(self.varint()?),
            6 => Value::Ipv4(Ipv4Addr::from(self.array::<4>(Piece::Ipv4)?)),
            7 => Value::Ipv6(Ipv6Addr::from(self.array::<16>(Piece::Ipv6)?)),
            8 => Value::String(self.counted(Piece::String)?),
            9 => Value::Binary(self.counted(Piece::Binary)?),
            reserved => return Err(Malformed::ReservedType(reserved)),
        })
    }
}
