//! What other threads and connections send to a connection, and the cancellations of its requests.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use spop_core::{
    Actions,
    agent::{Reply, TicketId},
};

use crate::{Cancellation, Cancelled, KeptAdmission, label::Owed};

/// A message to a connection.
#[derive(Debug)]
pub(crate) enum Message {
    /// A part of the answer to one of its requests.
    Part(TicketId, Actions),
    /// The answer to one of its requests, which was deferred.
    Answer(TicketId, Reply),
    /// The answer to a request of a sibling: send it.
    Send(Owed, Reply),
    /// A cancellation was made for this request, which may have ended before.
    Watch(TicketId),
    /// A newer request on a sibling supersedes this one.
    Supersede(TicketId),
    /// No connection of the engine is left that could send the answers of this one, which has ended.
    Abandon,
}

/// The messages to a connection, its waker, and the [`Cancellation`]s of its requests. Small when it is empty: each connection
/// has one.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// There may be a message.
    has_messages: AtomicBool,
    /// A request may have a cancellation.
    has_watched: AtomicBool,
    /// No more messages are taken. Changed under the lock.
    closed: AtomicBool,
    /// The connection has ended, and no sibling can send its answers. Changed under the lock.
    over: AtomicBool,
    locked: Mutex<Locked>,
}

#[derive(Debug, Default)]
struct Locked {
    waker: Option<Waker>,
    /// `None` if both are empty.
    contents: Option<Box<Contents>>,
}

#[derive(Debug, Default)]
struct Contents {
    messages: Vec<Message>,
    watched: BTreeMap<TicketId, Cancellation>,
    /// Its place under the limits on connections, once it has ended and handlers keep requests of it.
    admission: Option<KeptAdmission>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- messages ----

    /// Sends a message, and wakes the connection.
    ///
    /// # Errors
    /// The message, if the connection has ended.
    #[expect(clippy::result_large_err, reason = "the message is moved in either case")]
    pub(crate) fn send(&self, message: Message) -> Result<(), Message> {
        let mut locked = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(message);
        }
        locked.contents.get_or_insert_default().messages.push(message);
        self.has_messages.store(true, Ordering::Release);
        let waker = locked.waker.clone();
        drop(locked);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    pub(crate) fn wake(&self) {
        let waker = self.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn set_waker(&self, waker: &Waker) {
        self.lock().waker = Some(waker.clone());
    }

    #[inline]
    pub(crate) fn has_messages(&self) -> bool {
        self.has_messages.load(Ordering::Acquire)
    }

    pub(crate) fn take_messages(&self) -> Vec<Message> {
        let mut locked = self.lock();
        self.has_messages.store(false, Ordering::Release);
        let messages = locked.contents.as_mut().map(|contents| mem::take(&mut contents.messages));
        locked.free_if_empty();
        messages.unwrap_or_default()
    }

    /// Takes no more messages, and returns those that are left.
    pub(crate) fn close(&self) -> Vec<Message> {
        let mut locked = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        // Requests may outlive the connection, and need not keep what drives it.
        let waker = locked.waker.take();
        drop(locked);
        drop(waker);
        self.take_messages()
    }

    /// The connection has ended, and keeps its place under the limits on connections until its last request is dropped: a peer that
    /// connects again and again would have its requests kept without a limit.
    pub(crate) fn keep_admission(&self, admission: KeptAdmission) {
        self.lock().contents.get_or_insert_default().admission = Some(admission);
    }

    // ---- cancellations ----

    /// A cancellation of a request that is unanswered.
    pub(crate) fn watch(&self, request: TicketId) -> Cancellation {
        let mut locked = self.lock();
        if self.over.load(Ordering::Relaxed) {
            let cancellation = Cancellation::new();
            cancellation.cancel(Cancelled::Disconnected);
            return cancellation;
        }
        self.has_watched.store(true, Ordering::Release);
        locked
            .contents
            .get_or_insert_default()
            .watched
            .entry(request)
            .or_insert_with(Cancellation::new)
            .clone()
    }

    /// A request needs no answer any more.
    #[inline]
    pub(crate) fn end_watched(&self, request: TicketId, why: Cancelled) {
        if self.has_watched.load(Ordering::Acquire) {
            self.end_one(request, why);
        }
    }

    #[cold]
    fn end_one(&self, request: TicketId, why: Cancelled) {
        let mut locked = self.lock();
        let Some(contents) = &mut locked.contents else { return };
        let cancellation = contents.watched.remove(&request);
        if contents.watched.is_empty() {
            self.has_watched.store(false, Ordering::Release);
        }
        locked.free_if_empty();
        drop(locked);
        if let Some(cancellation) = cancellation {
            cancellation.cancel(why);
        }
    }

    /// The connection has ended, and no sibling can send its answers.
    pub(crate) fn end_all_watched(&self) {
        let mut locked = self.lock();
        self.over.store(true, Ordering::Relaxed);
        let watched = locked.contents.as_mut().map(|contents| mem::take(&mut contents.watched));
        locked.free_if_empty();
        drop(locked);
        for cancellation in watched.unwrap_or_default().into_values() {
            cancellation.cancel(Cancelled::Disconnected);
        }
    }
}

impl Locked {
    fn free_if_empty(&mut self) {
        if self
            .contents
            .as_ref()
            .is_some_and(|one| one.messages.is_empty() && one.watched.is_empty() && one.admission.is_none())
        {
            self.contents = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use super::*;

    fn poll(future: impl Future<Output = Cancelled>) -> Poll<Cancelled> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn each_request_ends_for_its_own_reason() {
        let inbox = Inbox::default();
        let (one, again, other) = (inbox.watch(ticket(1)), inbox.watch(ticket(1)), inbox.watch(ticket(2)));
        assert!(!one.is_cancelled() && poll(one.cancelled()).is_pending());
        assert!(!one.has_wakers(), "a future that was dropped leaves no waker");
        inbox.end_watched(ticket(1), Cancelled::Superseded);
        inbox.end_watched(ticket(1), Cancelled::Aborted);
        assert_eq!(poll(one.cancelled()), Poll::Ready(Cancelled::Superseded));
        assert_eq!(again.reason(), Some(Cancelled::Superseded));
        assert!(!other.is_cancelled());
        inbox.end_all_watched();
        assert_eq!(poll(other.cancelled()), Poll::Ready(Cancelled::Disconnected));
        assert!(inbox.watch(ticket(3)).is_cancelled(), "after the end");
        assert!(inbox.lock().contents.is_none());
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
