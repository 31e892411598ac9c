//! A handler that is replaced while it is in use.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use spop_core::agent::{Partial, TicketId, Watch};

use crate::{Cancelled, Handler, Outcome, Request};

/// A handler that can be replaced at run time, without a lock for requests and without waiting for those under way. Clones
/// are the same handler: each worker has a clone of its own of what is current, and takes the new one with the first
/// request after it was replaced.
///
/// ```
/// use spop_core::{Actions, Scope};
/// use spop_server::{Request, Swap};
///
/// fn score(value: i32) -> impl FnMut(Request<'_>) -> Actions + Clone {
///     move |_: Request<'_>| Actions::new().set(Scope::Session, "score", value)
/// }
///
/// let current = Swap::new(score(50));
/// let handler = current.clone();
/// // Later, anywhere:
/// current.replace(score(60));
/// # drop(handler);
/// ```
///
/// A request costs one look at a number that does not change.
pub struct Swap<H> {
    shared: Arc<Shared<H>>,
    mine: H,
    version: u64,
}

struct Shared<H> {
    version: AtomicU64,
    current: Mutex<Arc<H>>,
}

impl<H> Shared<H> {
    fn current(&self) -> MutexGuard<'_, Arc<H>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Clone> Swap<H> {
    /// A handler to begin with.
    pub fn new(handler: H) -> Self {
        let shared = Shared { version: AtomicU64::new(0), current: Mutex::new(Arc::new(handler.clone())) };
        Self { shared: Arc::new(shared), mine: handler, version: 0 }
    }

    /// Uses this handler for further requests.
    pub fn replace(&self, handler: H) {
        let mut current = self.shared.current();
        let before = std::mem::replace(&mut *current, Arc::new(handler));
        // While the handler is locked: a version that is seen has its handler.
        self.shared.version.fetch_add(1, Ordering::Release);
        drop(current);
        drop(before);
    }

    /// The current handler.
    pub fn current(&self) -> Arc<H> {
        Arc::clone(&self.shared.current())
    }

    #[inline]
    fn refresh(&mut self) -> &mut H {
        if self.shared.version.load(Ordering::Acquire) != self.version {
            self.renew();
        }
        &mut self.mine
    }

    #[cold]
    fn renew(&mut self) {
        let current = self.shared.current();
        self.version = self.shared.version.load(Ordering::Acquire);
        self.mine = H::clone(&current);
    }
}

impl<H: Clone> Clone for Swap<H> {
    fn clone(&self) -> Self {
        let mut clone =
            Self { shared: Arc::clone(&self.shared), mine: self.mine.clone(), version: self.version };
        clone.refresh();
        clone
    }
}

impl<H> fmt::Debug for Swap<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swap").finish_non_exhaustive()
    }
}

impl<H: Handler + Clone> Handler for Swap<H> {
    #[inline]
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        self.refresh().handle(request)
    }

    fn watch(&mut self, arriving: Partial<'_>) -> Watch {
        self.refresh().watch(arriving)
    }

    fn cancel(&mut self, request: TicketId, why: Cancelled) {
        self.refresh().cancel(request, why);
    }

    fn release_memory(&mut self) {
        self.refresh().release_memory();
    }
}
