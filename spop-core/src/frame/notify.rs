//! The payload of a NOTIFY (section 3.2.6): a list of messages, each a name and a key/value list of arguments.

use core::fmt;

use bytes::Bytes;

use crate::{
    DecodeError,
    steps::step,
    wire::{Malformed, Piece, Reader, Sink, Value, kv_pair, put_string, skip_string, skip_value},
};

/// The messages of one NOTIFY: a view of a validated payload.
///
/// Iteration cannot fail and does not allocate. [`to_owned`](Self::to_owned) copies the payload.
#[derive(Clone, Copy, Default)]
pub struct Messages<'a> {
    payload: &'a [u8],
    lengths: Lengths,
}

/// The lengths of the first messages of a list, 16 bits each, the first lowest; 0 is unknown. With them, iteration finds the
/// next message without skipping over the arguments of the last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lengths(u64);

impl Lengths {
    #[inline]
    const fn of_one(len: usize) -> Self {
        Self(if len < 1 << 16 { len as u64 } else { 0 })
    }
}

impl<'a> Messages<'a> {
    /// Validates `payload` as a list of messages.
    ///
    /// # Errors
    /// [`DecodeError`] says what is malformed and where.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        match check_messages(payload, usize::MAX) {
            Some(lengths) => Ok(Self { payload, lengths }),
            None => Err(fault(payload)),
        }
    }

    /// The messages of a payload that [`check_messages`] has validated.
    #[inline]
    pub(crate) const fn checked(payload: &'a [u8], lengths: Lengths) -> Self {
        Self { payload, lengths }
    }

    /// The payload as it arrived.
    #[inline]
    pub const fn payload(self) -> &'a [u8] {
        self.payload
    }

    /// The messages, in order.
    #[inline]
    pub const fn iter(self) -> MessageIter<'a> {
        MessageIter { rest: self.payload, lengths: self.lengths, skip: 0 }
    }

    /// The first message of this name.
    pub fn get(self, name: &str) -> Option<Message<'a>> {
        self.iter().find(|message| message.name() == name.as_bytes())
    }

    /// The message, if there is one alone.
    #[inline]
    pub fn only(self) -> Option<Message<'a>> {
        // The length of most is known. Above 16 bits this could be the lengths of several.
        let len = self.payload.len() as u64;
        if len >= 1 << 16 || self.lengths.0 != len {
            return self.only_counted();
        }
        let mut reader = Reader::new(self.payload);
        let name = reader.string().ok()?;
        let left = reader.byte(Piece::Message).ok()?;
        Some(Message { name, args: Args { reader, left } })
    }

    /// The name of the message, if there is one alone.
    #[doc(hidden)]
    #[inline]
    pub fn only_name(self) -> Option<&'a [u8]> {
        let len = self.payload.len() as u64;
        if len >= 1 << 16 || self.lengths.0 != len {
            return self.only_counted().map(|message| message.name);
        }
        Reader::new(self.payload).string().ok()
    }

    #[inline(never)]
    fn only_counted(self) -> Option<Message<'a>> {
        let mut messages = self.iter();
        let first = messages.next()?;
        messages.next().is_none().then_some(first)
    }

    /// Each message as a list of its own, for handlers of a single message.
    pub fn each(self) -> impl Iterator<Item = Self> {
        let mut start = 0;
        core::iter::from_fn(move || {
            let end = skip_message(self.payload, start)?;
            let payload = self.payload.get(start..end)?;
            start = end;
            Some(Self { payload, lengths: Lengths::of_one(payload.len()) })
        })
    }

    /// Copies the payload.
    pub fn to_owned(self) -> OwnedMessages {
        OwnedMessages { payload: Bytes::copy_from_slice(self.payload), lengths: self.lengths }
    }

    /// The number of messages. Iterates over them.
    pub fn len(self) -> usize {
        self.iter().count()
    }

    /// Whether the list is empty. A reactor never returns an empty list: it answers a NOTIFY without messages itself.
    pub const fn is_empty(self) -> bool {
        self.payload.is_empty()
    }
}

impl<'a> IntoIterator for Messages<'a> {
    type Item = Message<'a>;
    type IntoIter = MessageIter<'a>;

    fn into_iter(self) -> MessageIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Messages that own their bytes, for handlers that answer later.
///
/// ```
/// use spop_core::{MessageList, frame::OwnedMessages};
///
/// let mut list = MessageList::new();
/// list.message("check-ip").arg("port", 443_i64);
/// list.message("log");
/// let messages = OwnedMessages::decode(list.as_bytes().to_vec().into())?;
/// let names: Vec<_> = messages.each().filter_map(|one| Some(one.iter().next()?.name().to_vec())).collect();
/// assert_eq!(names, [b"check-ip".as_slice(), b"log"]);
/// # Ok::<(), spop_core::DecodeError>(())
/// ```
#[derive(Clone, Default)]
pub struct OwnedMessages {
    payload: Bytes,
    lengths: Lengths,
}

impl OwnedMessages {
    /// As [`Messages::decode`], for an owned payload.
    ///
    /// # Errors
    /// [`DecodeError`] says what is malformed and where.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let lengths = Messages::decode(&payload)?.lengths;
        Ok(Self { payload, lengths })
    }

    #[inline]
    pub(crate) const fn checked(payload: Bytes, lengths: Lengths) -> Self {
        Self { payload, lengths }
    }

    /// The messages.
    #[inline]
    pub fn view(&self) -> Messages<'_> {
        Messages { payload: &self.payload, lengths: self.lengths }
    }

    /// The payload as it arrived.
    #[inline]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The messages, in order.
    #[inline]
    pub fn iter(&self) -> MessageIter<'_> {
        self.view().iter()
    }

    /// The first message of this name.
    pub fn get(&self, name: &str) -> Option<Message<'_>> {
        self.view().get(name)
    }

    /// How many messages there are, counted by going through them.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Each message as a list of its own, which shares the buffer.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.view()
            .each()
            .map(|one| Self { payload: self.payload.slice_ref(one.payload), lengths: one.lengths })
    }
}

impl<'a> From<&'a OwnedMessages> for Messages<'a> {
    fn from(messages: &'a OwnedMessages) -> Self {
        messages.view()
    }
}

impl<'a> IntoIterator for &'a OwnedMessages {
    type Item = Message<'a>;
    type IntoIter = MessageIter<'a>;

    fn into_iter(self) -> MessageIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for OwnedMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

/// Validates a list of at most `max` messages. `None` if it is malformed or has more: [`has_more_messages`] and [`fault`]
/// find the reason.
#[expect(clippy::inline_always, reason = "once for each NOTIFY")]
#[inline(always)]
pub(crate) fn check_messages(list: &[u8], max: usize) -> Option<Lengths> {
    let (mut at, mut lengths, mut count) = (0, 0, 0);
    while at < list.len() {
        if count == max {
            return None;
        }
        let end = skip_message(list, at)?;
        if count < 4 {
            lengths |= Lengths::of_one(end - at).0 << (16 * count);
        }
        count += 1;
        at = end;
    }
    (at == list.len()).then_some(Lengths(lengths))
}

/// The end of the message that starts `at`.
#[expect(clippy::inline_always, reason = "the loop of every check")]
#[inline(always)]
fn skip_message(list: &[u8], at: usize) -> Option<usize> {
    let args = skip_string(list, at)?;
    skip_args(list, args + 1, *list.get(args)?)
}

/// The end of `count` arguments that start `at`.
#[expect(clippy::inline_always, reason = "the inner loop of every check")]
#[inline(always)]
fn skip_args(list: &[u8], mut at: usize, count: u8) -> Option<usize> {
    for _ in 0..count {
        at = skip_value(list, skip_string(list, at)?)?;
    }
    Some(at)
}

/// Whether a list begins with `max` messages and continues.
#[cold]
pub(super) fn has_more_messages(list: &[u8], max: usize) -> bool {
    let mut at = 0;
    for _ in 0..max {
        match skip_message(list, at) {
            Some(end) if end < list.len() => at = end,
            // Malformed, or the last.
            _ => return false,
        }
    }
    true
}

/// The error of a malformed list.
#[cold]
pub(super) fn fault(list: &[u8]) -> DecodeError {
    let mut reader = Reader::new(list);
    loop {
        if let Err(what) = read_message(&mut reader) {
            return reader.error(list, what);
        }
    }
}

fn read_message(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    reader.string()?;
    for _ in 0..reader.byte(Piece::Message)? {
        kv_pair(reader)?;
    }
    Ok(())
}

/// An iterator over [`Messages`].
#[derive(Clone, Debug)]
pub struct MessageIter<'a> {
    rest: &'a [u8],
    /// The lengths of the messages in `rest`.
    lengths: Lengths,
    /// The number of arguments of the previous message to skip, if its length was not known.
    skip: u8,
}

impl<'a> MessageIter<'a> {
    /// Iterates over the front of a list that is still arriving, up to the end of the data.
    pub(crate) const fn partial(payload: &'a [u8]) -> Self {
        Self { rest: payload, lengths: Lengths(0), skip: 0 }
    }

    /// As [`partial`](Self::partial), for a list that begins with the last `skip` arguments of a message before it.
    pub(crate) const fn partial_from(payload: &'a [u8], skip: u8) -> Self {
        Self { rest: payload, lengths: Lengths(0), skip }
    }

    /// The last message of a partial list that ends behind its name. `next` returns `None` for it, because the number of its
    /// arguments has not arrived.
    pub(crate) fn bare_name(&mut self) -> Option<Message<'a>> {
        let mut reader = Reader::new(self.rest.get(skip_args(self.rest, 0, self.skip)?..)?);
        let name = reader.string().ok()?;
        if !reader.is_empty() {
            return None;
        }
        (self.rest, self.skip) = (&[], 0);
        Some(Message { name, args: Args { reader, left: 0 } })
    }
}

impl<'a> Iterator for MessageIter<'a> {
    type Item = Message<'a>;

    #[inline]
    fn next(&mut self) -> Option<Message<'a>> {
        step();
        if self.rest.is_empty() {
            return None;
        }
        let message = self.rest.get(skip_args(self.rest, 0, self.skip)?..)?;
        let mut reader = Reader::new(message);
        let name = reader.string().ok()?;
        let args = reader.byte(Piece::Message).ok()?;
        (self.rest, self.skip) = match self.lengths.0 & 0xffff {
            0 => (reader.rest(), args),
            len => (message.get(len as usize..)?, 0),
        };
        self.lengths.0 >>= 16;
        Some(Message { name, args: Args { reader, left: args } })
    }
}

/// The name of the message that starts here, if it is complete.
pub(super) fn message_named(list: &[u8]) -> Option<&[u8]> {
    Reader::new(list).string().ok()
}

/// A message with `left` arguments at the start of `args`, of which some may not have arrived.
pub(super) const fn message_with<'a>(name: &'a [u8], args: &'a [u8], left: u8) -> Message<'a> {
    Message { name, args: Args { reader: Reader::new(args), left } }
}

/// One message: a name and arguments.
#[derive(Clone)]
pub struct Message<'a> {
    name: &'a [u8],
    args: Args<'a>,
}

impl<'a> Message<'a> {
    /// MESSAGE-NAME: the name of the `spoe-message` section.
    pub const fn name(&self) -> &'a [u8] {
        self.name
    }

    /// The arguments, in order. Names may be empty (an unnamed argument) or repeated.
    pub fn args(&self) -> Args<'a> {
        self.args.clone()
    }

    /// The value of the first argument of this name.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.args().find_map(|(found, value)| (found == name.as_bytes()).then_some(value))
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name.escape_ascii(), self.args)
    }
}

/// An iterator over the arguments of a message.
#[derive(Clone)]
pub struct Args<'a> {
    reader: Reader<'a>,
    left: u8,
}

impl<'a> Iterator for Args<'a> {
    type Item = (&'a [u8], Value<'a>);

    #[expect(
        clippy::inline_always,
        reason = "a pair that is returned is written and read in pieces that do not match"
    )]
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let left = self.left.checked_sub(1)?;
        let mut reader = self.reader;
        let pair = kv_pair(&mut reader).ok()?;
        *self = Self { reader, left };
        Some(pair)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The lower bound is 0: a message that is still arriving has fewer.
        (0, Some(usize::from(self.left)))
    }
}

/// Shows the remaining arguments, not the bytes behind them in the payload.
impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.clone() {
            map.entry(&format_args!("\"{}\"", name.escape_ascii()), &value);
        }
        map.finish()
    }
}

/// Appends one message with its arguments. A message has at most 255 arguments; further ones are ignored.
pub fn put_message<'a>(
    out: &mut (impl Sink + ?Sized),
    name: &str,
    args: impl IntoIterator<Item = (&'a str, Value<'a>), IntoIter: ExactSizeIterator>,
) {
    let args = args.into_iter();
    let count = u8::try_from(args.len()).unwrap_or(u8::MAX);
    put_string(out, name.as_bytes());
    out.put(&[count]);
    for (name, value) in args.take(usize::from(count)) {
        put_string(out, name.as_bytes());
        value.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::{collection, prelude::*};

    use super::*;

    fn three() -> Vec<u8> {
        let mut out = Vec::new();
        put_message(&mut out, "one", [("ip", Value::Int32(1)), ("", Value::Null), ("ip", Value::Bool(true))]);
        put_message(&mut out, "none", []);
        put_message(&mut out, "two", [("x", Value::String(b"text"))]);
        out
    }

    proptest! {
        #[test]
        fn the_part_of_a_payload_that_has_arrived_has_the_messages_of_the_whole(
            payload in collection::vec(prop_oneof![3 => 0..4_u8, 1 => any::<u8>()], 0..60),
        ) {
            // It can be iterated, well-formed or not.
            let args: Vec<_> = MessageIter::partial(&payload).map(|message| message.args().count()).collect();
            if let Ok(messages) = Messages::decode(&payload) {
                assert!(args.len() >= messages.len());
                // With and without known lengths.
                for (one, two) in messages.iter().zip(MessageIter::partial(&payload)) {
                    assert_eq!(one.name(), two.name());
                    assert!(one.args().eq(two.args()));
                }
            }
        }
    }

    #[test]
    fn every_message_and_every_argument_is_there() {
        let owned = OwnedMessages::decode(three().into()).unwrap();
        let messages = owned.view();
        assert_eq!(messages.len(), 3);
        assert!(!messages.is_empty() && Messages::decode(&[]).unwrap().is_empty());
        let names: Vec<_> = messages.iter().map(|message| message.name()).collect();
        assert_eq!(names, [b"one".as_slice(), b"none", b"two"]);
        assert_eq!(messages.get("one").unwrap().args().size_hint(), (0, Some(3)));
        let one = messages.get("one").unwrap();
        let args: Vec<_> = one.args().collect();
        assert_eq!(
            args,
            [(b"ip".as_slice(), Value::Int32(1)), (b"", Value::Null), (b"ip", Value::Bool(true))]
        );
        assert_eq!(one.get("ip"), Some(Value::Int32(1)));
        assert_eq!(messages.get("none").unwrap().args().count(), 0);
        assert_eq!(messages.get("two").unwrap().get("x"), Some(Value::String(b"text")));
        assert!(messages.get("three").is_none());
        assert_eq!(messages.to_owned().iter().count(), 3);
        assert!(messages.only().is_none() && Messages::default().only().is_none());
        assert!(
            messages
                .each()
                .all(|one| one.only().is_some_and(|only| only.name() == one.iter().next().unwrap().name()))
        );
        let each: Vec<_> = messages.each().collect();
        assert_eq!(each.iter().flat_map(|one| one.payload().to_vec()).collect::<Vec<_>>(), three());
        assert!(owned.each().all(|one| owned.payload().as_ptr_range().contains(&one.payload().as_ptr())));
        for (one, whole) in each.iter().zip(messages) {
            let only = one.iter().next().unwrap();
            assert_eq!((one.len(), only.name()), (1, whole.name()));
            assert!(only.args().eq(whole.args()));
        }
    }

    #[test]
    fn the_only_message_is_not_one_of_several_whose_lengths_look_like_it() {
        let long = alloc::vec![b'x'; 1 << 17];
        let only = |lens: &[usize]| {
            let mut out = Vec::new();
            for len in lens {
                if *len == 2 {
                    put_message(&mut out, "", []);
                } else {
                    // Name, number of arguments, name, type, length of three bytes, value.
                    put_message(&mut out, "", [("", Value::Binary(&long[..len - 7]))]);
                }
            }
            let messages = Messages::decode(&out).unwrap();
            assert_eq!(messages.only().is_some(), messages.len() == 1, "{lens:?}");
            (out.len(), messages.lengths.0)
        };
        only(&[1 << 16]);
        only(&[1000, 1000]);
        // The second has two bytes, the third more than are known: with the first, what 2 << 16 is to a single one.
        let (len, lengths) = only(&[1000, 2, 131_070]);
        assert_eq!(len as u64, lengths);
    }

    #[test]
    fn a_cut_list_is_malformed_except_between_messages() {
        let bytes = three();
        let mut whole = Vec::new();
        for cut in 0..=bytes.len() {
            if let Ok(messages) = Messages::decode(&bytes[..cut]) {
                whole.push(messages.len());
            }
        }
        assert_eq!(whole, [0, 1, 2, 3]);
    }

    #[test]
    fn whether_there_are_more_messages_is_known_at_their_end() {
        let list = three();
        let more = |list: &[u8]| [1, 2, 3, 4, usize::MAX].map(|max| has_more_messages(list, max));
        assert_eq!(more(&list), [true, true, false, false, false]);
        assert_eq!(more(&list[..list.len() - 1]), [true, true, false, false, false]);
        assert_eq!(more(&[&list[..], b"\xff"].concat()), [true, true, true, false, false]);
        assert_eq!(more(b"\x00"), [false; 5]);
    }

    #[test]
    fn an_empty_payload_has_no_message() {
        assert!(Messages::decode(&[]).unwrap().is_empty());
    }

    #[test]
    fn at_most_255_arguments_are_written() {
        let mut out = Vec::new();
        put_message(&mut out, "many", [("", Value::Null); 300]);
        assert_eq!(Messages::decode(&out).unwrap().iter().next().unwrap().args().count(), 255);
    }

    #[test]
    fn messages_are_found_whether_their_lengths_are_known_or_not() {
        let long = alloc::vec![b'x'; 1 << 16];
        // As many as have a place, more, and some that are too long for theirs.
        for sizes in [
            &[1][..],
            &[1, 2, 3, 4],
            &[9, 8, 7, 6, 5, 4],
            &[65_520, 65_521, 7, 8, 9],
            &[65_536],
            &[65_536, 1],
        ] {
            let mut list = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let name = alloc::format!("m{number}");
                put_message(&mut list, &name, [("", Value::Binary(&long[..*size])), ("last", Value::Null)]);
            }
            let shown =
                |messages: MessageIter<'_>| messages.map(|one| alloc::format!("{one:?}")).collect::<Vec<_>>();
            let found = shown(Messages::decode(&list).unwrap().iter());
            assert_eq!(found.len(), sizes.len());
            assert_eq!(found, shown(MessageIter::partial(&list)));
            assert_eq!(Messages::decode(&list).unwrap().len(), sizes.len());
        }
    }
}
