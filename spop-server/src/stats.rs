//! The counters of a server.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::FailureKind;

/// The counters of a server. A connection updates them when it opens and ends; a request only when it fails or is late. What
/// connections count of their requests is added when they end.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections under the limit: those that are open, and those that have ended while handlers keep requests of them.
    pub places: AtomicUsize,
    /// See [`Stats::open`].
    open: AtomicUsize,
    /// See [`Stats::accepted`].
    pub accepted: AtomicU64,
    /// See [`Stats::refused`].
    pub refused: AtomicU64,
    /// See [`Stats::rejected`].
    pub rejected: AtomicU64,
    /// See [`Stats::probes`].
    pub probes: AtomicU64,
    /// See [`Stats::requests`].
    pub requests: AtomicU64,
    /// See [`Stats::answered`].
    pub answered: AtomicU64,
    /// See [`Stats::failures`].
    pub failures: [AtomicU64; FailureKind::ALL.len()],
    /// See [`Stats::failed_accepts`].
    pub failed_accepts: AtomicU64,
    /// See [`Stats::late`].
    pub late: AtomicU64,
    /// See [`Stats::abandoned`].
    pub abandoned: AtomicU64,
    /// See [`Stats::oversized`].
    pub oversized: AtomicU64,
    /// See [`Stats::out_of_memory`].
    pub out_of_memory: AtomicU64,
}

/// Counts a connection as open until it is dropped, and has its place under the limit.
#[derive(Debug, Default)]
pub(crate) struct ConnectionPermit(Option<Place>);

/// A place under the limit on connections, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Counters>);

impl Counters {
    /// A place for one more connection, which is open; `None` if `max` are taken.
    pub(crate) fn open(self: &Arc<Self>, max: usize) -> Option<ConnectionPermit> {
        self.open.fetch_add(1, Ordering::Relaxed);
        let permit = ConnectionPermit(Some(Place(Arc::clone(self))));
        // One that is too many is taken back by its drop.
        (self.places.fetch_add(1, Ordering::Relaxed) < max).then_some(permit)
    }

    /// A request has failed.
    pub(crate) fn failed(&self, kind: FailureKind) {
        if let Some(count) = self.failures.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The numbers so far, without those of requests on connections that are open, and of the background.
    pub(crate) fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            accepted: get(&self.accepted),
            open: self.open.load(Ordering::Relaxed) as u64,
            refused: get(&self.refused),
            rejected: get(&self.rejected),
            probes: get(&self.probes),
            requests: get(&self.requests),
            answered: get(&self.answered),
            failures: Failures(std::array::from_fn(|kind| self.failures.get(kind).map_or(0, get))),
            failed_accepts: get(&self.failed_accepts),
            late: get(&self.late),
            abandoned: get(&self.abandoned),
            oversized: get(&self.oversized),
            out_of_memory: get(&self.out_of_memory),
            background: 0,
            background_refused: 0,
        }
    }
}

impl ConnectionPermit {
    /// The connection has ended: what is left is its place.
    pub(crate) fn close(mut self) -> Option<Place> {
        self.take()
    }

    fn take(&mut self) -> Option<Place> {
        let place = self.0.take()?;
        place.0.open.fetch_sub(1, Ordering::Relaxed);
        Some(place)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The numbers of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Those of them that are open, or closed and kept for answers that other connections of their engine will send.
    pub open: u64,
    /// Connections that were closed at once, because there were too many.
    pub refused: u64,
    /// Connections that were accepted, and did not pass the accept stage: because of a source rule, the PROXY header, TLS, or
    /// its timeout.
    pub rejected: u64,
    /// Connections that were accepted, and were monitors' probes.
    pub probes: u64,
    /// NOTIFYs that were received. Those of an open connection are counted at the end of its turns.
    pub requests: u64,
    /// Those of them that were answered by their handlers.
    pub answered: u64,
    /// Those of them that failed, by kind.
    pub failures: Failures,
    /// Failed calls of accept, for example because the process has no file descriptor left.
    pub failed_accepts: u64,
    /// Answers that took longer than [`AgentConfig::processing`](spop_core::AgentConfig::processing): HAProxy has continued
    /// without them.
    pub late: u64,
    /// Requests that HAProxy 3.1 or later abandoned before they were answered: it sent another on their connection.
    pub abandoned: u64,
    /// Requests that were refused because they exceed a limit of their session: `max_payload`, `max_payload_bytes`,
    /// `max_messages`, or the frame timeout.
    pub oversized: u64,
    /// Connections that were disconnected because
    /// [`ServerConfig::max_buffered_bytes`](crate::ServerConfig::max_buffered_bytes) was exceeded.
    pub out_of_memory: u64,
    /// Work that goes on in the [background](crate::Background).
    pub background: u64,
    /// How often [`Request::background`](crate::Request::background) has returned `None`, because there was
    /// [too much](crate::ServerConfig::max_background) of it.
    pub background_refused: u64,
}

/// The requests that failed, by kind.
///
/// ```
/// # let stats = spop_server::Stats::default();
/// use spop_server::FailureKind;
///
/// let timed_out = stats.failures.of(FailureKind::TimedOut);
/// for (kind, requests) in stats.failures.iter() {
///     println!("{}: {requests}", kind.as_str());
/// }
/// # assert_eq!(timed_out, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures([u64; FailureKind::ALL.len()]);

impl Failures {
    /// Those of this kind.
    pub fn of(&self, kind: FailureKind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or_default()
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The kinds and their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (FailureKind, u64)> {
        FailureKind::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_connections_are_counted_until_they_are_dropped() {
        let counters = Arc::new(Counters::default());
        let permits: Vec<_> = (0..5).map_while(|_| counters.open(3)).collect();
        assert_eq!((permits.len(), counters.stats().open), (3, 3));
        drop(permits);
        assert_eq!(counters.stats().open, 0);
        assert!(counters.open(1).is_some());
    }

    #[test]
    fn each_kind_of_failure_has_its_number() {
        let counters = Counters::default();
        for (number, kind) in FailureKind::ALL.into_iter().enumerate() {
            (0..=number).for_each(|_| counters.failed(kind));
        }
        let failures = Arc::new(counters).stats().failures;
        assert_eq!(failures.total(), 36);
        for (number, (kind, count)) in (1..).zip(failures.iter()) {
            assert_eq!((count, failures.of(kind)), (number, number), "{}", kind.as_str());
        }
    }
}
