//! Ending a server from outside.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use spop_core::AgentReactor;
use spop_server::{AtomicLevel, ConnectionInfo, Level};

use crate::{Peer, live::Live};

/// The level of a server, and whom to wake when it rises.
#[derive(Debug, Default)]
pub(crate) struct Control {
    level: AtomicLevel,
    /// How long the lame duck stage is, in milliseconds.
    lame_duck: AtomicU64,
    next: AtomicU64,
    /// Touched when a connection begins or ends, and when the level rises; never by a request.
    tasks: Mutex<HashMap<u64, Arc<Task>>>,
}

impl Control {
    /// How long the lame duck stage of a shutdown is.
    pub(crate) fn set_lame_duck(&self, time: Duration) {
        self.lame_duck.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether health checks and monitors are refused.
    pub(crate) fn is_ending(&self) -> bool {
        self.level.get() > Level::Serve
    }

    pub(crate) fn lame_duck(&self) -> Duration {
        Duration::from_millis(self.lame_duck.load(Ordering::Relaxed))
    }

    /// Begins the shutdown with its first stage that takes time.
    pub(crate) fn shut_down(&self) {
        let lame_duck = !self.lame_duck().is_zero() && self.level.get() == Level::Serve;
        self.raise(if lame_duck { Level::LameDuck } else { Level::Drain });
    }

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
    /// Who will be woken when the level rises above that of serving.
    known: Option<Waker>,
}

impl Subscription {
    /// A number that no other subscription of this control has.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// The level it is, and a wish to be woken when it rises.
    #[inline]
    pub(crate) fn level(&mut self, waker: &Waker) -> Level {
        // Once the level has risen, a wake-up that is still on its way uses up the wish for the next.
        if self.known.as_ref().is_some_and(|known| known.will_wake(waker))
            && self.control.level.get() == Level::Serve
        {
            return Level::Serve;
        }
        self.task.waker.register(waker);
        self.known = Some(waker.clone());
        self.control.level.get()
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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        task::{Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_looks_while_others_are_being_woken_hears_of_the_next_level_too() {
        let (control, woken) = (Arc::new(Control::default()), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let mut subscription = control.subscribe();
        assert_eq!(subscription.level(&waker), Level::Serve);
        control.raise(Level::Drain);
        assert_eq!(subscription.level(&waker), Level::Drain);
        // `raise` has many to wake, and comes to this one only now.
        subscription.task.waker.wake();
        assert_eq!(subscription.level(&waker), Level::Drain);
        let before = woken.0.load(Ordering::Relaxed);
        control.raise(Level::Stop);
        assert_eq!(woken.0.load(Ordering::Relaxed), before + 1);
        assert_eq!(subscription.level(&waker), Level::Stop);
    }
}
