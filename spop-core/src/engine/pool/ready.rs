//! The connections that accept a request, by the number of requests in flight.

use alloc::vec::Vec;

use crate::{ConnectionId, steps::step};

/// Connections of one agent that accept a request, by load: the number of requests in flight.
#[derive(Debug, Default)]
pub(super) struct ByLoad {
    /// A list for each load.
    loads: Vec<Vec<ConnectionId>>,
    /// No list before this one has an entry.
    least: usize,
}

/// Where a connection is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) proven: bool,
    pub(super) load: usize,
    index: usize,
}

/// The connections of one agent that accept a request.
#[derive(Debug, Default)]
pub(super) struct Ready {
    proven: ByLoad,
    /// On these no ACK has arrived: during a backoff each carries one request only.
    unproven: ByLoad,
}

impl Ready {
    #[inline]
    pub(super) fn insert(&mut self, id: ConnectionId, proven: bool, load: usize) -> Listed {
        Listed { proven, load, index: self.list(proven).insert(load, id) }
    }

    /// Removes an entry. Returns the connection that has its index from now on.
    #[inline]
    pub(super) fn remove(&mut self, listed: Listed) -> Option<ConnectionId> {
        self.list(listed.proven).remove(listed.load, listed.index)
    }

    /// A connection with the least load, and its load. During a backoff unproven ones must have none.
    #[inline]
    pub(super) fn least(&mut self, backoff: bool) -> Option<(usize, ConnectionId)> {
        let unproven = self.unproven.least().filter(|(load, _)| !backoff || *load == 0);
        match (self.proven.least(), unproven) {
            (Some(proven), Some(unproven)) if unproven.0 < proven.0 => Some(unproven),
            (proven, unproven) => proven.or(unproven),
        }
    }

    const fn list(&mut self, proven: bool) -> &mut ByLoad {
        if proven { &mut self.proven } else { &mut self.unproven }
    }
}

impl Listed {
    /// The same entry after another has left the list.
    pub(super) const fn at(self, of: Self) -> Self {
        Self { index: of.index, ..self }
    }
}

impl ByLoad {
    #[inline]
    fn insert(&mut self, load: usize, id: ConnectionId) -> usize {
        if self.loads.len() <= load {
            self.loads.resize_with(load + 1, Vec::new);
        }
        self.least = self.least.min(load);
        let Some(list) = self.loads.get_mut(load) else { return 0 };
        list.push(id);
        list.len() - 1
    }

    #[inline]
    fn remove(&mut self, load: usize, index: usize) -> Option<ConnectionId> {
        let list = self.loads.get_mut(load).filter(|list| index < list.len())?;
        list.swap_remove(index);
        list.get(index).copied()
    }

    /// The connection that was listed last among those with the least load: others become idle, and are closed.
    #[inline]
    fn least(&mut self) -> Option<(usize, ConnectionId)> {
        // A load changes by one at a time, as a rule, so few lists are passed.
        while let Some(list) = self.loads.get(self.least) {
            step();
            if let Some(id) = list.last() {
                return Some((self.least, *id));
            }
            self.least += 1;
        }
        None
    }
}

#[cfg(test)]
impl Ready {
    pub(super) fn len(&self) -> usize {
        [&self.proven, &self.unproven].iter().flat_map(|list| &list.loads).map(Vec::len).sum()
    }

    pub(super) fn at(&self, listed: Listed) -> Option<ConnectionId> {
        let list = if listed.proven { &self.proven } else { &self.unproven };
        list.loads.get(listed.load)?.get(listed.index).copied()
    }
}
