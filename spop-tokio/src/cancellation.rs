//! How work that is done elsewhere learns that nobody waits for it.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use spop_core::frame::Ids;
use spop_server::Cancelled;
use tokio::sync::watch;

/// Whether anybody waits for a request, for work that goes on outside of its handler: the handler itself is dropped where
/// it waits, and what it has spawned is not.
///
/// ```
/// use spop_tokio::{Actions, Request, Scope};
///
/// async fn search(request: Request) -> Result<Actions, tokio::task::JoinError> {
///     let cancellation = request.cancellation();
///     let found = tokio::task::spawn_blocking(move || {
///         (0..1_000_000_u32).take_while(|_| !cancellation.is_cancelled()).filter(|n| n % 7 == 0).count()
///     });
///     let mut actions = Actions::new();
///     actions.set_var(Scope::Transaction, "found", found.await? as u64);
///     Ok(actions)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Cancellation(watch::Receiver<Option<Cancelled>>);

impl Cancellation {
    /// Whether nobody waits.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// Why nobody waits, if so.
    pub fn reason(&self) -> Option<Cancelled> {
        let reason = *self.0.borrow();
        reason.or_else(|| self.0.has_changed().is_err().then_some(Cancelled::Disconnected))
    }

    /// Waits until nobody waits.
    pub async fn cancelled(&mut self) -> Cancelled {
        let reason = self.0.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| *reason).unwrap_or(Cancelled::Disconnected)
    }
}

/// The requests of a connection whose end somebody waits for: none, as a rule.
#[derive(Debug)]
pub(crate) struct Watched {
    any: AtomicBool,
    /// `None` when the connection has ended.
    requests: Mutex<Option<HashMap<Ids, watch::Sender<Option<Cancelled>>>>>,
}

impl Default for Watched {
    fn default() -> Self {
        Self { any: AtomicBool::new(false), requests: Mutex::new(Some(HashMap::new())) }
    }
}

impl Watched {
    /// Watches a request that waits for its answer.
    pub(crate) fn watch(&self, ids: Ids) -> Cancellation {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(requests) = &mut *requests else {
            return Cancellation(watch::channel(Some(Cancelled::Disconnected)).1);
        };
        self.any.store(true, Ordering::Release);
        Cancellation(requests.entry(ids).or_default().subscribe())
    }

    /// A request has ended.
    #[inline]
    pub(crate) fn end(&self, ids: Ids, why: Cancelled) {
        if self.any.load(Ordering::Acquire) {
            self.end_watched(ids, why);
        }
    }

    #[cold]
    fn end_watched(&self, ids: Ids, why: Cancelled) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(requests) = &mut *requests else { return };
        if let Some(request) = requests.remove(&ids) {
            request.send_replace(Some(why));
        }
        self.any.store(!requests.is_empty(), Ordering::Release);
    }

    /// The connection has ended.
    pub(crate) fn end_all(&self) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        for request in requests.into_iter().flatten().map(|(_, request)| request) {
            request.send_replace(Some(Cancelled::Disconnected));
        }
    }
}
