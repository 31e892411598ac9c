//! A busy machine: threads that use processors as long as this lives.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

pub struct Busy {
    running: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    pub fn start(threads: usize) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let threads = (0..threads)
            .map(|_| {
                let running = Arc::clone(&running);
                thread::spawn(move || {
                    let mut number = 1_u64;
                    while running.load(Ordering::Relaxed) {
                        for _ in 0..10_000 {
                            number =
                                black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                        }
                    }
                })
            })
            .collect();
        Self { running, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It does not panic.
            let _ = thread.join();
        }
    }
}
