//! Dispatch of requests to connections, and their outcomes.

use alloc::{sync::Arc, vec::Vec};

use super::{Connection, Pool, PoolAction, Queued, RequestId, Sent};
use crate::{
    CloseReason, ConnectionId, EngineAction, EngineReactor, Timestamp, Violation,
    engine::{Ended, EngineError, NotifyError, StreamIds, UnclaimedAck, pool::Times},
    frame::{Capabilities, Ids, Received},
    link::{Misuse, Step},
};

impl Pool {
    /// Passes an input to a connection, and handles its actions until it needs no more calls. Returns the number of bytes
    /// that were used.
    pub(super) fn input<'i>(
        &mut self,
        id: ConnectionId,
        mut bytes: &'i [u8],
        mut input: impl FnMut(&mut EngineReactor, &'i [u8]) -> Step<EngineAction<'i>>,
    ) -> usize {
        let before = bytes.len();
        while let Some(connection) = self.connections.get_mut(&id) {
            let Step { consumed, action } = input(&mut connection.reactor, bytes);
            bytes = bytes.get(consumed..).unwrap_or_default();
            match action {
                EngineAction::Established(_) => {}
                EngineAction::Answered(answer) => {
                    connection.unproven_since = None;
                    if let Some(agent) = self.agents.get_mut(connection.agent) {
                        agent.backoff.answered(id, self.now);
                    }
                    if let Some(sent) = take(&mut connection.sent, |sent| sent.id == answer.id) {
                        self.answer(sent, answer.payload);
                    }
                }
                EngineAction::Failed(failure) => {
                    if let Some(sent) = take(&mut connection.sent, |sent| sent.id == failure.id) {
                        self.fail(sent, failure.error);
                    }
                }
                EngineAction::Unclaimed(ack) => self.claim(id, ack),
                EngineAction::SendFrames | EngineAction::WantBytes { .. } => break,
                EngineAction::Close(ended) => {
                    self.ended(id, &ended);
                    break;
                }
            }
        }
        self.count_closing(id);
        self.dispatch();
        self.attend(id);
        before - bytes.len()
    }

    /// As [`input`](Self::input), for inputs without bytes.
    pub(super) fn event(
        &mut self,
        id: ConnectionId,
        mut event: impl FnMut(&mut EngineReactor) -> EngineAction<'static>,
    ) {
        self.input(id, &[], |reactor, _| Step { consumed: 0, action: event(reactor) });
    }

    /// As [`event`](Self::event), for inputs that can be a misuse.
    pub(super) fn try_event(
        &mut self,
        id: ConnectionId,
        mut event: impl FnMut(&mut EngineReactor) -> Result<EngineAction<'static>, Misuse>,
    ) -> Result<(), Misuse> {
        let mut misuse = None;
        self.event(id, |reactor| {
            event(reactor).unwrap_or_else(|error| {
                misuse = Some(error);
                EngineAction::WantBytes { at_least: 1 }
            })
        });
        misuse.map_or(Ok(()), Err)
    }

    /// Collects the action that follows from a decision, if the connection asks for a resume.
    fn collect(&mut self, id: ConnectionId) {
        let now = self.now;
        if self.connections.get(&id).is_some_and(|connection| connection.reactor.interest().resume) {
            self.input(id, &[], |reactor, bytes| reactor.on_bytes(now, bytes));
        }
    }

    /// Queues [`PoolAction::Drive`] for a connection that must be written to, shut or closed.
    fn attend(&mut self, id: ConnectionId) {
        let interest = self.interest(id);
        if interest.write || interest.shut.is_some() || interest.close {
            self.actions.push_back(PoolAction::Drive(id));
        }
    }

    fn answer(&mut self, sent: Sent, payload: Received<'_>) {
        let Some(request) = sent.request else { return };
        self.processed += 1;
        let mut times = self.times(sent.asked, Some(sent.left));
        times.wait = Some(self.now.since(sent.left));
        self.actions.push_back(PoolAction::Answered { request, payload: payload.into_bytes(), times });
    }

    fn fail(&mut self, sent: Sent, error: EngineError) {
        if let Some(request) = sent.request {
            self.failed(request, error, self.times(sent.asked, Some(sent.left)));
        }
    }

    fn fail_queued(&mut self, queued: &Queued, error: EngineError) {
        self.failed(queued.request, error, self.times(queued.asked, None));
    }

    fn failed(&mut self, request: RequestId, error: EngineError, times: Times) {
        self.failed.add(self.now);
        self.processed += 1;
        self.errors += 1;
        self.actions.push_back(PoolAction::Failed { request, error, times });
    }

    /// The times of a request that ends now.
    fn times(&self, asked: Timestamp, sent: Option<Timestamp>) -> Times {
        Times {
            queue: sent.map(|sent| sent.since(asked)),
            processing: Some(self.now.since(asked)),
            ..Times::default()
        }
    }

    /// Finds the request of an ACK that arrived on another connection, `by`.
    fn claim(&mut self, by: ConnectionId, ack: UnclaimedAck) {
        let now = self.now;
        let mut ack = ack;
        if let Some(sent) = take(&mut self.orphaned, |sent| sent.id.ids() == ack.ids) {
            self.end_backoff(by);
            self.answer(sent, ack.payload.into());
            return;
        }
        for connection in self.connections.values_mut() {
            match connection.reactor.claim(now, ack) {
                Ok(answer) => {
                    let sent = take(&mut connection.sent, |sent| sent.id == answer.id);
                    let asked_on = connection.reactor.connection();
                    self.end_backoff(by);
                    if let Some(sent) = sent {
                        self.answer(sent, answer.payload);
                    }
                    self.collect(asked_on);
                    return;
                }
                Err(back) => ack = back,
            }
        }
    }

    /// A session has ended: its unanswered requests fail, or are orphaned while another connection may answer them (`async`).
    fn ended(&mut self, id: ConnectionId, ended: &Ended) {
        self.count_end(id, &ended.closed.reason);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.ended = true;
        let (agent, check, sent) =
            (connection.agent, connection.check, core::mem::take(&mut connection.sent));
        let error = if connection.open { ended.error } else { EngineError::Unreachable };
        if check {
            if !self.is_draining() {
                self.checked(agent, ended.is_healthy());
            }
            return;
        }
        if connection.reactor.session().is_none() {
            let refused = match &ended.closed.reason {
                CloseReason::PeerDisconnect { .. } => true,
                CloseReason::Violation(Violation::Hello { .. }) => self.engine.profile.reports_bad_hello,
                _ => false,
            };
            if self.engine.profile.close_fails_queue && !refused {
                let waited = self.queue.len().min(self.window());
                let waited: Vec<_> = self.queue.drain(..waited).collect();
                for queued in &waited {
                    self.fail_queued(queued, error);
                }
            }
        }
        let another = self.connections.values().any(|connection| {
            !connection.ended
                && connection
                    .reactor
                    .session()
                    .is_some_and(|session| session.capabilities.contains(Capabilities::ASYNC))
        });
        if ended.orphaned && another {
            self.orphaned.extend(sent);
            return;
        }
        for sent in sent {
            self.fail(sent, ended.error);
        }
        if ended.orphaned {
            // No connection is left that could deliver an answer.
            for sent in core::mem::take(&mut self.orphaned) {
                self.fail(sent, ended.error);
            }
        }
    }

    /// Fails queued and orphaned requests whose timeout has ended.
    fn expire(&mut self) {
        let now = self.now;
        let timeout = self.engine.timeouts.message;
        let late = |queued: &Queued| timeout.is_some_and(|timeout| queued.asked + timeout <= now);
        let drained = self.drain_by.is_some_and(|by| by <= now);
        while self.queue.front().is_some_and(|queued| drained || late(queued))
            && let Some(queued) = self.queue.pop_front()
        {
            let error =
                if late(&queued) { self.queue_timeout_error(&queued) } else { EngineError::Interrupted };
            self.fail_queued(&queued, error);
        }
        let Some(timeout) = timeout else { return };
        while let Some(sent) = take(&mut self.orphaned, |sent| sent.asked + timeout <= now) {
            self.fail(sent, EngineError::Timeout);
        }
    }

    /// Sends queued requests on connections that accept them, and opens connections for the rest.
    pub(super) fn dispatch(&mut self) {
        // First, so that a request whose timeout has ended is not sent.
        self.expire();
        let (mut touched, mut held) = (Vec::new(), Vec::new());
        while let Some(queued) = self.queue.pop_front() {
            let Some(id) = self.choose() else {
                self.queue.push_front(queued);
                break;
            };
            match self.send(id, &queued) {
                Ok(()) => touched.push(id),
                Err(NotifyError::TooBig { .. }) => self.fail_queued(&queued, EngineError::TooBig),
                // Its identifiers are in use on that connection: it stays queued until they are free.
                Err(_) => held.push(queued),
            }
        }
        for queued in held.into_iter().rev() {
            self.queue.push_front(queued);
        }
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.attend(id);
        }
        if self.is_draining() && self.queue.is_empty() {
            self.drain_connections();
        } else {
            self.open_more();
        }
    }

    fn send(&mut self, id: ConnectionId, queued: &Queued) -> Result<(), NotifyError> {
        let connection = self.connections.get_mut(&id).ok_or(NotifyError::NoSession)?;
        let ids = match self.engine.profile.stream_ids {
            StreamIds::Odd => None,
            StreamIds::Streams => Some(queued.ids.unwrap_or(Ids::new(self.next_stream, 1))),
        };
        let id = connection.reactor.notify_since(self.now, queued.asked, ids, &queued.payload)?;
        self.next_stream = self.next_stream.max(id.ids().stream.saturating_add(1));
        let sent = Sent { request: Some(queued.request), id, asked: queued.asked, left: self.now };
        connection.sent.push(sent);
        Ok(())
    }

    /// The connection for the next request: the one with the fewest requests in flight, of agents that are up; among equals
    /// the agents take turns.
    fn choose(&mut self) -> Option<ConnectionId> {
        let ready = |c: &&Connection| {
            // During a backoff a new connection carries one request only.
            let waits = !c.sent.is_empty() && c.unproven_since.is_some() && self.failure(c.agent).is_some();
            !c.check && c.open && !waits && self.is_up(c.agent) && c.reactor.is_ready()
        };
        let (next, agents) = (self.next_agent, self.agents.len());
        let chosen = self
            .connections
            .values()
            .filter(ready)
            .min_by_key(|c| (c.sent.len(), (c.agent + agents - next % agents) % agents))?;
        self.next_agent = chosen.agent + 1;
        Some(chosen.reactor.connection())
    }

    /// Opens connections for the queued requests that those being opened cannot carry, to the agents with the fewest.
    fn open_more(&mut self) {
        loop {
            let opening = self.connections.values().filter(|c| c.is_opening()).count();
            if self.queue.len() <= opening * self.window()
                || !self.opened.allows(self.now, self.config.max_conn_rate)
            {
                return;
            }
            let Some(agent) = self.least_connected() else { return };
            self.opened.add(self.now);
            self.open_one(agent, false);
        }
    }

    /// The limit of requests in flight on a new connection, if its agent has the capabilities of this side.
    fn window(&self) -> usize {
        let capabilities = self.engine.capabilities;
        let many =
            capabilities.contains(Capabilities::PIPELINING) || capabilities.contains(Capabilities::ASYNC);
        if many { self.engine.max_waiting_frames } else { 1 }
    }

    fn least_connected(&self) -> Option<usize> {
        let count = |agent: usize| self.connections.values().filter(|c| !c.check && c.agent == agent).count();
        let agents = self.agents.iter().enumerate();
        agents
            .filter(|(_, agent)| agent.up && agent.backoff.retry_at() <= self.now)
            .map(|(number, _)| (count(number), number))
            .filter(|(count, _)| *count < self.config.max_connections)
            .min()
            .map(|(_, number)| number)
    }

    fn open_one(&mut self, agent: usize, check: bool) {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let config = Arc::clone(if check { &self.checks } else { &self.engine });
        let reactor = EngineReactor::new(config, id, self.now);
        let connection = Connection {
            reactor,
            agent,
            check,
            open: false,
            ended: false,
            unproven_since: (!check).then_some(self.now),
            sent: Vec::new(),
        };
        self.connections.insert(id, connection);
        if let Some(agent) = self.agents.get_mut(agent).filter(|_| !check) {
            agent.backoff.opened(self.now);
        }
        self.actions.push_back(PoolAction::Open { connection: id, agent });
    }

    /// When a backoff or the connection rate next allows a connection for the queue.
    pub(super) fn reopen_at(&self) -> Option<Timestamp> {
        if self.queue.is_empty() {
            return None;
        }
        let retry = self.agents.iter().filter(|agent| agent.up).map(|agent| agent.backoff.retry_at());
        let rate = self.config.max_conn_rate.and_then(|most| self.opened.next(most));
        retry.chain(rate).filter(|at| *at > self.now).min()
    }

    fn drain_connections(&mut self) {
        let now = self.now;
        let open: Vec<_> = self
            .connections
            .values()
            .filter(|c| c.open && !c.ended)
            .map(|c| c.reactor.connection())
            .collect();
        for id in open {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.reactor.drain(now);
            }
            // Not `collect`: its dispatch would recurse into this function.
            if let Some(connection) = self.connections.get_mut(&id)
                && connection.reactor.interest().resume
                && let EngineAction::Close(ended) = connection.reactor.on_bytes(now, &[]).action
            {
                self.ended(id, &ended);
            }
            self.attend(id);
        }
    }

    /// Starts the health checks that are due.
    pub(super) fn check_health(&mut self) {
        let Some(every) = self.config.check_every.filter(|_| !self.is_draining()) else { return };
        let now = self.now;
        let mut due = Vec::new();
        for (number, agent) in self.agents.iter_mut().enumerate() {
            if agent.check_at.is_some_and(|at| at <= now) {
                agent.check_at = Some(now + every);
                due.push(number);
            }
        }
        for agent in due {
            if !self.connections.values().any(|connection| connection.check && connection.agent == agent) {
                self.open_one(agent, true);
            }
        }
    }

    fn checked(&mut self, number: usize, passed: bool) {
        let Some(agent) = self.agents.get_mut(number) else { return };
        agent.contrary = if passed == agent.up { 0 } else { agent.contrary + 1 };
        if agent.contrary >= if passed { self.config.rise } else { self.config.fall } {
            agent.up = passed;
            agent.contrary = 0;
            self.actions.push_back(PoolAction::Health { agent: number, up: passed });
        }
    }
}

/// Removes and returns the first request that matches.
fn take(list: &mut Vec<Sent>, wanted: impl FnMut(&Sent) -> bool) -> Option<Sent> {
    list.iter().position(wanted).map(|index| list.remove(index))
}
