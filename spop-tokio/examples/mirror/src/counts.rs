//! What is counted, and what the log says of copies that are lost.

use std::{array, fmt::Display};

use program::{Count, Totals};
use spop_tokio::{spop_core::Clock, spop_server::LogLimit};
use tracing::{info, warn};

/// Numbers of requests. [`totals`](Self::totals) says what each is.
#[derive(Debug)]
pub(crate) struct Counts {
    clock: Clock,
    pub(crate) answered: Count,
    pub(crate) not_sampled: Count,
    pub(crate) cut: Count,
    lost: [Lost; 7],
}

/// Why a copy is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// There were too many.
    Queue,
    /// There was too much in them.
    Memory,
    /// No connection was free in time.
    Waited,
    /// It had no reply in time.
    Late,
    /// It could not be sent, or had no reply.
    Failed,
    /// The client has sent something that this program cannot send, or the message lacks an argument.
    Invalid,
    /// It was a copy itself.
    Loop,
}

#[derive(Debug)]
struct Lost {
    count: Count,
    log: LogLimit,
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::start(),
            answered: Count::default(),
            not_sampled: Count::default(),
            cut: Count::default(),
            lost: array::from_fn(|_| Lost { count: Count::default(), log: LogLimit::one_a_minute() }),
        }
    }

    /// Counts a copy that is lost, and logs the first of each minute.
    pub(crate) fn lose(&self, loss: Loss, why: impl Display) {
        let Some(lost) = self.lost.get(loss as usize) else { return };
        lost.count.add();
        if lost.log.pass(self.clock.now()).is_some() {
            let count = lost.count.get();
            warn!(name: "copies_lost", ?loss, count, "copies are lost: {why}");
        }
    }

    /// How many were lost for this reason.
    pub(crate) fn lost(&self, loss: Loss) -> u64 {
        self.lost.get(loss as usize).map_or(0, |lost| lost.count.get())
    }

    fn totals(&self) -> Totals {
        Totals(vec![
            ("answered", "Copies that the service has answered, with any status", self.answered.get()),
            ("not_sampled", "Requests that were not chosen", self.not_sampled.get()),
            ("cut", "Requests with a part of their body", self.cut.get()),
            ("queue_full", "Copies lost because there were too many", self.lost(Loss::Queue)),
            ("memory_full", "Copies lost because there was too much in them", self.lost(Loss::Memory)),
            ("waited", "Copies lost because no connection was free in time", self.lost(Loss::Waited)),
            ("late", "Copies that had no reply in time", self.lost(Loss::Late)),
            ("failed", "Copies that could not be sent, or had no reply", self.lost(Loss::Failed)),
            ("invalid", "Requests that cannot be sent again", self.lost(Loss::Invalid)),
            ("looped", "Requests that were copies themselves", self.lost(Loss::Loop)),
        ])
    }

    /// Sets all numbers as metrics, which have the names of the log.
    pub(crate) fn publish(&self) {
        self.totals().publish("mirror", &[]);
    }

    /// Logs all numbers.
    pub(crate) fn report(&self) {
        info!(name: "counts", "copies {}", self.totals());
    }
}
