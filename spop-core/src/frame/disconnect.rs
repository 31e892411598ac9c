//! The payload of the two DISCONNECT frames (sections 3.2.8 and 3.2.9).

use crate::{
    DecodeError,
    wire::{KvList, Sink, Status, Value, put_pair},
};

const STATUS_CODE: &str = "status-code";
const MESSAGE: &str = "message";

/// The payload of a DISCONNECT: why a side ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// `status-code`.
    pub status: Status,
    /// `message`: a text for logs.
    pub message: &'a [u8],
}

/// Why a DISCONNECT does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectError {
    /// The payload is not a key/value list.
    #[error("the payload is malformed {0}")]
    Malformed(#[from] DecodeError),
    /// `status-code` is missing, or is not a 32-bit number.
    #[error("\"status-code\" is missing or not a UINT32")]
    NoStatus,
}

impl<'a> Disconnect<'a> {
    /// Decodes the payload of a DISCONNECT. A missing `message` is accepted as an empty one.
    ///
    /// # Errors
    /// [`DisconnectError`] if the payload is malformed or has no `status-code`.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DisconnectError> {
        let list = KvList::decode(payload)?;
        let status = list.get(STATUS_CODE).and_then(|value| u32::try_from(value.as_integer()?).ok());
        let message = list.get(MESSAGE).and_then(|value| value.as_bytes());
        Ok(Self {
            status: Status(status.ok_or(DisconnectError::NoStatus)?),
            message: message.unwrap_or_default(),
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut (impl Sink + ?Sized)) {
        put_pair(out, STATUS_CODE, self.status.0);
        put_pair(out, MESSAGE, Value::String(self.message));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        let disconnect = Disconnect { status: Status(777), message: b"out of luck" };
        let mut bytes = Vec::new();
        disconnect.encode(&mut bytes);
        assert_eq!(Disconnect::decode(&bytes), Ok(disconnect));
    }

    #[test]
    fn a_status_is_all_that_is_needed() {
        let mut bytes = Vec::new();
        put_pair(&mut bytes, STATUS_CODE, 3_i64);
        assert_eq!(Disconnect::decode(&bytes), Ok(Disconnect { status: Status::TOO_BIG, message: b"" }));
        assert_eq!(Disconnect::decode(b""), Err(DisconnectError::NoStatus));
        let mut bytes = Vec::new();
        put_pair(&mut bytes, STATUS_CODE, -3_i64);
        assert_eq!(Disconnect::decode(&bytes), Err(DisconnectError::NoStatus));
        assert!(matches!(Disconnect::decode(b"\x01"), Err(DisconnectError::Malformed(_))));
    }
}
