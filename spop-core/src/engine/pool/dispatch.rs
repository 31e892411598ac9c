//! Dispatch of requests to connections, and their outcomes.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use super::{Connection, Kind, Place, Pool, PoolAction, Queued, RequestId, Sent};
use crate::{
    CloseReason, ConnectionId, EngineAction, EngineReactor, Timestamp, Violation,
    engine::{Ended, EngineError, NotifyError, StreamIds, UnclaimedAck, pool::Times},
    frame::{Ids, Received},
    link::{Misuse, Step},
    steps::step,
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
        while let Some(connection) = self.connections.get_mut(id.0) {
            let Step { consumed, action } = input(&mut connection.reactor, bytes);
            bytes = bytes.get(consumed..).unwrap_or_default();
            match action {
                EngineAction::Established(_) => {}
                EngineAction::Answered(answer) => {
                    connection.unproven_since = None;
                    if let Some(agent) = self.agents.get_mut(connection.agent) {
                        agent.backoff.answered(id, self.now);
                    }
                    if let Some(sent) = self.take_sent(id, answer.id) {
                        self.answer(sent, answer.payload);
                    }
                }
                EngineAction::Failed(failure) => {
                    if let Some(sent) = self.take_sent(id, failure.id) {
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
        self.update(id);
        self.dispatch();
        if self.ends_connections {
            self.drain_connection(id);
        }
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
        if self.connections.get(id.0).is_some_and(|connection| connection.reactor.interest().resume) {
            self.input(id, &[], |reactor, bytes| reactor.on_bytes(now, bytes));
        }
    }

    /// Queues [`PoolAction::Drive`] for a connection that must be written to, shut or closed.
    #[inline]
    pub(super) fn attend(&mut self, id: ConnectionId) {
        let interest = self.interest(id);
        if interest.write || interest.shut.is_some() || interest.close {
            self.drive(id);
        }
    }

    /// Queues [`PoolAction::Drive`], once.
    pub(super) fn drive(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id.0)
            && !core::mem::replace(&mut connection.driven, true)
        {
            self.actions.push_back(PoolAction::Drive(id));
        }
    }

    fn answer(&mut self, sent: Sent, payload: Received<'_>) {
        let Some(request) = sent.request else { return };
        self.requests.remove(request.0);
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
        self.requests.remove(request.0);
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
        if let Some(sent) = self.orphans.take(ack.ids) {
            self.end_backoff(by);
            self.answer(sent, ack.payload.into());
            return;
        }
        let (ids, mut ack, mut last) = (ack.ids, ack, None);
        while let Some(id) = self.asked_on(ids, last)
            && let Some(connection) = self.connections.get_mut(id.0)
        {
            step();
            match connection.reactor.claim(now, ack) {
                Ok(answer) => {
                    self.end_backoff(by);
                    if let Some(sent) = self.take_sent(id, answer.id) {
                        self.answer(sent, answer.payload);
                    }
                    self.update(id);
                    self.collect(id);
                    // A drained connection may have queued its DISCONNECT.
                    self.attend(id);
                    return;
                }
                Err(back) => (ack, last) = (back, Some(id)),
            }
        }
    }

    /// A session has ended: its unanswered requests fail, or are orphaned while another connection may answer them (`async`).
    fn ended(&mut self, id: ConnectionId, ended: &Ended) {
        self.count_end(id, &ended.closed.reason);
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        connection.ended = true;
        let established = connection.reactor.session().is_some();
        let (agent, kind, sent) = (connection.agent, connection.kind, core::mem::take(&mut connection.sent));
        let error = if connection.open { ended.error } else { EngineError::Unreachable };
        if connection.reactor.is_async() {
            for sent in &sent {
                self.sent_ids.remove(&(sent.id.ids(), id));
            }
        }
        self.update(id);
        if kind == Kind::HealthCheck {
            if !self.is_draining() {
                self.checked(agent, ended.is_healthy());
            }
            return;
        }
        if !established {
            let refused = match &ended.closed.reason {
                CloseReason::PeerDisconnect { .. } => true,
                CloseReason::Violation(Violation::Hello { .. }) => self.engine.profile.reports_bad_hello,
                _ => false,
            };
            if self.engine.profile.close_fails_queue && !refused {
                for _ in 0..self.window() {
                    let Some(queued) = self.queue.pop_front() else { break };
                    self.fail_queued(&queued, error);
                }
            }
        }
        if ended.orphaned && self.counts.asynchronous > 0 {
            for sent in sent {
                let orphan = self.orphans.insert(sent);
                if let Some(request) = sent.request
                    && let Some(place) = self.requests.get_mut(request.0)
                {
                    *place = Place::Orphan(orphan);
                }
            }
            return;
        }
        for sent in sent {
            self.fail(sent, ended.error);
        }
        if ended.orphaned {
            // No connection is left that could deliver an answer.
            while let Some(sent) = self.orphans.pop_oldest() {
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
        while self.orphans.oldest().is_some_and(|asked| asked + timeout <= now)
            && let Some(sent) = self.orphans.pop_oldest()
        {
            self.fail(sent, EngineError::Timeout);
        }
    }

    /// Sends queued requests on connections that accept them, and opens connections for the rest.
    #[inline]
    pub(super) fn dispatch(&mut self) {
        if !self.queue.is_empty() || !self.orphans.is_empty() || self.is_draining() {
            self.dispatch_queue();
        }
    }

    fn dispatch_queue(&mut self) {
        // First, so that a request whose timeout has ended is not sent.
        self.expire();
        let mut held = Vec::new();
        while !self.queue.is_empty()
            && let Some(id) = self.choose()
            && let Some(queued) = self.queue.pop_front()
        {
            let Queued { request, ids, ref payload, asked } = queued;
            if self.send(id, request, ids, payload, asked) {
                self.attend(id);
            } else {
                held.push(queued);
            }
        }
        for queued in held.into_iter().rev() {
            self.queue.push_front(queued);
        }
        if self.is_draining() && self.queue.is_empty() {
            self.drain_connections();
        } else {
            self.open_more();
        }
    }

    /// Sends a request, or fails it if it is too big. False if its identifiers are in use on this connection: it stays queued
    /// until they are free.
    #[inline]
    pub(super) fn send(
        &mut self,
        on: ConnectionId,
        request: RequestId,
        ids: Option<Ids>,
        payload: &[u8],
        asked: Timestamp,
    ) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(on.0) else { return false };
        let ids = match self.engine.profile.stream_ids {
            StreamIds::Odd => None,
            StreamIds::Streams => Some(ids.unwrap_or(Ids::new(self.next_stream, 1))),
        };
        let id = match connection.reactor.notify_since(now, asked, ids, payload) {
            Ok(id) => id,
            Err(NotifyError::TooBig { .. }) => {
                self.failed(request, EngineError::TooBig, self.times(asked, None));
                return true;
            }
            Err(_) => return false,
        };
        self.next_stream = self.next_stream.max(id.ids().stream.saturating_add(1));
        connection.sent.push_back(Sent { request: Some(request), id, asked, left: now });
        if connection.reactor.is_async() {
            self.sent_ids.insert((id.ids(), on));
        }
        if let Some(place) = self.requests.get_mut(request.0) {
            *place = Place::Connection(on);
        }
        self.update(on);
        true
    }

    /// Opens connections for the queued requests that those being opened cannot carry, to the agents with the fewest.
    fn open_more(&mut self) {
        while self.queue.len() > self.counts.opening * self.window()
            && self.opened.allows(self.now, self.config.max_conn_rate)
            && let Some(agent) = self.least_connected()
        {
            self.opened.add(self.now);
            self.open_one(agent, Kind::Requests);
        }
    }

    /// The limit of requests in flight on a new connection, if its agent has the capabilities of this side.
    fn window(&self) -> usize {
        if self.engine.capabilities.allow_overlap() { self.engine.max_waiting_frames } else { 1 }
    }

    fn least_connected(&self) -> Option<usize> {
        let agents = self.agents.iter().enumerate();
        agents
            .filter(|(_, agent)| agent.up && agent.backoff.retry_at() <= self.now)
            .filter(|(_, agent)| agent.connections < self.config.max_connections)
            .min_by_key(|(_, agent)| agent.connections)
            .map(|(number, _)| number)
    }

    pub(super) fn open_one(&mut self, agent: usize, kind: Kind) {
        let Some(to) = self.agents.get_mut(agent) else { return };
        let config = match kind {
            Kind::Requests => {
                to.connections += 1;
                to.backoff.opened(self.now);
                &self.engine
            }
            Kind::HealthCheck => {
                to.checking = true;
                &self.checks
            }
        };
        let (config, now) = (Arc::clone(config), self.now);
        let id = self.connections.insert_with(|number| {
            let reactor = EngineReactor::new(config, ConnectionId(number), now);
            Box::new(Connection::new(reactor, agent, kind, now))
        });
        let id = ConnectionId(id);
        self.update(id);
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

    /// Drains the connections, once: those that are opened later are drained when they are.
    fn drain_connections(&mut self) {
        if core::mem::replace(&mut self.ends_connections, true) {
            return;
        }
        let all: Vec<_> = self.connections.numbers().map(ConnectionId).collect();
        for id in all {
            self.drain_connection(id);
            self.attend(id);
        }
    }

    fn drain_connection(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        if !connection.open || connection.ended || core::mem::replace(&mut connection.drained, true) {
            return;
        }
        connection.reactor.drain(now);
        // Not `collect`: its dispatch would recurse into this function.
        if connection.reactor.interest().resume
            && let EngineAction::Close(ended) = connection.reactor.on_bytes(now, &[]).action
        {
            self.ended(id, &ended);
        }
        self.update(id);
    }
}
