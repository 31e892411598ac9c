//! Ending a server from outside, and its numbers.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

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
    open: AtomicUsize,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed_accepts: AtomicU64,
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

    /// Room for one more connection, if there are fewer than `max`.
    pub(crate) fn seat(self: &Arc<Self>, max: usize) -> Option<Seat> {
        if self.open.fetch_add(1, Ordering::Relaxed) < max {
            Some(Seat(Arc::clone(self)))
        } else {
            self.open.fetch_sub(1, Ordering::Relaxed);
            None
        }
    }
}

/// One of the connections that may be open.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Control>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
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
        let Control { open, accepted, refused, failed_accepts, .. } = &*self.control;
        Stats {
            accepted: accepted.load(Ordering::Relaxed),
            open: open.load(Ordering::Relaxed) as u64,
            refused: refused.load(Ordering::Relaxed),
            failed_accepts: failed_accepts.load(Ordering::Relaxed),
        }
    }
}

/// The numbers of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Those of them that are open.
    pub open: u64,
    /// Connections that were closed at once, because there were too many.
    pub refused: u64,
    /// Attempts to accept that failed, for want of file descriptors for instance.
    pub failed_accepts: u64,
}
