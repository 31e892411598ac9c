//! Routing of answers over the connections of an engine (the `async` capability, section 3.2.1).
//!
//! With async, HAProxy accepts the answer to a NOTIFY on any connection that has the same engine-id. A [`Hub`] records which
//! connections belong to which engine, and which NOTIFYs are unanswered, and chooses the connection for each answer. It owns no
//! connection and sends nothing. Only connections with async in effect are in it.
//!
//! The caller does the following:
//!
//! 1. When a session is established, [`join`](Hub::join) its connection; when it is over, [`leave`](Hub::leave). If siblings
//!    can still answer its NOTIFYs, call [`expire`](Hub::expire) when the message timeout has passed.
//! 2. For each NOTIFY, [`hold`](Hub::hold) its ticket. That may supersede a NOTIFY with the same identifiers on another
//!    connection: HAProxy would take the older answer for an answer to the newer NOTIFY. Stop its handler, and
//!    [`release`](AgentReactor::release) it there.
//! 3. When a NOTIFY is cancelled, [`cancel`](Hub::cancel) it; when its connection has left before, [`forget`](Hub::forget) it.
//! 4. When an answer is ready, [`route`](Hub::route) it: to the connection that received the NOTIFY (home), or to another
//!    one of the engine (a sibling) if home is gone or has a larger send backlog. If the chosen connection has left or is full by
//!    the time it gets the answer, [`route_again`](Hub::route_again). When a connection whose backlog was [`FULL`] is full no more,
//!    say [`has_room`](Hub::has_room).
//!
//! [`settle`](Hub::settle) routes and sends in one step, for callers that have access to all connections.

mod siblings;

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use bytes::Bytes;

use crate::{
    AckError, Actions, AgentReactor, ConnectionId, Session, Settled, Ticket, Timestamp, agent::TicketId,
    frame::Ids,
};

use siblings::{Engine, Left, Waiting};

pub use siblings::{FULL, SIBLINGS};

/// The connections and the unanswered NOTIFYs of each engine.
#[derive(Debug)]
pub struct Hub {
    engines: BTreeMap<Arc<Bytes>, Engine>,
    /// The engine-id of each connection that has joined, or has left with NOTIFYs unanswered.
    homes: BTreeMap<ConnectionId, Arc<Bytes>>,
    max_orphans: usize,
}

/// The result of [recording](Hub::hold) a NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "the answer to one of two NOTIFYs with the same identifiers is not needed any more"]
pub enum Held {
    /// It waits for its answer.
    Recorded,
    /// It waits, and replaces this NOTIFY of another connection, whose answer is not needed any more.
    Supersedes(ConnectionId, TicketId),
    /// Its answer is not needed any more: a NOTIFY with the same identifiers arrived later on another connection.
    Superseded,
}

/// The connection for an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// The connection that received the NOTIFY.
    Home(Ticket),
    /// Another connection of the engine. If home is still open, [`release`](AgentReactor::release) the ticket there.
    Sibling(ConnectionId, Ticket),
    /// None: the NOTIFY was cancelled, or no connection of the engine can send an answer. If home is still open,
    /// [`release`](AgentReactor::release) the ticket there.
    Dropped(Ticket),
}

/// Access to the connections, for [`Hub::settle`].
pub trait Connections {
    /// The reactor of a connection; `None` if it is gone.
    fn get(&mut self, connection: ConnectionId) -> Option<&mut AgentReactor>;
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(1_024)
    }
}

impl Hub {
    /// A hub that keeps, for each engine, at most `max_orphans` unanswered NOTIFYs whose own connection is gone; further ones
    /// are dropped. Default 1024.
    pub const fn new(max_orphans: usize) -> Self {
        Self { engines: BTreeMap::new(), homes: BTreeMap::new(), max_orphans }
    }

    /// Adds a connection whose session was established. False, without an effect, if async is not in effect.
    pub fn join(&mut self, connection: ConnectionId, session: &Session) -> bool {
        let Some(engine) = session.shared_engine() else { return false };
        self.engines.entry(engine.clone()).or_default().join(connection);
        self.homes.insert(connection, engine.clone());
        true
    }

    /// Whether the connection has joined and not left.
    pub fn has(&self, connection: ConnectionId) -> bool {
        let engine = self.homes.get(&connection).and_then(|id| self.engines.get(id));
        engine.is_some_and(|engine| engine.has(connection))
    }

    /// Removes a connection whose session is over. `None` if no sibling can answer its NOTIFYs, which are dropped: stop their
    /// handlers. Otherwise let the handlers continue, except those of the NOTIFYs that are returned: these are beyond `max_orphans`,
    /// and were dropped.
    pub fn leave(&mut self, connection: ConnectionId) -> Option<Vec<TicketId>> {
        let id = self.homes.get(&connection)?;
        match self.engines.get_mut(id)?.leave(connection, self.max_orphans) {
            Left::NotJoined => None,
            Left::Orphans(kept, dropped) => {
                if kept == 0 {
                    self.homes.remove(&connection);
                }
                Some(dropped)
            }
            Left::Last => {
                if let Some(id) = self.homes.remove(&connection)
                    && let Some(engine) = self.engines.remove(&id)
                {
                    for home in engine.departed() {
                        self.homes.remove(&home);
                    }
                }
                None
            }
        }
    }

    /// A connection whose send backlog was [`FULL`] can send answers again: until then no sibling chooses it.
    pub fn has_room(&mut self, connection: ConnectionId) {
        if let Some(engine) = self.homes.get(&connection).and_then(|id| self.engines.get_mut(id)) {
            engine.has_room(connection);
        }
    }

    /// Removes the NOTIFYs of a connection that has left, because the message timeout has passed: its reactor, which had the
    /// timer, is gone. Returns new tickets: [fail](AgentReactor::fail) each on the connection that
    /// [`route_again`](Self::route_again) chooses. The earlier tickets of these NOTIFYs are void.
    pub fn expire(&mut self, home: ConnectionId) -> Vec<Ticket> {
        let Some(id) = self.homes.get(&home) else { return Vec::new() };
        let Some(expired) = self.engines.get_mut(id).and_then(|engine| engine.expire(home)) else {
            return Vec::new();
        };
        let id = Arc::new(id.clone());
        self.homes.remove(&home);
        expired.into_iter().map(|(ids, ticket)| Ticket::in_place_of(ticket, home, ids, &id)).collect()
    }

    /// Records an unanswered NOTIFY that arrived at `arrived`. One with the same identifiers on another connection is superseded,
    /// or has superseded this one if it arrived later.
    pub fn hold(&mut self, arrived: Timestamp, ticket: &Ticket) -> Held {
        let Some(engine) = ticket.engine_id().and_then(|id| self.engines.get_mut(id)) else {
            return Held::Recorded;
        };
        let waiting = Waiting { home: ticket.connection(), ticket: ticket.id() };
        let held = engine.hold(ticket.ids(), waiting, arrived);
        if let Held::Supersedes(home, _) = held
            && engine.answered(home)
        {
            self.homes.remove(&home);
        }
        held
    }

    /// Removes a NOTIFY that was cancelled on the connection that received it.
    pub fn cancel(&mut self, connection: ConnectionId, ids: Ids, ticket: TicketId) {
        let engine = self.homes.get(&connection).and_then(|id| self.engines.get_mut(id));
        if let Some(engine) = engine.filter(|engine| engine.has(connection)) {
            engine.remove(ids, Waiting { home: connection, ticket });
        }
    }

    /// Removes a NOTIFY that needs no answer any more, also if its connection has left. True if it was waiting.
    pub fn forget(&mut self, ticket: &Ticket) -> bool {
        let home = ticket.connection();
        let waiting = Waiting { home, ticket: ticket.id() };
        // A ticket names no engine if a part of its answer was sent.
        let Some(id) = ticket.engine_id().or_else(|| self.homes.get(&home).map(AsRef::as_ref)) else {
            return false;
        };
        let Some(engine) = self.engines.get_mut(id) else { return false };
        if !engine.remove(ticket.ids(), waiting) {
            return false;
        }
        if engine.answered(home) {
            self.homes.remove(&home);
        }
        true
    }

    /// Chooses the connection for an answer, and removes the NOTIFY. `backlog` returns the [send
    /// backlog](AgentReactor::send_backlog) of a connection, or `None` if the connection can send no more answers; it is then
    /// not asked again before it is home to an answer and can send. The connection with the smallest backlog is chosen, home in
    /// a tie, and no sibling that is [full](FULL). If there are many siblings, [eight](SIBLINGS) are compared for each answer,
    /// round-robin.
    pub fn route(&mut self, ticket: Ticket, mut backlog: impl FnMut(ConnectionId) -> Option<usize>) -> Route {
        if ticket.engine_id().is_none_or(|id| !self.engines.contains_key(id)) {
            // Not async; or a part of the answer was sent, and the rest must take the same connection.
            self.forget(&ticket);
            return match backlog(ticket.connection()) {
                Some(_) if ticket.engine_id().is_none() => Route::Home(ticket),
                _ => Route::Dropped(ticket),
            };
        }
        if !self.forget(&ticket) {
            return Route::Dropped(ticket);
        }
        match ticket.engine_id().and_then(|id| self.engines.get_mut(id)) {
            Some(engine) => engine.choose(ticket, false, backlog),
            None => Route::Dropped(ticket),
        }
    }

    /// Chooses another connection for an answer whose connection has left or become full since [`route`](Self::route). It may be the one that
    /// received the NOTIFY: that has released it, and sends the answer like that of a [sibling](Route::Sibling).
    /// [`Dropped`](Route::Dropped) if a new NOTIFY has the same identifiers, or no connection takes the answer.
    pub fn route_again(
        &mut self,
        ticket: Ticket,
        backlog: impl FnMut(ConnectionId) -> Option<usize>,
    ) -> Route {
        match ticket.engine_id().and_then(|id| self.engines.get_mut(id)) {
            Some(engine) if !engine.is_waiting(ticket.ids()) => match engine.choose(ticket, true, backlog) {
                Route::Home(ticket) => Route::Sibling(ticket.connection(), ticket.released()),
                route => route,
            },
            _ => Route::Dropped(ticket),
        }
    }

    /// Answers a NOTIFY on the connection that [`route`](Self::route) chooses, and returns that connection; `None` if the
    /// answer was dropped.
    ///
    /// # Errors
    /// The chosen connection and [`AckError`] if the answer does not fit. [Fail](AgentReactor::fail) the ticket in it on that
    /// connection.
    pub fn settle(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        actions: &Actions,
        connections: &mut impl Connections,
    ) -> Result<(Settled, Option<ConnectionId>), (ConnectionId, AckError)> {
        let (home, id) = (ticket.connection(), ticket.id());
        let route = self.route(ticket, |connection| connections.get(connection)?.send_backlog());
        let (target, ticket) = match route {
            Route::Home(ticket) => (home, ticket),
            Route::Sibling(sibling, ticket) => {
                if connections.get(home).is_some_and(|home| home.release(now, id).is_err()) {
                    return Ok((Settled::Dropped, None));
                }
                (sibling, ticket)
            }
            Route::Dropped(_) => {
                if let Some(home) = connections.get(home) {
                    // It may have been cancelled there.
                    let _ = home.release(now, id);
                }
                return Ok((Settled::Dropped, None));
            }
        };
        match connections.get(target) {
            Some(reactor) => match reactor.acknowledge(now, ticket, actions) {
                Ok(settled) => Ok((settled, Some(target))),
                Err(error) => Err((target, error)),
            },
            None => Ok((Settled::Dropped, None)),
        }
    }

    /// The number of connections that have joined and not left.
    pub fn connections(&self) -> usize {
        self.engines.values().map(Engine::connections).sum()
    }

    /// The number of engines with a connection.
    pub fn engines(&self) -> usize {
        self.engines.len()
    }

    /// The number of unanswered NOTIFYs whose own connection has left, and which siblings can answer: one that drains should stay
    /// for them ([`postpone_disconnect`](AgentReactor::postpone_disconnect)).
    pub fn orphans(&self) -> usize {
        self.engines.values().map(Engine::orphans).sum()
    }

    /// The number of unanswered NOTIFYs.
    pub fn waiting(&self) -> usize {
        self.engines.values().map(Engine::waiting).sum()
    }
}

#[cfg(test)]
mod tests;
