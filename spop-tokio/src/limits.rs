//! How much is taken on, beyond what one connection may.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{Peer, metrics::Work};

/// How many connections each address has.
#[derive(Debug, Default)]
pub(crate) struct Sources(Option<Arc<Counts>>);

#[derive(Debug)]
struct Counts {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of an address, if those are counted; dropped with it.
#[derive(Debug)]
pub(crate) struct Place(Option<(Arc<Counts>, IpAddr)>);

impl Sources {
    pub(crate) fn limit(&mut self, max: usize) {
        self.0 = Some(Arc::new(Counts { max, open: Mutex::default() }));
    }

    /// A place for a connection; `None` when its address has too many.
    pub(crate) fn enter(&self, peer: &Peer) -> Option<Place> {
        let (Some(counts), Peer::Tcp(peer)) = (&self.0, peer) else { return Some(Place(None)) };
        let address = peer.ip().to_canonical();
        let mut open = counts.open();
        let count = open.entry(address).or_default();
        if *count >= counts.max {
            if *count == 0 {
                open.remove(&address);
            }
            return None;
        }
        *count += 1;
        Some(Place(Some((Arc::clone(counts), address))))
    }
}

impl Counts {
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((counts, address)) = &self.0 else { return };
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
    max: AtomicUsize,
    now: Arc<AtomicUsize>,
}

/// One request that is worked on: what is held until its handler has ended.
#[derive(Debug, Default)]
pub(crate) struct Job {
    #[allow(dead_code)] // Held for its drop.
    pub(crate) permit: Permit,
    #[allow(dead_code)] // Held for its drop.
    pub(crate) work: Work,
}

/// A place among all requests, if those are counted.
#[derive(Debug, Default)]
pub(crate) struct Permit(Option<Arc<AtomicUsize>>);

impl Default for InFlight {
    fn default() -> Self {
        Self { max: AtomicUsize::new(usize::MAX), now: Arc::default() }
    }
}

impl InFlight {
    pub(crate) fn limit(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// A permit; `None` when there are too many.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Permit> {
        match self.max.load(Ordering::Relaxed) {
            usize::MAX => Some(Permit(None)),
            max => self.count(max),
        }
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
