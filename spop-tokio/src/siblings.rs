//! Answers that take another connection of the same engine (`async`). Only connections that agreed on it come here.

use std::{
    collections::HashMap,
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
    members: HashMap<ConnectionId, Arc<Place>>,
    /// Those that have ended, while their handlers go on.
    orphans: HashMap<ConnectionId, Arc<Place>>,
}

/// What others know of a connection, and leave for it.
#[derive(Debug)]
struct Place {
    connection: ConnectionId,
    engine: Bytes,
    /// Bytes that wait for the peer; `NO_ROOM` when it takes no answers.
    room: AtomicUsize,
    letters: Mutex<Vec<Letter>>,
    waker: AtomicWaker,
    /// No connection of the engine is left.
    abandoned: AtomicBool,
}

const NO_ROOM: usize = usize::MAX;

/// What one connection tells another.
#[derive(Debug)]
pub(crate) enum Letter {
    /// Send this answer.
    Answer(Ticket, Outcome),
    /// Nobody waits for this answer: the same identifiers came again elsewhere.
    Cancel(TicketId),
}

/// A connection's place among its siblings.
#[derive(Debug)]
pub(crate) struct Seat {
    siblings: Arc<Siblings>,
    place: Arc<Place>,
}

impl Siblings {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a session, if it is async.
    pub(crate) fn join(self: &Arc<Self>, connection: ConnectionId, session: &Session) -> Option<Seat> {
        let engine = session.shared_engine()?.clone();
        let place = Arc::new(Place {
            connection,
            engine,
            room: AtomicUsize::new(0),
            letters: Mutex::default(),
            waker: AtomicWaker::new(),
            abandoned: AtomicBool::new(false),
        });
        let mut state = self.lock();
        state.hub.join(connection, session);
        state.members.insert(connection, Arc::clone(&place));
        Some(Seat { siblings: Arc::clone(self), place })
    }
}

impl State {
    fn post(&self, to: ConnectionId, letter: Letter) {
        if let Some(place) = self.members.get(&to).or_else(|| self.orphans.get(&to)) {
            place.letters().push(letter);
            place.waker.wake();
        }
    }

    /// Which connection an answer takes; `again` when it was routed before, to one that is gone.
    fn route(&mut self, ticket: Ticket, again: bool) -> Option<(ConnectionId, Ticket)> {
        let Self { hub, members, .. } = self;
        let room = |connection| members.get(&connection).and_then(|place| place.room());
        match if again { hub.route_again(ticket, room) } else { hub.route(ticket, room) } {
            Route::Home(ticket) => Some((ticket.connection(), ticket)),
            Route::Sibling(sibling, ticket) => Some((sibling, ticket)),
            Route::Nowhere(_) => None,
        }
    }
}

impl Place {
    fn letters(&self) -> MutexGuard<'_, Vec<Letter>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self) -> Option<usize> {
        Some(self.room.load(Ordering::Relaxed)).filter(|room| *room != NO_ROOM)
    }
}

impl Seat {
    /// A NOTIFY came. One with the same identifiers that waits on another connection is cancelled there.
    pub(crate) fn hold(&self, ticket: &Ticket) {
        let mut state = self.siblings.lock();
        if let Some((older, id)) = state.hub.hold(ticket) {
            state.post(older, Letter::Cancel(id));
        }
    }

    /// A NOTIFY of this connection was cancelled.
    pub(crate) fn cancel(&self, ids: Ids, ticket: TicketId) {
        self.siblings.lock().hub.cancel(self.place.connection, ids, ticket);
    }

    /// An answer is ready: it comes back if this connection is to send it, and goes to a sibling or nowhere otherwise.
    pub(crate) fn route(&self, ticket: Ticket, outcome: Outcome) -> Option<(Ticket, Outcome)> {
        self.pass_on(ticket, outcome, false)
    }

    /// This connection cannot send an answer of another any more: another sibling may.
    pub(crate) fn hand_back(&self, ticket: Ticket, outcome: Outcome) {
        self.set_room(None);
        self.pass_on(ticket, outcome, true);
    }

    fn pass_on(&self, ticket: Ticket, outcome: Outcome, again: bool) -> Option<(Ticket, Outcome)> {
        let mut state = self.siblings.lock();
        let (to, ticket) = state.route(ticket, again)?;
        if to == self.place.connection {
            return Some((ticket, outcome));
        }
        state.post(to, Letter::Answer(ticket, outcome));
        None
    }

    /// Tells the others how many bytes wait for the peer; `None` when it takes no answers.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.place.room.store(room.unwrap_or(NO_ROOM), Ordering::Relaxed);
    }

    /// What others have left here, and a wish to be woken when there is more.
    pub(crate) fn letters(&self, waker: &Waker) -> Vec<Letter> {
        self.place.waker.register(waker);
        mem::take(&mut *self.place.letters())
    }

    /// The session is over. True when its handlers may go on, because a sibling can send their answers.
    pub(crate) fn leave(&self) -> bool {
        let connection = self.place.connection;
        let mut state = self.siblings.lock();
        let Some(place) = state.members.remove(&connection) else { return false };
        let siblings = state.hub.leave(connection);
        let mut cancelled = Vec::new();
        for letter in mem::take(&mut *place.letters()) {
            match letter {
                Letter::Answer(ticket, outcome) => {
                    if let Some((to, ticket)) = state.route(ticket, true) {
                        state.post(to, Letter::Answer(ticket, outcome));
                    }
                }
                cancel @ Letter::Cancel(_) => cancelled.push(cancel),
            }
        }
        *place.letters() = cancelled;
        if siblings {
            state.orphans.insert(connection, place);
        } else {
            for orphan in state.orphans.values().filter(|orphan| orphan.engine == place.engine) {
                orphan.abandoned.store(true, Ordering::Release);
                orphan.waker.wake();
            }
        }
        siblings
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
        self.siblings.lock().orphans.remove(&self.place.connection);
    }
}

/// The handlers of a connection that has ended, while its siblings can send what they answer. Ends with how many of them
/// were stopped because nobody waits.
pub(crate) struct Orphans<F> {
    pub(crate) calls: Calls<F>,
    pub(crate) seat: Seat,
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
        let Self { calls, seat, control, deadline, stopped } = &mut *self;
        if control.level(cx.waker()) == Level::Stop {
            return Poll::Ready(*stopped + calls.give_up().len());
        }
        for letter in seat.letters(cx.waker()) {
            if let Letter::Cancel(id) = letter {
                *stopped += usize::from(calls.cancel(id).is_some());
            }
        }
        while let Some((ticket, outcome)) = calls.finished(cx) {
            seat.route(ticket, outcome);
        }
        if deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            for ticket in calls.give_up() {
                seat.route(ticket, Ok(Reply::Fail("no answer in time".to_owned())));
            }
        }
        if seat.place.abandoned.load(Ordering::Acquire) {
            *stopped += calls.give_up().len();
        }
        if calls.is_empty() { Poll::Ready(*stopped) } else { Poll::Pending }
    }
}
