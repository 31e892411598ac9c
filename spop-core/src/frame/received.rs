//! Payloads where they arrived: looked at in place, and taken out only by whoever wants to keep them.

use core::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// Where a frame lies that is next in its inbox.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// Where its payload starts, and where it ends.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Place {
    /// The frame's payload, in the inbox that holds it.
    #[inline]
    pub(crate) fn payload(self, inbox: &BytesMut) -> &[u8] {
        inbox.get(self.start..self.end).unwrap_or_default()
    }
}

/// A payload that was received, and still is where it was put: in the inbox, or where its fragments were put together.
///
/// When it is dropped, its frame leaves the inbox, if it lies there. One that is leaked (`mem::forget`) leaves the frame
/// behind, and the reactor sees it again.
pub struct Received<'i>(Where<'i>);

enum Where<'i> {
    Inbox(Front<'i>),
    Apart(Bytes),
}

impl<'i> Received<'i> {
    /// The payload of the frame that is next in the inbox.
    #[inline]
    pub(crate) const fn in_inbox(inbox: &'i mut BytesMut, place: Place) -> Self {
        Self(Where::Inbox(Front { inbox, place }))
    }

    /// Takes the payload out, which stays where it is in memory.
    #[inline]
    pub(crate) fn keep(self) -> Bytes {
        match self.0 {
            Where::Inbox(mut front) => {
                let Place { start, end } = core::mem::take(&mut front.place);
                let mut frame = front.inbox.split_to(end.min(front.inbox.len())).freeze();
                frame.advance(start.min(frame.len()));
                frame
            }
            Where::Apart(payload) => payload,
        }
    }
}

impl From<Bytes> for Received<'_> {
    fn from(payload: Bytes) -> Self {
        Self(Where::Apart(payload))
    }
}

impl AsRef<[u8]> for Received<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Where::Inbox(front) => front.place.payload(front.inbox),
            Where::Apart(payload) => payload,
        }
    }
}

/// Shows the payload, and not what else is in the inbox.
impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.as_ref().escape_ascii())
    }
}

/// The front of an inbox, which goes with this.
struct Front<'i> {
    inbox: &'i mut BytesMut,
    place: Place,
}

impl Drop for Front<'_> {
    #[expect(clippy::inline_always, reason = "see leave")]
    #[inline(always)]
    fn drop(&mut self) {
        leave(self.inbox, self.place.end);
    }
}

/// Takes so much off the inbox. Out of line: where all of it stands in every drop, the compiler keeps what is dropped in
/// memory, and reads pairs of words there that were written one by one, which costs more than the rest of a NOTIFY's way in.
#[inline(never)]
fn leave(inbox: &mut BytesMut, end: usize) {
    if end < inbox.len() {
        inbox.advance(end);
    } else {
        // The next read finds this room again.
        inbox.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_leaves_its_inbox_kept_or_dropped() {
        let place = Place { start: 2, end: 5 };
        let mut inbox = BytesMut::from("hdabcnext");
        let start = inbox.as_ptr();
        let received = Received::in_inbox(&mut inbox, place);
        assert_eq!(received.as_ref(), b"abc");
        assert_eq!(alloc::format!("{received:?}"), r#"b"abc""#);
        let kept = received.keep();
        assert_eq!((&kept[..], &inbox[..]), (b"abc".as_slice(), b"next".as_slice()));
        assert_eq!(kept.as_ptr(), start.wrapping_add(2), "it was copied");
        drop(Received::in_inbox(&mut inbox, place));
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_payload_that_was_put_together_is_no_inbox_s() {
        let received = Received::from(Bytes::from_static(b"abc"));
        assert_eq!(received.as_ref(), b"abc");
        assert_eq!(received.keep(), b"abc".as_slice());
    }
}
