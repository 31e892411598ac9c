//! Cancellation for work that continues outside of its handler.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::Cancelled;

/// Whether the answer to a request is still needed, for work that continues outside of its handler. It can be asked from any
/// thread, and awaited in any runtime.
#[derive(Clone, Debug)]
pub struct Cancellation(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    cancelled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reason: Option<Cancelled>,
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

impl Cancellation {
    /// Of a request that is unanswered.
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// The answer is not needed any more.
    pub(crate) fn cancel(&self, why: Cancelled) {
        let mut state = self.0.state();
        // The first reason counts.
        state.reason.get_or_insert(why);
        self.0.cancelled.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_values().for_each(Waker::wake);
    }

    #[cfg(test)]
    pub(crate) fn has_wakers(&self) -> bool {
        !self.0.state().wakers.is_empty()
    }

    /// Whether the answer is not needed any more.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Why the answer is not needed any more, if so.
    pub fn reason(&self) -> Option<Cancelled> {
        self.0.state().reason
    }

    /// Waits until the answer is not needed any more.
    pub fn cancelled(&self) -> impl Future<Output = Cancelled> + Send + use<> {
        Waiting { flag: Arc::clone(&self.0), key: None }
    }
}

/// Waits for a cancellation.
struct Waiting {
    flag: Arc<Flag>,
    /// Of its waker.
    key: Option<u64>,
}

impl Future for Waiting {
    type Output = Cancelled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Cancelled> {
        let flag = Arc::clone(&self.flag);
        let mut state = flag.state();
        if let Some(reason) = state.reason {
            return Poll::Ready(reason);
        }
        let key = *self.key.get_or_insert_with(|| {
            state.next += 1;
            state.next
        });
        state.wakers.insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.flag.state().wakers.remove(&key);
        }
    }
}

impl Flag {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
