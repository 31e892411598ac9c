//! Limits over all connections.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, AtomicUsize, Ordering},
    },
};

use spop_core::accept::Peer;

/// How many connections each source has, if those are limited.
#[derive(Debug)]
pub(crate) struct Sources(Option<Arc<Counts>>);

#[derive(Debug)]
struct Counts {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// Counts a connection of a source, if those are limited, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct SourcePermit(Option<Box<(Arc<Counts>, IpAddr)>>);

impl Sources {
    /// At most `max` connections of one source, if there is a limit.
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self(max.map(|max| Arc::new(Counts { max, open: Mutex::default() })))
    }

    /// A permit for a connection; `None` if its source has too many. Peers without an address are not counted.
    pub(crate) fn enter(&self, peer: &Peer) -> Option<SourcePermit> {
        let (Some(counts), Some(address)) = (&self.0, peer.ip()) else { return Some(SourcePermit(None)) };
        let source = source(address);
        let mut open = counts.open();
        let count = open.entry(source).or_default();
        if *count >= counts.max {
            if *count == 0 {
                open.remove(&source);
            }
            return None;
        }
        *count += 1;
        Some(SourcePermit(Some(Box::new((Arc::clone(counts), source)))))
    }
}

/// An IPv4 address, also one that is mapped to IPv6; of any other IPv6 address its /64, which usually belongs to one host.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

impl Counts {
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        let Some((counts, source)) = self.0.as_deref() else { return };
        let mut open = counts.open();
        if let Some(count) = open.get_mut(source) {
            *count -= 1;
            if *count == 0 {
                open.remove(source);
            }
        }
    }
}

/// The number of requests in progress on all connections. Counted only if there is a limit.
#[derive(Debug)]
pub(crate) struct InFlight {
    max: Option<usize>,
    count: Arc<AtomicUsize>,
}

/// Counts a request during its call, if those are limited, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct RequestPermit(Option<Arc<AtomicUsize>>);

/// Counts a request that its handler has made its own, until the last clone is dropped. A handler may continue after it has dropped
/// the request, and may keep the request after its call was cancelled: both have a clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedPermit(
    #[allow(dead_code)] // Held for its drop.
    Option<Arc<RequestPermit>>,
);

impl InFlight {
    /// At most `max` requests, if there is a limit.
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self { max, count: Arc::default() }
    }

    /// A permit; `None` when there are too many.
    #[inline]
    pub(crate) fn enter(&self) -> Option<RequestPermit> {
        match self.max {
            None => Some(RequestPermit(None)),
            Some(max) => self.count(max),
        }
    }

    #[cfg(test)]
    pub(crate) fn now(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What is used of the limit, and the limit, if there is one.
    pub(crate) fn usage(&self) -> Option<(usize, usize)> {
        self.max.map(|max| (self.count.load(Ordering::Relaxed), max))
    }

    fn count(&self, max: usize) -> Option<RequestPermit> {
        let permit = RequestPermit(Some(Arc::clone(&self.count)));
        // One that is too many is taken back by its drop.
        (self.count.fetch_add(1, Ordering::Relaxed) < max).then_some(permit)
    }
}

impl RequestPermit {
    /// The permit for the request and its guard; this one is to be [disarmed](Self::disarm) then.
    pub(crate) fn share(&self) -> SharedPermit {
        SharedPermit(self.0.as_ref().map(|count| Arc::new(Self(Some(Arc::clone(count))))))
    }

    /// Counts nothing any more.
    pub(crate) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A limit on the bytes that all connections hold together.
#[derive(Debug)]
pub struct Total {
    max: isize,
    /// Negative for a moment, when a share is.
    now: Arc<AtomicIsize>,
}

/// The bytes of one connection. The total counts them in steps of 16 KiB, so that a connection with less needs no write to shared
/// memory. Subtracted when it is dropped.
#[derive(Debug)]
pub struct Share {
    /// Negative for a moment, when bytes are subtracted by another thread before they were added.
    own: AtomicIsize,
    total: Arc<AtomicIsize>,
}

/// What is counted in one step.
const STEP: usize = 16 * 1024;

/// The whole steps of a number of bytes, rounded down also below zero.
#[inline]
const fn steps(bytes: isize) -> isize {
    // `div_euclid` would take a dozen instructions more.
    bytes >> STEP.ilog2()
}

/// What a connection may hold even if the total is exceeded: enough for HAProxy's frames and usual bodies. So a connection that
/// uses up the total does not end the others.
pub const SPARED: usize = 2 * STEP;

/// As [`SPARED`], for the requests that handlers keep: the 20 that HAProxy has in flight on a connection, if they are short.
pub(crate) const REQUESTS_SPARED: usize = 24 * 1024;

impl Total {
    /// At most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max: max.try_into().unwrap_or(isize::MAX), now: Arc::default() }
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed).try_into().unwrap_or(0)
    }

    pub(crate) const fn max(&self) -> usize {
        self.max.cast_unsigned()
    }

    /// The share of a connection that has none yet.
    pub fn share(&self) -> Share {
        Share { own: AtomicIsize::new(0), total: Arc::clone(&self.now) }
    }

    /// Whether there are more bytes.
    #[inline]
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded_by(0)
    }

    /// Whether so many bytes more are too many.
    #[inline]
    pub(crate) fn is_exceeded_by(&self, bytes: usize) -> bool {
        self.now.load(Ordering::Relaxed).saturating_add_unsigned(bytes) > self.max
    }
}

impl Share {
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.own.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    #[inline]
    pub(crate) fn add(&self, bytes: usize) {
        let before = self.own.fetch_add(bytes.cast_signed(), Ordering::Relaxed);
        self.update(before, before.wrapping_add(bytes.cast_signed()));
    }

    #[inline]
    pub(crate) fn subtract(&self, bytes: usize) {
        let before = self.own.fetch_sub(bytes.cast_signed(), Ordering::Relaxed);
        self.update(before, before.wrapping_sub(bytes.cast_signed()));
    }

    /// For a share that has one owner. True if it grew by a step.
    #[inline]
    pub fn set(&mut self, bytes: usize) -> bool {
        let bytes = bytes.cast_signed();
        let before = std::mem::replace(self.own.get_mut(), bytes);
        self.update(before, bytes);
        steps(bytes) > steps(before)
    }

    /// Each update has values of its own, so that the total is exact whatever their order.
    #[inline]
    fn update(&self, before: isize, after: isize) {
        let (before, after) = (steps(before), steps(after));
        if before != after {
            self.update_total((after - before) * STEP.cast_signed());
        }
    }

    #[cold]
    fn update_total(&self, change: isize) {
        self.total.fetch_add(change, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
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
    fn a_64_of_ipv6_is_one_source() {
        let peer = |text: &str| Peer::from(text.parse::<SocketAddr>().unwrap());
        let sources = Sources::new(Some(2));
        let first = sources.enter(&peer("[2001:db8:0:1::1]:1")).unwrap();
        let _second = sources.enter(&peer("[2001:db8:0:1:ffff:ffff:ffff:ffff]:1")).unwrap();
        assert!(sources.enter(&peer("[2001:db8:0:1:2::]:1")).is_none());
        assert!(sources.enter(&peer("[2001:db8:0:2::1]:1")).is_some());
        // Mapped addresses share their /64, and are sources of their own.
        for last in 1..=9 {
            let permit = sources.enter(&peer(&format!("[::ffff:192.0.2.{last}]:1")));
            std::mem::forget(permit.unwrap());
        }
        drop(first);
        assert!(sources.enter(&peer("[2001:db8:0:1:2::]:1")).is_some());
    }

    #[test]
    fn bytes_are_counted_over_all_connections_until_they_are_gone() {
        let all = Total::new(10 * STEP);
        let (mut one, mut other) = (all.share(), all.share());
        assert!(one.set(6 * STEP + 1) && other.set(4 * STEP) && !all.is_exceeded());
        assert!(other.set(5 * STEP) && all.is_exceeded(), "one step too many");
        assert!(!other.set(5 * STEP + 1), "no step more than before");
        assert!(!one.set(STEP - 1) && all.now() == 5 * STEP);
        drop(other);
        assert_eq!(all.now(), 0);
        drop(one);
        assert_eq!(all.now(), 0);
    }

    #[test]
    fn threads_count_in_any_order() {
        let all = Total::new(usize::MAX);
        let share = all.share();
        std::thread::scope(|scope| {
            for thread in 1..=4_usize {
                let share = &share;
                scope.spawn(move || {
                    for bytes in (0..20_000).map(|n| n * thread % 40_000) {
                        share.add(bytes);
                        share.subtract(bytes);
                    }
                    share.add(STEP / 2);
                });
            }
        });
        assert_eq!((share.bytes(), all.now()), (2 * STEP, 2 * STEP));
        drop(share);
        assert_eq!(all.now(), 0);
    }

    #[test]
    fn bytes_may_be_subtracted_before_they_are_added() {
        let all = Total::new(STEP);
        let share = all.share();
        share.subtract(3 * STEP / 2);
        assert_eq!((share.bytes(), all.now()), (0, 0));
        assert!(!all.is_exceeded_by(STEP));
        share.add(3 * STEP / 2);
        share.add(STEP);
        assert_eq!((share.bytes(), all.now()), (STEP, STEP));
        drop(share);
        assert_eq!(all.now(), 0);
    }

    #[test]
    fn permits_are_counted_where_there_is_a_limit() {
        let unlimited = InFlight::new(None);
        assert_eq!((0..9).filter_map(|_| unlimited.enter()).count(), 9);
        let all = InFlight::new(Some(3));
        let permits: Vec<_> = (0..9).filter_map(|_| all.enter()).collect();
        assert_eq!(permits.len(), 3);
        let shared: Vec<_> = permits.iter().map(RequestPermit::share).collect();
        for mut permit in permits {
            permit.disarm();
        }
        let clones = shared.clone();
        drop(shared);
        assert!(all.enter().is_none(), "the requests were dropped, and their handlers run");
        drop(clones);
        assert!(all.enter().is_some());
        assert_eq!(all.now(), 0);
    }
}
