//! What other threads tell a worker.

use std::sync::{
    atomic::{AtomicBool, Ordering},
    mpsc::{Receiver, Sender, channel},
};

use mio::Waker;

/// Where other threads leave what a worker is to know.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    letters: Sender<T>,
    /// Whether the worker was woken and has not looked yet: then a further letter wakes nobody.
    noticed: AtomicBool,
    waker: Waker,
}

impl<T> Mailbox<T> {
    pub(crate) fn new(waker: Waker) -> (Self, Receiver<T>) {
        let (letters, receiver) = channel();
        (Self { letters, noticed: AtomicBool::new(false), waker }, receiver)
    }

    /// Leaves a letter. It comes back when the worker is gone.
    pub(crate) fn send(&self, letter: T) -> Result<(), T> {
        self.letters.send(letter).map_err(|returned| returned.0)?;
        self.wake();
        Ok(())
    }

    /// Has the worker look up.
    pub(crate) fn wake(&self) {
        if !self.noticed.swap(true, Ordering::AcqRel) && self.waker.wake().is_err() {
            // The next one tries again.
            self.noticed.store(false, Ordering::Release);
        }
    }

    /// To be called before the letters are taken: what comes from now on wakes again.
    pub(crate) fn look(&self) {
        self.noticed.swap(false, Ordering::AcqRel);
    }
}
