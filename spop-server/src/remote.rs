//! A connection as other threads see it: its state for a status page, and the messages to it.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering},
    },
    task::Waker,
};

use spop_core::{
    Actions, AgentReactor, ConnectionId, Ticket, Timestamp,
    accept::Peer,
    agent::{Reply, TicketId},
    link::Phase,
};
use tracing::Span;

use crate::{ConnectionInfo, spans};

/// What other threads know of a connection, and send to it.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) id: ConnectionId,
    pub(crate) peer: Peer,
    /// Boxed: disabled, as a rule.
    span: Option<Box<Span>>,
    since: Timestamp,
    inbox: Mutex<Inbox>,
    /// Whether the inbox may have a message.
    has_messages: AtomicBool,
    /// The transport is closed.
    closed: AtomicBool,
    // Written by the connection only, with relaxed ordering.
    phase: AtomicU8,
    in_flight: AtomicU32,
    outgoing: AtomicU32,
    /// The send backlog for siblings; `SENDS_NOTHING` if the connection can send no answer.
    backlog: AtomicUsize,
}

const SENDS_NOTHING: usize = usize::MAX;

#[derive(Debug, Default)]
struct Inbox {
    messages: Vec<Message>,
    waker: Option<Waker>,
    /// The connection takes no more messages.
    closed: bool,
}

/// A message to a connection.
#[derive(Debug)]
pub(crate) enum Message {
    /// A part of the answer to one of its requests.
    Part(TicketId, Actions),
    /// The answer to one of its requests, which was deferred.
    Answer(TicketId, Reply),
    /// The answer to a request of a sibling: send it.
    Send(Ticket, Reply),
    /// A cancellation was made for this request, which may have ended before.
    Watch(TicketId),
    /// A newer request on a sibling supersedes this one.
    Supersede(TicketId),
    /// No connection of the engine is left that could send the answers of this one, which has ended.
    Abandon,
}

impl Remote {
    pub(crate) fn new(id: ConnectionId, peer: Peer, since: Timestamp) -> Self {
        Self {
            id,
            span: Some(spans::connection(&peer, id)).filter(|span| !span.is_disabled()).map(Box::new),
            peer,
            since,
            inbox: Mutex::default(),
            has_messages: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Connected as u8),
            in_flight: AtomicU32::new(0),
            outgoing: AtomicU32::new(0),
            backlog: AtomicUsize::new(SENDS_NOTHING),
        }
    }

    /// The span of the connection.
    #[inline]
    pub(crate) fn span(&self) -> &Span {
        static DISABLED: Span = Span::none();
        self.span.as_deref().unwrap_or(&DISABLED)
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The message, if the connection has ended.
    #[expect(clippy::result_large_err, reason = "the message is moved in either case")]
    pub(crate) fn send(&self, message: Message) -> Result<(), Message> {
        let mut inbox = self.inbox();
        if inbox.closed {
            return Err(message);
        }
        inbox.messages.push(message);
        self.has_messages.store(true, Ordering::Release);
        let waker = inbox.waker.clone();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    pub(crate) fn wake(&self) {
        let waker = self.inbox().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn set_waker(&self, waker: &Waker) {
        self.inbox().waker = Some(waker.clone());
    }

    #[inline]
    pub(crate) fn has_messages(&self) -> bool {
        self.has_messages.load(Ordering::Acquire)
    }

    pub(crate) fn take_messages(&self) -> Vec<Message> {
        let mut inbox = self.inbox();
        self.has_messages.store(false, Ordering::Release);
        mem::take(&mut inbox.messages)
    }

    /// Takes no more messages, and returns those that are left.
    pub(crate) fn close(&self) -> Vec<Message> {
        let mut inbox = self.inbox();
        inbox.closed = true;
        // Requests may outlive the connection, and need not keep what drives it.
        let waker = inbox.waker.take();
        drop(inbox);
        drop(waker);
        self.take_messages()
    }

    /// Publishes that the transport is closed.
    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Publishes the state of the connection.
    #[inline]
    pub(crate) fn publish(&self, reactor: &AgentReactor) {
        self.phase.store(reactor.phase() as u8, Ordering::Relaxed);
        self.in_flight.store(to_u32(reactor.in_flight()), Ordering::Relaxed);
        self.outgoing.store(to_u32(reactor.outgoing_bytes()), Ordering::Relaxed);
    }

    /// Publishes the send backlog for siblings; `None` if the connection can send no answer.
    #[inline]
    pub(crate) fn set_backlog(&self, backlog: Option<usize>) {
        self.backlog.store(backlog.unwrap_or(SENDS_NOTHING), Ordering::Relaxed);
    }

    pub(crate) fn backlog(&self) -> Option<usize> {
        Some(self.backlog.load(Ordering::Relaxed)).filter(|backlog| *backlog != SENDS_NOTHING)
    }

    /// The state for a status page; `engine_id` is known to the caller.
    pub(crate) fn info(&self, now: Timestamp, engine_id: Option<bytes::Bytes>) -> ConnectionInfo {
        let phase = self.phase.load(Ordering::Relaxed);
        let phases = [Phase::Connected, Phase::Greeted, Phase::Established, Phase::Closing];
        ConnectionInfo {
            id: self.id.0,
            peer: self.peer.clone(),
            engine_id,
            phase: phases.into_iter().find(|known| *known as u8 == phase).unwrap_or(Phase::Closing),
            in_flight: self.in_flight.load(Ordering::Relaxed) as usize,
            outgoing: self.outgoing.load(Ordering::Relaxed) as usize,
            age: now.since(self.since),
        }
    }
}

/// For a status page, where 4 GiB are as good as more.
#[inline]
fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
