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
    began: Mutex<Began>,
    /// Connections that were ended with requests unanswered, and those requests.
    cut: AtomicU64,
    lost: AtomicU64,
    ended: AtomicBool,
}

/// When the last stages began.
#[derive(Clone, Copy, Debug, Default)]
struct Began {
    /// The first of them.
    any: Option<Timestamp>,
    stop: Option<Timestamp>,
}

/// How much longer than its connections a server waits for what it does not drive itself, and for its own connections after a stop: a
/// task whose handler blocks its thread never notices one.
const GRACE: Duration = Duration::from_secs(1);

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

    /// The shutdown is in this stage.
    pub(crate) fn entered(&self, stage: Stage, now: Timestamp) {
        if stage >= Stage::Drain {
            let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
            began.any.get_or_insert(now);
            if stage == Stage::Stop {
                began.stop.get_or_insert(now);
            }
        }
    }

    fn began(&self) -> Began {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the server waits no longer, if connections may take so long to drain.
    pub(crate) fn deadline(&self, stage: Stage, drain: Duration) -> Option<Timestamp> {
        let began = self.began();
        match stage {
            Stage::Stop => Some(began.stop? + GRACE),
            _ => Some(began.any? + drain + GRACE),
        }
    }

    /// A connection was ended, at the deadline or by a stop, with so many requests unanswered.
    #[cold]
    pub(crate) fn cut(&self, requests: usize) {
        self.cut.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(requests as u64, Ordering::Relaxed);
    }

    /// The server has ended. Some connections are still open, which have so many requests unanswered, and so much work goes on in
    /// the background.
    pub(crate) fn ended(&self, now: Timestamp, left: &[usize], background: usize) {
        if self.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let took = self.began().any.map_or(Duration::ZERO, |began| now.since(began));
        let cut = self.cut.load(Ordering::Relaxed) + left.len() as u64;
        let lost = self.lost.load(Ordering::Relaxed) + left.iter().sum::<usize>() as u64;
        info!(name: "drained", ?took, cut, lost, background, "ended");
    }
}
