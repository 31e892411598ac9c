//! Which request a thread sends next, and when.

use std::time::Duration;

use spop_core::Timestamp;

use super::plan::Schedule;

/// How many requests there are, and how fast they come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// A constant rate, or one that changes. `None`: the next request when one is answered.
    pub(super) schedule: Option<Schedule>,
    /// For how long requests come.
    pub(super) time: Option<Duration>,
    /// How many requests there are.
    pub(super) requests: Option<u64>,
    /// The time in which a closed loop begins on one connection after another.
    pub(super) ramp: Duration,
}

/// The requests of one of the threads: every `step`-th, so that all threads together have them all.
#[derive(Debug)]
pub(super) struct Supply {
    load: Load,
    begin: Timestamp,
    step: u64,
    /// The number of the next request.
    next: u64,
}

/// A request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) number: u64,
    /// Its number among those of the thread: each thread sends all messages in turn, or one of them would have the slow ones.
    pub(super) turn: u64,
    /// When it is due. Its latency begins then, also if it is sent later.
    pub(super) due: Timestamp,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Request(Request),
    /// None before this time.
    At(Timestamp),
    /// None any more.
    Over,
}

impl Supply {
    pub(super) const fn new(load: Load, begin: Timestamp, thread: u64, threads: u64) -> Self {
        Self { load, begin, step: threads, next: thread }
    }

    /// The next request; [`advance`](Self::advance) removes it.
    pub(super) fn peek(&self, now: Timestamp) -> Next {
        let Load { schedule, time, requests, .. } = self.load;
        let since = match schedule {
            Some(schedule) => schedule.due(self.next),
            None => Some(now.since(self.begin)),
        };
        match since {
            Some(since)
                if requests.is_none_or(|requests| self.next < requests)
                    && time.is_none_or(|time| since < time) =>
            {
                let due = self.begin + since;
                // The threads do not all begin with the first message.
                let turn = self.next / self.step + self.next % self.step;
                if due <= now {
                    Next::Request(Request { number: self.next, turn, due })
                } else {
                    Next::At(due)
                }
            }
            _ => Next::Over,
        }
    }

    pub(super) const fn advance(&mut self) {
        self.next += self.step;
    }

    /// When a closed loop begins on a connection.
    pub(super) fn starts(&self, connection: usize, connections: usize) -> Timestamp {
        if self.load.schedule.is_some() {
            return self.begin;
        }
        let (index, all) = (u32::try_from(connection).unwrap_or(u32::MAX), u32::try_from(connections.max(1)));
        self.begin + self.load.ramp * index / all.unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn load(rate: Option<&str>, time: Option<u64>, requests: Option<u64>) -> Load {
        let time = time.map(Duration::from_millis);
        let schedule = rate.map(|rate| Schedule::new(rate.parse().unwrap(), None, time));
        Load { schedule, time, requests, ramp: 10 * MS }
    }

    fn drain(supply: &mut Supply, now: Timestamp) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        while let Next::Request(Request { number, due, .. }) = supply.peek(now) {
            found.push((number, due.as_nanos() / 1_000_000));
            supply.advance();
        }
        found
    }

    #[test]
    fn threads_share_a_rate() {
        let begin = Timestamp::from_millis(100);
        let [mut first, mut second] =
            [0, 1].map(|thread| Supply::new(load(Some("1000"), Some(5), None), begin, thread, 2));
        assert_eq!(drain(&mut first, begin + MS * 2), [(0, 100), (2, 102)]);
        assert_eq!(first.peek(begin + MS * 2), Next::At(begin + MS * 4));
        // Late ones are due when they were due.
        assert_eq!(drain(&mut second, begin + MS * 50), [(1, 101), (3, 103)]);
        assert_eq!(second.peek(begin + MS * 50), Next::Over);
    }

    #[test]
    fn every_thread_has_all_messages_in_turn() {
        for thread in 0..2 {
            let mut supply = Supply::new(load(None, None, Some(8)), Timestamp::ZERO, thread, 2);
            let mut turns = Vec::new();
            while let Next::Request(request) = supply.peek(Timestamp::ZERO) {
                turns.push(request.turn);
                supply.advance();
            }
            assert_eq!(turns, [0, 1, 2, 3].map(|turn| turn + thread));
        }
    }

    #[test]
    fn a_closed_loop_ends_by_time_or_number() {
        let begin = Timestamp::from_millis(100);
        let mut supply = Supply::new(load(None, None, Some(3)), begin, 0, 2);
        assert_eq!(drain(&mut supply, begin + MS), [(0, 101), (2, 101)]);
        let supply = Supply::new(load(None, Some(5), None), begin, 0, 1);
        assert!(matches!(supply.peek(begin + MS * 4), Next::Request(_)));
        assert_eq!(supply.peek(begin + MS * 5), Next::Over);
        assert_eq!(
            [0, 1, 3].map(|index| supply.starts(index, 4)),
            [begin, begin + MS * 5 / 2, begin + MS * 15 / 2]
        );
    }
}
