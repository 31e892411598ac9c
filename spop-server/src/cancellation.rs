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

use spop_core::agent::TicketId;

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

    fn cancel(&self, why: Cancelled) {
        let mut state = self.state();
        // The first reason counts.
        state.reason.get_or_insert(why);
        self.cancelled.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_values().for_each(Waker::wake);
    }
}

/// The requests of a connection that have a [`Cancellation`]: none, as a rule.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    any: AtomicBool,
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    #[expect(clippy::box_collection, reason = "each connection has one, and it is empty as a rule")]
    flags: Option<Box<BTreeMap<TicketId, Arc<Flag>>>>,
    /// The connection has ended.
    over: bool,
}

impl Watched {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a request that is unanswered.
    pub(crate) fn watch(&self, request: TicketId) -> Cancellation {
        let mut requests = self.requests();
        if requests.over {
            let flag = Flag::default();
            flag.cancel(Cancelled::Disconnected);
            return Cancellation(Arc::new(flag));
        }
        self.any.store(true, Ordering::Release);
        Cancellation(Arc::clone(requests.flags.get_or_insert_default().entry(request).or_default()))
    }

    /// A request needs no answer any more.
    #[inline]
    pub(crate) fn end(&self, request: TicketId, why: Cancelled) {
        if self.any.load(Ordering::Acquire) {
            self.end_watched(request, why);
        }
    }

    #[cold]
    fn end_watched(&self, request: TicketId, why: Cancelled) {
        let mut requests = self.requests();
        let Some(flags) = &mut requests.flags else { return };
        let flag = flags.remove(&request);
        if flags.is_empty() {
            requests.flags = None;
            self.any.store(false, Ordering::Release);
        }
        drop(requests);
        if let Some(flag) = flag {
            flag.cancel(why);
        }
    }

    /// The connection has ended, and no sibling can send its answers.
    pub(crate) fn end_all(&self) {
        let mut requests = self.requests();
        requests.over = true;
        let flags = std::mem::take(&mut requests.flags);
        drop(requests);
        for flag in flags.into_iter().flat_map(|flags| flags.into_values()) {
            flag.cancel(Cancelled::Disconnected);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn poll(future: impl Future<Output = Cancelled>) -> Poll<Cancelled> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn each_request_ends_for_its_own_reason() {
        let watched = Watched::default();
        let (one, again, other) =
            (watched.watch(ticket(1)), watched.watch(ticket(1)), watched.watch(ticket(2)));
        assert!(!one.is_cancelled() && poll(one.cancelled()).is_pending());
        assert!(one.0.state().wakers.is_empty(), "a future that was dropped leaves no waker");
        watched.end(ticket(1), Cancelled::Superseded);
        watched.end(ticket(1), Cancelled::Aborted);
        assert_eq!(poll(one.cancelled()), Poll::Ready(Cancelled::Superseded));
        assert_eq!(again.reason(), Some(Cancelled::Superseded));
        assert!(!other.is_cancelled());
        watched.end_all();
        assert_eq!(poll(other.cancelled()), Poll::Ready(Cancelled::Disconnected));
        assert!(watched.watch(ticket(3)).is_cancelled(), "after the end");
        assert!(watched.requests().flags.is_none());
    }

    /// The identifier of the `n`-th request of a connection.
    fn ticket(n: usize) -> TicketId {
        use spop_core::{Action, AgentReactor, ConnectionId, Timestamp, notation};
        let now = Timestamp::ZERO;
        let mut reactor = AgentReactor::new(Arc::default(), ConnectionId(1), now);
        let hello = r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:"async,pipelining""#;
        let _ = reactor.on_bytes(now, &notation::parse_bytes(hello).unwrap());
        let mut id = None;
        for stream in 0..=n {
            let notify = notation::parse_bytes(&format!("NOTIFY fin {stream} 1 m")).unwrap();
            let Action::RunMessages(notify) = reactor.on_bytes(now, &notify).action else { panic!() };
            id = Some(notify.ticket.id());
            let _ = reactor.fail(now, notify.ticket);
        }
        id.unwrap()
    }
}
