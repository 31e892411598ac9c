//! The requests of a worker that are answered later.

use std::{collections::HashMap, sync::Arc};

use spop_core::{ConnectionId, TicketId};

use crate::responder::Cancelled;

/// Whom to tell when nobody waits any more.
#[derive(Debug, Default)]
pub(crate) struct Pending(HashMap<ConnectionId, HashMap<TicketId, Arc<Cancelled>>>);

impl Pending {
    pub(crate) fn insert(&mut self, connection: ConnectionId, ticket: TicketId, cancelled: Arc<Cancelled>) {
        self.0.entry(connection).or_default().insert(ticket, cancelled);
    }

    /// The answer is there.
    pub(crate) fn remove(&mut self, connection: ConnectionId, ticket: TicketId) -> Option<Arc<Cancelled>> {
        let tickets = self.0.get_mut(&connection)?;
        let removed = tickets.remove(&ticket);
        if tickets.is_empty() {
            self.0.remove(&connection);
        }
        removed
    }

    pub(crate) fn cancel(&mut self, connection: ConnectionId, ticket: TicketId) {
        if let Some(cancelled) = self.remove(connection, ticket) {
            cancelled.set();
        }
    }

    pub(crate) fn cancel_all(&mut self, connection: ConnectionId) {
        if let Some(tickets) = self.0.remove(&connection) {
            for cancelled in tickets.values() {
                cancelled.set();
            }
        }
    }
}
