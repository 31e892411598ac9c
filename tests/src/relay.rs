//! A bad network: stands between HAProxy and an agent, and delays, splits, stalls or resets what passes. It keeps a copy.

#![allow(clippy::indexing_slicing)] // Two directions, and numbers and lengths that were just taken.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustix::net::sockopt::set_socket_linger;
use spop_core::frame::{Frame, FrameType, Ids};
use spop_core::notation;

use crate::wait::{PATIENCE, until_true};

/// How soon a thread that reads hears of the end.
const TICK: Duration = Duration::from_millis(5);

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What HAProxy sends.
    ToAgent,
    /// What the agent sends.
    ToHaproxy,
}

/// How bytes pass.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// In pieces of at most so many bytes.
    pub piece: usize,
    /// So much later than they came.
    pub delay: Duration,
}

impl Default for Manner {
    fn default() -> Self {
        Self { piece: usize::MAX, delay: Duration::ZERO }
    }
}

/// What happens to a connection once so many bytes have passed one way.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which way.
    pub way: Way,
    /// How many bytes pass before.
    pub after: usize,
    /// Nothing more passes either way; the connection stays open.
    pub stall: bool,
}

/// The relay. Lives until the process ends.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    manner: Mutex<Manner>,
    faults: Mutex<VecDeque<Fault>>,
    pipes: Mutex<Vec<Arc<Pipe>>>,
}

/// One connection.
#[derive(Debug)]
pub struct Pipe {
    manner: Manner,
    fault: Option<Fault>,
    /// What has passed, by way.
    passed: [Mutex<Vec<u8>>; 2],
    reset: AtomicBool,
    stalled: AtomicBool,
    /// Its fault has happened.
    failed: AtomicBool,
    /// Threads that move bytes.
    open: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Starts a relay to an agent, on a port of its own.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn start(to: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            to: to.parse()?,
            manner: Mutex::default(),
            faults: Mutex::default(),
            pipes: Mutex::default(),
        });
        let pipes = Arc::clone(&shared);
        thread::spawn(move || {
            for haproxy in listener.incoming().flatten() {
                // Where nobody listens, HAProxy's connection just ends.
                let _ = pipes.connect(haproxy);
            }
        });
        Ok(Self { address, shared })
    }

    /// Where HAProxy finds it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How bytes pass on connections that are still to come.
    pub fn pass(&self, manner: Manner) {
        *lock(&self.shared.manner) = manner;
    }

    /// What happens to the next connection that has no fault yet.
    pub fn fail_next(&self, fault: Fault) {
        lock(&self.shared.faults).push_back(fault);
    }

    /// How many of the faults that [`fail_next`](Self::fail_next) was told have happened.
    pub fn faults(&self) -> usize {
        self.pipes().iter().filter(|pipe| pipe.failed.load(Ordering::SeqCst)).count()
    }

    /// All connections that there have been, in order.
    pub fn pipes(&self) -> Vec<Arc<Pipe>> {
        lock(&self.shared.pipes).clone()
    }

    /// Resets all connections that there are, and waits until they are gone.
    ///
    /// # Errors
    /// They are not in time.
    pub fn reset_all(&self) -> Result<()> {
        let pipes = self.pipes();
        for pipe in &pipes {
            pipe.reset();
        }
        until_true("all connections are reset", PATIENCE, || Ok(!pipes.iter().any(|pipe| pipe.is_open())))
    }

    /// Checks that each answer went to the engine that had asked; returns how many took another connection than that of
    /// the question.
    ///
    /// # Errors
    /// One went to a stranger.
    pub fn check_engines(&self) -> Result<usize> {
        let [answered, asked] = self.answered_and_asked();
        let asked: BTreeMap<Ids, usize> = asked.into_iter().collect();
        let engines: Vec<_> = self.pipes().iter().map(|pipe| pipe.engine()).collect();
        let mut crossed = 0;
        for (ids, number) in answered {
            let Some(&home) = asked.get(&ids) else { bail!("{ids} was not asked") };
            let (asking, answered) = (&engines[home], &engines[number]);
            ensure!(asking == answered, "{ids} of {asking:?} was answered to {answered:?}");
            crossed += usize::from(home != number);
        }
        Ok(crossed)
    }

    /// Checks that the agent has answered nothing twice and nothing that it was not asked; returns how many answers there
    /// were.
    ///
    /// # Errors
    /// It has.
    pub fn check_answers(&self) -> Result<usize> {
        let [answered, asked] = self.answered_and_asked();
        let mut open: BTreeMap<Ids, isize> = BTreeMap::new();
        for (ids, _) in asked {
            *open.entry(ids).or_default() += 1;
        }
        for (ids, _) in &answered {
            let open = open.entry(*ids).or_default();
            *open -= 1;
            ensure!(*open >= 0, "{ids} was answered more often than it was asked");
        }
        Ok(answered.len())
    }

    /// The answers and the questions that have passed, each with the number of its connection. The answers are looked up
    /// first: what passes meanwhile can only add questions.
    fn answered_and_asked(&self) -> [Vec<(Ids, usize)>; 2] {
        let all = |way, frame_type| {
            let pipes = self.pipes().into_iter().enumerate();
            pipes
                .flat_map(|(number, pipe)| {
                    pipe.ids(way, frame_type).into_iter().map(move |ids| (ids, number))
                })
                .collect()
        };
        let answered = all(Way::ToHaproxy, FrameType::Ack);
        [answered, all(Way::ToAgent, FrameType::Notify)]
    }
}

impl Shared {
    fn connect(&self, haproxy: TcpStream) -> Result<()> {
        let agent = TcpStream::connect(self.to)?;
        let pipe = Arc::new(Pipe {
            manner: *lock(&self.manner),
            fault: lock(&self.faults).pop_front(),
            passed: Default::default(),
            reset: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            open: AtomicUsize::new(2),
        });
        lock(&self.pipes).push(Arc::clone(&pipe));
        let (haproxy, agent) = (Arc::new(haproxy), Arc::new(agent));
        for stream in [&haproxy, &agent] {
            stream.set_read_timeout(Some(TICK))?;
            stream.set_nodelay(true)?;
        }
        for (way, from, to) in [(Way::ToAgent, &haproxy, &agent), (Way::ToHaproxy, &agent, &haproxy)] {
            let (pipe, from, to) = (Arc::clone(&pipe), Arc::clone(from), Arc::clone(to));
            thread::spawn(move || {
                pipe.carry(way, &from, &to);
                pipe.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
        Ok(())
    }
}

impl Pipe {
    /// Resets the connection on both sides.
    pub fn reset(&self) {
        self.reset.store(true, Ordering::SeqCst);
    }

    /// Whether it is open on any side.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }

    /// How many bytes have passed.
    pub fn bytes(&self, way: Way) -> usize {
        lock(&self.passed[way as usize]).len()
    }

    /// How many whole frames of a type have passed.
    pub fn frames(&self, way: Way, frame_type: FrameType) -> usize {
        self.ids(way, frame_type).len()
    }

    /// The engine that greeted on it.
    pub fn engine(&self) -> Option<String> {
        let hello = self.sentences(Way::ToAgent).into_iter().next()?;
        hello.split(' ').find_map(|word| word.strip_prefix("engine-id=")).map(ToOwned::to_owned)
    }

    fn ids(&self, way: Way, frame_type: FrameType) -> Vec<Ids> {
        let of_type = |frame: Frame<'_>| (frame.header.frame_type == frame_type).then_some(frame.header.ids);
        self.each(way, of_type).into_iter().flatten().collect()
    }

    /// The whole frames that have passed, as sentences.
    pub fn sentences(&self, way: Way) -> Vec<String> {
        self.each(way, |frame| notation::print(frame).to_string())
    }

    fn each<T>(&self, way: Way, look: impl Fn(Frame<'_>) -> T) -> Vec<T> {
        let passed = lock(&self.passed[way as usize]);
        let mut rest = &passed[..];
        let mut all = Vec::new();
        while let Some((prefix, behind)) = rest.split_first_chunk::<4>() {
            let Some((frame, behind)) = behind.split_at_checked(u32::from_be_bytes(*prefix) as usize) else {
                break;
            };
            all.extend(Frame::decode(frame).ok().map(&look));
            rest = behind;
        }
        all
    }

    fn carry(&self, way: Way, from: &TcpStream, to: &TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while !self.reset.load(Ordering::SeqCst) {
            if self.stalled.load(Ordering::SeqCst) {
                thread::sleep(TICK);
                continue;
            }
            let (mut reader, mut writer) = (from, to);
            let read = match reader.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    continue;
                }
                Err(_) => return self.reset(),
            };
            if read == 0 {
                // The other side may have more to say.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            thread::sleep(self.manner.delay);
            for piece in buffer[..read].chunks(self.manner.piece) {
                let room = self.room(way);
                let piece = &piece[..piece.len().min(room)];
                // Before it is sent: no answer is on record whose question is not.
                lock(&self.passed[way as usize]).extend_from_slice(piece);
                if writer.write_all(piece).is_err() {
                    return self.reset();
                }
                if piece.len() == room {
                    self.failed.store(true, Ordering::SeqCst);
                    if self.fault.is_some_and(|fault| fault.stall) {
                        self.stalled.store(true, Ordering::SeqCst);
                    } else {
                        self.reset();
                    }
                    break;
                }
            }
        }
        // Whatever has not been sent is thrown away, and both sides hear of it.
        for stream in [from, to] {
            let _ = set_socket_linger(stream, Some(Duration::ZERO));
        }
    }

    /// How many bytes may still pass before the fault.
    fn room(&self, way: Way) -> usize {
        match self.fault {
            Some(fault) if fault.way == way => fault.after - self.bytes(way),
            _ => usize::MAX,
        }
    }
}
