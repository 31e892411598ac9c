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
        if self.is_empty() {
            // After a burst of connections, their memory is returned.
            *self = Self::default();
        }
        Some(removed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.slots.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use spop_core::{Clock, ConnectionId, Timestamp, accept::Peer};

    use super::*;
    use crate::{Total, shutdown::Shutdown};

    #[test]
    fn a_slot_is_used_again_and_memory_is_returned_after_the_last() {
        let total = Total::new(usize::MAX);
        let shutdown = Arc::new(Shutdown::new(0, Clock::start()));
        let connection = |id| {
            let (id, peer) = (ConnectionId(id), Peer::unnamed());
            Arc::new(Connection::new(id, peer, Timestamp::ZERO, None, total.share(), shutdown.clone()))
        };
        let ids = |registry: &Registry| registry.iter().map(|one| one.id.0).collect::<Vec<_>>();
        let mut registry = Registry::default();
        let slots: Vec<_> = (0..100).map(|id| registry.insert(connection(id))).collect();
        assert_eq!(registry.remove(slots[7]).map(|one| one.id.0), Some(7));
        assert!(registry.remove(slots[7]).is_none());
        assert_eq!(registry.insert(connection(100)), slots[7]);
        assert_eq!(ids(&registry)[6..9], [6, 100, 8]);
        for slot in slots {
            assert!(registry.remove(slot).is_some());
        }
        assert_eq!((ids(&registry), registry.slots.capacity()), (Vec::new(), 0));
    }
}
