//! Ending a server from outside, and its numbers.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
    mpsc::{RecvTimeoutError, channel},
};
use std::time::{Duration, Instant};

use spop_server::{AtomicLevel, ConnectionInfo, Counters, Level, Stats};

use crate::{mail::Mailbox, responder::Letter};

/// How long a worker may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the workers of a server share. Touched when a connection begins or ends; never by a request.
#[derive(Debug, Default)]
pub(crate) struct Control {
    level: AtomicLevel,
    /// How long the lame duck stage is, in milliseconds.
    lame_duck: AtomicU64,
    workers: Mutex<Vec<Arc<Mailbox<Letter>>>>,
    /// Workers that may still hand a connection to another.
    accepting: AtomicUsize,
    pub(crate) counters: Arc<Counters>,
}

impl Control {
    pub(crate) fn raise(&self, level: Level) {
        self.level.raise(level);
        self.wake_all();
    }

    /// How long the lame duck stage of a shutdown is.
    pub(crate) fn set_lame_duck(&self, time: Duration) {
        self.lame_duck.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn lame_duck(&self) -> Duration {
        Duration::from_millis(self.lame_duck.load(Ordering::Relaxed))
    }

    /// Begins the shutdown with its first stage that takes time.
    fn shut_down(&self) {
        let lame_duck = !self.lame_duck().is_zero() && self.level.get() == Level::Serve;
        self.raise(if lame_duck { Level::LameDuck } else { Level::Drain });
    }

    fn wake_all(&self) {
        for worker in self.workers().iter() {
            worker.wake();
        }
    }

    fn workers(&self) -> MutexGuard<'_, Vec<Arc<Mailbox<Letter>>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn level(&self) -> Level {
        self.level.get()
    }

    /// Whom to wake when the level rises.
    pub(crate) fn set_workers(&self, workers: &[Arc<Mailbox<Letter>>]) {
        self.accepting.store(workers.len(), Ordering::Release);
        *self.workers() = workers.to_vec();
    }

    /// A worker accepts no more, and hands no connection to another from now on.
    pub(crate) fn stopped_accepting(&self) {
        if self.accepting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake_all();
        }
    }

    /// Whether no worker hands a connection to another any more.
    pub(crate) fn nobody_accepts(&self) -> bool {
        self.accepting.load(Ordering::Acquire) == 0
    }
}

/// Ends a [`Server`](crate::Server) from outside, and tells how it is.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    pub(crate) control: Arc<Control>,
}

impl ServerHandle {
    /// Ends the server gracefully. First health checks and monitors are refused, for as long as
    /// [`Server::lame_duck`](crate::Server::lame_duck) says; then it accepts no more connections, and each ends as soon as
    /// nothing is owed on it, or when [`Timeouts::drain`](spop_core::config::Timeouts::drain) is over.
    /// A second call ends the lame duck stage.
    pub fn drain(&self) {
        self.control.shut_down();
    }

    /// Ends the server at once: what was answered is sent if it can be, what was not is lost.
    pub fn stop(&self) {
        self.control.raise(Level::Stop);
    }

    /// The numbers so far.
    pub fn stats(&self) -> Stats {
        self.control.counters.stats()
    }

    /// The connections that are open, for a status page. Each worker is asked, between two rounds of its loop; one whose
    /// handler keeps it for longer than a second is left out. Not to be called by a handler: its worker could not answer.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let (sender, reports) = channel();
        let mut asked = 0;
        for worker in self.control.workers().iter() {
            // A worker that is gone has no connections.
            asked += usize::from(worker.send(Letter::Report(sender.clone())).is_ok());
        }
        drop(sender);
        let end = Instant::now() + PATIENCE;
        let mut connections = Vec::new();
        for _ in 0..asked {
            match reports.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(report) => connections.extend(report),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        connections
    }
}
