//! What a session counts and logs.

use std::{
    fmt, io,
    mem::take,
    ops::AddAssign,
    sync::{LazyLock, atomic::Ordering},
    time::Duration,
};

use spop_core::{
    Actions, CloseReason, Closed, Timestamp,
    agent::{Abort, Aborted},
    frame::Ids,
};
use tracing::{debug, warn};

use super::session::Session;
use crate::{
    Agent, Connection, Failure, FailureKind, LogLimit, Metrics, TOO_MUCH_BUFFERED,
    label::{Label, Labelled},
};

/// What a session has counted since the end of the last turn. The recorder of the metrics is shared: it is called once for many
/// requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) notifies: u32,
    pub(super) acks: u32,
    pub(super) cancelled: Count,
    pub(super) received: Count,
    pub(super) sent: Count,
}

/// A number for the metrics. Nothing without them: each connection has three.
#[derive(Debug, Default)]
pub(super) struct Count(#[cfg(any(feature = "metrics", test))] u32);

impl AddAssign<usize> for Count {
    #[inline]
    fn add_assign(&mut self, n: usize) {
        #[cfg(any(feature = "metrics", test))]
        {
            self.0 += n as u32;
        }
        let _ = n;
    }
}

impl Count {
    #[inline]
    #[cfg_attr(not(any(feature = "metrics", test)), allow(clippy::unused_self))]
    fn report(&mut self, to: impl FnOnce(usize)) {
        #[cfg(any(feature = "metrics", test))]
        return report(&mut self.0, to);
        #[cfg(not(any(feature = "metrics", test)))]
        let _ = to;
    }
}

impl Tally {
    /// Publishes the counts for [`Stats`](crate::Stats) and status pages, and reports them.
    #[inline]
    pub(super) fn publish(&mut self, connection: &Connection, now: Timestamp, metrics: &LazyLock<Metrics>) {
        if self.notifies | self.acks != 0 {
            connection.count(now, self.notifies, self.acks);
        }
        self.report(metrics);
    }

    #[inline]
    pub(super) fn report(&mut self, metrics: &LazyLock<Metrics>) {
        if metrics.is_recording() {
            self.report_to(metrics);
        } else {
            *self = Self::default();
        }
    }

    #[inline(never)]
    fn report_to(&mut self, metrics: &Metrics) {
        let Self { notifies, acks, cancelled, received, sent } = self;
        report(notifies, |n| metrics.notifies(n));
        report(acks, |n| metrics.acks(n));
        cancelled.report(|n| metrics.cancelled(n));
        received.report(|n| metrics.received(n));
        sent.report(|n| metrics.sent(n));
    }
}

#[inline]
fn report(count: &mut u32, to: impl FnOnce(usize)) {
    if *count != 0 {
        to(take(count) as usize);
    }
}

impl Session {
    /// HAProxy drops variables silently whose names it does not accept.
    #[inline]
    pub(super) fn warn_of_names(agent: &Agent, actions: &Actions) {
        for dropped in actions.dropped_names().filter(|dropped| agent.names.is_new(dropped.name())) {
            warn!(name: "variable_dropped", error = %dropped.error(), "HAProxy ignores this variable: change its name in the handler");
        }
    }

    pub(super) fn warn_of_frame_size(&self, agent: &Agent, now: Timestamp, session: &spop_core::Session) {
        if session.loses_long_requests()
            && let Some(suppressed) = agent.logs.session.pass(now)
        {
            warn!(
                name: "frame_size_reduced",
                peer = %self.connection.peer(),
                offered = session.peer_max_frame_size,
                agreed = session.max_frame_size,
                suppressed,
                "requests longer than the agreed frame size fail in HAProxy (259 since 3.1): raise max_frame_size"
            );
        }
    }

    /// A request was dropped before it ran.
    #[cold]
    pub(super) fn log_aborted(&self, agent: &Agent, now: Timestamp, aborted: &Aborted) {
        let (peer, ids, received, why) = (self.connection.peer(), aborted.ids, aborted.received, aborted.why);
        let limit = match why {
            Abort::TooBig => "max_payload or max_payload_bytes",
            Abort::TooManyMessages => "max_messages",
            Abort::TimedOut => "the frame timeout",
            _ => {
                debug!(name: "payload_dropped", %peer, %ids, received, ?why, "payload dropped");
                return;
            }
        };
        agent.counters.oversized.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = agent.logs.refused.pass(now) {
            warn!(
                name: "request_refused", %peer, %ids, received, ?why, suppressed,
                "a request exceeds {limit}: HAProxy gets no actions. Raise the limit, or have HAProxy send less"
            );
        }
    }

    /// HAProxy abandoned a request whose handler still runs.
    #[cold]
    pub(super) fn abandoned(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        ids: Ids,
        label: Option<Label>,
        age: Duration,
    ) {
        self.tally.cancelled += 1;
        agent.counters.abandoned.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = agent.logs.late.pass(now) {
            warn!(
                name: "request_abandoned", peer = %self.connection.peer(), connection = self.connection.id.0, %ids,
                messages = label.map(tracing::field::display), ?age, suppressed,
                "HAProxy abandoned the request: its handler takes longer than `timeout processing`"
            );
        }
    }

    /// HAProxy has continued without this answer.
    #[cold]
    pub(super) fn late(
        &mut self,
        agent: &Agent,
        now: Timestamp,
        ids: Ids,
        labelled: Labelled<'_>,
        age: Duration,
    ) {
        self.tally.acks += 1;
        agent.metrics.late(1);
        agent.counters.late.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = agent.logs.late.pass(now) {
            let processing = agent.config.processing;
            warn!(
                name: "answered_late", peer = %self.connection.peer(), connection = self.connection.id.0, %ids,
                messages = %labelled.label(), ?age, ?processing, suppressed,
                "answered later than `processing`: HAProxy has probably abandoned the request"
            );
        }
    }

    /// A request has no answer of its handler.
    #[cold]
    pub(super) fn failed(
        &self,
        agent: &Agent,
        now: Timestamp,
        ids: Ids,
        label: Option<Label>,
        failure: &Failure,
    ) {
        agent.counters.failed(failure.kind);
        agent.metrics.failed(failure.kind);
        #[cfg(feature = "testing")]
        agent.failures.record(ids, failure);
        // What a peer can cause does not hide a handler that panics.
        let limit = match failure.kind {
            FailureKind::HandlerPanicked => &agent.logs.panics,
            FailureKind::HandlerFailed => &agent.logs.handler,
            _ => &agent.logs.requests,
        };
        if let Some(suppressed) = limit.pass(now) {
            let (what, route, error) = (failure.kind.as_str(), failure.route.as_deref(), &failure.error);
            warn!(
                name: "request_failed", peer = %self.connection.peer(), connection = self.connection.id.0, %ids,
                messages = label.map(tracing::field::display), what, route, error, suppressed, "request failed"
            );
        }
    }

    #[cold]
    pub(super) fn log_watch_panicked(&self, agent: &Agent, now: Timestamp, ids: Ids, error: &str) {
        if let Some(suppressed) = agent.logs.panics.pass(now) {
            warn!(name: "watch_panicked", peer = %self.connection.peer(), %ids, error, suppressed, "watch panicked");
        }
    }

    /// Logs why a session ended.
    pub(super) fn report(&self, agent: &Agent, now: Timestamp, closed: &Closed, error: Option<&io::Error>) {
        let (peer, connection) = (self.connection.peer(), self.connection.id.0);
        let faulty = !closed.reason.is_normal()
            && !matches!(closed.reason, CloseReason::Transport | CloseReason::Disconnect(_));
        if let CloseReason::Violation(violation) = &closed.reason
            && self.reactor.session().is_none()
            && let Some(what) = violation.foreign()
        {
            if let Some(suppressed) = agent.logs.foreign.pass(now) {
                warn!(name: "not_spop", %peer, connection, suppressed, "{what} arrived instead of a HAPROXY-HELLO");
            }
        } else if faulty {
            self.log_failed(agent, now, closed);
        } else {
            let error = error.map(tracing::field::display);
            debug!(name: "connection_closed", %peer, connection, reason = %closed, error, "connection closed");
        }
    }

    /// A session ended by a fault or a timeout.
    pub(super) fn log_failed(&self, agent: &Agent, now: Timestamp, reason: &impl fmt::Display) {
        self.log_ended(now, &agent.logs.closed, reason);
    }

    /// A session ended to free memory.
    #[cold]
    pub(super) fn log_memory(&self, agent: &Agent, now: Timestamp) {
        agent.counters.out_of_memory.fetch_add(1, Ordering::Relaxed);
        self.log_ended(now, &agent.logs.memory, &TOO_MUCH_BUFFERED);
    }

    fn log_ended(&self, now: Timestamp, limit: &LogLimit, reason: &impl fmt::Display) {
        if let Some(suppressed) = limit.pass(now) {
            let (peer, connection) = (self.connection.peer(), self.connection.id.0);
            warn!(name: "connection_failed", %peer, connection, %reason, suppressed, "connection failed");
        }
    }
}
