//! What requests were, until their responses come.

use std::{sync::Arc, time::Duration};

use moka::{notification::RemovalCause, policy::EvictionPolicy, sync::Cache};
use program::Count;

use crate::findings::Findings;

/// Memory of an entry besides its id and what it has, counted generously.
const ENTRY: usize = 256;

/// Requests by their unique-id, for a time. When the memory is full, the one that came first goes.
#[derive(Debug)]
pub(crate) struct Store {
    requests: Cache<Box<[u8]>, Arc<Noted>>,
    lost: Arc<Lost>,
}

/// A request whose response is to come.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) findings: Findings,
    /// Its first line, for the log.
    pub(crate) line: String,
}

/// Requests whose responses did not come in time, or came too late.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    pub(crate) expired: Count,
    pub(crate) evicted: Count,
}

impl Store {
    /// A store of so many bytes.
    pub(crate) fn new(bytes: u64, time: Duration) -> Self {
        let lost = Arc::<Lost>::default();
        let counts = Arc::clone(&lost);
        let requests = Cache::builder()
            .max_capacity(bytes)
            .weigher(weight)
            .time_to_live(time)
            // A response that is to come counts more than how often its id was asked for.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, _, cause| match cause {
                RemovalCause::Expired => counts.expired.add(),
                RemovalCause::Size => counts.evicted.add(),
                RemovalCause::Explicit | RemovalCause::Replaced => {}
            })
            .build();
        Self { requests, lost }
    }

    pub(crate) fn put(&self, id: &[u8], noted: Noted) {
        self.requests.insert(id.into(), Arc::new(noted));
    }

    /// The request of this id, which is removed.
    pub(crate) fn take(&self, id: &[u8]) -> Option<Arc<Noted>> {
        // `remove` would also return one that has expired.
        let noted = self.requests.get(id)?;
        self.requests.invalidate(id);
        Some(noted)
    }

    /// What was lost so far.
    pub(crate) fn lost(&self) -> &Lost {
        // Which also forgets what is too old.
        self.requests.run_pending_tasks();
        &self.lost
    }
}

#[expect(clippy::borrowed_box, reason = "the cache passes its key")]
fn weight(id: &Box<[u8]>, noted: &Arc<Noted>) -> u32 {
    let bytes = id.len() + noted.line.len() + noted.findings.bytes() + ENTRY;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    fn noted(line: &str) -> Noted {
        Noted { findings: Findings::default(), line: line.to_owned() }
    }

    #[test]
    fn a_request_is_taken_once() {
        let store = Store::new(1 << 20, Duration::from_secs(60));
        store.put(b"a", noted("GET /a"));
        assert_eq!(store.take(b"a").unwrap().line, "GET /a");
        assert!(store.take(b"a").is_none() && store.take(b"b").is_none());
        assert_eq!(store.lost().expired.get(), 0);
    }

    #[test]
    fn requests_expire_and_are_counted() {
        let store = Store::new(1 << 20, Duration::from_millis(20));
        store.put(b"a", noted("GET /a"));
        sleep(Duration::from_millis(40));
        assert!(store.take(b"a").is_none());
        assert_eq!(store.lost().expired.get(), 1);
    }

    #[test]
    fn memory_is_limited_and_the_latest_stay() {
        let store = Store::new(100 << 10, Duration::from_secs(60));
        let line = "x".repeat(1_000);
        for n in 0..10_000_u32 {
            store.put(&n.to_be_bytes(), noted(&line));
        }
        let evicted = store.lost().evicted.get();
        assert!((9_900..10_000).contains(&evicted), "{evicted}");
        assert!(store.requests.weighted_size() <= 100 << 10);
        assert!(store.take(&9_999_u32.to_be_bytes()).is_some());
        assert!(store.take(&0_u32.to_be_bytes()).is_none());
    }
}
