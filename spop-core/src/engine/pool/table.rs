//! Entries with ascending numbers, found without a search.

use alloc::vec::Vec;

use crate::steps::step;

/// The first size of a table.
const LEAST: usize = 64;

/// Entries by number. The low bits of a number are the index of its slot; a number whose slot is taken is skipped, so numbers
/// ascend and are never used again. At most half of the slots are taken.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// As many as a power of two.
    slots: Vec<Option<(u64, T)>>,
    len: usize,
    next: u64,
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), len: 0, next: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The numbers of the entries to come are not below this one.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Adds an entry, made from its number, and returns the number.
    #[inline]
    pub(super) fn insert_with(&mut self, make: impl FnOnce(u64) -> T) -> u64 {
        if self.len >= self.slots.len() / 2 {
            self.grow();
        }
        // A run of taken slots is passed once in as many insertions as there are slots.
        loop {
            step();
            let number = self.next;
            self.next += 1;
            let index = self.index(number);
            if let Some(slot @ None) = self.slots.get_mut(index) {
                *slot = Some((number, make(number)));
                self.len += 1;
                return number;
            }
        }
    }

    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        match self.slots.get(self.index(number)) {
            Some(Some((found, entry))) if *found == number => Some(entry),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let index = self.index(number);
        match self.slots.get_mut(index) {
            Some(Some((found, entry))) if *found == number => Some(entry),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let index = self.index(number);
        let slot = self.slots.get_mut(index)?;
        let (_, entry) = slot.take_if(|(found, _)| *found == number)?;
        self.len -= 1;
        Some(entry)
    }

    /// The numbers of all entries, in no order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().flatten().inspect(|_| step()).map(|(number, _)| *number)
    }

    /// All entries, in no order.
    #[cfg(test)]
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().map(|(_, entry)| entry)
    }

    fn index(&self, number: u64) -> usize {
        number as usize & self.slots.len().wrapping_sub(1)
    }

    #[cold]
    fn grow(&mut self) {
        let size = (2 * self.slots.len()).max(LEAST);
        let mut slots = Vec::new();
        slots.resize_with(size, || None);
        for (number, entry) in core::mem::replace(&mut self.slots, slots).into_iter().flatten() {
            let index = self.index(number);
            if let Some(slot) = self.slots.get_mut(index) {
                *slot = Some((number, entry));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn numbers_ascend_and_each_finds_its_entry() {
        let mut table = Table::new();
        let mut live = vec![];
        let mut last = None;
        for round in 0..20_000_u64 {
            let number = table.insert_with(|_| round);
            assert!(last.is_none_or(|last| last < number));
            last = Some(number);
            live.push((number, round));
            // Some stay, which later numbers must pass.
            if round % 7 != 0 || live.len() > 300 {
                let (number, entry) = live.swap_remove(round as usize * 31 % live.len());
                assert_eq!((table.remove(number), table.remove(number)), (Some(entry), None));
                assert_eq!(table.get(number), None);
            }
            assert_eq!(table.len(), live.len());
        }
        assert!(live.iter().all(|(number, entry)| table.get(*number) == Some(entry)));
        assert!(live.iter().all(|(number, entry)| table.get_mut(*number) == Some(&mut { *entry })));
        assert_eq!((table.values().count(), table.numbers().count()), (live.len(), live.len()));
        assert_eq!((table.get(u64::MAX), table.get(table.next())), (None, None));
        assert!(table.slots.len() <= 1_024, "{} slots", table.slots.len());
    }
}
