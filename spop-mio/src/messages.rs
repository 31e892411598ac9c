//! Messages to a worker, from other threads and from its own connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::Wake,
};

use spop_core::ConnectionId;

use crate::worker::Connection;

/// A message to a worker.
#[derive(Debug)]
pub(crate) enum Message {
    /// A connection has something to do.
    Wake(Arc<ConnectionWaker>),
    /// A connection of a listener that is shared by the workers.
    Connection(Box<Connection>),
}

/// Sends messages to a worker.
#[derive(Debug)]
pub(crate) struct MessageQueue {
    messages: Sender<Message>,
    /// The worker was woken, and has not received since: a further message need not wake it.
    notified: AtomicBool,
    poll: mio::Waker,
}

impl MessageQueue {
    pub(crate) fn new(poll: mio::Waker) -> (Arc<Self>, Receiver<Message>) {
        let (messages, receiver) = channel();
        (Arc::new(Self { messages, notified: AtomicBool::new(false), poll }), receiver)
    }

    /// Sends a message. It is dropped if the worker has ended: with the server, then.
    pub(crate) fn send(&self, message: Message) {
        if self.messages.send(message).is_ok() {
            self.notify();
        }
    }

    /// Wakes the worker.
    pub(crate) fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) && self.poll.wake().is_err() {
            // The next message tries again.
            self.notified.store(false, Ordering::Release);
        }
    }

    /// To be called before messages are received: later ones wake the worker again.
    pub(crate) fn reset(&self) {
        self.notified.swap(false, Ordering::AcqRel);
    }
}

/// Wakes the worker: the stage of the shutdown has changed.
impl Wake for MessageQueue {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

/// Wakes a connection.
#[derive(Debug)]
pub(crate) struct ConnectionWaker {
    queue: Arc<MessageQueue>,
    key: usize,
    /// Keys are used again.
    id: ConnectionId,
    /// Its message was sent, and not received yet.
    woken: AtomicBool,
}

impl ConnectionWaker {
    pub(crate) fn new(queue: &Arc<MessageQueue>, key: usize, id: ConnectionId) -> Self {
        Self { queue: Arc::clone(queue), key, id, woken: AtomicBool::new(false) }
    }

    /// The connection to wake, when the message is received: later wake-ups send another.
    pub(crate) fn receive(&self) -> (usize, ConnectionId) {
        self.woken.swap(false, Ordering::AcqRel);
        (self.key, self.id)
    }
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.queue.send(Message::Wake(Arc::clone(self)));
        }
    }
}

/// All workers of a server.
#[derive(Debug)]
pub(crate) struct Workers {
    queues: Vec<Arc<MessageQueue>>,
    /// Workers that may still send a connection to another.
    accepting: AtomicUsize,
}

impl Workers {
    pub(crate) fn new(queues: Vec<Arc<MessageQueue>>) -> Self {
        Self { accepting: AtomicUsize::new(queues.len()), queues }
    }

    pub(crate) const fn len(&self) -> usize {
        self.queues.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Arc<MessageQueue>> {
        self.queues.get(index)
    }

    /// A worker has closed its listeners.
    pub(crate) fn stopped_accepting(&self) {
        if self.accepting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queues.iter().for_each(|queue| queue.notify());
        }
    }

    /// Whether no worker will send a connection to another any more.
    pub(crate) fn all_stopped_accepting(&self) -> bool {
        self.accepting.load(Ordering::Acquire) == 0
    }
}
