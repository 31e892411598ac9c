//! The connections of a server.

use std::sync::Arc;

use crate::Connection;

/// The connections of a server, each in a slot that it keeps: 8 bytes for a connection, where a hash table takes up to four times as
/// much.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    slots: Vec<Option<Arc<Connection>>>,
    free: Vec<u32>,
}

/// The slot of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Registry {
    pub(crate) fn insert(&mut self, connection: Arc<Connection>) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // There are not as many connections as that.
            (self.slots.len() - 1) as u32
        });
        if let Some(empty) = self.slots.get_mut(slot as usize) {
            *empty = Some(connection);
        }
        Slot(slot)
    }

    /// Removes a connection, once.
    pub(crate) fn remove(&mut self, Slot(slot): Slot) -> Option<Arc<Connection>> {
        let removed = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        if self.free.len() == self.slots.len() {
            // After a burst of connections, their memory is returned.
            *self = Self::default();
        }
        Some(removed)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.slots.iter().flatten()
    }
}
