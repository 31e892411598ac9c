//! Access to a NOTIFY that is still arriving.

use core::iter;

use crate::frame::{Ids, Message, MessageIter};

/// The part of a fragmented NOTIFY that has arrived.
///
/// It is not validated: the payload can turn out to be malformed when the rest has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Partial<'a> {
    pub(super) payload: &'a [u8],
}

impl<'a> Partial<'a> {
    /// The bytes that have arrived.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The messages whose names have arrived, in order, with their complete arguments. The last message may get more.
    pub fn messages(&self) -> impl Iterator<Item = Message<'a>> + Clone + use<'a> {
        let mut messages = MessageIter::partial(self.payload);
        iter::from_fn(move || messages.next().or_else(|| messages.bare_name()))
    }

    /// The bytes after the last complete argument: the beginning of the next argument or message.
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

/// Error of [`abort`](super::AgentReactor::abort): no unfinished NOTIFY has these identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no NOTIFY {0} is arriving")]
#[non_exhaustive]
pub struct NotArriving(pub Ids);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_message_is_there_as_soon_as_its_name_is() {
        let whole = b"\x03one\x02\x01a\x11\x01b\x08\x02xy\x04none\x00\x03two\x01\x01c\x11";
        // Where the names end. The number of arguments comes next.
        let ends = [4, 14 + 5, 20 + 4];
        for arrived in 0..=whole.len() {
            let partial = Partial { payload: &whole[..arrived] };
            let names: Vec<_> = partial.messages().map(|message| message.name()).collect();
            let expected = ends.iter().filter(|end| **end <= arrived).count();
            assert_eq!(names, [b"one".as_slice(), b"none", b"two"][..expected], "{arrived}");
        }
        let named = Partial { payload: &whole[..ends[0]] }.messages().next().unwrap();
        assert_eq!((named.args().count(), named.args().size_hint()), (0, (0, Some(0))));
    }

    #[test]
    fn what_is_incomplete_follows_the_last_complete_argument() {
        // Two messages, of two arguments and of one: each a name, TRUE, or a string.
        let whole = b"\x03one\x02\x01a\x11\x01b\x08\x02xy\x03two\x01\x01c\x11";
        for (arrived, complete, incomplete) in [
            (&whole[..0], 0, &b""[..]),
            (&whole[..3], 0, b"\x03on"),
            // The name alone is a message already.
            (&whole[..4], 0, b""),
            (&whole[..5], 0, b""),
            (&whole[..7], 0, b"\x01a"),
            (&whole[..8], 1, b""),
            (&whole[..12], 1, b"\x01b\x08\x02"),
            (&whole[..14], 2, b""),
            (&whole[..16], 2, b"\x03t"),
            (&whole[..18], 2, b""),
            (&whole[..20], 2, b"\x01"),
            (whole, 3, b""),
        ] {
            let partial = Partial { payload: arrived };
            let arguments: usize = partial.messages().map(|message| message.args().count()).sum();
            assert_eq!((arguments, partial.incomplete()), (complete, incomplete), "{arrived:02x?}");
        }
    }
}
