//! Backoff for agents whose connections end before they answer a request.

use core::time::Duration;

use super::{Pool, PoolAction, PoolConfig, Queued};
use crate::{CloseReason, ConnectionId, Status, Timestamp, engine::EngineError, link::Timer};

/// The last connection to an agent ended before it answered a request, or could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentFailure {
    /// How the connection ended.
    pub reason: CloseReason,
    /// The error of a request whose processing timeout ends while it is queued for this agent:
    /// [`Spop`](EngineError::Spop) with the status of the agent's DISCONNECT or of its violation, or with
    /// [`Status::IO`] after a close without one; [`Timeout`](EngineError::Timeout) if the agent could not be reached or did
    /// not answer the HELLO.
    pub error: EngineError,
    /// The number of consecutive failed attempts. Connections that were open at the same time count as one.
    pub attempts: u32,
    /// No connection to this agent is opened before this time.
    pub retry_at: Timestamp,
}

/// The backoff of one agent.
///
/// A failure begins a pause, which doubles with each failed attempt up to a bound. During an attempt connections are opened
/// one by one, a pause apart, and each carries a single request. An ACK ends the backoff. Connections older than the last
/// failure do not count, neither their end nor their ACKs. Otherwise an agent at its connection limit, which serves the old
/// connections and refuses each new one, would get a connection attempt after every ACK.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    longest: Duration,
    last: Option<AgentFailure>,
    retry_at: Timestamp,
    /// The first connection that belongs to the current attempt.
    attempt_from: ConnectionId,
}

impl Backoff {
    pub(super) fn new(config: &PoolConfig, now: Timestamp) -> Self {
        let (base, longest) = (config.retry_after, config.max_retry_after);
        Self { base, longest, last: None, retry_at: now, attempt_from: ConnectionId(0) }
    }

    pub(super) const fn last(&self) -> Option<&AgentFailure> {
        self.last.as_ref()
    }

    /// When the next connection may be opened.
    pub(super) const fn retry_at(&self) -> Timestamp {
        self.retry_at
    }

    /// A connection to this agent was opened: during a backoff the next one is a pause away.
    pub(super) fn opened(&mut self, now: Timestamp) {
        if let Some(last) = &self.last {
            self.retry_at = now + self.pause(last.attempts);
        }
    }

    /// An ACK arrived on this connection.
    #[inline]
    pub(super) fn answered(&mut self, connection: ConnectionId, now: Timestamp) {
        if self.last.is_some() && connection >= self.attempt_from {
            self.last = None;
            self.retry_at = now;
        }
    }

    /// A connection ended without an ACK; `next` is the number of the next connection. Returns the failure, if it is one.
    pub(super) fn ended(
        &mut self,
        connection: ConnectionId,
        next: ConnectionId,
        end: End<'_>,
        now: Timestamp,
    ) -> Option<&AgentFailure> {
        if connection < self.attempt_from || !end.is_failure() {
            return None;
        }
        if end.established && end.lived >= self.longest {
            // Not a reconnect storm: the agent's idle timeout, or its restart.
            self.last = None;
            self.retry_at = now;
            return None;
        }
        let attempts = self.last.as_ref().map_or(0, |last| last.attempts).saturating_add(1);
        // The successor of a draining agent may listen already: the first attempt has no pause.
        let pause = self.pause(if end.is_graceful() { attempts - 1 } else { attempts });
        self.retry_at = now + pause;
        self.attempt_from = next;
        let reason = end.reason.clone();
        self.last = Some(AgentFailure { reason, error: end.error(), attempts, retry_at: self.retry_at });
        self.last.as_ref()
    }

    fn pause(&self, attempts: u32) -> Duration {
        let Some(doublings) = attempts.checked_sub(1) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.base.checked_mul(factor).map_or(self.longest, |pause| pause.min(self.longest))
    }
}

impl Pool {
    /// An ACK arrived on this connection: ends the backoff of its agent.
    pub(super) fn end_backoff(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        connection.unproven_since = None;
        if let Some(agent) = self.agents.get_mut(connection.agent) {
            agent.backoff.answered(id, self.now);
        }
    }

    /// Counts a session that is ending at once, not at its close: an agent that does not close must not block the queue, nor
    /// get further connections without a pause.
    pub(super) fn count_closing(&mut self, id: ConnectionId) {
        let reason = self.connections.get(id.0).and_then(|connection| connection.reactor.ending.as_ref());
        if let Some(reason) = reason.cloned() {
            self.count_end(id, &reason);
        }
    }

    /// Begins or extends the backoff of an agent whose connection ends without an ACK.
    pub(super) fn count_end(&mut self, id: ConnectionId, reason: &CloseReason) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        let Some(opened) = connection.unproven_since.take() else { return };
        let end = End {
            reason,
            open: connection.open,
            established: connection.reactor.session().is_some(),
            lived: self.now.since(opened),
        };
        let (number, next) = (connection.agent, ConnectionId(self.connections.next()));
        let Some(agent) = self.agents.get_mut(number) else { return };
        if let Some(failure) = agent.backoff.ended(id, next, end, self.now).cloned() {
            self.actions.push_back(PoolAction::Backoff { agent: number, failure });
        }
    }

    /// The error of a request whose processing timeout ended in the queue: that of the last failed connection if all agents
    /// are in a backoff, and otherwise `Timeout`.
    pub(super) fn queue_timeout_error(&self, queued: &Queued) -> EngineError {
        let mut latest: Option<&AgentFailure> = None;
        for agent in self.agents.iter().filter(|agent| agent.up) {
            // A pause that ended before the request was queued did not delay it.
            let Some(failure) = agent.backoff.last().filter(|failure| failure.retry_at >= queued.asked)
            else {
                return EngineError::Timeout;
            };
            if latest.is_none_or(|latest| latest.retry_at < failure.retry_at) {
                latest = Some(failure);
            }
        }
        latest.map_or(EngineError::Timeout, |failure| failure.error)
    }
}

/// The end of a connection on which no ACK arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub(super) reason: &'a CloseReason,
    /// The transport was connected.
    pub(super) open: bool,
    /// The handshake was done.
    pub(super) established: bool,
    /// The time since it was opened.
    pub(super) lived: Duration,
}

impl End<'_> {
    /// Whether it counts as a failure of the agent. An end that this side chose does not.
    fn is_failure(&self) -> bool {
        match self.reason {
            CloseReason::HealthCheck | CloseReason::Disconnect(_) | CloseReason::Drained => false,
            CloseReason::Timeout(Timer::Idle | Timer::Drain) => !self.established,
            _ => true,
        }
    }

    /// Whether the agent was draining: a DISCONNECT with status 0.
    fn is_graceful(&self) -> bool {
        matches!(self.reason, CloseReason::PeerDisconnect { status: Status::NORMAL, .. }) && self.established
    }

    fn error(&self) -> EngineError {
        match self.reason {
            CloseReason::PeerDisconnect { status, .. } => EngineError::Spop(*status),
            CloseReason::Violation(violation) => EngineError::Spop(violation.status()),
            CloseReason::Eof => EngineError::Spop(Status::IO),
            CloseReason::Transport if self.open => EngineError::Spop(Status::IO),
            _ => EngineError::Timeout,
        }
    }
}
