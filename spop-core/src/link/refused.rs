//! The payloads that were refused, and whose remaining fragments are discarded.

use alloc::collections::{BTreeMap, VecDeque};

use crate::{frame::Ids, steps::step};

/// A list of limited length; the oldest is forgotten first. It is searched for every frame as long as it is not empty, so no
/// step depends on its length.
///
/// HAProxy never sends the last fragment of a payload that the agent refused.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Each with its number.
    numbers: BTreeMap<Ids, u64>,
    /// In the order of their numbers. Some were forgotten, or refused again under another number.
    order: VecDeque<(u64, Ids)>,
    next: u64,
}

impl Refused {
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    pub(super) fn contains(&self, ids: Ids) -> bool {
        self.numbers.contains_key(&ids)
    }

    /// Adds a payload. Of more than `max`, the oldest is forgotten.
    pub(super) fn insert(&mut self, ids: Ids, max: usize) {
        let Self { numbers, order, next } = self;
        while numbers.len() >= max
            && let Some((number, oldest)) = order.pop_front()
        {
            step();
            if numbers.get(&oldest) == Some(&number) {
                numbers.remove(&oldest);
            }
        }
        if order.len() / 2 >= max {
            order.retain(|(number, ids)| {
                step();
                numbers.get(ids) == Some(number)
            });
        }
        order.push_back((*next, ids));
        numbers.insert(ids, *next);
        *next += 1;
    }

    /// Removes a payload. False if it was not listed.
    pub(super) fn remove(&mut self, ids: Ids) -> bool {
        let removed = self.numbers.remove(&ids).is_some();
        if self.numbers.is_empty() {
            self.order.clear();
        }
        removed
    }

    /// Frees unused capacity.
    pub(super) fn trim(&mut self) {
        self.order.shrink_to_fit();
    }

    /// The allocated capacity, in entries.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.order.capacity()
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
            for stream in 0..10_000 {
                refused.insert(Ids::new(stream, 1), 100);
                if stream % 3 > 0 {
                    assert!(refused.remove(Ids::new(stream, 1)));
                }
                assert!(refused.numbers.len() <= 100 && refused.order.len() <= 200);
            }
        });
        assert!(steps <= 30_000, "{steps} steps");
    }
}
