//! Payloads of received frames: borrowed from the input, or owned if they were reassembled from fragments.

use core::{fmt, ops::Deref};

use bytes::{Bytes, BytesMut};

use super::{
    Messages, OwnedMessages,
    notify::{Lengths, check_messages, fault, has_more_messages},
};
use crate::DecodeError;

/// A received payload.
///
/// The payload of a single frame borrows the input `'i`; a reassembled one owns its bytes. Dropping or leaking it has no effect
/// on the reactor.
#[derive(Clone)]
pub struct Received<'i>(Source<'i>);

#[derive(Clone)]
enum Source<'i> {
    Input(&'i [u8]),
    Fragments(Bytes),
}

impl<'i> Received<'i> {
    #[inline]
    pub(crate) const fn in_input(payload: &'i [u8]) -> Self {
        Self(Source::Input(payload))
    }

    /// The payload as `Bytes`. A payload that borrows the input is copied; a reassembled one is moved.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Source::Input(payload) => Bytes::copy_from_slice(payload),
            Source::Fragments(payload) => payload,
        }
    }

    /// As [`into_bytes`](Self::into_bytes), without a copy if `input` is the buffer that the payload borrows: the result then
    /// keeps all of `input` alive.
    #[inline]
    pub fn into_bytes_in(self, input: &Bytes) -> Bytes {
        match self.0 {
            Source::Input(payload) if lies_in(payload, input) => input.slice_ref(payload),
            source => Self(source).into_bytes(),
        }
    }
}

/// A payload up to this length is copied to memory that later ones use again.
const REUSED: usize = 4 * 1024;

/// The least capacity of such memory.
const CHUNK: usize = 512;

/// Copies a payload. A short one goes to `buffer`, whose memory is used again once nothing refers to it.
#[inline]
fn copy_with(buffer: &mut BytesMut, payload: &[u8]) -> Bytes {
    if payload.len() > REUSED {
        return Bytes::copy_from_slice(payload);
    }
    if !buffer.try_reclaim(payload.len()) {
        *buffer = BytesMut::with_capacity(payload.len().max(CHUNK));
    }
    buffer.extend_from_slice(payload);
    buffer.split().freeze()
}

/// Whether `payload` is a subslice of `buffer`.
#[inline]
fn lies_in(payload: &[u8], buffer: &[u8]) -> bool {
    let (payload, buffer) = (payload.as_ptr_range(), buffer.as_ptr_range());
    buffer.start <= payload.start && payload.end <= buffer.end
}

impl From<Bytes> for Received<'_> {
    fn from(payload: Bytes) -> Self {
        Self(Source::Fragments(payload))
    }
}

impl Deref for Received<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Input(payload) => payload,
            Source::Fragments(payload) => payload,
        }
    }
}

impl AsRef<[u8]> for Received<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

/// Why the payload of a NOTIFY is not accepted.
#[derive(Debug)]
pub(crate) enum Unfit {
    Malformed(DecodeError),
    /// It has more messages than the limit. What follows them was not validated.
    TooManyMessages,
}

/// The validated payload of a NOTIFY.
#[derive(Clone)]
pub struct NotifyPayload<'i> {
    received: Received<'i>,
    lengths: Lengths,
}

impl<'i> NotifyPayload<'i> {
    #[inline]
    pub(crate) const fn new(received: Received<'i>, lengths: Lengths) -> Self {
        Self { received, lengths }
    }

    /// Validates the payload, as [`Messages::decode`] does, up to `max` messages.
    pub(crate) fn check(received: Received<'i>, max: usize) -> Result<Self, Unfit> {
        match check_messages(&received, max) {
            Some(lengths) => Ok(Self { received, lengths }),
            None if has_more_messages(&received, max) => Err(Unfit::TooManyMessages),
            None => Err(Unfit::Malformed(fault(&received))),
        }
    }

    /// The messages.
    #[inline]
    pub fn messages(&self) -> Messages<'_> {
        Messages::checked(&self.received, self.lengths)
    }

    /// The messages, if the payload borrows the input: what is left of them when the payload was given away.
    #[inline]
    pub fn messages_in_input(&self) -> Option<Messages<'i>> {
        match self.received.0 {
            Source::Input(payload) => Some(Messages::checked(payload, self.lengths)),
            Source::Fragments(_) => None,
        }
    }

    /// The messages with their own bytes, for a handler that answers later. A payload that borrows the input is copied.
    #[inline]
    pub fn into_owned(self) -> OwnedMessages {
        OwnedMessages::checked(self.received.into_bytes(), self.lengths)
    }

    /// As [`into_owned`](Self::into_owned), for many payloads of which most are dropped soon: a copy of up to 4 KiB goes to
    /// `buffer`, whose memory is used again when the messages of earlier calls are dropped. So it does not allocate as long as
    /// they are dropped before the next call. Messages that are kept keep a chunk of 512 bytes or of the longest payload so
    /// far.
    #[inline]
    pub fn into_owned_with(self, buffer: &mut BytesMut) -> OwnedMessages {
        let payload = match self.received.0 {
            Source::Input(payload) => copy_with(buffer, payload),
            Source::Fragments(payload) => payload,
        };
        OwnedMessages::checked(payload, self.lengths)
    }

    /// As [`into_owned`](Self::into_owned), without a copy if `input` is the buffer that the payload borrows: the messages then
    /// keep all of `input` alive.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use bytes::{Bytes, BytesMut};
    /// # use spop_core::{Action, AgentReactor, ConnectionId, Timestamp, notation};
    /// # let now = Timestamp::ZERO;
    /// # let mut agent = AgentReactor::new(Arc::default(), ConnectionId(1), now);
    /// # let hello = notation::parse_bytes(r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:"""#)?;
    /// # let _ = agent.on_bytes(now, &hello);
    /// let input: Bytes = notation::parse_bytes("NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7")?.into();
    /// let Action::RunMessages(notify) = agent.on_bytes(now, &input).action else { panic!("no NOTIFY") };
    /// let (ticket, messages) = (notify.ticket, notify.payload.into_owned_in(&input));
    /// // The buffer can be reused once the messages are dropped.
    /// assert!(!input.is_unique());
    /// drop(messages);
    /// assert!(input.try_into_mut().is_ok());
    /// # agent.fail(now, ticket)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn into_owned_in(self, input: &Bytes) -> OwnedMessages {
        OwnedMessages::checked(self.received.into_bytes_in(input), self.lengths)
    }
}

impl fmt::Debug for NotifyPayload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.messages().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_shared_only_with_the_buffer_it_lies_in() {
        let input = Bytes::from(b"hdabcnext".to_vec());
        let received = Received::in_input(&input[2..5]);
        assert_eq!((&*received, alloc::format!("{received:?}").as_str()), (&b"abc"[..], r#"b"abc""#));
        let shared = received.clone().into_bytes_in(&input);
        assert_eq!((&shared[..], shared.as_ptr()), (&b"abc"[..], input[2..].as_ptr()));
        for other in [Bytes::from(b"abc".to_vec()), input.slice(..4), input.slice(3..), Bytes::new()] {
            let copy = received.clone().into_bytes_in(&other);
            assert_eq!(copy, b"abc".as_slice());
            assert_ne!(copy.as_ptr(), shared.as_ptr());
        }
        assert_ne!(received.into_bytes().as_ptr(), shared.as_ptr());
    }

    #[test]
    fn a_payload_from_fragments_is_moved() {
        let payload = Bytes::from(b"abc".to_vec());
        let received = Received::from(payload.clone());
        assert_eq!(received.clone().into_bytes_in(&Bytes::new()).as_ptr(), payload.as_ptr());
        assert_eq!(received.into_bytes().as_ptr(), payload.as_ptr());
    }
}
