//! Answers that come later, and whatever else other threads have for a worker.

use std::collections::HashMap;

use slab::Slab;
use spop_core::{
    AgentReactor, ConnectionId, Settled, Ticket,
    agent::Reply,
    hub::{Connections, Route},
};
use spop_server::Cancelled;

use crate::{
    Handler,
    app::{Answer, Failure},
    responder::Letter,
    worker::{Conn, Worker},
};

/// Letters read in one go, before the connections have their turns.
const BATCH: usize = 4_096;

impl<H: Handler> Worker<H> {
    /// Reads what other threads have left, or a good part of it.
    pub(crate) fn read_mail(&mut self) {
        if !self.mail {
            return;
        }
        for _ in 0..BATCH {
            match self.letters.try_recv() {
                Ok(Letter::Answer { ticket, answer }) => self.answer(ticket, answer),
                Ok(Letter::Guest(conn)) => self.admit(conn),
                Ok(Letter::Newcomer(newcomer)) => self.receive(*newcomer),
                Ok(Letter::Report(to)) => {
                    let now = self.now;
                    let connections = self.conns.iter().map(|(_, conn)| conn.info(now)).collect();
                    // Whoever asked may have given up.
                    let _ = to.send(connections);
                }
                Err(_) => {
                    self.mail = false;
                    return;
                }
            }
        }
    }

    /// Whether no letter is there, and none can come but answers that nobody waits for.
    pub(crate) fn no_more_letters(&mut self) -> bool {
        let last = self.shared.control.nobody_accepts();
        self.mail = true;
        self.read_mail();
        last && !self.mail && self.conns.is_empty() && self.lobby.is_empty()
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let (home, id, ids) = (ticket.connection(), ticket.id(), ticket.ids());
        if self.app.pending.remove(home, id).is_none() {
            // It was cancelled: that nobody waits is no failure of whoever had it.
            return;
        }
        if ticket.engine_id().is_none() {
            return self.answer_on(home, ticket, answer);
        }
        let mut net = Net { conns: &mut self.conns, keys: &self.keys };
        if let Ok(Reply::Ack(actions)) = answer {
            self.app.warn_of_names(&actions);
            match self.app.hub.settle(self.now, ticket, &actions, &mut net) {
                Ok((settled, Some(target))) => {
                    if let Settled::Late { age } = settled
                        && let Some(conn) = self.keys.get(&target).and_then(|key| self.conns.get(*key))
                    {
                        self.app.late(self.now, &conn.whence, ids, age);
                    } else {
                        self.app.tally.acks += 1;
                    }
                    self.queue_connection(target);
                }
                Ok((_, None)) => {}
                Err((target, error)) => {
                    let failure = Failure::new("answer_unsendable", &error.to_string());
                    self.answer_on(target, error.into_ticket(), Err(failure));
                }
            }
            // Giving up the ticket may have made room at home.
            self.queue_connection(home);
        } else if net.get(home).is_some() {
            self.app.hub.cancel(home, ids, id);
            self.answer_on(home, ticket, answer);
        } else if let Route::Sibling(sibling, ticket) =
            self.app.hub.route(ticket, |connection| net.get(connection)?.send_backlog())
            && !matches!(answer, Ok(Reply::Disconnect { .. }))
        {
            self.answer_on(sibling, ticket, answer);
        }
    }

    /// Fails what connections that are gone have asked, when its time is over.
    pub(crate) fn fail_overdue(&mut self) {
        while let Some(home) = self.app.pending.due(self.now) {
            for ticket in self.app.hub.expire(home) {
                let mut net = Net { conns: &mut self.conns, keys: &self.keys };
                let route =
                    self.app.hub.route_again(ticket, |connection| net.get(connection)?.send_backlog());
                if let Route::Sibling(sibling, ticket) = route {
                    self.answer_on(sibling, ticket, Ok(Reply::Fail("no answer in time".to_owned())));
                }
            }
        }
    }

    fn answer_on(&mut self, connection: ConnectionId, ticket: Ticket, answer: Answer) {
        let Some(key) = self.keys.get(&connection).copied() else { return };
        if let Some(conn) = self.conns.get_mut(key) {
            self.app.settle(self.now, conn.io.reactor_mut(), &conn.whence, ticket, answer);
            self.queue(key);
        }
    }

    fn queue_connection(&mut self, connection: ConnectionId) {
        if let Some(key) = self.keys.get(&connection).copied() {
            self.queue(key);
        }
    }

    #[cold]
    pub(crate) fn release_superseded(&mut self) {
        for (connection, ticket) in std::mem::take(&mut self.app.superseded) {
            let waited = self.app.pending.cancel(connection, ticket, Cancelled::Superseded);
            let mut net = Net { conns: &mut self.conns, keys: &self.keys };
            let released =
                net.get(connection).is_some_and(|reactor| reactor.release(self.now, ticket).is_ok());
            self.app.tally.cancelled += usize::from(waited || released);
            self.queue_connection(connection);
        }
    }
}

/// The connections of a worker, as a hub sees them.
struct Net<'a> {
    conns: &'a mut Slab<Box<Conn>>,
    keys: &'a HashMap<ConnectionId, usize>,
}

impl Connections for Net<'_> {
    fn get(&mut self, connection: ConnectionId) -> Option<&mut AgentReactor> {
        let conn = self.conns.get_mut(*self.keys.get(&connection)?)?;
        Some(conn.io.reactor_mut())
    }
}
