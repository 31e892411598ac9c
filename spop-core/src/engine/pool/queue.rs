//! The queue of requests that wait for a connection.

use alloc::{collections::VecDeque, vec::Vec};
use core::{fmt, mem};

use super::RequestId;
use crate::{Timestamp, frame::Ids, steps::step};

pub(super) struct Queued {
    pub(super) request: RequestId,
    pub(super) ids: Option<Ids>,
    pub(super) payload: Vec<u8>,
    pub(super) asked: Timestamp,
}

/// Shows the length of a payload, not its bytes.
impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, ids, payload, asked } = self;
        let mut queued = f.debug_struct("Queued");
        queued.field("request", request).field("ids", ids).field("len", &payload.len());
        queued.field("asked", asked).finish()
    }
}

/// Queued requests, oldest first: ordered by their numbers and by the time of `ask`.
///
/// A withdrawn request gives up its payload and keeps its entry, since removing one moves up to half of the others. The first
/// entry is never withdrawn, and at most as many as the others are, and 64.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<(Queued, Withdrawn)>,
    withdrawn: usize,
}

type Withdrawn = bool;

impl Queue {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.withdrawn
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Queued> {
        self.entries.front().map(|(queued, _)| queued)
    }

    /// Appends the newest request.
    pub(super) fn push_back(&mut self, queued: Queued) {
        self.entries.push_back((queued, false));
    }

    /// Puts a request back that was popped.
    pub(super) fn push_front(&mut self, queued: Queued) {
        self.entries.push_front((queued, false));
    }

    pub(super) fn pop_front(&mut self) -> Option<Queued> {
        let (queued, _) = self.entries.pop_front()?;
        self.trim();
        Some(queued)
    }

    /// Removes a request; false if it is not queued.
    pub(super) fn withdraw(&mut self, request: RequestId) -> bool {
        let found = self.entries.binary_search_by_key(&request, |(queued, _)| queued.request);
        let Some((queued, withdrawn)) = found.ok().and_then(|index| self.entries.get_mut(index)) else {
            return false;
        };
        if mem::replace(withdrawn, true) {
            return false;
        }
        queued.payload = Vec::new();
        self.withdrawn += 1;
        self.trim();
        if self.withdrawn > self.len() + 64 {
            self.entries.retain(|(_, withdrawn)| {
                step();
                !*withdrawn
            });
            self.withdrawn = 0;
        }
        true
    }

    fn trim(&mut self) {
        while self.entries.front().is_some_and(|(_, withdrawn)| *withdrawn) {
            self.entries.pop_front();
            self.withdrawn -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_withdrawn_takes_no_place_for_long() {
        let queued = |number| {
            let request = RequestId(number);
            Queued { request, ids: None, payload: alloc::vec![0; 10], asked: Timestamp::ZERO }
        };
        let mut queue = Queue::default();
        queue.push_back(queued(0));
        for number in 1..1_000 {
            queue.push_back(queued(number));
            assert!(queue.withdraw(RequestId(number)) && !queue.withdraw(RequestId(number)));
            assert!(queue.len() == 1 && queue.entries.len() <= 67);
        }
        queue.push_back(queued(1_000));
        let first = queue.pop_front().unwrap();
        assert_eq!((first.request, queue.front().unwrap().request), (RequestId(0), RequestId(1_000)));
        queue.push_front(first);
        assert!(queue.withdraw(RequestId(0)) && !queue.withdraw(RequestId(0)));
        assert_eq!((queue.len(), queue.entries.len()), (1, 1));
        assert!(queue.withdraw(RequestId(1_000)) && queue.is_empty());
    }
}
