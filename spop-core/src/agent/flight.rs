//! The requests in flight: NOTIFYs of a connection that are not answered.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

use super::ticket::TicketId;
use crate::{Timestamp, frame::Ids, steps::step};

/// Up to this many slots are searched linearly; more are indexed.
const LINEAR_MAX: usize = 64;

/// The requests in flight, in the order of arrival. Ticket numbers are consecutive and never reused, so the position of a
/// ticket follows from its distance to the first.
///
/// HAProxy numbers its streams upwards: identifiers above all others are new without a search.
///
/// Counts have 32 bits, because each connection has them: 2^32 requests would take 200 GB of slots.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// In the order of tickets. A slot answered before an older one stays, with `waits` false.
    slots: Vec<Slot>,
    /// The index of the oldest that waits, if any does.
    oldest: u32,
    /// The number that waits.
    waiting: u32,
    /// The memory of the payloads of those that wait.
    memory: usize,
    /// At least the highest identifiers of those that wait.
    highest: Ids,
    /// Tickets by identifiers. Built by the first search among more than `LINEAR_MAX`, and kept until none waits.
    ///
    /// Sorted, not hashed: the peer chooses the identifiers, and the core has no source of random seeds.
    #[expect(clippy::box_collection, reason = "each connection has one, and few are built")]
    by_ids: Option<Box<BTreeMap<Ids, TicketId>>>,
    /// Requests whose answer is queued and not sent.
    unsent: u32,
    /// The number of the next ticket.
    next: u64,
}

#[derive(Debug)]
struct Slot {
    ticket: TicketId,
    ids: Ids,
    arrived: Timestamp,
    waits: bool,
    /// The memory of its payload.
    memory: u32,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The number of unanswered requests.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting as usize
    }

    /// The number of requests that are unanswered, or whose answer is not sent.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.waiting as usize + self.unsent as usize
    }

    /// The memory of the payloads of unanswered requests, in bytes.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// The unanswered ticket with these identifiers.
    #[inline]
    pub(super) fn find(&mut self, ids: Ids) -> Option<TicketId> {
        if self.waiting == 0 || ids > self.highest { None } else { self.search(ids) }
    }

    fn search(&mut self, ids: Ids) -> Option<TicketId> {
        // Slots that do not wait count as well: there may be many more of them, after a burst.
        let slots = self.slots.get(self.oldest as usize..).unwrap_or_default();
        let mut waiting = slots.iter().inspect(|_| step()).filter(|slot| slot.waits);
        if slots.len() <= LINEAR_MAX && self.by_ids.is_none() {
            return waiting.find(|slot| slot.ids == ids).map(|slot| slot.ticket);
        }
        let index = self
            .by_ids
            .get_or_insert_with(|| Box::new(waiting.map(|slot| (slot.ids, slot.ticket)).collect()));
        index.get(&ids).copied()
    }

    /// The oldest unanswered request, and when it arrived.
    #[inline]
    pub(super) fn oldest(&self) -> Option<(TicketId, Ids, Timestamp)> {
        let slot = self.slots.get(self.oldest as usize)?;
        Some((slot.ticket, slot.ids, slot.arrived))
    }

    /// Adds a request whose payload takes this much memory. Its identifiers must not be in flight.
    #[inline]
    pub(super) fn insert(&mut self, ids: Ids, arrived: Timestamp, memory: usize) -> TicketId {
        let ticket = TicketId(self.next);
        self.next += 1;
        if self.waiting == 0 || ids > self.highest {
            self.highest = ids;
        }
        self.waiting += 1;
        // A frame is no longer than that; a payload in fragments would need a limit above 4 GiB.
        let memory = u32::try_from(memory).unwrap_or(u32::MAX);
        self.memory += memory as usize;
        if self.slots.len() == self.slots.capacity() {
            self.compact();
        }
        self.slots.push(Slot { ticket, ids, arrived, waits: true, memory });
        if let Some(index) = &mut self.by_ids {
            index.insert(ids, ticket);
        }
        ticket
    }

    /// Removes answered slots, if they are at least half of all, instead of growing.
    #[cold]
    fn compact(&mut self) {
        if self.waiting() <= self.slots.len() / 2 {
            self.slots.retain(|slot| slot.waits);
            self.oldest = 0;
        }
    }

    /// The index of an unanswered ticket.
    #[inline]
    fn position(&self, ticket: TicketId) -> Option<usize> {
        let oldest = self.oldest as usize;
        let slots = self.slots.get(oldest..)?;
        let ahead = ticket.0.checked_sub(slots.first()?.ticket.0)? as usize;
        let waits = |at: usize| slots.get(at).is_some_and(|slot| slot.ticket == ticket && slot.waits);
        if waits(ahead) {
            return Some(oldest + ahead);
        }
        // The slots were compacted: the ticket is nearer to the first than its number says.
        let at = slots.binary_search_by_key(&ticket, |slot| slot.ticket).ok()?;
        waits(at).then_some(oldest + at)
    }

    /// Removes a request; returns its identifiers and when it arrived. `None` if it was removed before.
    #[inline]
    pub(super) fn remove(&mut self, ticket: TicketId) -> Option<(Ids, Timestamp)> {
        if self.waiting == 1 {
            // Slots behind the oldest do not wait.
            let slot = self.slots.get(self.oldest as usize).filter(|slot| slot.ticket == ticket)?;
            let removed = (slot.ids, slot.arrived);
            self.waiting = 0;
            self.memory = 0;
            self.slots.clear();
            self.oldest = 0;
            self.by_ids = None;
            return Some(removed);
        }
        let at = self.position(ticket)?;
        let slot = self.slots.get_mut(at)?;
        slot.waits = false;
        let removed = (slot.ids, slot.arrived);
        self.waiting -= 1;
        self.memory -= slot.memory as usize;
        if at == self.oldest as usize {
            let waiting = self.slots.get(at..).unwrap_or_default();
            self.oldest += waiting.iter().take_while(|slot| !slot.waits).count() as u32;
        }
        if let Some(index) = &mut self.by_ids {
            index.remove(&removed.0);
        }
        Some(removed)
    }

    /// Whether this ticket is unanswered.
    pub(super) fn contains(&self, ticket: TicketId) -> bool {
        self.position(ticket).is_some()
    }

    /// An answer was queued.
    #[inline]
    pub(super) fn answered(&mut self) {
        self.unsent += 1;
    }

    /// All queued answers were sent.
    #[inline]
    pub(super) fn all_sent(&mut self) {
        self.unsent = 0;
    }

    /// Removes all; returns the number of unanswered requests.
    pub(super) fn clear(&mut self) -> usize {
        let waiting = self.waiting();
        *self = Self { next: self.next, ..Self::default() };
        waiting
    }

    /// Frees the slots if no request is in flight.
    pub(super) fn trim(&mut self) {
        if self.waiting == 0 {
            self.slots = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::ZERO;

    #[test]
    fn identifiers_that_come_again_are_another_ticket() {
        let mut flight = Flight::new();
        let ids = Ids::new(1, 1);
        let first = flight.insert(ids, AT, 1);
        assert_eq!(flight.find(ids), Some(first));
        assert_eq!(flight.remove(first).map(|(ids, _)| ids), Some(ids));
        assert_eq!(flight.remove(first), None);
        let second = flight.insert(ids, AT, 1);
        assert_ne!(first, second);
        assert!(flight.contains(second) && !flight.contains(first));
        assert_eq!(flight.remove(first), None);
        assert_eq!(flight.find(ids), Some(second));
    }

    #[test]
    fn the_oldest_is_known_whatever_is_removed() {
        let mut flight = Flight::new();
        let tickets: Vec<_> =
            (0..5).map(|n| flight.insert(Ids::new(n, 1), Timestamp::from_millis(n), 1)).collect();
        for index in [1, 0, 4, 2] {
            flight.remove(tickets[index]);
        }
        assert_eq!(flight.oldest().map(|(id, ..)| id), Some(tickets[3]));
        let later = flight.insert(Ids::new(9, 9), Timestamp::from_millis(9), 1);
        flight.remove(tickets[3]);
        assert_eq!(flight.oldest().map(|(id, ..)| id), Some(later));
        assert_eq!(flight.clear(), 1);
        assert_eq!((flight.waiting(), flight.oldest()), (0, None));
    }

    #[test]
    fn an_answer_counts_until_it_has_left() {
        let mut flight = Flight::new();
        let ticket = flight.insert(Ids::new(1, 1), AT, 1);
        flight.remove(ticket);
        flight.answered();
        assert_eq!((flight.waiting(), flight.len()), (0, 1));
        flight.all_sent();
        assert_eq!(flight.len(), 0);
    }

    #[test]
    fn one_that_never_ends_holds_back_no_memory() {
        let mut flight = Flight::new();
        let stuck = flight.insert(Ids::new(0, 1), AT, 1);
        for n in 1..10_000 {
            let (first, second) =
                (flight.insert(Ids::new(n, 1), AT, 1), flight.insert(Ids::new(n, 2), AT, 1));
            assert_eq!(flight.remove(second).map(|(ids, _)| ids), Some(Ids::new(n, 2)));
            assert_eq!(flight.remove(first).map(|(ids, _)| ids), Some(Ids::new(n, 1)));
            assert_eq!(flight.remove(first), None);
        }
        assert!(flight.slots.capacity() <= 8, "{} slots for one", flight.slots.capacity());
        assert_eq!(flight.oldest().map(|(id, ..)| id), Some(stuck));
        assert_eq!(flight.remove(stuck).map(|(ids, _)| ids), Some(Ids::new(0, 1)));
    }

    fn size(ids: Ids) -> usize {
        1 + ids.stream as usize
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_search_does_not_depend_on_how_many_there_are_or_were() {
        use crate::steps::steps_of;

        const MANY: u64 = 10_000;
        let mut flight = Flight::new();
        let tickets: Vec<_> = (0..MANY).map(|n| flight.insert(Ids::new(MANY + n, 1), AT, 1)).collect();
        let searches = |flight: &mut Flight| {
            steps_of(|| {
                for n in 0..MANY {
                    assert_eq!(flight.find(Ids::new(n, 1)), None);
                }
            })
        };
        let steps = searches(&mut flight);
        assert!(steps as u64 <= MANY, "{steps} steps among many that wait");
        // All but the first and the last: the slots between them stay.
        for ticket in &tickets[1..tickets.len() - 1] {
            flight.remove(*ticket);
        }
        flight.by_ids = None;
        let steps = searches(&mut flight);
        assert!(steps as u64 <= MANY, "{steps} steps among two that wait");
        assert_eq!(flight.find(Ids::new(MANY, 1)), Some(tickets[0]));
    }

    proptest::proptest! {
        #[test]
        fn any_order_of_steps_finds_what_waits(steps in proptest::collection::vec((0_u8..3, 0_u8..200), 0..1_000)) {
            let mut flight = Flight::new();
            let mut model: Vec<(Ids, TicketId)> = Vec::new();
            for (step, n) in steps {
                let ids = Ids::new(u64::from(n % 100), u64::from(n / 100));
                let found = model.iter().position(|(known, _)| *known == ids);
                assert_eq!(flight.find(ids), found.map(|index| model[index].1));
                match (step, found) {
                    (0 | 1, None) => model.push((ids, flight.insert(ids, AT, size(ids)))),
                    (2, Some(index)) => assert_eq!(flight.remove(model.remove(index).1).map(|(ids, _)| ids), Some(ids)),
                    (2, None) if !model.is_empty() => {
                        let (ids, ticket) = model.remove(usize::from(n) % model.len());
                        assert_eq!(flight.remove(ticket).map(|(ids, _)| ids), Some(ids));
                        assert!(flight.remove(ticket).is_none() && !flight.contains(ticket));
                    }
                    _ => {}
                }
                assert_eq!(flight.waiting(), model.len());
                assert_eq!(flight.memory(), model.iter().map(|(ids, _)| size(*ids)).sum::<usize>());
                assert_eq!(flight.oldest().map(|(id, ids, _)| (ids, id)), model.first().copied());
            }
        }
    }
}
