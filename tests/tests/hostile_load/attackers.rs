//! Many attackers in one thread, which is to take little time from those that are measured: prepared bytes, long writes, and
//! a low priority.

#![allow(clippy::indexing_slicing)] // By numbers of peers, which never become fewer.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{getpriority_process, setpriority_process};

use spop_tests::wait::until_true;

use super::attack::{Attack, Pace};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(5);

/// Before a connection is opened in place of one that has ended: the server's accept rate is not what is tested.
const REOPEN: Duration = Duration::from_millis(100);

/// Between two bytes of an attacker that drips.
const DRIP: Duration = Duration::from_secs(1);

/// The longest write, and about what a connection may have under way: what the system holds for one that is slow to be read is
/// nothing that the server can help.
const SEND_BUFFER: usize = 64 << 10;

/// How many connections are opened in one tick.
const OPENED_AT_ONCE: usize = 32;

/// Attackers that go on until they are told to stop.
#[derive(Debug)]
pub(crate) struct Attackers {
    state: Arc<State>,
    thread: Option<JoinHandle<Result<Tallies>>>,
}

#[derive(Debug, Default)]
struct State {
    stopped: AtomicBool,
    /// All that was to be sent was sent.
    sent: AtomicBool,
}

/// What they did, by the name of the attack.
pub(crate) type Tallies = BTreeMap<&'static str, Tally>;

/// What those of one kind did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) opened: u32,
    /// Connections that the server has ended.
    pub(crate) ended: u32,
}

/// What attackers do beside what their [`Attack`] says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Those that do not read, and whose bytes the server does not take for this long, reset their connection and begin again.
    /// Without, they stay.
    pub(crate) renew: Option<Duration>,
    /// They send so many bytes together, then nothing. Without, they do not stop.
    pub(crate) bytes: Option<u64>,
}

impl Attackers {
    /// Starts so many of each kind.
    pub(crate) fn start(
        address: SocketAddr,
        attacks: &[(&'static Attack, usize)],
        options: Options,
    ) -> Result<Self> {
        let mut peers = Vec::new();
        for (attack, count) in attacks {
            let (first, repeated) = attack.input()?;
            let (first, repeated) = (Arc::new(first), Arc::new(repeated));
            peers.extend((0..*count).map(|_| Peer::new(attack, &first, &repeated)));
        }
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            // Of this thread only: it must not take the processor from the bystander.
            setpriority_process(None, getpriority_process(None)? + 10)?;
            Load::new(address, peers, options)?.run(&shared)
        });
        Ok(Self { state, thread: Some(thread) })
    }

    /// Ends all their connections, and says what they did.
    pub(crate) fn finish(mut self) -> Result<Tallies> {
        self.state.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("they have ended")?;
        thread.join().map_err(|_| anyhow!("the attackers panicked"))?.context("an attacker")
    }

    /// Waits until they have sent what they were to send. They stay connected.
    pub(crate) fn until_sent(&self, limit: Duration) -> Result<()> {
        until_true("all was sent", limit, || Ok(self.state.sent.load(Ordering::Relaxed)))
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
    }
}

struct Load {
    address: SocketAddr,
    epoll: OwnedFd,
    peers: Vec<Peer>,
    tallies: Tallies,
    options: Options,
    left: u64,
    room: Vec<u8>,
}

struct Peer {
    attack: &'static Attack,
    first: Arc<Vec<u8>>,
    repeated: Arc<Vec<u8>>,
    socket: Option<TcpStream>,
    /// Of `first`, and when that is sent of `repeated`.
    sent: usize,
    /// When it has sent something, or was opened or closed.
    since: Instant,
}

impl Peer {
    fn new(attack: &'static Attack, first: &Arc<Vec<u8>>, repeated: &Arc<Vec<u8>>) -> Self {
        Self {
            attack,
            first: Arc::clone(first),
            repeated: Arc::clone(repeated),
            socket: None,
            sent: 0,
            since: Instant::now(),
        }
    }

    /// What is to be sent next.
    fn pending(&self) -> &[u8] {
        let pending = match self.sent.checked_sub(self.first.len()) {
            None => self.first.get(self.sent..),
            Some(_) if self.repeated.is_empty() => None,
            Some(sent) => self.repeated.get(sent % self.repeated.len()..),
        };
        let pending = pending.unwrap_or_default();
        if self.attack.pace == Pace::Drip { pending.get(..1).unwrap_or_default() } else { pending }
    }
}

impl Load {
    fn new(address: SocketAddr, peers: Vec<Peer>, options: Options) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let left = options.bytes.unwrap_or(u64::MAX);
        Ok(Self { address, epoll, peers, tallies: Tallies::new(), options, left, room: vec![0; 256 << 10] })
    }

    fn run(mut self, state: &State) -> Result<Tallies> {
        // Few at once, so that what is due is done in time.
        let mut events = Vec::with_capacity(64);
        let mut tick = Instant::now();
        while !state.stopped.load(Ordering::Relaxed) {
            if self.left == 0 {
                state.sent.store(true, Ordering::Relaxed);
            }
            events.clear();
            let timeout = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if tick <= Instant::now() {
                self.tick()?;
                tick = Instant::now() + TICK;
            }
            for event in &events {
                let (key, flags) = (event.data.u64() as usize, event.flags);
                let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
                if flags.contains(EventFlags::IN) && self.peers[key].attack.reads {
                    self.read(key);
                }
                if flags.intersects(ended) {
                    self.end(key);
                } else if flags.contains(EventFlags::OUT) && self.peers[key].attack.pace != Pace::Drip {
                    self.write(key)?;
                }
            }
        }
        Ok(self.tallies)
    }

    /// Does what is due.
    fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut opened = 0;
        for key in 0..self.peers.len() {
            let peer = &mut self.peers[key];
            let passed = now.saturating_duration_since(peer.since);
            if peer.socket.is_none() {
                if passed >= REOPEN && opened < OPENED_AT_ONCE {
                    opened += 1;
                    self.open(key)?;
                }
            } else if peer.attack.pace == Pace::Drip {
                if passed >= DRIP {
                    self.write(key)?;
                }
            } else if !peer.attack.reads && self.options.renew.is_some_and(|renew| passed >= renew) {
                peer.socket = None;
                peer.since = now;
            }
        }
        Ok(())
    }

    fn open(&mut self, key: usize) -> Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        // Without delay for those that drip, and no TIME-WAIT: there are not that many ports.
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
        match rustix::net::connect(&socket, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("cannot connect"),
        }
        let peer = &mut self.peers[key];
        let mut flags = EventFlags::RDHUP;
        if peer.attack.reads {
            flags |= EventFlags::IN;
        }
        if peer.attack.pace != Pace::Drip {
            flags |= EventFlags::OUT;
        }
        epoll::add(&self.epoll, &socket, EventData::new_u64(key as u64), flags)?;
        (peer.socket, peer.sent, peer.since) = (Some(socket.into()), 0, Instant::now());
        self.tallies.entry(peer.attack.name).or_default().opened += 1;
        Ok(())
    }

    fn write(&mut self, key: usize) -> Result<()> {
        let peer = &mut self.peers[key];
        let Some(mut socket) = peer.socket.as_ref() else { return Ok(()) };
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(SEND_BUFFER);
        let pending = peer.pending();
        let pending = pending.get(..limit).unwrap_or(pending);
        if pending.is_empty() {
            // It waits.
            let flags =
                EventFlags::RDHUP | if peer.attack.reads { EventFlags::IN } else { EventFlags::empty() };
            epoll::modify(&self.epoll, socket, EventData::new_u64(key as u64), flags)?;
            return Ok(());
        }
        match socket.write(pending) {
            Ok(n) => {
                peer.sent += n;
                peer.since = Instant::now();
                self.left -= n as u64;
                self.tallies.entry(peer.attack.name).or_default().sent += n as u64;
                if peer.attack.pace == Pace::Reset && peer.pending().is_empty() {
                    peer.socket = None;
                }
            }
            Err(error) if is_blocked(&error) => {}
            Err(_) => self.end(key),
        }
        Ok(())
    }

    fn read(&mut self, key: usize) {
        let peer = &mut self.peers[key];
        let Some(mut socket) = peer.socket.as_ref() else { return };
        match socket.read(&mut self.room) {
            Ok(0) => self.end(key),
            Ok(n) => self.tallies.entry(peer.attack.name).or_default().received += n as u64,
            Err(error) if is_blocked(&error) => {}
            Err(_) => self.end(key),
        }
    }

    /// The server has ended the connection.
    fn end(&mut self, key: usize) {
        let peer = &mut self.peers[key];
        if peer.socket.take().is_some() {
            peer.since = Instant::now();
            self.tallies.entry(peer.attack.name).or_default().ended += 1;
        }
    }
}

fn is_blocked(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}
