//! The payloads that were refused, and whose remaining fragments are discarded.

use alloc::collections::{BTreeMap, VecDeque};

use crate::{frame::Ids, steps::step};

/// A list of limited length; the oldest is forgotten first. It is searched for every frame as long as it is not empty, so no
/// step depends on its length.
///
/// HAProxy never sends the last fragment of a payload that the agent refused.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// How many entries are listed.
    len: usize,
    /// How many entries were removed from the front.
    shifted: u64,
    /// Where each listed entry is: its index plus `shifted`. None while the identifiers ascend, as those of HAProxy do:
    /// `entries` is sorted then.
    places: Option<BTreeMap<Ids, u64>>,
}

#[derive(Debug)]
struct Entry {
    ids: Ids,
    /// False once the payload was removed.
    listed: bool,
}

impl Refused {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn contains(&self, ids: Ids) -> bool {
        self.find(ids).is_some()
    }

    /// The index of a listed entry.
    fn find(&self, ids: Ids) -> Option<usize> {
        if let Some(places) = &self.places {
            return usize::try_from(places.get(&ids)? - self.shifted).ok();
        }
        if self.ascends(ids) {
            return None;
        }
        let index = self.entries.binary_search_by_key(&ids, |entry| entry.ids).ok()?;
        self.entries.get(index)?.listed.then_some(index)
    }

    /// Whether these identifiers are above all that are listed, which is known without a search.
    #[inline]
    pub(super) fn is_above(&self, ids: Ids) -> bool {
        self.places.is_none() && self.ascends(ids)
    }

    /// Whether these identifiers are above those of the newest entry.
    #[inline]
    fn ascends(&self, ids: Ids) -> bool {
        self.entries.back().is_none_or(|newest| newest.ids < ids)
    }

    /// Adds a payload. Of more than `max`, the oldest is forgotten.
    pub(super) fn insert(&mut self, ids: Ids, max: usize) {
        if !self.is_above(ids) {
            self.remove(ids);
        }
        while self.len >= max && self.len > 0 {
            self.remove_first();
        }
        let unsorted = self.places.is_none() && !self.ascends(ids);
        if unsorted || self.entries.len() / 2 >= max {
            self.compact(unsorted || self.places.is_some());
        }
        if let Some(places) = &mut self.places {
            places.insert(ids, self.shifted + self.entries.len() as u64);
        }
        self.entries.push_back(Entry { ids, listed: true });
        self.len += 1;
    }

    fn remove_first(&mut self) {
        step();
        let Some(entry) = self.entries.pop_front() else { return };
        self.shifted += 1;
        if entry.listed {
            self.len -= 1;
            self.places.as_mut().map(|places| places.remove(&entry.ids));
        }
    }

    /// Drops what is not listed, and notes the places of what remains if they are needed.
    fn compact(&mut self, with_places: bool) {
        self.entries.retain(|entry| {
            step();
            entry.listed
        });
        let places = (self.shifted..).zip(&self.entries).map(|(place, entry)| (entry.ids, place));
        self.places = with_places.then(|| places.collect());
    }

    /// Removes a payload. False if it was not listed.
    #[inline]
    pub(super) fn remove(&mut self, ids: Ids) -> bool {
        let Some(entry) = self.find(ids).and_then(|index| self.entries.get_mut(index)) else { return false };
        entry.listed = false;
        self.places.as_mut().map(|places| places.remove(&ids));
        self.len -= 1;
        if self.is_empty() {
            self.entries.clear();
            self.places = None;
        }
        true
    }

    /// Frees unused capacity.
    pub(super) fn trim(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// The allocated capacity, in entries.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.entries.capacity()
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::steps::steps_of;

    #[test]
    fn the_oldest_refusal_is_forgotten_first() {
        let mut refused = Refused::default();
        for stream in 1..=3 {
            refused.insert(Ids::new(stream, 1), 2);
        }
        assert!(!refused.remove(Ids::new(1, 1)));
        assert!(refused.remove(Ids::new(2, 1)) && refused.contains(Ids::new(3, 1)));
        refused.insert(Ids::new(4, 1), 2);
        // Refused again, it is the newest.
        refused.insert(Ids::new(3, 1), 3);
        refused.insert(Ids::new(5, 1), 2);
        assert!(!refused.contains(Ids::new(4, 1)) && refused.contains(Ids::new(3, 1)));
        assert!(refused.remove(Ids::new(3, 1)) && refused.remove(Ids::new(5, 1)) && refused.is_empty());
    }

    #[test]
    fn a_list_that_is_full_costs_no_more_and_does_not_grow() {
        let mut refused = Refused::default();
        let steps = steps_of(|| {
            for n in 0..20_000 {
                // Ascending first, then not.
                let stream = if n < 10_000 { n } else { n ^ 0xff };
                refused.insert(Ids::new(stream, 1), 100);
                if n % 3 > 0 {
                    assert!(refused.remove(Ids::new(stream, 1)));
                }
                assert!(refused.len <= 100 && refused.entries.len() <= 200);
            }
        });
        assert!(steps <= 60_000, "{steps} steps");
    }

    /// Against a plain list, with identifiers in any order.
    #[test]
    fn it_is_a_queue_without_duplicates() {
        let mut random = 1_u64;
        let mut next = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        for _ in 0..300 {
            let (mut refused, mut list) = (Refused::default(), alloc::vec::Vec::new());
            let (max, span) = (1 + next(9) as usize, 1 + next(30));
            for n in 0..100 {
                // Ascending with repetitions, or any.
                let ids = Ids::new(if span % 2 == 0 { n / 3 } else { next(span) }, 1);
                assert_eq!(refused.contains(ids), list.contains(&ids));
                if next(3) == 0 {
                    assert_eq!(refused.remove(ids), list.contains(&ids));
                    list.retain(|other| *other != ids);
                } else {
                    refused.insert(ids, max);
                    list.retain(|other| *other != ids);
                    list.push(ids);
                    if list.len() > max {
                        list.remove(0);
                    }
                }
                assert_eq!((refused.len, refused.is_empty()), (list.len(), list.is_empty()));
                assert!((0..100).all(|n| refused.contains(Ids::new(n, 1)) == list.contains(&Ids::new(n, 1))));
                assert!(refused.entries.len() <= 2 * max + 1);
            }
        }
    }
}
