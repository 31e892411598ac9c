//! Requests that a handler makes its own, and keeps after it has answered them; and the limits on what it keeps.

use std::collections::BTreeMap;

use spop_core::{ConnectionId, Timestamp, agent::TicketId};
use spop_server::{Cancellation, Request, RequestGuard};

use crate::app::Pending;

/// A request that its handler keeps.
pub struct Kept {
    pub conn: ConnectionId,
    pub id: TicketId,
    payload: usize,
    request: Option<Request<'static>>,
    /// Until it is answered, its handler works.
    guard: Option<RequestGuard>,
    /// Its number, and when its answer is due.
    answer: Option<(u64, Timestamp)>,
    is_answered: bool,
    drop_at: Timestamp,
}

impl Kept {
    pub fn new(
        request: Request<'_>,
        payload: usize,
        answer: Option<(u64, Timestamp)>,
        drop_at: Timestamp,
    ) -> Self {
        let (conn, id) = (request.connection().id(), request.id());
        let mut request = request.into_owned();
        let guard = answer.is_some().then(|| request.take_guard());
        Self { conn, id, payload, request: Some(request), guard, answer, is_answered: false, drop_at }
    }

    /// The request is not needed for its answer.
    pub fn drop_request(&mut self) {
        self.request = None;
        self.payload = 0;
    }

    pub fn next_due(&self) -> Timestamp {
        self.answer.map_or(self.drop_at, |(_, at)| at)
    }

    /// Its number, if it is answered now.
    pub fn take_answer(&mut self, now: Timestamp) -> Option<u64> {
        let (n, _) = self.answer.filter(|(_, at)| *at <= now)?;
        self.answer = None;
        self.is_answered = true;
        self.guard = None;
        Some(n)
    }

    /// Whether its handler works.
    pub fn works(&self) -> bool {
        self.guard.is_some()
    }

    pub fn has_request(&self) -> bool {
        self.request.is_some()
    }
}

/// What a handler keeps, and the limits of the server on it.
pub struct Store {
    pub kept: Vec<Kept>,
    /// Over all connections.
    pub max_bytes: usize,
    /// Of one connection.
    pub max_requests: usize,
}

/// In what steps the server counts, and from how many bytes on a connection can be refused a request.
const STEP: usize = 16 << 10;
const SPARED: usize = 24 << 10;

impl Store {
    /// A handler is called with so many bytes: the limits allow it to keep them.
    ///
    /// # Errors
    /// What exceeds them.
    pub fn admit(&self, conn: ConnectionId, payload: usize, pending: &[Pending]) -> Result<(), String> {
        let mut bytes = BTreeMap::<ConnectionId, (usize, usize)>::new();
        let deferred = pending
            .iter()
            .map(|it| (it.responder.connection().id(), it.responder.messages().payload().len()));
        let kept = self.kept.iter().filter(|it| it.has_request()).map(|it| (it.conn, it.payload));
        for (conn, payload) in kept.chain(deferred) {
            let (bytes, requests) = bytes.entry(conn).or_default();
            *bytes += payload;
            *requests += 1;
        }
        let (own, requests) = bytes.get(&conn).copied().unwrap_or_default();
        if requests >= self.max_requests {
            return Err(format!("a connection has {requests} requests kept"));
        }
        // Each counts for more than its payload.
        let total: usize = bytes.values().map(|(bytes, _)| bytes / STEP * STEP).sum();
        if own + payload >= SPARED && total + payload > self.max_bytes {
            return Err(format!("{total} bytes of requests are kept, and {payload} more"));
        }
        Ok(())
    }

    /// Drops the requests that are due. Returns the cancellations of those that were answered: they have ended.
    pub fn drop_due(&mut self, now: Timestamp) -> Vec<Cancellation> {
        let mut ended = Vec::new();
        self.kept.retain(|kept| {
            let keep = kept.answer.is_some() || kept.drop_at > now;
            if !keep
                && kept.is_answered
                && let Some(request) = &kept.request
            {
                ended.push(request.cancellation());
            }
            keep
        });
        ended
    }
}
