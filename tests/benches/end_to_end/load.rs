//! The load: this project's engine on an epoll loop, the same for every agent.
//!
//! Each connection asks so many questions at once, in one write, and asks again when the last is answered, or as many as a
//! read has brought answers. The engine sees to it that each is answered once; here every answer is compared with what it
//! should be.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    event::{
        Timespec,
        epoll::{self, Event, EventData, EventFlags},
    },
    io::Errno,
};
use spop_core::{
    Clock, ConnectionId, EngineAction, EngineConfig, EngineReactor, Timestamp,
    engine::UnclaimedAck,
    frame::{Capabilities, Ids},
    link::Phase,
    testing::Inbox,
};

use super::question::{Question, STREAMS, actions};

/// How long anything may take that ought to happen at once.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// Connections of an engine to one agent.
pub struct Load {
    clock: Clock,
    epoll: OwnedFd,
    events: Vec<Event>,
    conns: Vec<Conn>,
    buffer: Vec<u8>,
    payload: Vec<u8>,
    expected: Vec<u8>,
    latencies: Vec<u32>,
    /// Async is to be in effect.
    shared: bool,
    /// Answers to come.
    left: usize,
    /// Connections that have got answers, and how many.
    answered: Vec<(usize, usize)>,
}

/// When a connection asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Window {
    /// When the last of its questions is answered: as many again.
    Burst,
    /// When answers come: as many as have come.
    Sliding,
}

struct Conn {
    stream: TcpStream,
    engine: EngineReactor,
    inbox: Inbox,
    stream_id: u64,
    /// Answers to come.
    left: usize,
}

/// What came of a run.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub answers: u64,
    pub elapsed: Duration,
    /// The time from a question to its answer: nanoseconds that 50 %, 99 % and 99.9 % do not exceed.
    pub latencies: [u32; 3],
}

impl Outcome {
    /// From one latency for each answer.
    fn new(latencies: &mut [u32], elapsed: Duration) -> Self {
        let answers = latencies.len();
        let at = [500, 990, 999].map(|permille| {
            let index = (answers * permille / 1000).min(answers.saturating_sub(1));
            if answers == 0 { 0 } else { *latencies.select_nth_unstable(index).1 }
        });
        Self { answers: answers as u64, elapsed, latencies: at }
    }
}

impl Load {
    /// Opens so many connections, and lets each ask once. With `shared`, all are of one engine, and async is in effect.
    pub fn connect(agent: SocketAddr, connections: usize, question: Question, shared: bool) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut load = Self {
            clock: Clock::start(),
            epoll,
            events: Vec::with_capacity(1024),
            conns: Vec::new(),
            buffer: vec![0; 64 * 1024],
            payload: question.payload(),
            expected: actions().as_bytes().to_vec(),
            latencies: Vec::new(),
            shared,
            left: 0,
            answered: Vec::new(),
        };
        let mut config = EngineConfig::default();
        config.max_waiting_frames = 4096;
        config.capabilities |= Capabilities::ASYNC;
        config.engine_id = shared.then(|| "2b1e8b3c-8f0c-4d3e-9d2a-0e5d1c7a9f11".into());
        let config = Arc::new(config.checked()?);
        for key in 0..connections {
            let stream = TcpStream::connect(agent).context("cannot connect to the agent")?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            epoll::add(&load.epoll, &stream, EventData::new_u64(key as u64), EventFlags::IN)?;
            let engine = EngineReactor::new(Arc::clone(&config), ConnectionId(key as u64), load.clock.now());
            // Far apart: no two of them ask under the same identifiers at the same time.
            let stream_id = STREAMS.start + (key as u64 * 7919) % (STREAMS.end - STREAMS.start);
            let inbox = Inbox::new();
            let mut conn = Conn { stream, engine, inbox, stream_id, left: 0 };
            conn.write(load.clock.now())?;
            load.conns.push(conn);
        }
        let mut to_greet = connections;
        while to_greet > 0 {
            load.wait()?;
            let events = std::mem::take(&mut load.events);
            for event in &events {
                to_greet -= load.read(event.data.u64() as usize)?;
            }
            load.events = events;
        }
        load.run(1, Window::Burst, Duration::ZERO)?;
        Ok(load)
    }

    /// Asks for so long, `depth` questions at once on each connection; every connection asks at least once.
    pub fn run(&mut self, depth: usize, window: Window, time: Duration) -> Result<Outcome> {
        self.latencies.clear();
        let start = Instant::now();
        let now = self.clock.now();
        for key in 0..self.conns.len() {
            self.ask(now, key, depth)?;
        }
        let mut over = false;
        while self.left > 0 {
            self.wait()?;
            over = over || start.elapsed() >= time;
            let events = std::mem::take(&mut self.events);
            for event in &events {
                let key = event.data.u64() as usize;
                self.read(key)?;
                while let Some((key, count)) = self.answered.pop() {
                    let count = match window {
                        Window::Sliding => count,
                        Window::Burst if self.conns[key].left == 0 => depth,
                        Window::Burst => continue,
                    };
                    if !over {
                        let now = self.clock.now();
                        self.ask(now, key, count)?;
                    }
                }
            }
            self.events = events;
        }
        let elapsed = start.elapsed();
        for conn in &self.conns {
            ensure!(conn.engine.ignored_acks() == 0, "an ACK that answers nothing");
        }
        Ok(Outcome::new(&mut self.latencies, elapsed))
    }

    fn wait(&mut self) -> Result<()> {
        self.events.clear();
        loop {
            let room = rustix::buffer::spare_capacity(&mut self.events);
            match epoll::wait(&self.epoll, room, Some(&PATIENCE)) {
                Ok(0) => bail!("the agent has not answered for {} s", PATIENCE.tv_sec),
                Err(Errno::INTR) => {}
                waited => return Ok(waited.map(|_| ())?),
            }
        }
    }

    fn ask(&mut self, now: Timestamp, key: usize, depth: usize) -> Result<()> {
        let Some(conn) = self.conns.get_mut(key) else { bail!("no connection {key}") };
        for _ in 0..depth {
            conn.engine.notify_raw(now, Some(Ids::new(conn.stream_id, 1)), &self.payload)?;
            conn.stream_id += 1;
            if conn.stream_id == STREAMS.end {
                conn.stream_id = STREAMS.start;
            }
        }
        conn.left += depth;
        self.left += depth;
        conn.write(now)
    }

    /// Reads once. Returns how many handshakes ended.
    fn read(&mut self, key: usize) -> Result<usize> {
        let Some(conn) = self.conns.get_mut(key) else { bail!("no connection {key}") };
        let n = match conn.stream.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            read => read.context("reading from the agent")?,
        };
        ensure!(n > 0, "the agent has closed a connection");
        conn.inbox.extend_from_slice(self.buffer.get(..n).unwrap_or_default());
        let now = self.clock.now();
        let mut greeted = 0;
        loop {
            let Some(conn) = self.conns.get_mut(key) else { bail!("no connection {key}") };
            match conn.inbox.feed(|input| conn.engine.on_bytes(now, input)) {
                EngineAction::Answered(answer) => {
                    ensure!(*answer.payload == *self.expected, "a wrong answer: {:?}", answer.payload);
                    self.latencies.push(u32::try_from(answer.took.as_nanos()).unwrap_or(u32::MAX));
                    conn.left -= 1;
                    self.left -= 1;
                    answered(&mut self.answered, key);
                }
                EngineAction::Unclaimed(ack) => self.claim(now, ack)?,
                EngineAction::Established(session) => {
                    ensure!(
                        session.capabilities.contains(Capabilities::ASYNC) == self.shared,
                        "async: {session:?}"
                    );
                    greeted = 1;
                }
                EngineAction::WantBytes { .. } => return Ok(greeted),
                action => bail!("{action:?} in phase {:?}", conn.engine.phase()),
            }
        }
    }

    /// An answer that took another connection of the engine.
    #[cold]
    fn claim(&mut self, now: Timestamp, mut ack: UnclaimedAck) -> Result<()> {
        for (key, conn) in self.conns.iter_mut().enumerate() {
            match conn.engine.claim(now, ack) {
                Ok(answer) => {
                    ensure!(*answer.payload == *self.expected, "a wrong answer: {:?}", answer.payload);
                    self.latencies.push(u32::try_from(answer.took.as_nanos()).unwrap_or(u32::MAX));
                    conn.left -= 1;
                    self.left -= 1;
                    answered(&mut self.answered, key);
                    return Ok(());
                }
                Err(other) => ack = other,
            }
        }
        bail!("an answer to no question: {ack:?}")
    }
}

/// Counts an answer.
fn answered(answered: &mut Vec<(usize, usize)>, key: usize) {
    match answered.last_mut() {
        Some((last, count)) if *last == key => *count += 1,
        _ => answered.push((key, 1)),
    }
}

impl Conn {
    /// Sends what there is to be sent, in one write as a rule.
    fn write(&mut self, now: Timestamp) -> Result<()> {
        debug_assert_ne!(self.engine.phase(), Phase::Closing);
        while !self.engine.outgoing().is_empty() {
            match self.stream.write(self.engine.outgoing()) {
                Ok(n) => {
                    let _ = self.engine.on_sent(now, n);
                }
                // What is asked at once fits the buffers of the sockets; the agent only has to get to it.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(error).context("writing to the agent"),
            }
        }
        Ok(())
    }
}
