//! Answers that may take any connection of an engine (the `async` capability, section 3.2.1).
//!
//! [`Hub`] is plain data: which connections belong to which engine, and which NOTIFYs wait in it. It holds no connection
//! and sends nothing; it says which connection an answer takes. Only connections that agreed on async are in it.
//!
//! The life of a NOTIFY in a hub:
//!
//! 1. its connection was [`join`](Hub::join)ed when the session was established;
//! 2. it came, and was [`hold`](Hub::hold)ed. That may cancel one with the same identifiers that waits on another
//!    connection: HAProxy would take the older answer for the newer event;
//! 3. its answer is ready, and [`route`](Hub::route) says where it goes: home, or to a sibling when home is gone or has
//!    more bytes waiting; or it was cancelled meanwhile ([`cancel`](Hub::cancel)).
//!
//! [`settle`](Hub::settle) does the third step whole for callers that have all connections at hand.

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

/// The connections of each engine, and what waits in it for an answer.
#[derive(Debug)]
pub struct Hub {
    engines: BTreeMap<Bytes, Engine>,
    members: BTreeMap<ConnectionId, Bytes>,
    max_orphans: usize,
}

#[derive(Debug, Default)]
struct Engine {
    members: BTreeSet<ConnectionId>,
    waiting: BTreeMap<Ids, Waiting>,
    orphans: usize,
}

impl Engine {
    /// The connection on which the least waits; home in doubt.
    fn choose(&self, ticket: Ticket, mut outgoing: impl FnMut(ConnectionId) -> Option<usize>) -> Route {
        let home = ticket.connection();
        if outgoing(home) == Some(0) && self.members.contains(&home) {
            return Route::Home(ticket);
        }
        let free =
            self.members.iter().filter_map(|member| Some((outgoing(*member)?, *member != home, *member)));
        match free.min() {
            Some((_, false, _)) => Route::Home(ticket),
            Some((_, true, sibling)) => Route::Sibling(sibling, ticket),
            None => Route::Nowhere(ticket),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    home: ConnectionId,
    ticket: TicketId,
}

/// Where an answer goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// To the connection that the NOTIFY came from.
    Home(Ticket),
    /// To another connection of the engine. If home still lives, [`release`](AgentReactor::release) the ticket there.
    Sibling(ConnectionId, Ticket),
    /// Nowhere: the NOTIFY was cancelled, or no connection of the engine is left. If home still lives,
    /// [`release`](AgentReactor::release) the ticket there.
    Nowhere(Ticket),
}

/// The connections of a caller that has them all.
pub trait Connections {
    /// The reactor of a connection that lives.
    fn get(&mut self, connection: ConnectionId) -> Option<&mut AgentReactor>;
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(1_024)
    }
}

impl Hub {
    /// A hub that remembers, for each engine, at most `max_orphans` NOTIFYs whose own connection is gone. The default is
    /// 1024.
    pub const fn new(max_orphans: usize) -> Self {
        Self { engines: BTreeMap::new(), members: BTreeMap::new(), max_orphans }
    }

    /// A session was established. False, and nothing is remembered, unless it is async with an engine-id.
    pub fn join(&mut self, connection: ConnectionId, session: &Session) -> bool {
        let Some(engine) = session.shared_engine() else { return false };
        self.engines.entry(engine.clone()).or_default().members.insert(connection);
        self.members.insert(connection, engine.clone());
        true
    }

    /// Whether a connection has joined and not left.
    pub fn has(&self, connection: ConnectionId) -> bool {
        self.members.contains_key(&connection)
    }

    /// A session is over. True when the NOTIFYs that came from it can still be answered, by a sibling: let their handlers
    /// go on. Otherwise they are forgotten, as those over the limit are.
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

    /// The time is over for what a connection has asked that has left, and whose reactor watches no time any more. Returns
    /// tickets to fail it with, by [`route_again`](Self::route_again); those that are out answer nothing from now on.
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

    /// A NOTIFY came. Returns the ticket that it supersedes on another connection: nobody waits for its answer.
    pub fn hold(&mut self, ticket: &Ticket) -> Option<(ConnectionId, TicketId)> {
        let engine = self.engines.get_mut(ticket.engine_id()?)?;
        let waiting = Waiting { home: ticket.connection(), ticket: ticket.id() };
        let older = engine.waiting.insert(ticket.ids(), waiting)?;
        if !engine.members.contains(&older.home) {
            engine.orphans = engine.orphans.saturating_sub(1);
        }
        (older.home != ticket.connection()).then_some((older.home, older.ticket))
    }

    /// A NOTIFY was cancelled on the connection it came from.
    pub fn cancel(&mut self, connection: ConnectionId, ids: Ids, ticket: TicketId) {
        let Some(engine) = self.members.get(&connection).and_then(|id| self.engines.get_mut(id)) else {
            return;
        };
        if engine.waiting.get(&ids) == Some(&Waiting { home: connection, ticket }) {
            engine.waiting.remove(&ids);
        }
    }

    /// An answer is ready: says where it goes, and forgets the NOTIFY. `outgoing` tells how many bytes wait on a
    /// connection, `None` when it can take no answer; the least counts, and home in doubt.
    pub fn route(
        &mut self,
        ticket: Ticket,
        mut outgoing: impl FnMut(ConnectionId) -> Option<usize>,
    ) -> Route {
        let Some(engine) = ticket.engine_id().and_then(|id| self.engines.get_mut(id)) else {
            // Without async; or it was begun in parts, and cannot leave its connection any more.
            self.cancel(ticket.connection(), ticket.ids(), ticket.id());
            return match outgoing(ticket.connection()) {
                Some(_) if ticket.engine_id().is_none() => Route::Home(ticket),
                _ => Route::Nowhere(ticket),
            };
        };
        let home = ticket.connection();
        let waiting = Waiting { home, ticket: ticket.id() };
        if engine.waiting.get(&ticket.ids()) != Some(&waiting) {
            return Route::Nowhere(ticket);
        }
        engine.waiting.remove(&ticket.ids());
        if !engine.members.contains(&home) {
            engine.orphans = engine.orphans.saturating_sub(1);
        }
        engine.choose(ticket, outgoing)
    }

    /// An answer was on its way to a connection that has left since: says where it goes instead. Nowhere when the same
    /// identifiers wait anew.
    pub fn route_again(&self, ticket: Ticket, outgoing: impl FnMut(ConnectionId) -> Option<usize>) -> Route {
        match ticket.engine_id().and_then(|id| self.engines.get(id)) {
            Some(engine) if !engine.waiting.contains_key(&ticket.ids()) => engine.choose(ticket, outgoing),
            _ => Route::Nowhere(ticket),
        }
    }

    /// Answers a NOTIFY on the connection that [`route`](Self::route) chooses, and returns which.
    ///
    /// # Errors
    /// [`AckError`] when the answer does not fit; the ticket comes back for [`AgentReactor::fail`] on that connection.
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
            Route::Nowhere(_) => {
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

    /// How many engines have connections.
    pub fn engines(&self) -> usize {
        self.engines.len()
    }

    /// How many NOTIFYs wait for an answer.
    pub fn waiting(&self) -> usize {
        self.engines.values().map(|engine| engine.waiting.len()).sum()
    }
}

#[cfg(test)]
mod tests;
