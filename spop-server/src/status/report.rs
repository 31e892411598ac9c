//! What a status page says.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Shared,
    rates::{Rate, Rates},
};
use crate::{ConnectionInfo, FailureKind, Stage, Stats, Usage};

/// The connections that are listed: the busiest of them. A server may have ten thousand.
const LISTED: usize = 100;

/// The seconds that rates are over.
pub(super) const SPANS: [usize; 3] = [1, 10, 60];

/// The state of a server at a time.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) stage: Stage,
    pub(super) up: Duration,
    pub(super) stats: Stats,
    pub(super) usage: Vec<Usage>,
    pub(super) rates: Rates,
    /// The busiest.
    pub(super) connections: Vec<ConnectionInfo>,
    /// How many there are.
    pub(super) open: usize,
}

impl Report {
    pub(super) fn of(shared: &Shared) -> Self {
        let handle = &shared.handle;
        let mut connections = handle.connections();
        let open = connections.len();
        connections.sort_by_key(|one| std::cmp::Reverse((one.in_flight, one.requests)));
        connections.truncate(LISTED);
        Self {
            stage: handle.stage(),
            up: shared.since.elapsed(),
            stats: handle.stats(),
            usage: handle.usage(),
            rates: shared.rates(),
            connections,
            open,
        }
    }

    pub(super) fn json(&self) -> Value {
        let stats = &self.stats;
        let rates = SPANS.map(|seconds| {
            let Rate { requests, failures, late } = self.rates.over(seconds);
            json!({ "seconds": seconds, "requests": requests, "failures": failures, "late": late })
        });
        let usage = self
            .usage
            .iter()
            .map(|Usage { limit, used, max }| json!({ "limit": limit, "used": used, "max": max }));
        let failures: serde_json::Map<_, _> =
            stats.failures.iter().map(|(kind, count)| (kind.as_str().to_owned(), count.into())).collect();
        let connections = self.connections.iter().map(|one| {
            json!({
                "id": one.id,
                "peer": one.peer.to_string(),
                "source": one.source.map(|source| source.to_string()),
                "listener": one.listener.as_ref().map(ToString::to_string),
                "tls": one.tls,
                "engine_id": one.engine_id,
                "phase": format!("{:?}", one.phase),
                "requests": one.requests,
                "in_flight": one.in_flight,
                "outgoing_bytes": one.outgoing,
                "age_seconds": one.age.as_secs_f64(),
                "idle_seconds": one.idle.as_secs(),
            })
        });
        json!({
            "stage": stage(self.stage),
            "up_seconds": self.up.as_secs_f64(),
            "requests": stats.requests,
            "answered": stats.answered,
            "failures": failures,
            "late": stats.late,
            "abandoned": stats.abandoned,
            "oversized": stats.oversized,
            "per_second": rates,
            "limits": usage.collect::<Vec<_>>(),
            "background_refused": stats.background_refused,
            "connections": {
                "open": self.open,
                "accepted": stats.accepted,
                "refused": stats.refused,
                "rejected": stats.rejected,
                "probes": stats.probes,
                "failed_accepts": stats.failed_accepts,
                "out_of_memory": stats.out_of_memory,
                "busiest": connections.collect::<Vec<_>>(),
            },
        })
    }
}

pub(super) const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Serve => "serve",
        Stage::LameDuck => "lame_duck",
        Stage::Drain => "drain",
        Stage::Stop => "stop",
    }
}

/// What a failure means, and what to look at.
pub(super) const fn explain(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::HandlerFailed => {
            "The handler returned an error: its causes are in the log, event request_failed."
        }
        FailureKind::HandlerPanicked => {
            "The handler panicked: a fault of the agent. The text of the panic is in the log."
        }
        FailureKind::ResponderDropped => {
            "The handler kept the request and dropped it without an answer: a fault of the agent."
        }
        FailureKind::TimedOut => {
            "No answer within timeouts.message, or the timeout of a route. HAProxy has continued before, after its timeout processing."
        }
        FailureKind::Overdue => {
            "The connection was at its limit of requests in flight, and this was the oldest: HAProxy had given it up already."
        }
        FailureKind::AnswerUnsendable => {
            "The answer is longer than HAProxy accepts, max-frame-size: set fewer or shorter variables, or raise tune.bufsize."
        }
        FailureKind::Overloaded => {
            "A limit was reached, and the handler was not called: see the limits above."
        }
        FailureKind::AlreadyDisconnected => {
            "The handler answered with a disconnect after the connection had ended."
        }
        _ => "",
    }
}
