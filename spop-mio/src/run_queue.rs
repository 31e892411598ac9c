//! Which connections of a worker get a turn, and in which order.

use std::collections::VecDeque;

/// Turns of connections without a session in one round. Some of them are TLS handshakes: a thousand that come at once would
/// delay the sessions for seconds.
const PENDING_TURNS: usize = 16;

/// Turns in one round of connections that are busy. A request that arrives during the round is read after them.
const BUSY_TURNS: usize = 4;

/// The connections that have something to do, by their keys.
#[derive(Debug, Default)]
pub(crate) struct RunQueue {
    /// Without a session yet.
    pending: VecDeque<usize>,
    /// In the order in which they became ready.
    ready: VecDeque<usize>,
    /// Those whose last turn exhausted its budget or had much input. They come after those that are ready: a quiet connection
    /// waits for the round that is under way when its request arrives, which has few turns of busy ones.
    busy: VecDeque<usize>,
}

/// Turns that are left in a round.
#[derive(Debug)]
pub(crate) struct Round {
    pending: usize,
    ready: usize,
    busy: usize,
}

impl RunQueue {
    /// A connection has something to do.
    #[inline]
    pub(crate) fn push(&mut self, key: usize, has_session: bool) {
        if has_session { &mut self.ready } else { &mut self.pending }.push_back(key);
    }

    /// A connection that is busy has something to do.
    pub(crate) fn push_busy(&mut self, key: usize, has_session: bool) {
        if has_session { &mut self.busy } else { &mut self.pending }.push_back(key);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.ready.is_empty() && self.busy.is_empty()
    }

    /// Begins a round: each connection that is queued now gets a turn, up to the limits. Those that are queued during the round
    /// wait for the next.
    #[inline]
    pub(crate) fn round(&self) -> Round {
        Round {
            pending: self.pending.len().min(PENDING_TURNS),
            ready: self.ready.len(),
            busy: self.busy.len().min(BUSY_TURNS),
        }
    }

    /// The next connection of a round.
    #[inline]
    pub(crate) fn pop(&mut self, round: &mut Round) -> Option<usize> {
        for (queue, turns) in [
            (&mut self.pending, &mut round.pending),
            (&mut self.ready, &mut round.ready),
            (&mut self.busy, &mut round.busy),
        ] {
            if let Some(left) = turns.checked_sub(1) {
                *turns = left;
                return queue.pop_front();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_ones_come_last_and_pending_ones_get_a_share() {
        let mut queue = RunQueue::default();
        queue.push_busy(1, true);
        queue.push(2, true);
        (100..120).for_each(|key| queue.push(key, false));
        let mut round = queue.round();
        // In the course of the round: for the next.
        queue.push(3, true);
        queue.push_busy(4, true);
        let keys: Vec<_> = std::iter::from_fn(|| queue.pop(&mut round)).collect();
        assert_eq!(keys, (100..116).chain([2, 1]).collect::<Vec<_>>());
        let mut round = queue.round();
        let keys: Vec<_> = std::iter::from_fn(|| queue.pop(&mut round)).collect();
        assert_eq!(keys, [116, 117, 118, 119, 3, 4]);
        assert!(queue.is_empty());
        (0..10).for_each(|key| queue.push_busy(key, true));
        let mut round = queue.round();
        let keys: Vec<_> = std::iter::from_fn(|| queue.pop(&mut round)).collect();
        assert_eq!(keys, [0, 1, 2, 3], "the others after what arrives meanwhile");
    }
}
