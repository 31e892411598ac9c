//! Access to a NOTIFY that is still arriving.

use core::iter;

use crate::frame::{Ids, Message, MessageIter, Scan};

/// The part of a fragmented NOTIFY that has arrived.
///
/// It is not validated: the payload can turn out to be malformed when the rest has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Partial<'a> {
    pub(super) payload: &'a [u8],
    /// What had arrived before the last fragment.
    pub(super) before: Scan,
}

impl<'a> Partial<'a> {
    /// The bytes that have arrived.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The messages whose names have arrived, in order, with their complete arguments. The last message may get more.
    ///
    /// A handler that goes through all of them for each fragment reads the payload again each time: with many short
    /// fragments that is quadratic in its length. [`new_messages`](Self::new_messages) is not.
    pub fn messages(&self) -> impl Iterator<Item = Message<'a>> + Clone + use<'a> {
        named(MessageIter::partial(self.payload))
    }

    /// What the last fragment has brought: the message that was incomplete before it, with its new arguments only, perhaps
    /// none; and the messages whose names are new. Over all fragments each argument is returned once, and the cost is that
    /// of one pass over the payload.
    ///
    /// Only with [`AgentConfig::watch_fragments`](super::AgentConfig::watch_fragments); otherwise these are all messages.
    pub fn new_messages(&self) -> impl Iterator<Item = Message<'a>> + Clone + use<'a> {
        let (continued, rest) = self.before.rest(self.payload);
        continued.into_iter().chain(named(rest))
    }

    /// The bytes after the last complete argument: the beginning of the next argument or message.
    pub fn incomplete(&self) -> &'a [u8] {
        let mut now = self.before;
        now.advance(self.payload);
        self.payload.get(now.end()..).unwrap_or_default()
    }
}

/// The messages of a list that is still arriving; the last may be a name alone.
fn named(mut messages: MessageIter<'_>) -> impl Iterator<Item = Message<'_>> + Clone {
    iter::from_fn(move || messages.next().or_else(|| messages.bare_name()))
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

    fn partial(payload: &[u8]) -> Partial<'_> {
        Partial { payload, before: Scan::default() }
    }

    #[test]
    fn a_message_is_there_as_soon_as_its_name_is() {
        let whole = b"\x03one\x02\x01a\x11\x01b\x08\x02xy\x04none\x00\x03two\x01\x01c\x11";
        // Where the names end. The number of arguments comes next.
        let ends = [4, 14 + 5, 20 + 4];
        for arrived in 0..=whole.len() {
            let partial = partial(&whole[..arrived]);
            let names: Vec<_> = partial.messages().map(|message| message.name()).collect();
            let expected = ends.iter().filter(|end| **end <= arrived).count();
            assert_eq!(names, [b"one".as_slice(), b"none", b"two"][..expected], "{arrived}");
        }
        let named = partial(&whole[..ends[0]]).messages().next().unwrap();
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
            let partial = partial(arrived);
            let arguments: usize = partial.messages().map(|message| message.args().count()).sum();
            assert_eq!((arguments, partial.incomplete()), (complete, incomplete), "{arrived:02x?}");
        }
    }
}
