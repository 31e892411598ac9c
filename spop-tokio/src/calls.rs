//! The handler calls of one connection.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use spop_core::agent::TicketId;
use spop_server::{Answer, Failure, FailureKind};

use crate::Reply;

/// Calls that run.
///
/// A call that is ready at once costs no allocation: it runs in a slot that the next one uses again. One that is not
/// takes the slot with it.
pub(crate) struct Calls<F> {
    slot: Option<Slot<F>>,
    /// None before the first slow call: a set allocates, even if it is empty.
    slow: Option<Box<SlowCalls<F>>>,
}

type Slot<F> = Pin<Box<Option<F>>>;

/// The calls that were not ready at once.
struct SlowCalls<F> {
    set: FuturesUnordered<Slow<F>>,
    /// Those that were not cancelled. A search of the set would be linear.
    by_request: BTreeMap<TicketId, Arc<Mutex<Call<F>>>>,
}

impl<F: Future<Output = Reply>> Calls<F> {
    pub(crate) const fn new() -> Self {
        Self { slot: None, slow: None }
    }

    /// Runs a call as far as it gets without waiting; the answer, if that is to its end. The call is made where it runs:
    /// moving it often costs as much as running it.
    ///
    /// A call that waits has the waker of the connection, until [`finished`](Self::finished) polls it.
    #[inline]
    pub(crate) fn start(
        &mut self,
        cx: &mut Context<'_>,
        request: TicketId,
        call: impl FnOnce() -> F,
    ) -> Option<Answer> {
        let mut slot = self.slot.take().unwrap_or_else(|| Box::pin(None));
        slot.set(Some(call()));
        if let Poll::Ready(answer) = poll_slot(&mut slot, cx) {
            self.slot = Some(slot);
            return Some(answer);
        }
        let call = Arc::new(Mutex::new(Call { slot: Some(slot), waker: None }));
        let slow = self.slow.get_or_insert_with(|| {
            Box::new(SlowCalls { set: FuturesUnordered::new(), by_request: BTreeMap::new() })
        });
        slow.by_request.insert(request, Arc::clone(&call));
        slow.set.push(Slow { request, call });
        None
    }

    /// The next call that has ended since it was started.
    pub(crate) fn finished(&mut self, cx: &mut Context<'_>) -> Option<(TicketId, Answer)> {
        let SlowCalls { set, by_request } = self.slow.as_deref_mut()?;
        while let Poll::Ready(Some(finished)) = set.poll_next_unpin(cx) {
            let Some((request, answer, slot)) = finished else { continue };
            by_request.remove(&request);
            self.slot.get_or_insert(slot);
            return Some((request, answer));
        }
        None
    }

    /// Drops a call where it waits. Its slot is free at once: a peer can have many calls cancelled before the set is polled.
    pub(crate) fn cancel(&mut self, request: TicketId) {
        let Some(call) = self.slow.as_mut().and_then(|slow| slow.by_request.remove(&request)) else { return };
        let mut call = lock(&call);
        if let Some(mut slot) = call.slot.take() {
            empty(&mut slot);
            self.slot.get_or_insert(slot);
        }
        if let Some(waker) = call.waker.take() {
            waker.wake();
        }
    }

    /// Drops all calls. One that panics meanwhile leaves the others.
    pub(crate) fn clear(&mut self) {
        let Some(slow) = self.slow.take() else { return };
        for call in slow.by_request.into_values() {
            if let Some(slot) = &mut lock(&call).slot {
                empty(slot);
            }
        }
    }

    /// Whether no call runs.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slow.as_ref().is_none_or(|slow| slow.set.is_empty())
    }

    /// Frees the memory that further calls would use.
    pub(crate) fn trim(&mut self) {
        self.slot = None;
        if self.is_empty() {
            self.slow = None;
        }
    }
}

/// A call that was not ready at once.
struct Slow<F> {
    request: TicketId,
    call: Arc<Mutex<Call<F>>>,
}

struct Call<F> {
    /// Until it has ended or was cancelled.
    slot: Option<Slot<F>>,
    /// Removes a cancelled call from the set.
    waker: Option<Waker>,
}

fn lock<F>(call: &Mutex<Call<F>>) -> MutexGuard<'_, Call<F>> {
    call.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F: Future<Output = Reply>> Future for Slow<F> {
    /// `None` if it was cancelled.
    type Output = Option<(TicketId, Answer, Slot<F>)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut call = lock(&self.call);
        let Some(mut slot) = call.slot.take() else { return Poll::Ready(None) };
        if let Poll::Ready(answer) = poll_slot(&mut slot, cx) {
            return Poll::Ready(Some((self.request, answer, slot)));
        }
        call.slot = Some(slot);
        match &mut call.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => call.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// Runs the call in a slot, and empties the slot at its end. A panic ends the call, not the connection.
#[inline]
fn poll_slot<F: Future<Output = Reply>>(slot: &mut Slot<F>, cx: &mut Context<'_>) -> Poll<Answer> {
    let Some(call) = slot.as_mut().as_pin_mut() else {
        return Poll::Ready(Err(Failure::new(FailureKind::HandlerFailed, "no call")));
    };
    let answer = match catch_unwind(AssertUnwindSafe(|| call.poll(cx))) {
        Ok(Poll::Pending) => return Poll::Pending,
        Ok(Poll::Ready(reply)) => Ok(reply),
        Err(panic) => Err(Failure::panicked(panic.as_ref())),
    };
    empty(slot);
    Poll::Ready(answer)
}

/// Drops the call in a slot. A panic meanwhile is the handler's, and its request has ended already.
#[inline]
fn empty<F>(slot: &mut Slot<F>) {
    let _ = catch_unwind(AssertUnwindSafe(|| slot.set(None)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)] // A test that panics has failed.
mod tests {
    use std::sync::Arc;

    use futures_util::{FutureExt as _, future::BoxFuture};
    use spop_core::{Action, Actions, AgentReactor, ConnectionId, Timestamp, notation};
    use tokio::sync::oneshot;

    use super::*;

    /// The identifiers of the first requests of a connection.
    fn requests<const N: usize>() -> [TicketId; N] {
        let now = Timestamp::ZERO;
        let mut reactor = AgentReactor::new(Arc::default(), ConnectionId(1), now);
        let hello = r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:"""#;
        let _ = reactor.on_bytes(now, &notation::parse_bytes(hello).unwrap());
        std::array::from_fn(|stream| {
            let notify = notation::parse_bytes(&format!("NOTIFY fin {stream} 1 m")).unwrap();
            let Action::RunMessages(notify) = reactor.on_bytes(now, &notify).action else { panic!() };
            let id = notify.ticket.id();
            let _ = reactor.fail(now, notify.ticket);
            id
        })
    }

    fn waiting() -> (oneshot::Sender<Reply>, BoxFuture<'static, Reply>) {
        let (sender, receiver) = oneshot::channel();
        (sender, receiver.map(Result::unwrap).boxed())
    }

    fn ack() -> Reply {
        Reply::Ack(Actions::new())
    }

    #[test]
    fn a_call_that_is_ready_at_once_leaves_its_memory_to_the_next() {
        let cx = &mut Context::from_waker(Waker::noop());
        let [one, two] = requests();
        let mut calls = Calls::new();
        for request in [one, two] {
            assert_eq!(calls.start(cx, request, || async { ack() }.boxed()), Some(Ok(ack())));
            assert!(calls.slot.is_some() && calls.slow.is_none());
        }
        calls.trim();
        assert!(calls.slot.is_none());
    }

    #[test]
    fn slow_calls_end_in_any_order_or_are_dropped() {
        let cx = &mut Context::from_waker(Waker::noop());
        let [one, two, three, four] = requests();
        let mut calls = Calls::new();
        let [(first, one_call), (second, two_call), (third, three_call), (fourth, four_call)] =
            [(); 4].map(|()| waiting());
        for (request, call) in [(one, one_call), (two, two_call), (three, three_call), (four, four_call)] {
            assert_eq!(calls.start(cx, request, || call), None);
        }
        assert_eq!(calls.finished(cx), None);
        second.send(ack()).unwrap();
        assert_eq!(calls.finished(cx), Some((two, Ok(ack()))));
        calls.cancel(three);
        assert!(third.is_closed(), "its future was dropped");
        // Memory that is in use stays.
        calls.trim();
        first.send(ack()).unwrap();
        assert_eq!(calls.finished(cx), Some((one, Ok(ack()))));
        assert_eq!(calls.finished(cx), None);
        assert!(!calls.is_empty());
        calls.clear();
        assert!(fourth.is_closed() && calls.is_empty());
    }

    #[test]
    fn cancelled_calls_hold_no_memory_until_the_set_is_polled() {
        let cx = &mut Context::from_waker(Waker::noop());
        let requests: [_; 100] = requests();
        let mut calls = Calls::new();
        let mut waiting: Vec<_> = (0..100).map(|_| waiting()).collect();
        for (request, (_, call)) in requests.into_iter().zip(waiting.drain(..)) {
            assert_eq!(calls.start(cx, request, || call), None);
            calls.cancel(request);
            assert!(calls.slot.is_some(), "the next call has the slot");
        }
        assert!(calls.slow.iter().flat_map(|slow| &slow.set).all(|slow| lock(&slow.call).slot.is_none()));
        assert_eq!(calls.finished(cx), None);
        assert!(calls.is_empty());
    }

    #[test]
    fn a_panic_ends_its_call_alone() {
        let cx = &mut Context::from_waker(Waker::noop());
        let [one, two] = requests();
        let mut calls = Calls::new();
        let panicked = calls.start(cx, one, || async { panic!("on purpose") }.boxed());
        assert_eq!(panicked, Some(Err(Failure::new(FailureKind::HandlerPanicked, "on purpose"))));
        assert_eq!(calls.start(cx, two, || async { ack() }.boxed()), Some(Ok(ack())));
    }
}
