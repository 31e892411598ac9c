//! Parsing a list of messages that arrives in fragments: each byte once, however many fragments there are.

use super::{
    Message, MessageIter,
    notify::{message_named, message_with},
};
use crate::{
    steps::step,
    wire::{skip_string, skip_value},
};

/// The position up to which the front of a list of messages was parsed: the end of the last complete item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Everything before this position is complete items.
    at: usize,
    /// Where the last message starts whose name is complete.
    message: usize,
    next: Item,
    /// The number of messages whose names are complete.
    messages: usize,
}

/// The item that starts at the position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Item {
    /// The name of a message.
    #[default]
    Name,
    /// The number of its arguments.
    Count,
    /// The next of this many arguments, at least 1.
    Args(u8),
}

impl Item {
    const fn args(count: u8) -> Self {
        if count == 0 { Self::Name } else { Self::Args(count) }
    }
}

impl Scan {
    /// Parses on, up to the last item that is complete or up to a malformed one. `list` begins as it did before.
    pub(crate) fn advance(&mut self, list: &[u8]) {
        while self.step(list).is_some() {}
    }

    fn step(&mut self, list: &[u8]) -> Option<()> {
        step();
        // An item that has arrived in part may be said to end behind the data.
        let complete = |end: &usize| *end <= list.len();
        match self.next {
            Item::Name => {
                let end = skip_string(list, self.at).filter(complete)?;
                (self.message, self.at, self.next) = (self.at, end, Item::Count);
                self.messages += 1;
            }
            Item::Count => {
                self.next = Item::args(*list.get(self.at)?);
                self.at += 1;
            }
            Item::Args(left) => {
                self.at = skip_value(list, skip_string(list, self.at)?).filter(complete)?;
                self.next = Item::args(left - 1);
            }
        }
        Some(())
    }

    /// The end of the last complete item.
    pub(crate) const fn end(&self) -> usize {
        self.at
    }

    /// The number of messages whose names are complete.
    pub(crate) const fn messages(&self) -> usize {
        self.messages
    }

    /// The message that was incomplete at this position, with those of its further arguments that are complete in `list`; and
    /// the messages behind it.
    pub(crate) fn rest<'a>(&self, list: &'a [u8]) -> (Option<Message<'a>>, MessageIter<'a>) {
        let (at, left) = match self.next {
            Item::Name => (self.at, 0),
            // The number has not arrived: neither has anything behind it.
            Item::Count => list.get(self.at).map_or((list.len(), 0), |count| (self.at + 1, *count)),
            Item::Args(left) => (self.at, left),
        };
        let rest = list.get(at..).unwrap_or_default();
        let message = message_named(list.get(self.message..).unwrap_or_default());
        let continued = message.filter(|_| left > 0).map(|name| message_with(name, rest, left));
        (continued, MessageIter::partial_from(rest, left))
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::String, vec::Vec};

    use super::*;
    use crate::{frame::put_message, wire::Value};

    /// The arguments, each with the name of its message, and the messages, each when its name is complete.
    fn all(list: &[u8]) -> (Vec<String>, usize) {
        let mut args = Vec::new();
        let mut count = 0;
        for message in MessageIter::partial(list) {
            count += 1;
            args.extend(message.args().map(|arg| format!("{:?} {arg:?}", message.name())));
        }
        (args, count)
    }

    fn list() -> Vec<u8> {
        let mut out = Vec::new();
        let long = [b'x'; 300];
        put_message(&mut out, "one", [("a", Value::Bool(true)), ("b", Value::String(b"xy"))]);
        put_message(&mut out, "none", []);
        put_message(&mut out, "", [("", Value::Null), ("", Value::Int64(1 << 40))]);
        put_message(&mut out, core::str::from_utf8(&long).unwrap(), [("long", Value::Binary(&long))]);
        put_message(&mut out, "last", [("", Value::Uint32(70_000)), ("ip", Value::Ipv6([7; 16].into()))]);
        out
    }

    #[test]
    fn every_argument_is_new_once_however_the_list_is_cut() {
        let list = list();
        let (expected, messages) = all(&list);
        for step in [1, 2, 3, 7, 100, list.len()] {
            let (mut scan, mut found, mut arrived) = (Scan::default(), Vec::new(), 0);
            while arrived < list.len() {
                arrived = (arrived + step).min(list.len());
                let (continued, mut rest) = scan.rest(&list[..arrived]);
                let mut new: Vec<_> = continued.into_iter().collect();
                new.extend(rest.by_ref());
                new.extend(rest.bare_name());
                for message in new {
                    found.extend(message.args().map(|arg| format!("{:?} {arg:?}", message.name())));
                }
                scan.advance(&list[..arrived]);
            }
            assert_eq!((found, scan.messages()), (expected.clone(), messages), "{step}");
            assert_eq!((scan.end(), scan.next), (list.len(), Item::Name));
        }
    }

    #[test]
    fn cutting_does_not_change_where_parsing_stands() {
        let list = list();
        let mut often = Scan::default();
        for arrived in 0..=list.len() {
            let mut once = Scan::default();
            once.advance(&list[..arrived]);
            often.advance(&list[..arrived]);
            assert_eq!(once, often, "{arrived}");
        }
    }

    #[test]
    fn parsing_stays_before_what_is_malformed() {
        let list = b"\x01m\x02\x01a\x11\x01b\x0f\x01m\x00";
        let mut scan = Scan::default();
        for arrived in 0..=list.len() {
            scan.advance(&list[..arrived]);
        }
        assert_eq!((scan.end(), scan.messages()), (6, 1));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_alike_at_once_and_in_pieces(bytes: Vec<u8>, cut in 0_usize..64) {
            let (mut once, mut twice) = (Scan::default(), Scan::default());
            once.advance(&bytes);
            twice.advance(&bytes[..cut.min(bytes.len())]);
            twice.advance(&bytes);
            assert_eq!(once, twice);
            assert!(once.end() <= bytes.len());
        }
    }
}
