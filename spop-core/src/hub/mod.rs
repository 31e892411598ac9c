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
//! 3. When a NOTIFY is cancelled, [`cancel`](Hub::cancel) it.
//! 4. When an answer is ready, [`route`](Hub::route) it: to the connection that received the NOTIFY (home), or to another
//!    one of the engine (a sibling) if home is gone or has a larger send backlog.
//!
//! [`settle`](Hub::settle) routes and sends in one step, for callers that have access to all connections.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};

use bytes::Bytes;

use crate::{
    AckError, Actions, AgentReactor, ConnectionId, Session, Settled, Ticket, Timestamp, agent::TicketId,
    frame::Ids,
};

/// The connections and the unanswered NOTIFYs of each engine.
#[derive(Debug)]
pub struct Hub {
    engines: BTreeMap<Bytes, Engine>,
    /// The engine-id of each connection.
    members: BTreeMap<ConnectionId, Bytes>,
    max_orphans: usize,
}

#[derive(Debug, Default)]
struct Engine {
    members: BTreeSet<ConnectionId>,
    waiting: BTreeMap<Ids, Waiting>,
    /// How many of `waiting` were received by a connection that has left.
    orphans: usize,
}

impl Engine {
    /// The connection with the smallest send backlog; home if several have it. Fast path: a home with an empty queue needs no
    /// comparison.
    fn choose(&self, ticket: Ticket, mut backlog: impl FnMut(ConnectionId) -> Option<usize>) -> Route {
        let home = ticket.connection();
        if backlog(home) == Some(0) && self.members.contains(&home) {
            return Route::Home(ticket);
        }
        let free =
            self.members.iter().filter_map(|member| Some((backlog(*member)?, *member != home, *member)));
        match free.min() {
            Some((_, false, _)) => Route::Home(ticket),
            Some((_, true, sibling)) => Route::Sibling(sibling, ticket),
            None => Route::Dropped(ticket),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    home: ConnectionId,
    ticket: TicketId,
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
    /// A hub that keeps, for each engine, at most `max_orphans` unanswered NOTIFYs whose own connection is gone. Default 1024.
    pub const fn new(max_orphans: usize) -> Self {
        Self { engines: BTreeMap::new(), members: BTreeMap::new(), max_orphans }
    }

    /// Adds a connection whose session was established. False, without an effect, if async is not in effect.
    pub fn join(&mut self, connection: ConnectionId, session: &Session) -> bool {
        let Some(engine) = session.shared_engine() else { return false };
        self.engines.entry(engine.clone()).or_default().members.insert(connection);
        self.members.insert(connection, engine.clone());
        true
    }

    /// Whether the connection has joined and not left.
    pub fn has(&self, connection: ConnectionId) -> bool {
        self.members.contains_key(&connection)
    }

    /// Removes a connection whose session is over. True if a sibling can still answer its NOTIFYs: let their handlers continue.
    /// NOTIFYs beyond `max_orphans` are dropped, and all of them if there is no sibling.
    pub fn leave(&mut self, connection: ConnectionId) -> bool {
        let Some(id) = self.members.remove(&connection) else { return false };
        let Some(engine) = self.engines.get_mut(&id) else { return false };
        engine.members.remove(&connection);
        if engine.members.is_empty() {
            self.engines.remove(&id);
            return false;
        }
        let (mut orphans, max) = (engine.orphans, self.max_orphans);
        engine.waiting.retain(|_, waiting| {
            waiting.home != connection || {
                orphans += 1;
                orphans <= max
            }
        });
        engine.orphans = orphans.min(max);
        true
    }

    /// Removes the NOTIFYs of a connection that has left, because the message timeout has passed: its reactor, which had the
    /// timer, is gone. Returns new tickets: [fail](AgentReactor::fail) each on the connection that
    /// [`route_again`](Self::route_again) chooses. The tickets that handlers hold are void from now on.
    pub fn expire(&mut self, home: ConnectionId) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        for (id, engine) in &mut self.engines {
            if engine.orphans == 0 || engine.members.contains(&home) {
                continue;
            }
            let id = Arc::new(id.clone());
            engine.waiting.retain(|ids, waiting| {
                let stays = waiting.home != home;
                if !stays {
                    engine.orphans = engine.orphans.saturating_sub(1);
                    tickets.push(Ticket::in_place_of(waiting.ticket, home, *ids, &id));
                }
                stays
            });
        }
        tickets
    }

    /// Records an unanswered NOTIFY. Returns the NOTIFY on another connection that it supersedes, whose answer is no longer
    /// needed.
    pub fn hold(&mut self, ticket: &Ticket) -> Option<(ConnectionId, TicketId)> {
        let engine = self.engines.get_mut(ticket.engine_id()?)?;
        let waiting = Waiting { home: ticket.connection(), ticket: ticket.id() };
        let older = engine.waiting.insert(ticket.ids(), waiting)?;
        if !engine.members.contains(&older.home) {
            engine.orphans = engine.orphans.saturating_sub(1);
        }
        (older.home != ticket.connection()).then_some((older.home, older.ticket))
    }

    /// Removes a NOTIFY that was cancelled on the connection that received it.
    pub fn cancel(&mut self, connection: ConnectionId, ids: Ids, ticket: TicketId) {
        let Some(engine) = self.members.get(&connection).and_then(|id| self.engines.get_mut(id)) else {
            return;
        };
        if engine.waiting.get(&ids) == Some(&Waiting { home: connection, ticket }) {
            engine.waiting.remove(&ids);
        }
    }

    /// Chooses the connection for an answer, and removes the NOTIFY. `backlog` returns the [send
    /// backlog](AgentReactor::send_backlog) of a connection, `None` if it can send no answer. The smallest counts, and home
    /// if several have it.
    pub fn route(&mut self, ticket: Ticket, mut backlog: impl FnMut(ConnectionId) -> Option<usize>) -> Route {
        let Some(engine) = ticket.engine_id().and_then(|id| self.engines.get_mut(id)) else {
            // Not async; or a part of the answer was sent, and the rest must take the same connection.
            self.cancel(ticket.connection(), ticket.ids(), ticket.id());
            return match backlog(ticket.connection()) {
                Some(_) if ticket.engine_id().is_none() => Route::Home(ticket),
                _ => Route::Dropped(ticket),
            };
        };
        let home = ticket.connection();
        let waiting = Waiting { home, ticket: ticket.id() };
        if engine.waiting.get(&ticket.ids()) != Some(&waiting) {
            return Route::Dropped(ticket);
        }
        engine.waiting.remove(&ticket.ids());
        if !engine.members.contains(&home) {
            engine.orphans = engine.orphans.saturating_sub(1);
        }
        engine.choose(ticket, backlog)
    }

    /// Chooses another connection for an answer whose connection has left since [`route`](Self::route). It may be the one that
    /// received the NOTIFY: that has released it, and sends the answer like that of a [sibling](Route::Sibling).
    /// [`Dropped`](Route::Dropped) if a new NOTIFY has the same identifiers.
    pub fn route_again(&self, ticket: Ticket, backlog: impl FnMut(ConnectionId) -> Option<usize>) -> Route {
        match ticket.engine_id().and_then(|id| self.engines.get(id)) {
            Some(engine) if !engine.waiting.contains_key(&ticket.ids()) => {
                match engine.choose(ticket, backlog) {
                    Route::Home(ticket) => Route::Sibling(ticket.connection(), ticket.released()),
                    route => route,
                }
            }
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

    /// The number of engines with a connection.
    pub fn engines(&self) -> usize {
        self.engines.len()
    }

    /// The number of unanswered NOTIFYs.
    pub fn waiting(&self) -> usize {
        self.engines.values().map(|engine| engine.waiting.len()).sum()
    }
}

#[cfg(test)]
mod tests;
