//! The handler calls of one connection.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use spop_core::agent::TicketId;
use spop_server::{Failure, RequestGuard};
use tracing::{Span, level_filters::LevelFilter};

use crate::{Reply, route::Pending, slot::Spare};

/// Calls that run.
///
/// A call that is ready at once costs no allocation: it runs in a slot that the next one uses again. One that is not
/// takes the slot with it.
pub(crate) struct Calls<'a, F> {
    slot: Option<Slot<F>>,
    /// The same for calls of routes.
    pub(crate) spare: Spare<'a>,
    /// None before the first slow call.
    slow: Option<Box<SlowCalls<'a, F>>>,
}

type Slot<F> = Pin<Box<Option<F>>>;

/// The calls that were not ready at once. Not a `FuturesUnordered`: that finds a call to cancel by a search of all.
struct SlowCalls<'a, F> {
    calls: BTreeMap<TicketId, SlowCall<'a, F>>,
    /// Calls to poll before the next are taken from `woken`.
    batch: VecDeque<TicketId>,
    woken: Arc<Woken>,
}

struct SlowCall<'a, F> {
    call: Call<'a, F>,
    waker: Arc<CallWaker>,
    /// That of the request, if it is enabled: the handler continues in it. Boxed, as it rarely is.
    span: Option<Box<Span>>,
    #[allow(dead_code)] // Held for its drop.
    guard: RequestGuard,
}

enum Call<'a, F> {
    Handler(Slot<F>),
    /// Boxed: with longer elements the nodes of the map would be too long for the fast path of malloc.
    Route(Box<Pending<'a>>),
}

/// The calls that were woken.
#[derive(Default)]
struct Woken(Mutex<WokenCalls>);

#[derive(Default)]
struct WokenCalls {
    requests: VecDeque<TicketId>,
    /// Of the connection.
    waker: Option<Waker>,
}

struct CallWaker {
    request: TicketId,
    /// It is in the list.
    listed: AtomicBool,
    woken: Arc<Woken>,
}

impl<'a, F: Future<Output: Into<Reply>>> Calls<'a, F> {
    pub(crate) fn new() -> Self {
        Self { slot: None, spare: Spare::default(), slow: None }
    }

    /// Runs a call as far as it gets without waiting; the answer, if that is to its end. The call is made where it runs:
    /// moving it often costs as much as running it.
    ///
    /// A call that waits has the waker of the connection, until [`finished`](Self::finished) polls it. It continues in the
    /// span that is current now, and holds the guard to its end.
    #[inline]
    pub(crate) fn start(
        &mut self,
        cx: &mut Context<'_>,
        request: TicketId,
        guard: RequestGuard,
        call: impl FnOnce() -> F,
    ) -> Option<Reply> {
        let mut slot = self.slot.take().unwrap_or_else(|| Box::pin(None));
        slot.set(Some(call()));
        if let Poll::Ready(answer) = poll_slot(&mut slot, cx) {
            self.slot = Some(slot);
            return Some(answer);
        }
        self.wait(request, guard, Call::Handler(slot));
        None
    }

    /// Keeps the call of a route that waits, as [`start`](Self::start) does.
    pub(crate) fn wait_for_route(&mut self, request: TicketId, guard: RequestGuard, call: Pending<'a>) {
        self.wait(request, guard, Call::Route(Box::new(call)));
    }

    fn wait(&mut self, request: TicketId, guard: RequestGuard, call: Call<'a, F>) {
        self.slow.get_or_insert_default().insert(request, call, guard);
    }

    /// The next call that has ended since it was started. To be called until there is none.
    pub(crate) fn finished(&mut self, cx: &Context<'_>) -> Option<(TicketId, Reply)> {
        let slow = self.slow.as_deref_mut()?;
        slow.woken.poll(&mut slow.batch, cx.waker());
        while let Some(request) = slow.batch.pop_front() {
            let Some(call) = slow.calls.get_mut(&request) else { continue };
            call.waker.listed.store(false, Ordering::Release);
            let waker = Waker::from(Arc::clone(&call.waker));
            let polled = in_span(call.span.as_deref(), || call.call.poll(&mut Context::from_waker(&waker)));
            if let Poll::Ready(answer) = polled {
                if let Some(call) = slow.calls.remove(&request) {
                    call.end(&mut self.slot, &mut self.spare);
                }
                return Some((request, answer));
            }
        }
        None
    }

    /// Drops a call where it waits.
    pub(crate) fn cancel(&mut self, request: TicketId) {
        if let Some(call) = self.slow.as_mut().and_then(|slow| slow.calls.remove(&request)) {
            call.end(&mut self.slot, &mut self.spare);
        }
        if let Some(slow) = self.slow.as_mut().filter(|slow| slow.calls.is_empty()) {
            // Without calls they are not polled, and the lists would grow.
            slow.batch.clear();
            slow.woken.lock().requests.clear();
        }
    }

    /// Drops all calls. One that panics meanwhile leaves the others.
    pub(crate) fn clear(&mut self) {
        if let Some(slow) = self.slow.take() {
            slow.calls.into_values().for_each(|call| call.end(&mut None, &mut Spare::default()));
        }
    }

    /// Whether no call runs.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slow.as_ref().is_none_or(|slow| slow.calls.is_empty())
    }

    /// Frees the memory that further calls would use.
    pub(crate) fn trim(&mut self) {
        self.slot = None;
        self.spare.clear();
        if self.is_empty() {
            self.slow = None;
        }
    }
}

impl<F> Default for SlowCalls<'_, F> {
    fn default() -> Self {
        Self { calls: BTreeMap::new(), batch: VecDeque::new(), woken: Arc::default() }
    }
}

impl<'a, F> SlowCalls<'a, F> {
    /// Keeps a call, and has it polled with a waker of its own.
    fn insert(&mut self, request: TicketId, call: Call<'a, F>, guard: RequestGuard) {
        let debugging = LevelFilter::current() >= LevelFilter::DEBUG;
        let span = debugging.then(|| Box::new(Span::current()));
        let waker = CallWaker { request, listed: AtomicBool::new(true), woken: Arc::clone(&self.woken) };
        self.batch.push_back(request);
        self.calls.insert(request, SlowCall { call, waker: Arc::new(waker), span, guard });
    }
}

fn in_span<T>(span: Option<&Span>, run: impl FnOnce() -> T) -> T {
    match span {
        Some(span) => span.in_scope(run),
        None => run(),
    }
}

impl<'a, F> SlowCall<'a, F> {
    /// Drops the call where it waits, and leaves its memory to others. A panic meanwhile is the handler's, and its request has ended
    /// already.
    fn end(self, spare_slot: &mut Option<Slot<F>>, spare: &mut Spare<'a>) {
        let Self { call, span, guard: _guard, .. } = self;
        in_span(span.as_deref(), || match call {
            Call::Handler(mut slot) => {
                empty(&mut slot);
                spare_slot.get_or_insert(slot);
            }
            Call::Route(call) => {
                let _ = catch_unwind(AssertUnwindSafe(|| call.end(spare)));
            }
        });
    }
}

impl<F: Future<Output: Into<Reply>>> Call<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        match self {
            Self::Handler(slot) => poll_slot(slot, cx),
            Self::Route(call) => call.poll(cx),
        }
    }
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, WokenCalls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the calls that were woken, behind those of the last batch: a call that wakes itself is polled again after all others.
    /// Later ones wake the connection. None may stay in the list: the connection was woken for it, and is not again.
    fn poll(&self, batch: &mut VecDeque<TicketId>, connection: &Waker) {
        let mut woken = self.lock();
        match &mut woken.waker {
            Some(waker) => waker.clone_from(connection),
            None => woken.waker = Some(connection.clone()),
        }
        if batch.is_empty() {
            mem::swap(&mut woken.requests, batch);
        } else if !woken.requests.is_empty() {
            batch.append(&mut woken.requests);
        }
    }
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut woken = self.woken.lock();
        woken.requests.push_back(self.request);
        let waker = woken.waker.clone();
        drop(woken);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Runs the call in a slot, and empties the slot at its end. A panic ends the call, not the connection.
#[inline]
fn poll_slot<F: Future<Output: Into<Reply>>>(slot: &mut Slot<F>, cx: &mut Context<'_>) -> Poll<Reply> {
    let Some(call) = slot.as_mut().as_pin_mut() else {
        return Poll::Ready(Reply::failed("no call"));
    };
    let answer = match catch_unwind(AssertUnwindSafe(|| call.poll(cx).map(Into::into))) {
        Ok(Poll::Pending) => return Poll::Pending,
        Ok(Poll::Ready(reply)) => reply,
        Err(panic) => Reply::Fail(Failure::panicked(panic.as_ref())),
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
    use std::sync::atomic::AtomicUsize;

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
            assert_eq!(
                calls.start(cx, request, RequestGuard::default(), || async { ack() }.boxed()),
                Some(ack())
            );
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
            assert_eq!(calls.start(cx, request, RequestGuard::default(), || call), None);
        }
        assert_eq!(calls.finished(cx), None);
        second.send(ack()).unwrap();
        assert_eq!(calls.finished(cx), Some((two, ack())));
        calls.cancel(three);
        assert!(third.is_closed(), "its future was dropped");
        // Memory that is in use stays.
        calls.trim();
        first.send(ack()).unwrap();
        assert_eq!(calls.finished(cx), Some((one, ack())));
        assert_eq!(calls.finished(cx), None);
        assert!(!calls.is_empty());
        calls.clear();
        assert!(fourth.is_closed() && calls.is_empty());
    }

    #[test]
    fn cancelled_calls_hold_no_memory() {
        let cx = &mut Context::from_waker(Waker::noop());
        let requests: [_; 100] = requests();
        let mut calls = Calls::new();
        for request in requests {
            let (sender, call) = waiting();
            assert_eq!(calls.start(cx, request, RequestGuard::default(), || call), None);
            calls.cancel(request);
            assert!(sender.is_closed() && calls.is_empty());
            assert!(calls.slow.iter().all(|slow| slow.batch.is_empty()));
            assert!(calls.slot.is_some(), "the next call has the slot");
        }
        assert_eq!(calls.finished(cx), None);
        calls.trim();
        assert!(calls.slow.is_none());
    }

    #[test]
    fn a_call_that_is_woken_wakes_the_connection() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let cx = &mut Context::from_waker(&waker);
        let [one, two] = requests();
        let mut calls = Calls::new();
        for request in [one, two] {
            let (sender, call) = waiting();
            assert_eq!(calls.start(cx, request, RequestGuard::default(), || call), None);
            // With the waker of the connection first, then with its own.
            assert_eq!(calls.finished(cx), None);
            let before = count.0.load(Ordering::Relaxed);
            sender.send(ack()).unwrap();
            assert_eq!(count.0.load(Ordering::Relaxed), before + 1);
            assert_eq!(calls.finished(cx), Some((request, ack())));
        }
    }

    #[test]
    fn a_call_that_is_woken_while_another_begins_is_polled() {
        let cx = &mut Context::from_waker(Waker::noop());
        let [one, two] = requests();
        let mut calls = Calls::new();
        let ((first, one_call), (_second, two_call)) = (waiting(), waiting());
        assert_eq!(calls.start(cx, one, RequestGuard::default(), || one_call), None);
        assert_eq!(calls.finished(cx), None);
        // The connection is woken for the first once, whatever else it has to poll then.
        assert_eq!(calls.start(cx, two, RequestGuard::default(), || two_call), None);
        first.send(ack()).unwrap();
        assert_eq!(calls.finished(cx), Some((one, ack())));
        assert_eq!(calls.finished(cx), None);
    }

    #[test]
    fn a_call_that_wakes_itself_leaves_the_others_their_turns() {
        let cx = &mut Context::from_waker(Waker::noop());
        let [spins, waits] = requests();
        let mut calls = Calls::new();
        let spinning = std::future::poll_fn(|cx: &mut Context<'_>| {
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!(calls.start(cx, spins, RequestGuard::default(), || spinning.boxed()), None);
        let (sender, call) = waiting();
        assert_eq!(calls.start(cx, waits, RequestGuard::default(), || call), None);
        for _ in 0..3 {
            assert_eq!(calls.finished(cx), None);
        }
        sender.send(ack()).unwrap();
        assert_eq!(calls.finished(cx), Some((waits, ack())));
        assert_eq!(calls.finished(cx), None);
    }

    #[test]
    fn a_panic_ends_its_call_alone() {
        let cx = &mut Context::from_waker(Waker::noop());
        let [one, two] = requests();
        let mut calls = Calls::new();
        let panicked =
            calls.start(cx, one, RequestGuard::default(), || async { panic!("on purpose") }.boxed());
        assert_eq!(panicked, Some(Reply::Fail(Failure::panicked(&"on purpose"))));
        assert_eq!(calls.start(cx, two, RequestGuard::default(), || async { ack() }.boxed()), Some(ack()));
    }
}
