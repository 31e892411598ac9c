//! What connections tell the watcher. It never delays them: what there is no room for is not watched.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use spop_core::{frame::Header, link::Side};

use super::faults::{Action, Struck};
use crate::time::Utc;

/// Bytes that wait for the watcher.
const QUEUE: usize = 64 << 20;

/// What a connection takes beside its bytes, with all that is told at its end; and what anything else takes.
const CONNECTION: usize = 1_024;
const EACH: usize = 256;

/// Something that was seen.
#[derive(Debug)]
pub(super) struct Seen {
    /// The number of the connection, from 1, in the order in which they were accepted.
    pub(super) connection: u64,
    /// Since 1970.
    pub(super) time: Duration,
    pub(super) what: Happening,
}

/// What happens between HAProxy and the relay.
#[derive(Debug)]
pub(super) enum Happening {
    Opened {
        ends: Ends,
    },
    /// A side has sent bytes, after so many that are not watched.
    Data {
        from: Side,
        unwatched: u64,
        bytes: Bytes,
    },
    /// A side has sent so many bytes that are not watched.
    Gap {
        from: Side,
        unwatched: u64,
    },
    /// A side has shut its direction.
    Shut(Side),
    /// A side has reset the connection.
    Reset(Side),
    /// It is not a side that closes the connection, but this.
    Closes(&'static str),
    /// The relay has closed it.
    Over,
    Fault {
        from: Side,
        name: &'static str,
        header: Option<Header>,
        text: String,
    },
    Note(String),
    /// A connection is not relayed.
    Refused {
        peer: String,
        reason: String,
    },
}

/// The addresses of a connection from HAProxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) haproxy: SocketAddr,
    pub(super) relay: SocketAddr,
}

/// What is counted where it happens, so that it counts also when it is not watched.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Bytes, or connections as a whole.
    pub(super) unwatched: AtomicU64,
    pub(super) delayed: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// Connections that were closed by a fault, and those that were reset.
    pub(super) closed: AtomicU64,
    pub(super) reset: AtomicU64,
    /// What the watcher has seen: its progress.
    pub(super) watched: AtomicU64,
}

/// Where everything is told.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    sender: mpsc::Sender<Seen>,
    queued: Arc<AtomicUsize>,
    pub(super) counters: Arc<Counters>,
}

/// What the watcher receives.
#[derive(Debug)]
pub(super) struct Receiver {
    receiver: mpsc::Receiver<Seen>,
    queued: Arc<AtomicUsize>,
}

/// One direction of a connection.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    taps: Taps,
    connection: u64,
    /// The side that sends in it.
    from: Side,
    /// Its begin was told.
    is_watched: bool,
    /// Bytes since the latest that are watched.
    unwatched: u64,
}

pub(super) fn taps() -> (Taps, Receiver) {
    let (sender, receiver) = mpsc::channel();
    let queued = Arc::<AtomicUsize>::default();
    let taps = Taps { sender, queued: Arc::clone(&queued), counters: Arc::default() };
    (taps, Receiver { receiver, queued })
}

impl Taps {
    /// A connection that was accepted; what HAProxy sends.
    pub(super) fn accepted(&self) -> Tap {
        let connection = self.counters.connections.fetch_add(1, Relaxed) + 1;
        Tap { taps: self.clone(), connection, from: Side::Engine, is_watched: false, unwatched: 0 }
    }

    /// What happens to no connection.
    pub(super) fn problem(&self, text: String) {
        self.tell(0, Happening::Note(text));
    }

    /// False if there is no room.
    fn tell(&self, connection: u64, what: Happening) -> bool {
        let cost = what.cost();
        if self.queued.load(Relaxed).saturating_add(cost) > QUEUE && cost > 0 {
            return false;
        }
        self.queued.fetch_add(cost, Relaxed);
        let time = Utc::now().since_1970();
        // The watcher ends behind all connections.
        self.sender.send(Seen { connection, time, what }).is_ok()
    }
}

impl Receiver {
    /// The next, until all connections have ended.
    pub(super) fn next(&self) -> Option<Seen> {
        let seen = self.receiver.recv().ok()?;
        self.queued.fetch_sub(seen.what.cost(), Relaxed);
        Some(seen)
    }
}

impl Happening {
    fn cost(&self) -> usize {
        match self {
            Self::Opened { .. } => CONNECTION,
            Self::Data { bytes, .. } => bytes.len() + EACH,
            Self::Fault { text, .. } | Self::Note(text) | Self::Refused { reason: text, .. } => {
                text.len() + EACH
            }
            // Part of the connection's.
            Self::Gap { .. } | Self::Shut(_) | Self::Reset(_) | Self::Closes(_) | Self::Over => 0,
        }
    }
}

impl Tap {
    /// The number of the connection.
    pub(super) const fn connection(&self) -> u64 {
        self.connection
    }

    /// The side that sends.
    pub(super) const fn from(&self) -> Side {
        self.from
    }

    /// The connection is relayed. Returns the tap of what the agent sends.
    pub(super) fn opened(&mut self, ends: Ends) -> Self {
        self.is_watched = self.taps.tell(self.connection, Happening::Opened { ends });
        Self { from: Side::Agent, ..self.clone() }
    }

    /// The next bytes.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        let data = || Happening::Data {
            from: self.from,
            unwatched: self.unwatched,
            bytes: Bytes::copy_from_slice(bytes),
        };
        if self.is_watched && self.taps.tell(self.connection, data()) {
            self.unwatched = 0;
        } else {
            self.unwatched += bytes.len() as u64;
            self.taps.counters.unwatched.fetch_add(bytes.len() as u64, Relaxed);
        }
    }

    /// Its side sends nothing more.
    pub(super) fn shut(&mut self) {
        self.end(Happening::Shut(self.from));
    }

    /// A side has reset the connection.
    pub(super) fn reset(&mut self, by: Side) {
        self.end(Happening::Reset(by));
    }

    /// It is not a side that closes the connection, but this.
    pub(super) fn closes(&mut self, reason: &'static str) {
        self.end(Happening::Closes(reason));
    }

    /// The relay has closed both sides.
    pub(super) fn over(&mut self) {
        self.end(Happening::Over);
    }

    fn end(&mut self, what: Happening) {
        if self.is_watched {
            let unwatched = std::mem::take(&mut self.unwatched);
            if unwatched > 0 {
                self.taps.tell(self.connection, Happening::Gap { from: self.from, unwatched });
            }
            self.taps.tell(self.connection, what);
        }
    }

    /// A fault has struck a frame of its side.
    pub(super) fn fault(&self, struck: &Struck) {
        let counters = &self.taps.counters;
        let counter = match struck.action {
            Action::Delay(_) => &counters.delayed,
            Action::Drop => &counters.dropped,
            Action::End { reset: false, .. } => &counters.closed,
            Action::End { reset: true, .. } => &counters.reset,
        };
        counter.fetch_add(1, Relaxed);
        if self.is_watched {
            let (text, header) = (struck.to_string(), struck.header);
            let fault = Happening::Fault { from: self.from, name: struck.name(), header, text };
            self.taps.tell(self.connection, fault);
        }
    }

    /// It is not relayed.
    pub(super) fn refused(&self, peer: String, reason: String) {
        self.taps.counters.refused.fetch_add(1, Relaxed);
        self.taps.tell(self.connection, Happening::Refused { peer, reason });
    }
}
