//! What a session counts and logs.

use std::{fmt, sync::atomic::Ordering, time::Duration};

use spop_core::{Actions, CloseReason, Closed, frame::Ids};
use tracing::{debug, warn};

use super::Session;

impl<H, F, C> Session<H, F, C> {
    /// HAProxy drops variables silently whose names it does not like.
    #[inline]
    pub(super) fn warn_of_names(&self, actions: &Actions) {
        for dropped in actions.dropped_names().filter(|dropped| self.shared.names.is_new(dropped.name())) {
            warn!(name: "variable_dropped", error = %dropped.error(), "HAProxy ignores this variable: change its name in the handler");
        }
    }

    /// HAProxy has given a request up that still ran.
    #[cold]
    pub(super) fn abandoned(&self, ids: Ids, age: Duration) {
        self.shared.metrics.cancelled(1);
        self.shared.counters.abandoned.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.shared.logs.late.pass() {
            warn!(
                name: "request_abandoned", peer = %self.peer, %ids, ?age, suppressed,
                "HAProxy gave the request up: its handler takes longer than `timeout processing`"
            );
        }
    }

    /// HAProxy has gone on without this answer.
    #[cold]
    pub(super) fn late(&self, ids: Ids, age: Duration) {
        self.shared.metrics.acks(1);
        self.shared.metrics.late(1);
        self.shared.counters.late.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.shared.logs.late.pass() {
            let processing = self.shared.config.processing;
            warn!(
                name: "answered_late", peer = %self.peer, %ids, ?age, ?processing, suppressed,
                "answered later than `processing`: HAProxy has probably given the request up"
            );
        }
    }

    /// A request has no answer of its handler.
    #[cold]
    pub(super) fn failed(&self, ids: Ids, what: &'static str, error: &str) {
        self.shared.metrics.failures(1);
        self.log_failure(ids, what, error);
    }

    #[cold]
    pub(super) fn log_failure(&self, ids: Ids, what: &'static str, error: &str) {
        if let Some(suppressed) = self.shared.logs.handler.pass() {
            warn!(name: "request_failed", peer = %self.peer, %ids, what, error, suppressed, "request failed");
        }
    }

    /// Logs why a session ended.
    pub(super) fn report(&self, closed: &Closed) {
        let (peer, connection) = (&self.peer, self.reactor.connection().0);
        let faulty = !closed.reason.is_normal()
            && !matches!(closed.reason, CloseReason::Transport | CloseReason::Disconnect(_));
        if let CloseReason::Violation(violation) = &closed.reason
            && self.reactor.session().is_none()
            && let Some(what) = violation.foreign()
        {
            if let Some(suppressed) = self.shared.logs.foreign.pass() {
                warn!(name: "not_spop", %peer, connection, suppressed, "{what} arrived instead of a HAPROXY-HELLO");
            }
        } else if !faulty {
            debug!(name: "connection_closed", %peer, connection, reason = %closed, "connection closed");
        } else {
            self.log_failed_connection(closed);
        }
    }

    /// A session ended by a fault or a timeout.
    pub(super) fn log_failed_connection(&self, reason: &impl fmt::Display) {
        if let Some(suppressed) = self.shared.logs.closed.pass() {
            let (peer, connection) = (&self.peer, self.reactor.connection().0);
            warn!(name: "connection_failed", %peer, connection, %reason, suppressed, "connection failed");
        }
    }
}
