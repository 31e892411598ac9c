//! What a server logs of its shutdown.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use spop_core::Timestamp;
use tracing::info;

use crate::Stage;

/// The course of a drain, or of a stop.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    began: Mutex<Option<Timestamp>>,
    /// Connections that were ended with requests unanswered, and those requests.
    cut: AtomicU64,
    lost: AtomicU64,
    ended: AtomicBool,
}

impl Drain {
    /// A stage was entered, with so many connections open and requests unanswered.
    pub(crate) fn log_stage(stage: Stage, lame_duck: Duration, connections: usize, requests: usize) {
        match stage {
            Stage::Serve => {}
            Stage::LameDuck => {
                info!(name: "lame_duck", time = ?lame_duck, connections, requests, "lame duck: health checks are refused");
            }
            Stage::Drain => info!(name: "draining", connections, requests, "draining"),
            Stage::Stop => info!(name: "stopping", connections, requests, "stopping"),
        }
    }

    /// The drain, or the stop, has begun.
    pub(crate) fn began(&self, now: Timestamp) {
        self.began.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now);
    }

    /// A connection was ended, at the deadline or by a stop, with so many requests unanswered.
    #[cold]
    pub(crate) fn cut(&self, requests: usize) {
        self.cut.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(requests as u64, Ordering::Relaxed);
    }

    /// The server has ended, with so many connections still open.
    pub(crate) fn ended(&self, now: Timestamp, left: usize) {
        if self.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let took = began.map_or(Duration::ZERO, |began| now.since(began));
        let cut = self.cut.load(Ordering::Relaxed) + left as u64;
        let lost = self.lost.load(Ordering::Relaxed);
        info!(name: "drained", ?took, cut, lost, "ended");
    }
}
