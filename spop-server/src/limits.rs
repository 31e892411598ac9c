//! Limits over all connections.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use spop_core::accept::Peer;

/// How many connections each address has, if those are limited.
#[derive(Debug)]
pub(crate) struct Sources(Option<Arc<Counts>>);

#[derive(Debug)]
struct Counts {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// Counts a connection of an address, if those are limited, until it is dropped.
#[derive(Debug)]
pub(crate) struct SourcePermit(Option<Box<(Arc<Counts>, IpAddr)>>);

impl Sources {
    /// At most `max` connections of one address, if there is a limit.
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self(max.map(|max| Arc::new(Counts { max, open: Mutex::default() })))
    }

    /// A permit for a connection; `None` if its address has too many. Peers without an address are not counted.
    pub(crate) fn enter(&self, peer: &Peer) -> Option<SourcePermit> {
        let (Some(counts), Some(address)) = (&self.0, peer.ip()) else { return Some(SourcePermit(None)) };
        let address = address.to_canonical();
        let mut open = counts.open();
        let count = open.entry(address).or_default();
        if *count >= counts.max {
            if *count == 0 {
                open.remove(&address);
            }
            return None;
        }
        *count += 1;
        Some(SourcePermit(Some(Box::new((Arc::clone(counts), address)))))
    }
}

impl Counts {
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        let Some((counts, address)) = self.0.as_deref() else { return };
        let mut open = counts.open();
        if let Some(count) = open.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                open.remove(address);
            }
        }
    }
}

/// How many requests are worked on in all. Counted only where there is a limit.
#[derive(Debug)]
pub(crate) struct InFlight {
    max: Option<usize>,
    now: Arc<AtomicUsize>,
}

/// Counts a request, if those are limited, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Permit(Option<Arc<AtomicUsize>>);

impl InFlight {
    /// At most `max` requests, if there is a limit.
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self { max, now: Arc::default() }
    }

    /// A permit; `None` when there are too many.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Permit> {
        match self.max {
            None => Some(Permit(None)),
            Some(max) => self.count(max),
        }
    }

    #[cfg(test)]
    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    fn count(&self, max: usize) -> Option<Permit> {
        let permit = Permit(Some(Arc::clone(&self.now)));
        // One that is too many is taken back by its drop.
        (self.now.fetch_add(1, Ordering::Relaxed) < max).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(now) = &self.0 {
            now.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// How many bytes of unfinished requests all connections together may hold: fragments whose last is still to come, and frames
/// under way.
#[derive(Debug)]
pub(crate) struct Unfinished {
    max: usize,
    now: Arc<AtomicUsize>,
}

/// The unfinished bytes of one connection, counted in steps of 16 KiB; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct UnfinishedBytes {
    counted: usize,
    now: Arc<AtomicUsize>,
}

/// What is counted in one step. A connection with less costs nothing to count, and holds no more than its sockets do.
const STEP: usize = 16 * 1024;

/// What a connection may hold whatever the others do: HAProxy's frames and usual bodies. A connection that fills the limit does
/// not end the others.
const SPARED: usize = 4 * STEP;

impl Unfinished {
    /// At most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, now: Arc::default() }
    }

    #[cfg(test)]
    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// The count of a connection that has none yet.
    pub(crate) fn connection(&self) -> UnfinishedBytes {
        UnfinishedBytes { counted: 0, now: Arc::clone(&self.now) }
    }

    /// Updates the count of a connection. False if the total exceeds the limit, and this connection grew and holds more than
    /// 64 KiB.
    #[inline]
    #[must_use]
    pub(crate) fn count(&self, connection: &mut UnfinishedBytes, bytes: usize) -> bool {
        let counted = bytes / STEP * STEP;
        counted == connection.counted || self.recount(connection, counted)
    }

    #[cold]
    fn recount(&self, connection: &mut UnfinishedBytes, counted: usize) -> bool {
        let before = std::mem::replace(&mut connection.counted, counted);
        if counted < before {
            self.now.fetch_sub(before - counted, Ordering::Relaxed);
            return true;
        }
        let more = counted - before;
        let total = self.now.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        counted <= SPARED || total <= self.max
    }
}

impl Drop for UnfinishedBytes {
    fn drop(&mut self) {
        self.now.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn an_address_has_so_many_connections_however_it_is_written() {
        let peer = |text: &str| Peer::from(text.parse::<SocketAddr>().unwrap());
        assert!(Sources::new(None).enter(&peer("192.0.2.1:1")).is_some());
        let sources = Sources::new(Some(2));
        let first = sources.enter(&peer("192.0.2.1:1")).unwrap();
        let _second = sources.enter(&peer("[::ffff:192.0.2.1]:2")).unwrap();
        assert!(sources.enter(&peer("192.0.2.1:3")).is_none());
        assert!(sources.enter(&peer("192.0.2.2:3")).is_some());
        assert!(sources.enter(&Peer::unnamed()).is_some());
        drop(first);
        assert!(sources.enter(&peer("192.0.2.1:3")).is_some());
    }

    #[test]
    fn unfinished_bytes_are_counted_over_all_connections_until_they_are_gone() {
        let all = Unfinished::new(10 * STEP);
        let (mut one, mut other) = (all.connection(), all.connection());
        assert!(all.count(&mut one, 6 * STEP + 1) && all.count(&mut other, 4 * STEP));
        assert!(!all.count(&mut other, 5 * STEP), "one step too many");
        assert!(all.count(&mut other, 5 * STEP), "no more than before");
        assert!(all.count(&mut all.connection(), 4 * STEP), "little enough to be spared");
        assert!(all.count(&mut one, STEP - 1) && all.count(&mut other, 10 * STEP));
        drop(other);
        assert!(all.count(&mut one, 10 * STEP));
        drop(one);
        assert_eq!(all.now.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn permits_are_counted_where_there_is_a_limit() {
        let unlimited = InFlight::new(None);
        assert_eq!((0..9).filter_map(|_| unlimited.enter()).count(), 9);
        let all = InFlight::new(Some(3));
        let permits: Vec<_> = (0..9).filter_map(|_| all.enter()).collect();
        assert_eq!(permits.len(), 3);
        drop(permits);
        assert!(all.enter().is_some());
    }
}
