//! A connection of a pool, and what the pool keeps of it so that no event searches through all connections.

use alloc::collections::VecDeque;

use super::{
    Pool, RequestId,
    ready::{Listed, Ready},
};
use crate::{
    ConnectionId, EngineReactor, Timestamp,
    engine::NotifyId,
    frame::{Capabilities, Ids},
    link::Phase,
};

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent facts, not states.
pub(super) struct Connection {
    pub(super) reactor: EngineReactor,
    pub(super) agent: usize,
    pub(super) kind: Kind,
    /// The transport is connected.
    pub(super) open: bool,
    /// The session has ended; the transport may still be closing.
    pub(super) ended: bool,
    /// The pool has drained it.
    pub(super) drained: bool,
    /// A [`Drive`](super::PoolAction::Drive) is queued.
    pub(super) driven: bool,
    /// When it was opened; `None` once an ACK arrived on it, or its end was counted for the backoff of its agent.
    pub(super) unproven_since: Option<Timestamp>,
    pub(super) sent: VecDeque<Sent>,
    /// What the pool has counted of it.
    counted: Counts,
    listed: Option<Listed>,
    /// Its entry in `alarms`: its deadline, or earlier.
    alarm: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Requests,
    HealthCheck,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// `None` if the request was withdrawn.
    pub(super) request: Option<RequestId>,
    pub(super) id: NotifyId,
    pub(super) asked: Timestamp,
    pub(super) left: Timestamp,
}

/// Sums over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Those that carry requests, now or after their handshake.
    pub(super) serving: usize,
    /// Those of them whose handshake is not done yet.
    pub(super) opening: usize,
    /// Those with a session and no request in flight.
    pub(super) idle: usize,
    /// Those on which the answers to requests of others may arrive.
    pub(super) asynchronous: usize,
    /// Their requests in flight.
    pub(super) waiting: usize,
}

impl Counts {
    const fn replace(&mut self, old: Self, new: Self) {
        self.serving = self.serving + new.serving - old.serving;
        self.opening = self.opening + new.opening - old.opening;
        self.idle = self.idle + new.idle - old.idle;
        self.asynchronous = self.asynchronous + new.asynchronous - old.asynchronous;
        self.waiting = self.waiting + new.waiting - old.waiting;
    }
}

impl Connection {
    pub(super) fn new(reactor: EngineReactor, agent: usize, kind: Kind, now: Timestamp) -> Self {
        Self {
            reactor,
            agent,
            kind,
            open: false,
            ended: false,
            drained: false,
            driven: false,
            unproven_since: (kind == Kind::Requests).then_some(now),
            sent: VecDeque::new(),
            counted: Counts::default(),
            listed: None,
            alarm: None,
        }
    }

    /// Its part of the sums.
    pub(super) fn counts(&self) -> Counts {
        let serves = self.kind == Kind::Requests && !self.ended;
        let phase = self.reactor.phase();
        let session = self.reactor.session().filter(|_| !self.ended);
        Counts {
            serving: usize::from(serves),
            opening: usize::from(serves && phase < Phase::Established),
            idle: usize::from(phase == Phase::Established && self.sent.is_empty()),
            asynchronous: usize::from(
                session.is_some_and(|session| session.capabilities.contains(Capabilities::ASYNC)),
            ),
            waiting: self.sent.len(),
        }
    }

    /// Whether it accepts a request, the backoff of its agent aside.
    pub(super) fn is_ready(&self) -> bool {
        self.kind == Kind::Requests && self.open && self.reactor.is_ready()
    }

    /// Removes and returns the request with this number.
    #[inline]
    pub(super) fn take(&mut self, id: NotifyId) -> Option<Sent> {
        // The oldest, as a rule.
        let index = self.sent.iter().position(|sent| sent.id == id)?;
        self.sent.remove(index)
    }
}

impl Pool {
    /// Takes over what has changed of a connection: to be called after each change of its reactor or its requests.
    #[inline]
    pub(super) fn update(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        let counts = connection.counts();
        self.counts.replace(connection.counted, counts);
        connection.counted = counts;
        // Later deadlines wait until the alarm goes off, since they move with every frame.
        let deadline = if connection.open { connection.reactor.deadline().map(|(at, _)| at) } else { None };
        let late = match (connection.alarm, deadline) {
            (Some(alarm), deadline) => alarm <= self.now || deadline.is_some_and(|at| at < alarm),
            (None, deadline) => deadline.is_some(),
        };
        if late {
            let old = core::mem::replace(&mut connection.alarm, deadline);
            self.set_alarm(id, old, deadline);
        }
        self.list(id);
    }

    /// Lists a connection under its load, if it accepts a request.
    #[inline]
    fn list(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        let Some(agent) = self.agents.get_mut(connection.agent) else { return };
        let (load, proven) = (connection.sent.len(), connection.unproven_since.is_none());
        let ready = connection.is_ready();
        if connection.listed.is_some_and(|listed| ready && (listed.load, listed.proven) == (load, proven)) {
            return;
        }
        let old = connection.listed.take();
        if ready {
            connection.listed = Some(agent.ready.insert(id, proven, load));
        }
        if let Some(old) = old {
            let moved = agent.ready.remove(old);
            self.moved(moved, old);
        }
    }

    /// A connection was moved within its list, to the index of another that has left.
    fn moved(&mut self, moved: Option<ConnectionId>, to: Listed) {
        let Some(connection) = moved.and_then(|id| self.connections.get_mut(id.0)) else { return };
        connection.listed = connection.listed.map(|listed| listed.at(to));
    }

    fn set_alarm(&mut self, id: ConnectionId, old: Option<Timestamp>, new: Option<Timestamp>) {
        if let Some(old) = old {
            self.alarms.remove(&(old, id));
        }
        if let Some(new) = new {
            self.alarms.insert((new, id));
        }
    }

    /// Removes an alarm that has gone off, and returns its connection.
    pub(super) fn take_alarm(&mut self) -> Option<ConnectionId> {
        let (_, id) = self.alarms.first().copied().filter(|(at, _)| *at <= self.now)?;
        self.alarms.pop_first();
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.alarm = None;
        }
        Some(id)
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id.0) else { return };
        self.counts.replace(connection.counted, Counts::default());
        if let Some(alarm) = connection.alarm {
            self.alarms.remove(&(alarm, id));
        }
        let Some(agent) = self.agents.get_mut(connection.agent) else { return };
        match connection.kind {
            Kind::Requests => agent.connections -= 1,
            Kind::HealthCheck => agent.checking = false,
        }
        if let Some(listed) = connection.listed {
            let moved = agent.ready.remove(listed);
            self.moved(moved, listed);
        }
    }

    /// Removes a request from its connection, which has ended it.
    #[inline]
    pub(super) fn take_sent(&mut self, on: ConnectionId, id: NotifyId) -> Option<Sent> {
        let connection = self.connections.get_mut(on.0)?;
        let sent = connection.take(id)?;
        if connection.reactor.is_async() {
            self.sent_ids.remove(&(id.ids(), on));
        }
        Some(sent)
    }

    /// The connection after `after` with a request of these identifiers in flight that another may answer.
    pub(super) fn asked_on(&self, ids: Ids, after: Option<ConnectionId>) -> Option<ConnectionId> {
        let from = after.map_or(0, |after| after.0 + 1);
        let (found, id) = self.sent_ids.range((ids, ConnectionId(from))..).next()?;
        (*found == ids).then_some(*id)
    }

    /// A connection that accepts a request, with the fewest in flight, of agents that are up; among equals the agents take
    /// turns.
    pub(super) fn choose(&mut self) -> Option<ConnectionId> {
        let count = self.agents.len();
        let mut best: Option<(usize, ConnectionId, usize)> = None;
        for turn in 0..count {
            let number = (self.next_agent + turn) % count;
            let Some(agent) = self.agents.get_mut(number).filter(|agent| agent.up) else { continue };
            let backoff = agent.backoff.last().is_some();
            let Some((load, id)) = Ready::least(&mut agent.ready, backoff) else { continue };
            if best.is_none_or(|(least, ..)| load < least) {
                best = Some((load, id, number));
                if load == 0 {
                    break;
                }
            }
        }
        let (_, id, number) = best?;
        self.next_agent = number + 1;
        Some(id)
    }
}

#[cfg(test)]
impl Connection {
    /// Compares what is kept of it with what it is.
    pub(super) fn check(&self, pool: &Pool) {
        assert_eq!(self.counted, self.counts());
        let listed = self.listed.map(|listed| (listed.load, listed.proven));
        let ready = self.is_ready().then_some((self.sent.len(), self.unproven_since.is_none()));
        assert_eq!(listed, ready);
        let id = self.reactor.connection();
        if let Some(listed) = self.listed {
            assert_eq!(pool.agents[self.agent].ready.at(listed), Some(id));
        }
        assert!(self.alarm.is_none_or(|alarm| pool.alarms.contains(&(alarm, id))));
        if let Some((at, _)) = self.reactor.deadline().filter(|_| self.open) {
            assert!(self.alarm.is_some_and(|alarm| alarm <= at), "{:?} for {at}", self.alarm);
        }
    }
}
