//! The requests of a connection that wait for their answers.

use std::{collections::VecDeque, time::Duration};

use spop_core::frame::Ids;

use super::event::Names;

/// Unanswered requests, and answered ones that are remembered. HAProxy has at most 20 on a connection.
const OPEN_MAX: usize = 4_096;
const ANSWERED_MAX: usize = 1_024;

/// The requests of a connection.
#[derive(Debug)]
pub(super) struct Flights {
    open: VecDeque<Flight>,
    answered: VecDeque<Ids>,
    /// Requests so far.
    count: u64,
    /// The number of the latest request that was answered.
    latest: u64,
    /// Bytes of the names.
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Flight {
    ids: Ids,
    number: u64,
    sent: Duration,
    names: Names,
    complete: bool,
}

/// What a request meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Begun {
    /// Another one with these identifiers was unanswered: it is superseded.
    pub(super) superseded: bool,
    /// One that was unanswered.
    pub(super) other: Option<Ids>,
    /// The limit was reached, and the oldest one is forgotten.
    pub(super) forgotten: bool,
}

/// What an answer belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Request {
        latency: Duration,
        names: Names,
        /// A later request was answered before.
        late: bool,
        /// All fragments of the request had been sent.
        complete: bool,
    },
    /// The request was answered before.
    Again,
    /// There is no such request.
    Unknown,
}

impl Flights {
    pub(super) const fn new() -> Self {
        Self { open: VecDeque::new(), answered: VecDeque::new(), count: 0, latest: 0, bytes: 0 }
    }

    /// Unanswered requests.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.open.len() * size_of::<Flight>() + self.answered.len() * size_of::<Ids>()
    }

    /// The first or only frame of a request.
    pub(super) fn begin(&mut self, ids: Ids, time: Duration, names: Names, complete: bool) -> Begun {
        let superseded = self.remove(ids).is_some();
        let other = self.open.back().map(|flight| flight.ids);
        let forgotten = self.open.len() >= OPEN_MAX;
        if forgotten && let Some(oldest) = self.open.pop_front() {
            self.bytes -= size(&oldest.names);
        }
        self.count += 1;
        self.bytes += size(&names);
        self.open.push_back(Flight { ids, number: self.count, sent: time, names, complete });
        Begun { superseded, other, forgotten }
    }

    /// The last fragment of a request.
    pub(super) fn complete(&mut self, ids: Ids, time: Duration, names: Names) {
        if let Some(flight) = self.open.iter_mut().rev().find(|flight| flight.ids == ids) {
            self.bytes = self.bytes + size(&names) - size(&flight.names);
            (flight.sent, flight.names, flight.complete) = (time, names, true);
        }
    }

    /// A request that is aborted by its sender.
    pub(super) fn abort(&mut self, ids: Ids) {
        self.remove(ids);
    }

    /// An answer.
    pub(super) fn answer(&mut self, ids: Ids, time: Duration) -> Answered {
        let Some(flight) = self.remove(ids) else {
            let again = self.answered.contains(&ids);
            return if again { Answered::Again } else { Answered::Unknown };
        };
        let late = flight.number < self.latest;
        self.latest = self.latest.max(flight.number);
        if self.answered.len() >= ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(ids);
        let latency = time.saturating_sub(flight.sent);
        Answered::Request { latency, names: flight.names, late, complete: flight.complete }
    }

    fn remove(&mut self, ids: Ids) -> Option<Flight> {
        let index = self.open.iter().rposition(|flight| flight.ids == ids)?;
        let flight = self.open.remove(index)?;
        self.bytes -= size(&flight.names);
        Some(flight)
    }
}

fn size(names: &Names) -> usize {
    names.iter().map(|name| name.len() + size_of::<Box<[u8]>>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn begin(flights: &mut Flights, stream: u64) -> Begun {
        flights.begin(Ids::new(stream, 1), MS, Names::default(), true)
    }

    #[test]
    fn answers_find_their_requests() {
        let mut flights = Flights::new();
        assert_eq!(begin(&mut flights, 1), Begun::default());
        assert_eq!(begin(&mut flights, 2).other, Some(Ids::new(1, 1)));
        assert!(begin(&mut flights, 2).superseded);
        let late = |answered| match answered {
            Answered::Request { latency, late, .. } => {
                assert_eq!(latency, 2 * MS);
                late
            }
            other => panic!("{other:?}"),
        };
        assert!(!late(flights.answer(Ids::new(2, 1), 3 * MS)));
        assert!(late(flights.answer(Ids::new(1, 1), 3 * MS)));
        assert_eq!(flights.answer(Ids::new(1, 1), MS), Answered::Again);
        assert_eq!(flights.answer(Ids::new(7, 1), MS), Answered::Unknown);
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn requests_are_limited_and_names_are_counted() {
        let mut flights = Flights::new();
        let names: Names = [b"check".to_vec().into_boxed_slice()].into();
        for stream in 0..OPEN_MAX as u64 + 10 {
            let begun = flights.begin(Ids::new(stream, 1), MS, names.clone(), true);
            assert_eq!(begun.forgotten, stream >= OPEN_MAX as u64);
        }
        assert_eq!((flights.len(), flights.bytes), (OPEN_MAX, OPEN_MAX * size(&names)));
        for stream in 0..OPEN_MAX as u64 + 10 {
            flights.answer(Ids::new(stream, 1), MS);
        }
        assert_eq!((flights.len(), flights.bytes, flights.answered.len()), (0, 0, ANSWERED_MAX));
    }
}
