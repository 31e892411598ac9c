//! A well-behaved peer beside those that are not: it asks one thing after another, and measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::peer::Peer;

/// Between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(1);

/// A peer that asks until it is told to stop.
#[derive(Debug)]
pub struct Bystander {
    running: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Served>>>,
}

/// How it was served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    /// Answers, each the right one.
    pub answers: u32,
    /// The longest time that one took.
    pub slowest: Duration,
    /// The time that 99 of 100 did not exceed.
    pub p99: Duration,
}

impl Served {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let at = |index: usize| times.get(index.min(last)).copied().unwrap_or_default();
        Self { answers: times.len() as u32, slowest: at(last), p99: at(times.len() * 99 / 100) }
    }
}

impl Bystander {
    /// Opens a session and begins to ask.
    ///
    /// # Errors
    /// There is no session to be had.
    pub fn start(address: &str) -> Result<Self> {
        let mut peer = Peer::connect(address)?;
        peer.greet()?;
        let running = Arc::new(AtomicBool::new(true));
        let on = Arc::clone(&running);
        let thread = thread::spawn(move || {
            let mut times = Vec::new();
            while on.load(Ordering::Relaxed) {
                let id = times.len();
                let start = Instant::now();
                peer.ask(
                    &format!("NOTIFY fin {id} 1 m a=uint32:{id}"),
                    &format!("ACK fin {id} 1 set txn m.a=uint32:{id}"),
                )?;
                times.push(start.elapsed());
                thread::sleep(PAUSE);
            }
            Ok(Served::new(times))
        });
        Ok(Self { running, thread: Some(thread) })
    }

    /// Ends its session, and says how it was served.
    ///
    /// # Errors
    /// It was not, or one answer took longer than `limit`.
    pub fn finish(mut self, limit: Duration) -> Result<Served> {
        self.running.store(false, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended")?;
        let served = thread.join().map_err(|_| anyhow!("the bystander panicked"))?;
        let served = served.context("the bystander was not served")?;
        ensure!(served.answers > 0 && served.slowest < limit, "the bystander was kept waiting: {served:?}");
        Ok(served)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
    }
}
