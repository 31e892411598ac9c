//! Requests whose connection has ended, and whose answer may arrive on another (`async`).

use alloc::collections::{BTreeMap, BTreeSet};

use super::Sent;
use crate::{Timestamp, frame::Ids};

/// Identifies an orphaned request; the oldest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Orphan {
    asked: Timestamp,
    number: u64,
}

/// Orphaned requests, by age and by identifiers.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    requests: BTreeMap<Orphan, Sent>,
    by_ids: BTreeSet<(Ids, Orphan)>,
    next: u64,
}

impl Orphans {
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn insert(&mut self, sent: Sent) -> Orphan {
        let orphan = Orphan { asked: sent.asked, number: self.next };
        self.next += 1;
        self.by_ids.insert((sent.id.ids(), orphan));
        self.requests.insert(orphan, sent);
        orphan
    }

    pub(super) fn get_mut(&mut self, orphan: Orphan) -> Option<&mut Sent> {
        self.requests.get_mut(&orphan)
    }

    /// When the oldest was asked.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.requests.first_key_value().map(|(orphan, _)| orphan.asked)
    }

    pub(super) fn pop_oldest(&mut self) -> Option<Sent> {
        let (orphan, sent) = self.requests.pop_first()?;
        self.by_ids.remove(&(sent.id.ids(), orphan));
        Some(sent)
    }

    /// Removes the oldest with these identifiers.
    pub(super) fn take(&mut self, ids: Ids) -> Option<Sent> {
        let first = Orphan { asked: Timestamp::ZERO, number: 0 };
        let found = self.by_ids.range((ids, first)..).next().filter(|(of, _)| *of == ids).copied()?;
        self.by_ids.remove(&found);
        self.requests.remove(&found.1)
    }
}
