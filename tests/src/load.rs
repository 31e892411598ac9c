//! Many requests: all at once, or a steady stream while something else happens.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::haproxy::Haproxy;
use crate::http::{Client, Reply, Request};
use crate::wait::{PATIENCE, until_true};

/// Hundreds of threads with the default stack would be a burden for nothing.
const STACK_SIZE: usize = 256 * 1024;

/// Runs `work` for 0, 1, … `count - 1`, all at the same moment, and returns the results in that order.
///
/// # Errors
/// The first error that `work` returned.
pub fn concurrently<T: Send>(count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let (work, start) = (&work, &Barrier::new(count));
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for index in 0..count {
            let run = move || {
                start.wait();
                work(index)
            };
            threads.push(thread::Builder::new().stack_size(STACK_SIZE).spawn_scoped(scope, run)?);
        }
        threads.into_iter().map(join).collect()
    })
}

/// Runs `first`, which sends one request, and once HAProxy has that, `work` like [`concurrently`].
///
/// # Errors
/// What `first` or `work` failed with.
pub fn behind<T: Send>(
    haproxy: &Haproxy,
    first: impl FnOnce() -> Result<()> + Send,
    count: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let before = haproxy.requests()?;
    thread::scope(|scope| {
        let first = scope.spawn(first);
        haproxy.wait_for_requests(before + 1)?;
        let results = concurrently(count, work)?;
        join(first)?;
        Ok(results)
    })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Clients that ask one thing after another until they are told to stop, each on a connection of its own, each question
/// with a value of its own.
#[derive(Debug)]
pub struct Load {
    running: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What became of the requests of a [`Load`].
#[derive(Debug, Default)]
pub struct Tally {
    /// Answered with the value that was asked.
    pub served: usize,
    /// Why the others were not.
    pub failures: Vec<String>,
    /// The longest time that any request took.
    pub slowest: Duration,
}

impl Load {
    /// Starts clients that send `GET /?v=VALUE` and expect `VALUE` back in the variable `name`.
    pub fn start(haproxy: SocketAddr, clients: usize, name: &'static str) -> Self {
        let (running, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..clients)
            .map(|_| {
                let (running, asked) = (Arc::clone(&running), Arc::clone(&asked));
                thread::spawn(move || {
                    let mut tally = Tally::default();
                    let mut client = None;
                    while running.load(Ordering::Relaxed) {
                        let value = asked.fetch_add(1, Ordering::Relaxed).to_string();
                        let reply = ask(&mut client, haproxy, &Request::get(&format!("/?v={value}")));
                        tally.count(reply, name, &value);
                    }
                    tally
                })
            })
            .collect();
        Self { running, asked, clients }
    }

    /// Waits until this many more requests were sent.
    ///
    /// # Errors
    /// They were not in time.
    pub fn run_for(&self, requests: usize) -> Result<()> {
        let goal = self.asked.load(Ordering::Relaxed) + requests;
        until_true("the clients asked on", PATIENCE, || Ok(self.asked.load(Ordering::Relaxed) >= goal))
    }

    /// Lets the last requests end, and counts.
    ///
    /// # Errors
    /// A client panicked.
    pub fn finish(self) -> Result<Tally> {
        self.running.store(false, Ordering::Relaxed);
        let mut total = Tally::default();
        for client in self.clients {
            total.add(client.join().map_err(|_| anyhow!("a client panicked"))?);
        }
        Ok(total)
    }
}

fn ask(client: &mut Option<Client>, haproxy: SocketAddr, request: &Request) -> Result<Reply> {
    let mut connected = match client.take() {
        Some(client) => client,
        None => Client::connect(haproxy)?,
    };
    let reply = connected.send(request)?;
    *client = Some(connected);
    Ok(reply)
}

impl Tally {
    fn count(&mut self, reply: Result<Reply>, name: &str, value: &str) {
        if let Ok(reply) = &reply {
            self.slowest = self.slowest.max(reply.took);
        }
        match reply.and_then(|reply| reply.expect(&[(name, value)])) {
            Ok(()) => self.served += 1,
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    fn add(&mut self, other: Self) {
        self.served += other.served;
        self.failures.extend(other.failures);
        self.slowest = self.slowest.max(other.slowest);
    }
}
