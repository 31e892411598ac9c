//! The NOTIFYs of a connection that wait for their answers.

use alloc::vec::Vec;

use hashbrown::HashTable;

use super::ticket::TicketId;
use crate::{Timestamp, frame::Ids};

/// No slot.
const NONE: u32 = u32::MAX;

/// How many slots a connection without requests may keep.
const KEEP: usize = 20;

/// Up to how many are found by going through them; more are indexed.
const FEW: usize = 8;

/// Slots that are found by ticket or by identifiers, and kept in the order of arrival.
///
/// Slots are used again under a new generation, so that a ticket is never taken for its namesake.
#[derive(Debug)]
pub(super) struct Flight {
    slots: Vec<Slot>,
    /// The slots by their identifiers. Built when there are more than a few, and kept until none waits.
    by_ids: HashTable<u32>,
    indexed: bool,
    free: u32,
    oldest: u32,
    newest: u32,
    waiting: usize,
    /// Answered, but not all of the answer has left.
    unsent: usize,
    /// The generation that new slots begin with.
    epoch: u32,
}

#[derive(Debug)]
struct Slot {
    ids: Ids,
    arrived: Timestamp,
    generation: u32,
    /// The slots that arrived before and after; of a free slot, `next` is the next free one.
    previous: u32,
    next: u32,
    taken: bool,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            by_ids: HashTable::new(),
            indexed: false,
            free: NONE,
            oldest: NONE,
            newest: NONE,
            waiting: 0,
            unsent: 0,
            epoch: 0,
        }
    }

    /// How many wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many wait for an answer or for their answer to leave.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.waiting + self.unsent
    }

    /// The ticket that waits under these identifiers.
    #[inline]
    pub(super) fn find(&self, ids: Ids) -> Option<TicketId> {
        let slot = if self.indexed {
            *self.by_ids.find(hash(ids), |&slot| self.get(slot).is_some_and(|slot| slot.ids == ids))?
        } else {
            self.in_order().find(|(_, slot)| slot.ids == ids)?.0
        };
        self.get(slot).map(|found| TicketId { slot, generation: found.generation })
    }

    /// Those that wait, in the order of arrival.
    fn in_order(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let mut next = self.oldest;
        core::iter::from_fn(move || {
            let (index, slot) = (next, self.get(next)?);
            next = slot.next;
            Some((index, slot))
        })
    }

    /// The one that waits longest, and since when.
    pub(super) fn oldest(&self) -> Option<(TicketId, Ids, Timestamp)> {
        let slot = self.get(self.oldest)?;
        Some((TicketId { slot: self.oldest, generation: slot.generation }, slot.ids, slot.arrived))
    }

    /// Adds one whose identifiers do not wait already.
    #[inline]
    pub(super) fn insert(&mut self, ids: Ids, arrived: Timestamp) -> TicketId {
        let previous = self.newest;
        let fresh = Slot { ids, arrived, generation: self.epoch, previous, next: NONE, taken: true };
        let (index, generation) = if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let index = self.free;
            self.free = slot.next;
            let generation = slot.generation.wrapping_add(1);
            *slot = Slot { generation, ..fresh };
            (index, generation)
        } else {
            self.slots.push(fresh);
            (self.slots.len() as u32 - 1, self.epoch)
        };
        match self.get_mut(previous) {
            Some(slot) => slot.next = index,
            None => self.oldest = index,
        }
        self.newest = index;
        self.waiting += 1;
        if self.indexed {
            self.index(index, ids);
        } else if self.waiting > FEW {
            self.index_all();
        }
        TicketId { slot: index, generation }
    }

    fn index(&mut self, index: u32, ids: Ids) {
        let slots = &self.slots;
        self.by_ids.insert_unique(hash(ids), index, |&slot| {
            slots.get(slot as usize).map_or(0, |slot| hash(slot.ids))
        });
    }

    #[cold]
    fn index_all(&mut self) {
        self.indexed = true;
        let mut next = self.oldest;
        while let Some(slot) = self.get(next) {
            let (index, ids) = (next, slot.ids);
            next = slot.next;
            self.index(index, ids);
        }
    }

    /// Removes one; `None` when it waits no more.
    #[inline]
    pub(super) fn remove(&mut self, id: TicketId) -> Option<Ids> {
        let free = self.free;
        let slot = self.slots.get_mut(id.slot as usize)?;
        if !slot.taken || slot.generation != id.generation {
            return None;
        }
        slot.taken = false;
        let (ids, previous, next) = (slot.ids, slot.previous, slot.next);
        slot.next = free;
        self.free = id.slot;
        match self.get_mut(previous) {
            Some(slot) => slot.next = next,
            None => self.oldest = next,
        }
        match self.get_mut(next) {
            Some(slot) => slot.previous = previous,
            None => self.newest = previous,
        }
        self.waiting -= 1;
        if self.indexed {
            self.unindex(id.slot, ids);
        }
        Some(ids)
    }

    fn unindex(&mut self, index: u32, ids: Ids) {
        if let Ok(entry) = self.by_ids.find_entry(hash(ids), |&slot| slot == index) {
            entry.remove();
        }
        self.indexed = self.waiting > 0;
    }

    /// Whether this one still waits.
    pub(super) fn contains(&self, id: TicketId) -> bool {
        self.get(id.slot).is_some_and(|slot| slot.taken && slot.generation == id.generation)
    }

    /// An answer was queued.
    #[inline]
    pub(super) fn answered(&mut self) {
        self.unsent += 1;
    }

    /// All that was queued has left.
    #[inline]
    pub(super) fn all_sent(&mut self) {
        self.unsent = 0;
    }

    /// Forgets all; returns how many waited. Their tickets stay worthless, because the slots keep their generations.
    pub(super) fn clear(&mut self) -> usize {
        let waiting = self.waiting;
        while let Some((id, ..)) = self.oldest() {
            self.remove(id);
        }
        self.unsent = 0;
        waiting
    }

    /// Gives memory back that a connection without requests does not need.
    pub(super) fn shrink(&mut self) {
        if self.waiting == 0 && self.slots.len() > KEEP {
            // Tickets that were cancelled may still be about: generations must not start over.
            let newest = self.slots.iter().map(|slot| slot.generation).max();
            self.epoch = newest.unwrap_or(self.epoch).wrapping_add(1);
            self.slots = Vec::new();
            self.free = NONE;
            self.by_ids = HashTable::new();
        }
    }

    fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)
    }
}

/// Spreads identifiers. A peer that makes them collide slows down its own connection only, and by no more than its limit
/// of messages in flight.
#[inline]
fn hash(ids: Ids) -> u64 {
    let mixed = (ids.stream ^ ids.frame.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::ZERO;

    #[test]
    fn a_slot_used_again_is_another_ticket() {
        let mut flight = Flight::new();
        let ids = Ids::new(1, 1);
        let first = flight.insert(ids, AT);
        assert_eq!(flight.find(ids), Some(first));
        assert_eq!(flight.remove(first), Some(ids));
        assert_eq!(flight.remove(first), None);
        let second = flight.insert(ids, AT);
        assert_ne!(first, second);
        assert!(flight.contains(second) && !flight.contains(first));
        assert_eq!(flight.remove(first), None);
        assert_eq!(flight.find(ids), Some(second));
    }

    #[test]
    fn the_oldest_is_known_whatever_is_removed() {
        let mut flight = Flight::new();
        let tickets: Vec<_> =
            (0..5).map(|n| flight.insert(Ids::new(n, 1), Timestamp::from_millis(n))).collect();
        for index in [1, 0, 4, 2] {
            flight.remove(tickets[index]);
        }
        assert_eq!(flight.oldest().map(|(id, ..)| id), Some(tickets[3]));
        let later = flight.insert(Ids::new(9, 9), Timestamp::from_millis(9));
        flight.remove(tickets[3]);
        assert_eq!(flight.oldest().map(|(id, ..)| id), Some(later));
        assert_eq!(flight.clear(), 1);
        assert_eq!((flight.waiting(), flight.oldest()), (0, None));
    }

    #[test]
    fn an_answer_counts_until_it_has_left() {
        let mut flight = Flight::new();
        let ticket = flight.insert(Ids::new(1, 1), AT);
        flight.remove(ticket);
        flight.answered();
        assert_eq!((flight.waiting(), flight.len()), (0, 1));
        flight.all_sent();
        assert_eq!(flight.len(), 0);
    }

    proptest::proptest! {
        #[test]
        fn any_order_of_steps_finds_what_waits(steps: Vec<(bool, u8)>) {
            let mut flight = Flight::new();
            let mut model: Vec<(Ids, TicketId)> = Vec::new();
            for (add, n) in steps {
                let ids = Ids::new(u64::from(n % 16), u64::from(n / 128));
                let found = model.iter().position(|(known, _)| *known == ids);
                assert_eq!(flight.find(ids), found.map(|index| model[index].1));
                match (add, found) {
                    (true, None) => model.push((ids, flight.insert(ids, AT))),
                    (false, Some(index)) => assert_eq!(flight.remove(model.remove(index).1), Some(ids)),
                    _ => {}
                }
                assert_eq!(flight.waiting(), model.len());
                assert_eq!(flight.oldest().map(|(id, ids, _)| (ids, id)), model.first().copied());
            }
        }
    }
}
