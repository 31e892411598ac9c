//! Answers that take another connection of the same engine (`async`). Only connections that agreed on it come here.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use spop_core::{
    ConnectionId, Session, Ticket,
    agent::TicketId,
    frame::Ids,
    hub::{Hub, Route},
};
use spop_server::Level;

use tokio::time::Sleep;

use crate::{
    Reply,
    calls::{Calls, Outcome},
    control::Subscription,
};

/// The async connections of a server. One lock for all: it is held for a look into a table, never while anything waits.
#[derive(Debug, Default)]
pub(crate) struct Siblings(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    hub: Hub,
    members: HashMap<ConnectionId, Arc<Member>>,
    /// Those that have ended, while their handlers go on.
    orphans: HashMap<ConnectionId, Arc<Member>>,
}

/// A connection as its siblings know it, with the messages they have for it.
#[derive(Debug)]
struct Member {
    connection: ConnectionId,
    engine: Bytes,
    /// Bytes that are queued for the peer; `TAKES_NONE` when the connection takes no answers.
    backlog: AtomicUsize,
    queue: Mutex<VecDeque<SiblingMessage>>,
    waker: AtomicWaker,
    /// No connection of the engine is left.
    abandoned: AtomicBool,
}

const TAKES_NONE: usize = usize::MAX;

/// A message from one connection to another.
#[derive(Debug)]
pub(crate) enum SiblingMessage {
    /// Send this answer.
    Answer(Ticket, Outcome),
    /// This answer is not wanted any more: the same identifiers came again on another connection.
    Cancel(TicketId),
}

/// The membership of a connection in its engine, until it is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    siblings: Arc<Siblings>,
    member: Arc<Member>,
}

impl Siblings {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a session to its engine, if it is async.
    pub(crate) fn join(self: &Arc<Self>, connection: ConnectionId, session: &Session) -> Option<Membership> {
        let engine = session.shared_engine()?.clone();
        let member = Arc::new(Member {
            connection,
            engine,
            backlog: AtomicUsize::new(0),
            queue: Mutex::default(),
            waker: AtomicWaker::new(),
            abandoned: AtomicBool::new(false),
        });
        let mut state = self.lock();
        state.hub.join(connection, session);
        state.members.insert(connection, Arc::clone(&member));
        Some(Membership { siblings: Arc::clone(self), member })
    }
}

impl State {
    fn send(&self, to: ConnectionId, message: SiblingMessage) {
        if let Some(member) = self.members.get(&to).or_else(|| self.orphans.get(&to)) {
            member.queue().push_back(message);
            member.waker.wake();
        }
    }

    /// Which connection an answer takes; `again` when it was routed before, to one that is gone.
    fn route(&mut self, ticket: Ticket, again: bool) -> Option<(ConnectionId, Ticket)> {
        let Self { hub, members, .. } = self;
        let backlog = |connection| members.get(&connection).and_then(|member| member.backlog());
        match if again { hub.route_again(ticket, backlog) } else { hub.route(ticket, backlog) } {
            Route::Home(ticket) => Some((ticket.connection(), ticket)),
            Route::Sibling(sibling, ticket) => Some((sibling, ticket)),
            Route::Dropped(_) => None,
        }
    }
}

impl Member {
    fn queue(&self) -> MutexGuard<'_, VecDeque<SiblingMessage>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backlog(&self) -> Option<usize> {
        Some(self.backlog.load(Ordering::Relaxed)).filter(|backlog| *backlog != TAKES_NONE)
    }
}

impl Membership {
    /// A NOTIFY came. One with the same identifiers that waits on another connection is cancelled there.
    pub(crate) fn hold(&self, ticket: &Ticket) {
        let mut state = self.siblings.lock();
        if let Some((older, id)) = state.hub.hold(ticket) {
            state.send(older, SiblingMessage::Cancel(id));
        }
    }

    /// A NOTIFY of this connection was cancelled.
    pub(crate) fn cancel(&self, ids: Ids, ticket: TicketId) {
        self.siblings.lock().hub.cancel(self.member.connection, ids, ticket);
    }

    /// An answer is ready: it comes back if this connection is to send it, and goes to a sibling or nowhere otherwise.
    pub(crate) fn route(&self, ticket: Ticket, outcome: Outcome) -> Option<(Ticket, Outcome)> {
        self.pass_on(ticket, outcome, false)
    }

    /// This connection cannot send an answer of another any more: another sibling may.
    pub(crate) fn hand_back(&self, ticket: Ticket, outcome: Outcome) {
        self.set_backlog(None);
        self.pass_on(ticket, outcome, true);
    }

    fn pass_on(&self, ticket: Ticket, outcome: Outcome, again: bool) -> Option<(Ticket, Outcome)> {
        let mut state = self.siblings.lock();
        let (to, ticket) = state.route(ticket, again)?;
        if to == self.member.connection {
            return Some((ticket, outcome));
        }
        state.send(to, SiblingMessage::Answer(ticket, outcome));
        None
    }

    /// Tells the siblings how many bytes are queued for the peer; `None` when the connection takes no answers.
    pub(crate) fn set_backlog(&self, backlog: Option<usize>) {
        self.member.backlog.store(backlog.unwrap_or(TAKES_NONE), Ordering::Relaxed);
    }

    /// Has the caller woken when there is a message.
    pub(crate) fn register(&self, waker: &Waker) {
        self.member.waker.register(waker);
    }

    /// The next message of a sibling.
    pub(crate) fn next_message(&self) -> Option<SiblingMessage> {
        self.member.queue().pop_front()
    }

    /// The session is over. True when its handlers may go on, because a sibling can send their answers.
    pub(crate) fn leave(&self) -> bool {
        let connection = self.member.connection;
        let mut state = self.siblings.lock();
        let Some(member) = state.members.remove(&connection) else { return false };
        let siblings = state.hub.leave(connection);
        let mut cancelled = VecDeque::new();
        for message in mem::take(&mut *member.queue()) {
            match message {
                SiblingMessage::Answer(ticket, outcome) => {
                    if let Some((to, ticket)) = state.route(ticket, true) {
                        state.send(to, SiblingMessage::Answer(ticket, outcome));
                    }
                }
                cancel @ SiblingMessage::Cancel(_) => cancelled.push_back(cancel),
            }
        }
        *member.queue() = cancelled;
        if siblings {
            state.orphans.insert(connection, member);
        } else {
            for orphan in state.orphans.values().filter(|orphan| orphan.engine == member.engine) {
                orphan.abandoned.store(true, Ordering::Release);
                orphan.waker.wake();
            }
        }
        siblings
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave();
        self.siblings.lock().orphans.remove(&self.member.connection);
    }
}

/// The handlers of a connection that has ended, while its siblings can send what they answer. Ends with how many of them
/// were stopped because nobody waits.
pub(crate) struct Orphans<F> {
    pub(crate) calls: Calls<F>,
    pub(crate) membership: Membership,
    pub(crate) control: Subscription,
    /// When those that are left have failed: no reactor watches them any more.
    pub(crate) deadline: Option<Pin<Box<Sleep>>>,
    pub(crate) stopped: usize,
}

/// Nothing in it is pinned in place.
impl<F> Unpin for Orphans<F> {}

impl<F: Future<Output = Reply>> Future for Orphans<F> {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        let Self { calls, membership, control, deadline, stopped } = &mut *self;
        if control.level(cx.waker()) == Level::Stop {
            return Poll::Ready(*stopped + calls.give_up().len());
        }
        membership.register(cx.waker());
        while let Some(message) = membership.next_message() {
            if let SiblingMessage::Cancel(id) = message {
                *stopped += usize::from(calls.cancel(id).is_some());
            }
        }
        while let Some((ticket, outcome)) = calls.finished(cx) {
            membership.route(ticket, outcome);
        }
        if deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            for ticket in calls.give_up() {
                membership.route(ticket, Ok(Reply::Fail("no answer in time".to_owned())));
            }
        }
        if membership.member.abandoned.load(Ordering::Acquire) {
            *stopped += calls.give_up().len();
        }
        if calls.is_empty() { Poll::Ready(*stopped) } else { Poll::Pending }
    }
}
