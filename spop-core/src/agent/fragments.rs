//! What an application sees of a NOTIFY that is still arriving.

use crate::frame::{Ids, MessageIter};

/// The part of a fragmented NOTIFY that has arrived.
///
/// Nothing of it was validated: the data may turn out to be malformed when the rest has come.
#[derive(Clone, Copy, Debug)]
pub struct Partial<'a> {
    pub(super) payload: &'a [u8],
}

impl<'a> Partial<'a> {
    /// The bytes that have arrived.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The messages that have begun, in order. Each gives the arguments that are complete; the last may get more.
    pub const fn messages(&self) -> MessageIter<'a> {
        MessageIter::partial(self.payload)
    }

    /// The bytes after the last complete argument: the front of the argument that is still arriving, or of the next
    /// message.
    pub fn incomplete(&self) -> &'a [u8] {
        match self.messages().last() {
            None => self.payload,
            Some(message) => {
                let mut args = message.args();
                while args.next().is_some() {}
                args.rest()
            }
        }
    }
}

/// Nothing is arriving under these identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no NOTIFY {0} is arriving")]
pub struct NotArriving(pub Ids);
