//! Answers that take another connection of the same engine (the `async` capability). Only connections with async in effect
//! are here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use spop_core::{
    ConnectionId, Session, Ticket, Timestamp,
    agent::{Reply, TicketId},
    frame::Ids,
    hub::{FULL, Held, Hub, Route},
};

use crate::{Connection, inbox::Message, label::Owed};

/// The engines of a server. The lock is held when a connection joins or leaves, never for a request.
#[derive(Debug, Default)]
pub(crate) struct Engines(Mutex<HashMap<Arc<Bytes>, Arc<Engine>>>);

/// The connections of an engine. Requests of one engine do not wait for those of another.
#[derive(Debug, Default)]
struct Engine(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    hub: Hub,
    members: HashMap<ConnectionId, Arc<Connection>>,
    /// Connections that have ended while their handlers continue.
    orphans: HashMap<ConnectionId, Arc<Connection>>,
}

/// The membership of a connection in its engine.
#[derive(Debug)]
pub(crate) struct Membership {
    engines: Arc<Engines>,
    engine: Arc<Engine>,
    id: Arc<Bytes>,
    connection: Arc<Connection>,
    /// The send backlog when this turn began: what the peer has not read of earlier answers. `None` if no answer can be sent.
    /// A sibling may be faster then.
    pub(crate) held_up: Option<usize>,
    /// When the requests that siblings can still answer time out, after the session.
    pub(crate) orphan_deadline: Option<Timestamp>,
}

/// What becomes of an answer.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the answer is moved in either case")]
pub(crate) enum Routed {
    /// The connection itself sends it.
    Here(Owed, Reply),
    /// A sibling sends it.
    Sent,
    /// It is not needed any more, or no connection can send it.
    Dropped,
}

impl Engines {
    /// Joins a connection to its engine; `None` if async is not in effect.
    pub(crate) fn join(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        session: &Session,
    ) -> Option<Membership> {
        let id = Arc::clone(session.shared_engine()?);
        connection.set_backlog(Some(0));
        let mut engines = self.lock();
        let engine = Arc::clone(engines.entry(id.clone()).or_default());
        let mut state = engine.lock();
        state.hub.join(connection.id, session);
        state.members.insert(connection.id, Arc::clone(connection));
        drop((state, engines));
        Some(Membership {
            engines: Arc::clone(self),
            engine,
            id,
            connection: Arc::clone(connection),
            held_up: Some(0),
            orphan_deadline: None,
        })
    }

    /// How many unanswered requests are recorded.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().values().map(|engine| engine.lock().hub.waiting()).sum()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Bytes>, Arc<Engine>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Routes an answer for the connection `own` with its backlog; `again` if it was routed before, to a connection that cannot
    /// send it.
    fn route(
        &mut self,
        (own, own_backlog): (ConnectionId, Option<usize>),
        owed: Owed,
        answer: Reply,
        mut again: bool,
    ) -> Routed {
        let Owed { mut ticket, label } = owed;
        let mut answer = answer;
        loop {
            let Self { hub, members, .. } = self;
            let backlog = |connection| {
                if connection == own {
                    own_backlog
                } else {
                    members.get(&connection).and_then(|connection| connection.backlog())
                }
            };
            let route = if again { hub.route_again(ticket, backlog) } else { hub.route(ticket, backlog) };
            let (to, routed) = match route {
                Route::Home(ticket) => (ticket.connection(), ticket),
                Route::Sibling(sibling, ticket) => (sibling, ticket),
                Route::Dropped(_) => return Routed::Dropped,
            };
            if to == own {
                return Routed::Here(Owed { ticket: routed, label }, answer);
            }
            let Some(connection) = members.get(&to) else { return Routed::Dropped };
            match connection.inbox.send(Message::Send(Owed { ticket: routed, label }, answer)) {
                // It is about to leave.
                Err(Message::Send(returned, unsent)) => {
                    connection.set_backlog(None);
                    (ticket, answer, again) = (returned.ticket, unsent, true);
                }
                _ => return Routed::Sent,
            }
        }
    }
}

impl Membership {
    /// Records an unanswered request that arrived at `arrived`. One with the same identifiers on another connection is superseded
    /// there; false if that one has superseded this.
    #[must_use]
    pub(crate) fn hold(&self, arrived: Timestamp, ticket: &Ticket) -> bool {
        let mut state = self.engine.lock();
        match state.hub.hold(arrived, ticket) {
            Held::Recorded => {}
            Held::Supersedes(older, id) => {
                if let Some(connection) = state.members.get(&older).or_else(|| state.orphans.get(&older)) {
                    // If it has ended, so have its requests.
                    let _ = connection.inbox.send(Message::Supersede(id));
                }
            }
            Held::Superseded => return false,
        }
        true
    }

    /// A request of this connection was cancelled, or is answered here whatever the backlog.
    pub(crate) fn cancel(&self, ids: Ids, ticket: TicketId) {
        self.engine.lock().hub.cancel(self.connection.id, ids, ticket);
    }

    /// No connection can send the answer of this request. It may be an orphan.
    pub(crate) fn forget(&self, ticket: &Ticket) {
        self.engine.lock().hub.forget(ticket);
    }

    /// The number of connections of the engine, if this one may still get an answer to send whose own connection is gone.
    pub(crate) fn awaits_orphans(&self) -> Option<usize> {
        let engine = self.engine.lock();
        // An answer that was routed is no orphan any more.
        (engine.hub.orphans() > 0 || self.connection.inbox.has_messages()).then(|| engine.hub.connections())
    }

    /// An answer is ready.
    pub(crate) fn route(&self, own_backlog: Option<usize>, owed: Owed, answer: Reply) -> Routed {
        self.engine.lock().route((self.connection.id, own_backlog), owed, answer, false)
    }

    /// Publishes the send backlog of this connection: siblings compare it.
    pub(crate) fn publish_backlog(&self, backlog: Option<usize>) {
        let was_full = self.connection.backlog() == Some(FULL);
        self.connection.set_backlog(backlog);
        if was_full && backlog.is_some_and(|bytes| bytes != FULL) {
            self.engine.lock().hub.has_room(self.connection.id);
        }
    }

    /// This connection cannot send an answer that was routed to it, because it is full or closing.
    pub(crate) fn route_again(&self, is_closing: bool, owed: Owed, answer: Reply) -> Routed {
        let backlog = (!is_closing).then_some(FULL);
        self.connection.set_backlog(backlog);
        self.engine.lock().route((self.connection.id, backlog), owed, answer, true)
    }

    /// The session is over. `None` if no sibling can send its answers. Otherwise those of its requests that no sibling can answer,
    /// because there are too many whose connection has ended.
    pub(crate) fn leave(&self) -> Option<Vec<TicketId>> {
        self.connection.set_backlog(None);
        let mut engines = self.engines.lock();
        let mut state = self.engine.lock();
        if state.members.remove(&self.connection.id).is_none() {
            return state.orphans.contains_key(&self.connection.id).then(Vec::new);
        }
        let dropped = state.hub.leave(self.connection.id);
        if dropped.is_some() {
            state.orphans.insert(self.connection.id, Arc::clone(&self.connection));
        } else {
            for orphan in state.orphans.values() {
                // One that has ended waits for no answers.
                let _ = orphan.inbox.send(Message::Abandon);
            }
            engines.remove(&self.id);
        }
        dropped
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave();
        self.engine.lock().orphans.remove(&self.connection.id);
    }
}
