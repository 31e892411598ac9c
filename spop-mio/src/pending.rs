//! The requests of a worker that are answered later.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use spop_core::{ConnectionId, Timestamp, agent::TicketId};
use spop_server::Cancelled;

use crate::responder::Wanted;

/// Whom to tell when nobody waits any more.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    requests: HashMap<ConnectionId, HashMap<TicketId, Arc<Wanted>>>,
    /// Connections that are gone, whose requests others of their engine can answer.
    orphans: HashMap<Bytes, Vec<ConnectionId>>,
    /// When the time is over for what they asked. No reactor watches it any more.
    overdue: VecDeque<(Timestamp, ConnectionId)>,
}

impl Pending {
    pub(crate) fn insert(&mut self, connection: ConnectionId, ticket: TicketId, wanted: Arc<Wanted>) {
        self.requests.entry(connection).or_default().insert(ticket, wanted);
    }

    /// The answer is there. `None` when nobody waits for it.
    pub(crate) fn remove(&mut self, connection: ConnectionId, ticket: TicketId) -> Option<Arc<Wanted>> {
        let tickets = self.requests.get_mut(&connection)?;
        let removed = tickets.remove(&ticket);
        if tickets.is_empty() {
            self.requests.remove(&connection);
        }
        removed
    }

    /// True when it waited.
    pub(crate) fn cancel(&mut self, connection: ConnectionId, ticket: TicketId, why: Cancelled) -> bool {
        self.remove(connection, ticket).map(|wanted| wanted.cancel(why)).is_some()
    }

    /// A connection is gone, and all that waits for it; returns how many that are.
    pub(crate) fn disconnect(&mut self, connection: ConnectionId) -> usize {
        let waiting = self.requests.remove(&connection).unwrap_or_default();
        for wanted in waiting.values() {
            wanted.cancel(Cancelled::Disconnected);
        }
        waiting.len()
    }

    /// A connection is gone, and others of its engine are left.
    pub(crate) fn orphan(&mut self, connection: ConnectionId, engine: &Bytes, until: Option<Timestamp>) {
        if self.requests.contains_key(&connection) {
            self.overdue.extend(until.map(|until| (until, connection)));
            let orphans = self.orphans.entry(engine.clone()).or_default();
            orphans.retain(|orphan| self.requests.contains_key(orphan));
            orphans.push(connection);
        }
    }

    /// When the time of an orphan is over next.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.overdue.front().map(|(until, _)| *until)
    }

    /// An orphan whose time is over; nobody waits for its answers any more.
    pub(crate) fn due(&mut self, now: Timestamp) -> Option<ConnectionId> {
        let (_, connection) = *self.overdue.front().filter(|(until, _)| *until <= now)?;
        self.overdue.pop_front();
        for wanted in self.requests.remove(&connection).into_iter().flat_map(HashMap::into_values) {
            wanted.cancel(Cancelled::TimedOut);
        }
        Some(connection)
    }

    /// The last connection of an engine is gone; returns how many requests of the others before it waited.
    pub(crate) fn abandon(&mut self, connection: ConnectionId, engine: &Bytes) -> usize {
        self.disconnect(connection);
        let orphans = self.orphans.remove(engine).unwrap_or_default();
        orphans.into_iter().map(|orphan| self.disconnect(orphan)).sum()
    }
}
