//! The timers of a worker: one for each connection.

use spop_core::Timestamp;

/// Children of a node. Four of them are one cache line.
const WIDTH: usize = 4;

/// Not in the heap.
const NONE: u32 = u32::MAX;

/// A heap in which each key is at most once, and can be found.
///
/// A deadline that moves on, as they do with every frame, need not be moved here: the old one fires, its connection has
/// nothing to do, and sets the new one. So a timer is touched when a connection begins and ends, and once per timeout in
/// between, whatever the load.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<Entry>,
    /// Where in the heap a key is.
    places: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Timestamp,
    key: u32,
}

impl Timers {
    /// When the first one is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.heap.first().map(|entry| entry.at)
    }

    /// When this one is due.
    #[inline]
    pub(crate) fn get(&self, key: usize) -> Option<Timestamp> {
        self.heap.get(self.place(key)?).map(|entry| entry.at)
    }

    /// Sets or moves one.
    pub(crate) fn set(&mut self, key: usize, at: Timestamp) {
        let place = self.place(key).unwrap_or_else(|| {
            if self.places.len() <= key {
                self.places.resize(key + 1, NONE);
            }
            self.heap.push(Entry { at, key: key as u32 });
            self.note(self.heap.len() - 1);
            self.heap.len() - 1
        });
        if let Some(entry) = self.heap.get_mut(place) {
            entry.at = at;
        }
        self.sift(place);
    }

    /// Removes one.
    pub(crate) fn clear(&mut self, key: usize) {
        if let Some(place) = self.place(key) {
            self.remove(place);
        }
    }

    /// Removes one that is due.
    pub(crate) fn due(&mut self, now: Timestamp) -> Option<usize> {
        let first = *self.heap.first().filter(|first| first.at <= now)?;
        self.remove(0);
        Some(first.key as usize)
    }

    fn remove(&mut self, place: usize) {
        let removed = self.heap.swap_remove(place);
        if let Some(was) = self.places.get_mut(removed.key as usize) {
            *was = NONE;
        }
        if place < self.heap.len() {
            self.note(place);
            self.sift(place);
        }
    }

    #[inline]
    fn place(&self, key: usize) -> Option<usize> {
        self.places.get(key).filter(|place| **place != NONE).map(|place| *place as usize)
    }

    /// Moves an entry to where it belongs.
    fn sift(&mut self, mut place: usize) {
        let Some(at) = self.at(place) else { return };
        while let Some(parent) = place.checked_sub(1).map(|before| before / WIDTH)
            && self.at(parent).is_some_and(|above| at < above)
        {
            self.swap(place, parent);
            place = parent;
        }
        loop {
            let children = place * WIDTH + 1..(place * WIDTH + 1 + WIDTH).min(self.heap.len());
            let earliest = children.filter_map(|child| Some((self.at(child)?, child))).min();
            let Some((below, child)) = earliest.filter(|(below, _)| *below < at) else { break };
            debug_assert!(below < at);
            self.swap(place, child);
            place = child;
        }
    }

    fn at(&self, place: usize) -> Option<Timestamp> {
        self.heap.get(place).map(|entry| entry.at)
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    fn note(&mut self, place: usize) {
        if let Some(entry) = self.heap.get(place)
            && let Some(noted) = self.places.get_mut(entry.key as usize)
        {
            *noted = place as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_does_what_a_sorted_map_does() {
        let mut timers = Timers::default();
        let mut model: BTreeMap<usize, Timestamp> = BTreeMap::new();
        let mut random = 1_u64;
        for step in 0..50_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = (random >> 33) as usize % 100;
            let at = Timestamp::from_nanos(step + (random >> 40) % 300);
            match random >> 61 {
                0 => {
                    timers.clear(key);
                    model.remove(&key);
                }
                1 => {
                    let now = Timestamp::from_nanos(step);
                    while let Some(key) = timers.due(now) {
                        let at = model.remove(&key).unwrap();
                        assert!(at <= now && model.values().all(|other| at <= *other));
                    }
                    assert!(model.values().all(|at| *at > now));
                }
                _ => {
                    timers.set(key, at);
                    model.insert(key, at);
                }
            }
            assert_eq!(timers.next(), model.values().min().copied());
            assert_eq!(timers.get(key), model.get(&key).copied());
        }
    }
}
