//! Ending a server from outside, and its numbers.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use spop_core::server::{Counters, Stats};

use crate::{mail::Mailbox, responder::Letter};

/// How far the end of a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Serve,
    Drain,
    Stop,
}

/// What the workers of a server share. Touched when a connection begins or ends; never by a request.
#[derive(Debug, Default)]
pub(crate) struct Control {
    level: AtomicU8,
    workers: Mutex<Vec<Arc<Mailbox<Letter>>>>,
    pub(crate) counters: Arc<Counters>,
}

impl Control {
    pub(crate) fn raise(&self, level: Level) {
        self.level.fetch_max(level as u8, Ordering::AcqRel);
        for worker in self.workers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            worker.wake();
        }
    }

    pub(crate) fn level(&self) -> Level {
        match self.level.load(Ordering::Acquire) {
            0 => Level::Serve,
            1 => Level::Drain,
            _ => Level::Stop,
        }
    }

    /// Whom to wake when the level rises.
    pub(crate) fn set_workers(&self, workers: &[Arc<Mailbox<Letter>>]) {
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) = workers.to_vec();
    }
}

/// Ends a [`Server`](crate::Server) from outside, and tells how it is.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    pub(crate) control: Arc<Control>,
}

impl ServerHandle {
    /// Ends the server gracefully: it accepts no more connections, and each ends as soon as nothing is owed on it, or
    /// when [`Timeouts::drain`](spop_core::config::Timeouts::drain) is over.
    pub fn drain(&self) {
        self.control.raise(Level::Drain);
    }

    /// Ends the server at once: what was answered is sent if it can be, what was not is lost.
    pub fn stop(&self) {
        self.control.raise(Level::Stop);
    }

    /// The numbers so far.
    pub fn stats(&self) -> Stats {
        self.control.counters.stats()
    }
}
