//! The connections of one engine. No step depends on how many there are, or on how many NOTIFYs the others have: a peer can
//! have thousands of both, and reset all its connections at once.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::ops::Bound;

use super::{Held, Route};
use crate::{ConnectionId, Ticket, Timestamp, agent::TicketId, frame::Ids, steps::step};

/// The most siblings whose send backlogs are compared for one answer.
pub const SIBLINGS: usize = 8;

/// The send backlog of a connection that takes no answers of siblings now.
pub const FULL: usize = usize::MAX - 1;

#[derive(Debug, Default)]
pub(super) struct Engine {
    /// The connections, each with the identifiers of the NOTIFYs that it received. Some are not waiting any more: they are
    /// removed before the list grows.
    members: BTreeMap<ConnectionId, Vec<Ids>>,
    /// The members that can send an answer, as far as is known. Not those that were full when they were asked.
    senders: BTreeSet<ConnectionId>,
    /// The sibling that was asked last.
    asked: ConnectionId,
    /// The NOTIFYs, and when they arrived.
    waiting: BTreeMap<Ids, (Waiting, Timestamp)>,
    /// Connections that have left, each with the identifiers of its NOTIFYs then, and how many of these still wait.
    left: BTreeMap<ConnectionId, (Vec<Ids>, usize)>,
    /// How many of `waiting` were received by a connection that has left.
    orphans: usize,
}

/// An unanswered NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) home: ConnectionId,
    pub(super) ticket: TicketId,
}

/// What a connection leaves behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    NotJoined,
    /// It was the last of its engine.
    Last,
    /// Siblings can answer so many of its NOTIFYs. The others were removed.
    Orphans(usize, Vec<TicketId>),
}

impl Engine {
    pub(super) fn join(&mut self, connection: ConnectionId) {
        // It has left before under the same identifier: its orphans are its own again.
        let (ids, orphans) = self.left.remove(&connection).unwrap_or_default();
        self.orphans -= orphans;
        self.members.insert(connection, ids);
        self.senders.insert(connection);
    }

    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.members.contains_key(&connection)
    }

    pub(super) fn connections(&self) -> usize {
        self.members.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn orphans(&self) -> usize {
        self.orphans
    }

    pub(super) fn is_waiting(&self, ids: Ids) -> bool {
        self.waiting.contains_key(&ids)
    }

    /// The connections that have left and have NOTIFYs unanswered.
    pub(super) fn departed(self) -> impl Iterator<Item = ConnectionId> {
        self.left.into_keys()
    }

    /// Records a NOTIFY, unless a newer one with the same identifiers was recorded before.
    pub(super) fn hold(&mut self, ids: Ids, waiting: Waiting, arrived: Timestamp) -> Held {
        let Some(list) = self.members.get_mut(&waiting.home) else { return Held::Recorded };
        let older = match self.waiting.get(&ids) {
            Some((other, at)) if other.home != waiting.home && *at > arrived => return Held::Superseded,
            known => known.map(|(older, _)| *older).filter(|older| older.home != waiting.home),
        };
        if list.len() == list.capacity() {
            let capacity = list.capacity();
            still_waiting(list, &self.waiting, waiting.home);
            if list.len() > capacity / 2 {
                list.reserve(capacity);
            }
        }
        list.push(ids);
        self.waiting.insert(ids, (waiting, arrived));
        older.map_or(Held::Recorded, |older| Held::Supersedes(older.home, older.ticket))
    }

    /// Removes a NOTIFY. False if it is not waiting.
    pub(super) fn remove(&mut self, ids: Ids, waiting: Waiting) -> bool {
        let waits = self.waiting.get(&ids).is_some_and(|(known, _)| *known == waiting);
        if waits {
            self.waiting.remove(&ids);
        }
        waits
    }

    /// A NOTIFY of this connection is not waiting any more. True if the connection has left, and it was its last.
    pub(super) fn answered(&mut self, home: ConnectionId) -> bool {
        let Some((_, waiting)) = self.left.get_mut(&home) else { return false };
        self.orphans -= 1;
        *waiting -= 1;
        let last = *waiting == 0;
        if last {
            self.left.remove(&home);
        }
        last
    }

    /// Removes a connection, and those of its NOTIFYs that exceed the limit of orphans.
    pub(super) fn leave(&mut self, connection: ConnectionId, max_orphans: usize) -> Left {
        let Some(mut list) = self.members.remove(&connection) else { return Left::NotJoined };
        self.senders.remove(&connection);
        if self.members.is_empty() {
            return Left::Last;
        }
        still_waiting(&mut list, &self.waiting, connection);
        let kept = list.len().min(max_orphans.saturating_sub(self.orphans));
        let removed = list.drain(kept..).filter_map(|ids| self.waiting.remove(&ids));
        let removed = removed.map(|(waiting, _)| waiting.ticket).collect();
        if kept > 0 {
            self.orphans += kept;
            self.left.insert(connection, (list, kept));
        }
        Left::Orphans(kept, removed)
    }

    /// Removes the NOTIFYs of a connection that has left; `None` if it has none.
    pub(super) fn expire(&mut self, home: ConnectionId) -> Option<Vec<(Ids, TicketId)>> {
        let (mut list, waiting) = self.left.remove(&home)?;
        self.orphans -= waiting;
        still_waiting(&mut list, &self.waiting, home);
        let expired = list.into_iter().filter_map(|ids| Some((ids, self.waiting.remove(&ids)?.0.ticket)));
        Some(expired.collect())
    }

    /// A member that was full can send answers again.
    pub(super) fn has_room(&mut self, connection: ConnectionId) {
        if self.has(connection) {
            self.senders.insert(connection);
        }
    }

    /// The connection with the smallest send backlog of home and some siblings; home if several have it. Fast path: a home with
    /// an empty queue needs no comparison. A full home is chosen if no sibling can be, unless it has `released` the NOTIFY: what
    /// is in flight there bounds its own answers only.
    pub(super) fn choose(
        &mut self,
        ticket: Ticket,
        released: bool,
        mut backlog: impl FnMut(ConnectionId) -> Option<usize>,
    ) -> Route {
        let home = ticket.connection();
        let own = self.has(home).then(|| backlog(home)).flatten();
        let own = own.filter(|bytes| !released || *bytes != FULL);
        if own.is_some() && self.senders.len() < self.members.len() {
            // It may have been removed while it was full.
            self.senders.insert(home);
        }
        if own == Some(0) {
            return Route::Home(ticket);
        }
        // Home before siblings with as much to send.
        let mut best = own.map(|bytes| (bytes, false, home));
        let (mut first, mut left) = (None, SIBLINGS);
        while left > 0
            && let Some(sibling) = self.next_sender()
            && first != Some(sibling)
        {
            step();
            self.asked = sibling;
            let bytes = if sibling == home { own } else { backlog(sibling) };
            let Some(bytes) = bytes.filter(|bytes| *bytes != FULL) else {
                // It is about to leave, or full until it has room again. It is removed here, or each answer would ask all of those.
                self.senders.remove(&sibling);
                continue;
            };
            first = first.or(Some(sibling));
            left -= usize::from(sibling != home);
            let candidate = (bytes, sibling != home, sibling);
            best = Some(best.map_or(candidate, |best| best.min(candidate)));
        }
        match best {
            Some((_, false, _)) => Route::Home(ticket),
            Some((_, true, sibling)) => Route::Sibling(sibling, ticket),
            None => Route::Dropped(ticket),
        }
    }

    /// The sender after the one that was asked last, in turn.
    fn next_sender(&self) -> Option<ConnectionId> {
        let after = (Bound::Excluded(self.asked), Bound::Unbounded);
        self.senders.range(after).next().or_else(|| self.senders.first()).copied()
    }
}

/// Sorts a connection's identifiers, and removes those of NOTIFYs that are not waiting any more.
fn still_waiting(list: &mut Vec<Ids>, waiting: &BTreeMap<Ids, (Waiting, Timestamp)>, home: ConnectionId) {
    list.sort_unstable();
    list.dedup();
    list.retain(|ids| {
        step();
        waiting.get(ids).is_some_and(|(waiting, _)| waiting.home == home)
    });
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use alloc::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::steps::steps_of;

    fn at(connection: u64, ticket: u64) -> Waiting {
        Waiting { home: ConnectionId(connection), ticket: TicketId(ticket) }
    }

    fn engine(connections: u64) -> Engine {
        let mut engine = Engine::default();
        (0..connections).for_each(|connection| engine.join(ConnectionId(connection)));
        engine
    }

    #[test]
    fn a_connection_that_leaves_costs_what_it_holds_itself() {
        const CONNECTIONS: u64 = 1_000;
        const EACH: u64 = 4;
        let mut engine = engine(CONNECTIONS);
        let hold = steps_of(|| {
            for n in 0..CONNECTIONS * EACH {
                let held = engine.hold(Ids::new(n, 1), at(n % CONNECTIONS, n), Timestamp::ZERO);
                assert_eq!(held, Held::Recorded);
            }
        });
        assert!(hold as u64 <= 2 * CONNECTIONS * EACH, "{hold} steps to record them");
        let leave = steps_of(|| {
            for connection in 0..CONNECTIONS - 1 {
                assert_eq!(
                    engine.leave(ConnectionId(connection), usize::MAX),
                    Left::Orphans(EACH as usize, Vec::new())
                );
            }
        });
        assert!(leave as u64 <= CONNECTIONS * EACH, "{leave} steps to leave");
        assert_eq!(engine.orphans as u64, (CONNECTIONS - 1) * EACH);
        let expire = steps_of(|| {
            for connection in 0..CONNECTIONS - 1 {
                let expired = engine.expire(ConnectionId(connection)).unwrap();
                assert_eq!(expired.len() as u64, EACH);
            }
        });
        assert!(expire as u64 <= CONNECTIONS * EACH, "{expire} steps to expire");
        assert_eq!((engine.orphans, engine.waiting()), (0, EACH as usize));
    }

    fn ticket(home: u64) -> Ticket {
        let name = Arc::new(Bytes::from_static(b"e"));
        Ticket::in_place_of(TicketId(1), ConnectionId(home), Ids::new(1, 1), &name)
    }

    #[test]
    fn a_choice_asks_a_few_siblings_in_turn() {
        const CONNECTIONS: u64 = 1_000;
        let mut engine = engine(CONNECTIONS);
        let mut asked = BTreeMap::new();
        for _ in 0..CONNECTIONS {
            let mut now = 0;
            let route = engine.choose(ticket(5), false, |connection| {
                now += 1;
                *asked.entry(connection).or_insert(0) += 1;
                Some(if connection == ConnectionId(5) { 10_000 } else { 100 + connection.0 as usize })
            });
            assert!(matches!(route, Route::Sibling(..)));
            assert!(now <= 1 + SIBLINGS, "{now} connections were asked");
        }
        assert_eq!(asked.remove(&ConnectionId(5)), Some(1_000));
        assert_eq!(asked.len() as u64, CONNECTIONS - 1);
        assert!(asked.values().all(|times| (7..=9).contains(times)), "{asked:?}");
    }

    #[test]
    fn the_smallest_backlog_of_those_that_are_asked_counts() {
        let mut engine = engine(SIBLINGS as u64 + 1);
        for free in 1..=SIBLINGS as u64 {
            let route =
                engine.choose(ticket(0), false, |connection| Some(1 + usize::from(connection.0 != free)));
            assert!(matches!(route, Route::Sibling(sibling, _) if sibling.0 == free));
        }
        assert!(matches!(engine.choose(ticket(3), false, |_| Some(7)), Route::Home(_)));
        assert!(matches!(engine.choose(ticket(99), false, |_| Some(7)), Route::Sibling(..)));
    }

    #[test]
    fn those_that_are_full_are_asked_once_until_they_have_room() {
        const CONNECTIONS: u64 = 1_000;
        let mut engine = engine(CONNECTIONS);
        let (home, free) = (ConnectionId(CONNECTIONS), ConnectionId(CONNECTIONS - 1));
        let mut choose = |backlogs: &mut dyn FnMut(ConnectionId) -> usize| {
            engine.choose(ticket(home.0), true, |connection| Some(backlogs(connection)))
        };
        let mut asked = 0;
        for _ in 0..10 {
            let route = choose(&mut |connection| {
                asked += 1;
                if connection == free { 10 } else { FULL }
            });
            assert!(matches!(route, Route::Sibling(sibling, _) if sibling == free));
        }
        assert!(asked <= CONNECTIONS + 10, "{asked} questions");
        assert!(matches!(choose(&mut |_| FULL), Route::Dropped(_)));
        assert!(matches!(choose(&mut |_| 0), Route::Dropped(_)), "none has said that it has room");
        engine.has_room(ConnectionId(3));
        engine.has_room(home);
        let route = engine.choose(ticket(home.0), true, |_| Some(10));
        assert!(matches!(route, Route::Sibling(ConnectionId(3), _)));
    }

    #[test]
    fn one_that_can_send_nothing_any_more_is_asked_once() {
        const CONNECTIONS: u64 = 1_000;
        let mut engine = engine(CONNECTIONS);
        let last = ConnectionId(CONNECTIONS - 1);
        let mut asked = 0;
        let steps = steps_of(|| {
            for _ in 0..CONNECTIONS {
                let route = engine.choose(ticket(5), false, |connection| {
                    asked += 1;
                    (connection == last).then_some(10)
                });
                assert!(matches!(route, Route::Sibling(sibling, _) if sibling == last));
            }
        });
        assert!(
            asked <= 3 * CONNECTIONS && steps as u64 <= 3 * CONNECTIONS,
            "{asked} questions, {steps} steps"
        );
        assert!(matches!(engine.choose(ticket(5), false, |_| None), Route::Dropped(_)));
    }

    #[test]
    fn what_was_answered_takes_no_memory() {
        let mut engine = engine(2);
        for n in 0..10_000 {
            let _ = engine.hold(Ids::new(n, 1), at(0, n), Timestamp::ZERO);
            if n >= 10 {
                assert!(engine.remove(Ids::new(n - 10, 1), at(0, n - 10)));
            }
        }
        let list = &engine.members[&ConnectionId(0)];
        assert!(list.capacity() <= 64, "{} identifiers for 10 that wait", list.capacity());
        // The same identifiers again are one NOTIFY.
        for n in 0..100 {
            let _ = engine.hold(Ids::new(7, 1), at(0, 20_000 + n), Timestamp::ZERO);
        }
        assert_eq!(engine.leave(ConnectionId(0), 100), Left::Orphans(11, Vec::new()));
        assert_eq!((engine.orphans, engine.waiting()), (11, 11));
        assert!(engine.remove(Ids::new(7, 1), at(0, 20_099)) && !engine.answered(ConnectionId(0)));
        assert_eq!(engine.orphans, 10);
    }
}
