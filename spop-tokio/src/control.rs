//! Ending a server from outside.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;
use spop_core::AgentReactor;
use spop_server::{AtomicLevel, ConnectionInfo, Level};

use crate::{Peer, live::Live};

/// The level of a server, and whom to wake when it rises.
#[derive(Debug, Default)]
pub(crate) struct Control {
    level: AtomicLevel,
    next: AtomicU64,
    /// Touched when a connection begins or ends, and when the level rises; never by a request.
    tasks: Mutex<HashMap<u64, Arc<Task>>>,
}

impl Control {
    pub(crate) fn raise(&self, level: Level) {
        // Who is woken in vain would not be woken again: a subscription says but once that it waits.
        if self.level.raise(level) {
            for task in self.tasks().values() {
                task.waker.wake();
            }
        }
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<u64, Arc<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections that are open.
    pub(crate) fn connections(&self) -> Vec<ConnectionInfo> {
        self.tasks().iter().filter_map(|(key, task)| task.live.get()?.show(*key)).collect()
    }

    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscription {
        let task = Arc::new(Task::default());
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.tasks().insert(key, Arc::clone(&task));
        Subscription { control: Arc::clone(self), key, task, known: None }
    }
}

#[derive(Debug, Default)]
struct Task {
    waker: AtomicWaker,
    /// Set for connections.
    live: OnceLock<Live>,
}

/// One task that is woken when the level rises.
#[derive(Debug)]
pub(crate) struct Subscription {
    control: Arc<Control>,
    key: u64,
    task: Arc<Task>,
    /// The level it was, and who will be woken when it rises.
    known: Option<(Level, Waker)>,
}

impl Subscription {
    /// A number that no other subscription of this control has.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// The level it is, and a wish to be woken when it rises.
    #[inline]
    pub(crate) fn level(&mut self, waker: &Waker) -> Level {
        if let Some((level, known)) = &self.known
            && known.will_wake(waker)
            && *level == self.control.level.get()
        {
            return *level;
        }
        self.task.waker.register(waker);
        let level = self.control.level.get();
        self.known = Some((level, waker.clone()));
        level
    }

    /// What a connection shows of itself.
    pub(crate) fn live(&self, peer: &Peer) -> &Live {
        self.task.live.get_or_init(|| Live::new(peer.clone()))
    }

    /// Shows how a connection is.
    #[inline]
    pub(crate) fn show(&self, reactor: &AgentReactor) {
        if let Some(live) = self.task.live.get() {
            live.update(reactor);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.control.tasks().remove(&self.key);
    }
}
