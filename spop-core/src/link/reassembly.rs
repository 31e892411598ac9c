//! Reassembly of fragmented payloads, within limits, and the list of refused payloads.

use alloc::{boxed::Box, vec::Vec};
use core::{fmt, mem};

use bytes::Bytes;

use super::refused::Refused;
use crate::{
    Timestamp,
    config::Limits,
    frame::{Ids, Scan},
};

/// The unfinished payloads of a connection: their last fragment has not arrived.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    sets: Vec<Set>,
    /// Allocated bytes of all payloads.
    bytes: usize,
    /// Payloads whose remaining fragments are discarded.
    /// Boxed: each connection has it, and few refuse a payload.
    refused: Option<Box<Refused>>,
    /// The buffer of a payload that was dropped, for the next one. Not counted: it has [`SPARE`] bytes at most.
    spare: Vec<u8>,
}

/// The longest buffer that is kept.
const SPARE: usize = 256;

/// The fragments of one payload.
struct Set {
    ids: Ids,
    payload: Vec<u8>,
    /// When the first fragment arrived.
    since: Timestamp,
    /// How far the messages were parsed when the last fragment was reported, and before that.
    parsed: Scan,
    parsed_before: Scan,
}

/// The length of the payload only: payloads must not appear in logs.
impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ids, payload, since, parsed: _, parsed_before: _ } = self;
        let mut set = f.debug_struct("Set");
        set.field("ids", ids).field("len", &payload.len()).field("since", since).finish()
    }
}

/// The result of a first fragment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Kept,
    /// It exceeds a limit on bytes: the payload is refused.
    TooBig,
    /// The limit on unfinished payloads is reached.
    TooMany,
}

/// The result of a further fragment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Continued {
    Kept,
    /// The payload is complete. Its allocated bytes are the second field, and are not counted here any more.
    Done(Bytes, usize),
    /// The payload exceeds a limit on bytes: it is dropped, and its remaining fragments are refused.
    TooBig {
        /// Bytes that had arrived before this fragment.
        received: usize,
    },
    /// The payload was refused: the fragment is discarded.
    Swallowed,
    /// No such payload has begun.
    Unknown,
}

impl Reassembly {
    /// The number of unfinished payloads.
    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether no payload is unfinished or refused.
    pub(crate) fn is_idle(&self) -> bool {
        self.sets.is_empty() && self.refused.is_none()
    }

    /// Frees unused capacity, except that of unfinished payloads.
    pub(crate) fn trim(&mut self) {
        self.sets.shrink_to_fit();
        self.spare = Vec::new();
        if let Some(refused) = &mut self.refused {
            refused.trim();
        }
    }

    /// Allocated bytes of all unfinished payloads.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of an unfinished payload that have arrived, and how far its messages were parsed before the fragment that was
    /// reported last.
    pub(crate) fn get(&self, ids: Ids) -> Option<(&[u8], Scan)> {
        self.sets.iter().find(|set| set.ids == ids).map(|set| (&set.payload[..], set.parsed_before))
    }

    /// Parses what the last fragment of an unfinished payload has brought. Returns the number of its messages so far.
    pub(crate) fn parse_on(&mut self, ids: Ids) -> usize {
        let Some(set) = self.sets.iter_mut().find(|set| set.ids == ids) else { return 0 };
        set.parsed_before = set.parsed;
        set.parsed.advance(&set.payload);
        set.parsed.messages()
    }

    /// Begins a payload with its first fragment. The identifiers must not be in use.
    pub(crate) fn begin(&mut self, now: Timestamp, ids: Ids, fragment: &[u8], limits: &Limits) -> Begun {
        self.forget_refused(ids);
        if self.sets.len() >= limits.max_payloads {
            return Begun::TooMany;
        }
        let (parsed, parsed_before) = (Scan::default(), Scan::default());
        let mut payload = Vec::new();
        if self.bytes + self.spare.capacity() <= limits.max_payload_bytes {
            payload = mem::take(&mut self.spare);
            self.bytes += payload.capacity();
        }
        if !append(&mut payload, &mut self.bytes, fragment, limits) {
            self.free(payload);
            self.refuse(ids, limits);
            return Begun::TooBig;
        }
        self.sets.push(Set { ids, payload, since: now, parsed, parsed_before });
        Begun::Kept
    }

    /// Appends a further fragment.
    pub(crate) fn continue_with(
        &mut self,
        ids: Ids,
        fragment: &[u8],
        last: bool,
        limits: &Limits,
    ) -> Continued {
        let Some(index) = self.sets.iter().position(|set| set.ids == ids) else {
            let refused = self.refused.as_ref().is_some_and(|refused| refused.contains(ids));
            if refused && last {
                self.forget_refused(ids);
            }
            return if refused { Continued::Swallowed } else { Continued::Unknown };
        };
        let set = self.sets.get_mut(index);
        let kept = set.is_some_and(|set| append(&mut set.payload, &mut self.bytes, fragment, limits));
        if kept && !last {
            return Continued::Kept;
        }
        let set = self.sets.swap_remove(index);
        let memory = set.payload.capacity();
        self.bytes -= memory;
        if kept {
            return Continued::Done(set.payload.into(), memory);
        }
        if !last {
            self.refuse(ids, limits);
        }
        Continued::TooBig { received: set.payload.len() }
    }

    /// Drops an unfinished payload; returns how many of its bytes had arrived.
    pub(crate) fn drop_set(&mut self, ids: Ids) -> Option<usize> {
        let index = self.sets.iter().position(|set| set.ids == ids)?;
        let payload = self.sets.swap_remove(index).payload;
        let len = payload.len();
        self.free(payload);
        Some(len)
    }

    /// The bytes of a payload are not needed any more.
    fn free(&mut self, mut payload: Vec<u8>) {
        self.bytes -= payload.capacity();
        if payload.capacity() <= SPARE && self.spare.capacity() == 0 {
            payload.clear();
            self.spare = payload;
        }
    }

    /// Refuses a payload: its remaining fragments are discarded. At the limit, the oldest refusal is forgotten.
    pub(crate) fn refuse(&mut self, ids: Ids, limits: &Limits) {
        self.refused.get_or_insert_default().insert(ids, limits.max_refused);
    }

    /// Removes a payload from the list of refused ones. False if it was not listed.
    #[inline]
    pub(crate) fn forget_refused(&mut self, ids: Ids) -> bool {
        match &self.refused {
            Some(refused) if !refused.is_above(ids) => self.forget_listed(ids),
            _ => false,
        }
    }

    fn forget_listed(&mut self, ids: Ids) -> bool {
        let Some(refused) = &mut self.refused else { return false };
        let listed = refused.remove(ids);
        if refused.is_empty() {
            self.refused = None;
        }
        listed
    }

    /// The payload whose first fragment is oldest, and when it arrived.
    pub(crate) fn oldest(&self) -> Option<(Ids, Timestamp)> {
        self.sets.iter().map(|set| (set.ids, set.since)).min_by_key(|(_, since)| *since)
    }

    /// Drops all payloads and refusals; returns the identifiers of the unfinished payloads.
    pub(crate) fn clear(&mut self) -> impl ExactSizeIterator<Item = Ids> + use<> {
        mem::take(self).sets.into_iter().map(|set| set.ids)
    }
}

/// Appends a fragment if the payload stays within `max_payload`, and the allocated bytes of all payloads within
/// `max_payload_bytes`. The capacity doubles as the payload grows, up to `max_payload`.
fn append(payload: &mut Vec<u8>, total: &mut usize, fragment: &[u8], limits: &Limits) -> bool {
    let len = payload.len() + fragment.len();
    if len > limits.max_payload {
        return false;
    }
    let had = payload.capacity();
    if len > had {
        let others = *total - had;
        let available = limits.max_payload_bytes.saturating_sub(others);
        let want = len.max(2 * had).min(limits.max_payload).min(available);
        if want < len {
            return false;
        }
        payload.reserve_exact(want - payload.len());
        *total = others + payload.capacity();
    }
    payload.extend_from_slice(fragment);
    true
}

#[cfg(test)]
impl Reassembly {
    /// The allocated capacity, in entries.
    pub(super) fn memory(&self) -> usize {
        self.sets.capacity() + self.refused.as_ref().map_or(0, |refused| refused.memory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;
    const A: Ids = Ids::new(1, 1);
    const B: Ids = Ids::new(2, 1);

    fn limits(payload: usize, all: usize, count: usize) -> Limits {
        Limits {
            max_payload: payload,
            max_payload_bytes: all,
            max_payloads: count,
            max_refused: 2,
            ..Limits::default()
        }
    }

    #[test]
    fn the_buffer_of_a_short_payload_serves_the_next_and_is_counted() {
        let (mut reassembly, limits) = (Reassembly::default(), limits(1_000, 300, 9));
        assert_eq!(reassembly.begin(NOW, A, &[7; 200], &limits), Begun::Kept);
        let bytes = reassembly.bytes();
        assert_eq!(reassembly.drop_set(A), Some(200));
        assert_eq!((reassembly.bytes(), reassembly.spare.capacity()), (0, bytes));
        assert_eq!(reassembly.begin(NOW, B, b"b", &limits), Begun::Kept);
        assert_eq!((reassembly.bytes(), reassembly.get(B).unwrap().0), (bytes, &b"b"[..]));
        assert_eq!(reassembly.begin(NOW, A, &[7; 101], &limits), Begun::TooBig);
        assert_eq!(reassembly.bytes(), bytes);
        assert_eq!(reassembly.drop_set(B), Some(1));
        reassembly.trim();
        assert_eq!((reassembly.bytes(), reassembly.spare.capacity()), (0, 0));
        assert_eq!(reassembly.begin(NOW, A, &[7; 257], &limits), Begun::Kept);
        assert_eq!(reassembly.drop_set(A), Some(257));
        assert_eq!((reassembly.bytes(), reassembly.spare.capacity()), (0, 0), "a long one is freed");
    }

    #[test]
    fn fragments_of_two_payloads_do_not_mix() {
        let limits = limits(100, 200, 2);
        let mut sets = Reassembly::default();
        assert_eq!(sets.begin(NOW, A, b"a1", &limits), Begun::Kept);
        assert_eq!(sets.begin(NOW, B, b"", &limits), Begun::Kept);
        assert_eq!(sets.begin(NOW, Ids::new(3, 1), b"", &limits), Begun::TooMany);
        assert_eq!(sets.continue_with(B, b"b1", false, &limits), Continued::Kept);
        assert_eq!(sets.continue_with(A, b"", false, &limits), Continued::Kept);
        assert_eq!(
            sets.continue_with(A, b"a2", true, &limits),
            Continued::Done(Bytes::from_static(b"a1a2"), 4)
        );
        assert_eq!(sets.continue_with(A, b"", true, &limits), Continued::Unknown);
        assert_eq!(
            sets.continue_with(B, b"b2", true, &limits),
            Continued::Done(Bytes::from_static(b"b1b2"), 4)
        );
        assert_eq!((sets.len(), sets.bytes()), (0, 0));
    }

    #[test]
    fn what_is_dropped_gives_its_room_back() {
        let limits = limits(100, 100, 2);
        let mut sets = Reassembly::default();
        assert!(sets.is_idle() && sets.len() == 0);
        assert_eq!(sets.begin(NOW, A, &[0; 60], &limits), Begun::Kept);
        assert!(!sets.is_idle() && sets.len() == 1);
        assert_eq!(sets.begin(NOW, B, &[0; 60], &limits), Begun::TooBig);
        assert_eq!(sets.drop_set(A), Some(60));
        assert_eq!((sets.drop_set(A), sets.len(), sets.bytes()), (None, 0, 0));
        assert!(!sets.is_idle(), "further fragments of B may still arrive");
        assert!(sets.forget_refused(B) && sets.is_idle());
        assert_eq!(sets.begin(NOW, A, &[0; 100], &limits), Begun::Kept);
    }

    #[test]
    fn many_small_fragments_are_not_copied_for_each_of_them() {
        let limits = limits(1 << 12, 1 << 12, 1);
        let mut sets = Reassembly::default();
        assert_eq!(sets.begin(NOW, A, b"x", &limits), Begun::Kept);
        let mut memory = alloc::collections::BTreeSet::new();
        for _ in 1..1 << 12 {
            assert_eq!(sets.continue_with(A, b"x", false, &limits), Continued::Kept);
            memory.insert(sets.bytes());
        }
        assert!(memory.len() <= 13, "grew {} times", memory.len());
        assert_eq!(sets.bytes(), 1 << 12);
    }

    #[test]
    fn a_payload_over_its_limit_is_dropped_and_its_rest_swallowed() {
        let limits = limits(4, 100, 2);
        let mut sets = Reassembly::default();
        assert_eq!(sets.begin(NOW, A, b"12345", &limits), Begun::TooBig);
        assert_eq!(sets.begin(NOW, B, b"123", &limits), Begun::Kept);
        assert_eq!(sets.continue_with(B, b"45", false, &limits), Continued::TooBig { received: 3 });
        assert_eq!((sets.len(), sets.bytes()), (0, 0));
        for ids in [A, B] {
            assert_eq!(sets.continue_with(ids, b"x", false, &limits), Continued::Swallowed);
            assert_eq!(sets.continue_with(ids, b"x", true, &limits), Continued::Swallowed);
            assert_eq!(sets.continue_with(ids, b"x", false, &limits), Continued::Unknown);
        }
    }

    #[test]
    fn memory_stays_within_the_limit_of_all_payloads() {
        let limits = limits(1_000, 1_500, 10);
        let mut sets = Reassembly::default();
        for stream in 0..10 {
            sets.begin(NOW, Ids::new(stream, 1), &[0; 10], &limits);
        }
        for _ in 0..100 {
            for stream in 0..10 {
                sets.continue_with(Ids::new(stream, 1), &[0; 10], false, &limits);
                assert!(sets.bytes() <= 1_500);
                assert_eq!(sets.bytes(), sets.sets.iter().map(|set| set.payload.capacity()).sum::<usize>());
            }
        }
    }

    #[test]
    fn memory_of_what_is_over_is_given_back() {
        let limits = Limits { max_refused: 100, ..limits(100, 1_000, 16) };
        let mut sets = Reassembly::default();
        for stream in 0..16 {
            sets.begin(NOW, Ids::new(stream, 1), b"x", &limits);
            sets.refuse(Ids::new(100 + stream, 1), &limits);
        }
        for stream in 0..16 {
            sets.drop_set(Ids::new(stream, 1));
            sets.forget_refused(Ids::new(100 + stream, 1));
        }
        assert!(sets.sets.capacity() > 0);
        sets.trim();
        assert_eq!(sets.memory(), 0);
    }

    #[test]
    fn an_id_that_was_refused_can_be_used_again() {
        let limits = limits(4, 100, 2);
        let mut sets = Reassembly::default();
        sets.refuse(A, &limits);
        assert_eq!(sets.begin(NOW, A, b"1", &limits), Begun::Kept);
        assert_eq!(sets.continue_with(A, b"2", true, &limits), Continued::Done(Bytes::from_static(b"12"), 2));
    }
}
