//! The buckets of all keys, in a fixed amount of memory.
//!
//! The table is set-associative: the hash of a key selects a set of slots. A slot is free when its bucket is full again, so expiry
//! needs neither a timer nor a sweep, and the work for a request does not depend on the number of keys. A map that is swept would
//! grow between two sweeps as fast as a client sends keys.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::rate::Nanos;

/// Slots of a set: with its lock, a set takes 512 bytes. With half of all slots taken, one set in 3,000 is full.
const SLOTS: usize = 31;

/// What happens to a key that is new, when there is no slot for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Of the others, the one that has used the least is forgotten.
    #[default]
    Open,
    /// It is limited.
    Closed,
}

/// Buckets by the hashes of their keys.
pub(crate) struct Table {
    sets: Box<[Set]>,
    when_full: WhenFull,
}

/// A set of slots, in cache lines of its own.
#[repr(align(64))]
struct Set(Mutex<Slots>);

struct Slots {
    keys: [u64; SLOTS],
    /// When the bucket of the key is full.
    full_at: [Nanos; SLOTS],
}

/// The slot of a key. It is locked.
pub(crate) struct Slot<'a> {
    slots: MutexGuard<'a, Slots>,
    index: usize,
    key: u64,
    full_at: Nanos,
    /// Another key has it, and will be forgotten.
    pub(crate) occupied: bool,
}

impl Table {
    /// A table for so many keys at once. It takes 33 bytes for each.
    pub(crate) fn new(keys: usize, when_full: WhenFull) -> Self {
        let sets = (2 * keys).div_ceil(SLOTS).max(1);
        let slots = || Set(Mutex::new(Slots { keys: [0; SLOTS], full_at: [0; SLOTS] }));
        Self { sets: (0..sets).map(|_| slots()).collect(), when_full }
    }

    /// The slot of a key. `None` if the key is new, there is no slot for it, and the table is [closed](WhenFull::Closed) then.
    #[inline]
    pub(crate) fn slot(&self, key: u64, now: Nanos) -> Option<Slot<'_>> {
        // The upper bits of the product: every set is as likely as any other.
        let number = (u128::from(key) * self.sets.len() as u128) >> 64;
        let slots = self.sets.get(number as usize)?.lock();
        if let Some(index) = slots.keys.iter().position(|found| *found == key) {
            let full_at = slots.full_at.get(index).copied().unwrap_or_default();
            return Some(Slot { slots, index, key, full_at, occupied: false });
        }
        self.new_slot(slots, key, now)
    }

    #[inline(never)]
    fn new_slot<'a>(&self, slots: MutexGuard<'a, Slots>, key: u64, now: Nanos) -> Option<Slot<'a>> {
        let first = slots.full_at.iter().enumerate().min_by_key(|(_, full_at)| **full_at);
        let (index, full_at) = first.map(|(index, full_at)| (index, *full_at))?;
        let occupied = full_at > now;
        if occupied && self.when_full == WhenFull::Closed {
            return None;
        }
        Some(Slot { slots, index, key, full_at: 0, occupied })
    }

    /// How many keys have buckets that are not full, of how many that fit. It takes each lock once.
    pub(crate) fn used(&self, now: Nanos) -> (usize, usize) {
        let in_set = |set: &Set| set.lock().full_at.iter().filter(|full_at| **full_at > now).count();
        (self.sets.iter().map(in_set).sum(), self.sets.len() * SLOTS)
    }
}

impl Set {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot<'_> {
    /// When the bucket of the key is full.
    pub(crate) const fn full_at(&self) -> Nanos {
        self.full_at
    }

    /// The key has this bucket from now on.
    #[inline]
    pub(crate) fn set(mut self, full_at: Nanos) {
        let Slots { keys, full_at: times } = &mut *self.slots;
        if let (Some(key), Some(time)) = (keys.get_mut(self.index), times.get_mut(self.index)) {
            (*key, *time) = (self.key, full_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::rate::Rate;

    /// Different in all bits, as hashes are.
    fn hash(key: u64) -> u64 {
        let mixed = (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn full_at(table: &Table, key: u64, now: Nanos) -> Nanos {
        table.slot(hash(key), now).unwrap().full_at()
    }

    #[test]
    fn a_set_takes_eight_cache_lines() {
        assert_eq!((size_of::<Set>(), align_of::<Set>()), (512, 64));
    }

    #[test]
    fn half_of_the_slots_serve_as_many_keys_as_were_asked_for() {
        const KEYS: u64 = 100_000;
        let table = Table::new(KEYS as usize, WhenFull::Closed);
        let set = |key| table.slot(hash(key), 1).map(|slot| slot.set(100)).is_some();
        let refused = (0..KEYS).filter(|key| !set(*key)).count() as u64;
        assert!(refused < KEYS / 1_000, "{refused}");
        assert_eq!(table.used(1).0 as u64, KEYS - refused);
        let kept =
            (0..KEYS).filter(|key| table.slot(hash(*key), 1).is_some_and(|slot| slot.full_at() == 100));
        assert_eq!(kept.count() as u64, KEYS - refused);
        // All have expired.
        assert_eq!(table.used(100).0, 0);
        let refused = (KEYS..2 * KEYS).filter(|key| table.slot(hash(*key), 100).is_none()).count();
        assert_eq!(refused, 0);
    }

    #[test]
    fn a_full_set_refuses_new_keys_or_forgets_the_one_that_has_used_the_least() {
        let of_one_set = |when_full| {
            let table = Table::new(1, when_full);
            for key in 0..SLOTS as u64 {
                table.slot(hash(key), 1).unwrap().set(100 + key);
            }
            assert_eq!(table.used(1), (SLOTS, SLOTS));
            table
        };
        let closed = of_one_set(WhenFull::Closed);
        assert!(closed.slot(hash(1_000), 99).is_none());
        assert_eq!(full_at(&closed, 0, 99), 100, "known keys have their slots");
        // The first has expired.
        assert!(closed.slot(hash(1_000), 100).is_some_and(|slot| !slot.occupied));

        let open = of_one_set(WhenFull::Open);
        let slot = open.slot(hash(1_000), 99).unwrap();
        assert!(slot.occupied);
        slot.set(200);
        assert_eq!(full_at(&open, 1_000, 99), 200);
        assert_eq!(full_at(&open, 0, 99), 0, "forgotten");
        for key in 1..SLOTS as u64 {
            assert_eq!(full_at(&open, key, 99), 100 + key);
        }
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        const BURST: usize = 100_000;
        let rate = Rate::new(1, Duration::from_secs(1), BURST as u64).unwrap();
        let table = Table::new(64, WhenFull::Closed);
        let take = || {
            let slot = table.slot(hash(7), 1).unwrap();
            let (taken, full_at) = rate.take(slot.full_at(), 1, 1);
            slot.set(full_at);
            !taken.limited
        };
        let passed = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..BURST).filter(|_| take()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(passed, BURST);
    }
}
