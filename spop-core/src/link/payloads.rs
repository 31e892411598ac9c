//! The unfinished and the refused payloads of a connection, which few connections have.

use alloc::boxed::Box;

use super::reassembly::{Begun, Continued, Reassembly};
use crate::{
    Timestamp,
    config::Limits,
    frame::{Ids, Scan},
};

/// A [`Reassembly`] that is allocated from the first payload until memory is freed.
#[derive(Debug, Default)]
pub(crate) struct Payloads(Option<Box<Reassembly>>);

impl Payloads {
    /// Whether no payload is unfinished or refused.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.as_ref().is_none_or(|some| some.is_idle())
    }

    /// The number of unfinished payloads.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |some| some.len())
    }

    /// Allocated bytes of all unfinished payloads.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |some| some.bytes())
    }

    /// As [`Reassembly::get`].
    pub(crate) fn get(&self, ids: Ids) -> Option<(&[u8], Scan)> {
        self.0.as_ref()?.get(ids)
    }

    /// As [`Reassembly::oldest`].
    #[inline]
    pub(crate) fn oldest(&self) -> Option<(Ids, Timestamp)> {
        self.0.as_ref()?.oldest()
    }

    /// As [`Reassembly::parse_on`].
    pub(crate) fn parse_on(&mut self, ids: Ids) -> usize {
        self.0.as_mut().map_or(0, |some| some.parse_on(ids))
    }

    /// As [`Reassembly::begin`].
    pub(crate) fn begin(&mut self, now: Timestamp, ids: Ids, fragment: &[u8], limits: &Limits) -> Begun {
        self.0.get_or_insert_default().begin(now, ids, fragment, limits)
    }

    /// As [`Reassembly::continue_with`].
    pub(crate) fn continue_with(
        &mut self,
        ids: Ids,
        fragment: &[u8],
        last: bool,
        limits: &Limits,
    ) -> Continued {
        self.0.as_mut().map_or(Continued::Unknown, |some| some.continue_with(ids, fragment, last, limits))
    }

    /// As [`Reassembly::drop_set`].
    pub(crate) fn drop_set(&mut self, ids: Ids) -> Option<usize> {
        self.0.as_mut()?.drop_set(ids)
    }

    /// As [`Reassembly::refuse`].
    pub(crate) fn refuse(&mut self, ids: Ids, limits: &Limits) {
        self.0.get_or_insert_default().refuse(ids, limits);
    }

    /// As [`Reassembly::forget_refused`].
    #[inline]
    pub(crate) fn forget_refused(&mut self, ids: Ids) -> bool {
        self.0.as_mut().is_some_and(|some| some.forget_refused(ids))
    }

    /// As [`Reassembly::clear`].
    pub(crate) fn clear(&mut self) -> impl ExactSizeIterator<Item = Ids> + use<> {
        self.0.take().unwrap_or_default().clear()
    }

    /// Frees unused capacity, except that of unfinished payloads.
    pub(crate) fn trim(&mut self) {
        let Some(some) = &mut self.0 else { return };
        some.trim();
        if some.is_idle() {
            self.0 = None;
        }
    }

    /// The allocated capacity, in entries.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.0.as_ref().map_or(0, |some| some.memory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_freed_when_the_last_payload_has_ended() {
        let (ids, other, limits) = (Ids::new(1, 1), Ids::new(2, 1), Limits::default());
        let mut payloads = Payloads::default();
        for end in [
            |payloads: &mut Payloads, ids, _: &Limits| payloads.drop_set(ids).is_some(),
            |payloads: &mut Payloads, ids, limits: &Limits| {
                matches!(payloads.continue_with(ids, b"", true, limits), Continued::Done(..))
            },
        ] {
            assert_eq!(payloads.begin(Timestamp::ZERO, ids, b"half", &limits), Begun::Kept);
            payloads.refuse(other, &limits);
            assert!(end(&mut payloads, ids, &limits));
            assert!(!payloads.is_idle(), "one is refused");
            payloads.trim();
            assert!(payloads.forget_refused(other));
            assert!(payloads.is_idle() && payloads.0.is_some());
            payloads.trim();
            assert!(payloads.0.is_none());
            assert!(!end(&mut payloads, ids, &limits));
        }
    }
}
