//! HTTP clients on one epoll loop, each with one request at a time on a connection that stays open: faster than threads,
//! and unlike `wrk` it looks at every reply.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::retry_on_intr;

use crate::http::HANG;

/// As long as a short one of a browser: HAProxy may send it to the agent.
const USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64)";

/// Clients of one HAProxy. Replies must have no body.
#[derive(Debug)]
pub struct Clients {
    epoll: OwnedFd,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    reply: Vec<u8>,
    asked: Instant,
}

/// When a run ends; each is a limit of its own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No more requests are sent than this.
    pub requests: usize,
    /// No request is sent later than this.
    pub time: Duration,
    /// No request is sent after so many were lost.
    pub lost: usize,
}

impl Limits {
    /// So many requests, however long they take and however many are lost.
    pub fn requests(requests: usize) -> Self {
        Self { requests, time: Duration::MAX, lost: usize::MAX }
    }

    /// As many requests as there are in this time.
    pub fn time(time: Duration) -> Self {
        Self { requests: usize::MAX, time, lost: usize::MAX }
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many were answered as expected.
    pub answered: usize,
    /// How many were not, by what HAProxy said: `error 1` is a timeout, `error 298` a disconnect with 42.
    pub lost: BTreeMap<String, usize>,
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// How long each took, shortest first.
    latencies: Vec<Duration>,
}

impl Outcome {
    /// How many were not answered as expected.
    pub fn lost(&self) -> usize {
        self.lost.values().sum()
    }

    /// The time that so many thousandths of the requests did not exceed.
    pub fn latency(&self, permille: usize) -> Duration {
        let index = self.latencies.len().saturating_mul(permille) / 1000;
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(index.min(last)).copied().unwrap_or_default()
    }

    /// The longest time that a request took.
    pub fn slowest(&self) -> Duration {
        self.latency(1000)
    }

    /// Requests per second.
    #[allow(clippy::cast_precision_loss)] // They are far fewer than 2^52.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Checks that none was lost.
    ///
    /// # Errors
    /// Some were.
    pub fn expect_all(&self) -> Result<()> {
        let (lost, all) = (self.lost(), self.answered + self.lost());
        ensure!(lost == 0, "{lost} of {all} requests lost, slowest {:?}: {:?}", self.slowest(), self.lost);
        Ok(())
    }
}

impl Clients {
    /// Connects.
    ///
    /// # Errors
    /// HAProxy does not listen.
    pub fn connect(haproxy: SocketAddr, count: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut clients = Vec::new();
        for key in 0..count {
            let stream = TcpStream::connect(haproxy)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            epoll::add(&epoll, &stream, EventData::new_u64(key as u64), EventFlags::IN)?;
            clients.push(Client { stream, reply: Vec::new(), asked: Instant::now() });
        }
        Ok(Self { epoll, clients })
    }

    /// Sends requests for `path`: every client the next one as soon as it has a reply. A reply is as expected if it has no
    /// error and the variable `name` is `value`.
    ///
    /// # Errors
    /// HAProxy closes a connection, or does not reply at all.
    pub fn run(&mut self, path: &str, (name, value): (&str, &str), limits: Limits) -> Result<Outcome> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nuser-agent: {USER_AGENT}\r\n\r\n");
        let expected = format!("\r\nx-{name}: {value}\r\n");
        let mut outcome = Outcome::default();
        let mut events = Vec::with_capacity(self.clients.len());
        let (start, mut sent, mut waiting) = (Instant::now(), 0, 0);
        for client in self.clients.iter_mut().take(limits.requests) {
            client.ask(&request)?;
            sent += 1;
            waiting += 1;
        }
        while waiting > 0 {
            events.clear();
            let patience = Timespec { tv_sec: HANG.as_secs().try_into()?, tv_nsec: 0 };
            retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience)))?;
            ensure!(!events.is_empty(), "no reply within {HANG:?}; until then {outcome:?}");
            for event in &events {
                let client = self.clients.get_mut(event.data.u64() as usize).context("no such client")?;
                if !client.read()? {
                    continue;
                }
                outcome.latencies.push(client.asked.elapsed());
                match client.judge(&expected) {
                    None => outcome.answered += 1,
                    Some(reason) => *outcome.lost.entry(reason).or_default() += 1,
                }
                let goes_on = sent < limits.requests && outcome.lost() < limits.lost;
                if goes_on && start.elapsed() < limits.time {
                    client.ask(&request)?;
                    sent += 1;
                } else {
                    waiting -= 1;
                }
            }
        }
        outcome.elapsed = start.elapsed();
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }
}

impl Client {
    fn ask(&mut self, request: &str) -> Result<()> {
        self.reply.clear();
        self.asked = Instant::now();
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// Whether the reply is whole.
    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            read => {
                let read = read?;
                ensure!(read > 0, "HAProxy has closed a connection");
                self.reply.extend_from_slice(buffer.get(..read).unwrap_or_default());
            }
        }
        Ok(self.reply.ends_with(b"\r\n\r\n"))
    }

    /// Why the reply is not as expected.
    fn judge(&self, expected: &str) -> Option<String> {
        let reply = String::from_utf8_lossy(&self.reply);
        if let Some((_, error)) = reply.split_once("\r\nx-error: ") {
            return Some(format!("error {}", error.split('\r').next().unwrap_or_default()));
        }
        let is_expected = reply.starts_with("HTTP/1.1 200 ") && reply.contains(expected);
        (!is_expected).then(|| format!("no {:?} in {reply:?}", expected.trim()))
    }
}
