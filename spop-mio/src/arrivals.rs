//! Connections that come: from a listener, from another worker, out of the lobby.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mio::{Interest, Token};
use spop_core::{AgentReactor, ConnectionId, Timestamp, accept::Peer};
use spop_server::{Entrance, Level, Place, Seat, is_of_connection};
use tracing::{debug, warn};

use crate::{
    Connection, Handler,
    listen::Bound,
    lobby::Left,
    passing::{Arrival, Passing, Whence},
    responder::Letter,
    stream::{Plain, Socket},
    worker::{Conn, Worker},
};

/// How long a listener rests that cannot accept: the process has no file descriptors left, as a rule.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Connections accepted in one go, before those that are open have their turn.
const BATCH: usize = 64;

/// Batches of connections that came before the end and are accepted at the end: all that can have waited.
const LAST: usize = 4_096 / BATCH;

/// Turns in the lobby in one go. Some of them are TLS handshakes, and a thousand of those that come at once would keep the
/// sessions waiting for seconds.
const TURNS: usize = 16;

/// A listener in the care of a worker.
pub(crate) struct Listener {
    pub(crate) bound: Bound,
    /// There may be somebody to accept.
    pub(crate) ready: bool,
    /// When to try again after a failure.
    pub(crate) rests: Option<Timestamp>,
}

/// A connection's places under the limits of the server.
#[derive(Debug)]
#[allow(dead_code)] // Held for its drop.
pub(crate) struct Held(Seat, Place);

/// A connection that was just accepted.
#[derive(Debug)]
pub(crate) struct Newcomer {
    socket: Plain,
    peer: Peer,
    entrance: Option<Arc<Entrance>>,
    held: Held,
}

impl<H: Handler> Worker<H> {
    /// Accepts whoever has come.
    pub(crate) fn accept(&mut self) {
        let now = self.now;
        for number in 0..self.listeners.len() {
            if let Some(listener) = self.listeners.get_mut(number)
                && (listener.ready || listener.rests.is_some_and(|until| until <= now))
            {
                listener.ready = true;
                listener.rests = None;
                self.accept_from(number);
            }
        }
    }

    /// Accepts whoever has come before the end, and closes the listeners.
    pub(crate) fn accept_last(&mut self) {
        // The loop may not have heard of the last of them, and the system resets whom a closed listener has not accepted.
        for listener in &mut self.listeners {
            listener.ready = true;
        }
        for _ in 0..LAST {
            self.accept();
            if !self.listeners.iter().any(|listener| listener.ready) {
                break;
            }
        }
        self.listeners.clear();
    }

    fn accept_from(&mut self, number: usize) {
        for _ in 0..BATCH {
            let Some(listener) = self.listeners.get_mut(number) else { return };
            match listener.bound.accept() {
                Ok((socket, peer)) => {
                    let (for_all, entrance) = (listener.bound.is_for_all(), listener.bound.entrance());
                    self.welcome(socket, peer, for_all, entrance);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.ready = false;
                    return;
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    listener.ready = false;
                    listener.rests = Some(self.now + BACK_OFF);
                    self.shared.control.counters.failed_accepts.fetch_add(1, Ordering::Relaxed);
                    self.warn("accept_failed", &error);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, socket: Plain, peer: Peer, for_all: bool, entrance: Option<Arc<Entrance>>) {
        let counters = &self.shared.control.counters;
        let seat = counters.seat(self.shared.max_connections).ok_or("");
        let held = seat.and_then(|seat| {
            let place = self.shared.sources.enter(&peer).ok_or(" from its address")?;
            Ok(Held(seat, place))
        });
        let held = match held {
            Ok(held) => held,
            Err(whose) => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                self.shared.metrics.refused(1);
                return self.warn("connection_refused", &format_args!("{peer}: too many connections{whose}"));
            }
        };
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        let newcomer = Newcomer { socket, peer, entrance, held };
        // At the end the others may be gone.
        if !for_all || self.level >= Level::Drain {
            return self.receive(newcomer);
        }
        let host = self.next;
        self.next = (self.next + 1) % self.shared.everybody.len();
        if host == self.index {
            self.receive(newcomer);
        } else {
            self.send_to(host, Letter::Newcomer(Box::new(newcomer)));
        }
    }

    fn send_to(&mut self, host: usize, letter: Letter) {
        if let Some(mailbox) = self.shared.everybody.get(host) {
            // No worker is gone while another accepts, unless the server was stopped.
            let _ = mailbox.send(letter);
        }
    }

    /// Takes a connection into care: straight to its session, or through the lobby.
    pub(crate) fn receive(&mut self, newcomer: Newcomer) {
        let Newcomer { socket, peer, entrance, held } = newcomer;
        let Some(entrance) = entrance else {
            let whence = Whence { peer, learned: None };
            let arrival = Arrival { socket: Socket::Plain(socket), whence, input: bytes::BytesMut::new() };
            return self.begin(arrival, held);
        };
        // A monitor that answers every connection may have a function of the application for it.
        let begin =
            AssertUnwindSafe(|| Passing::new(socket, peer, entrance, self.now, self.level > Level::Serve));
        let Ok(passing) = catch_unwind(begin) else {
            return self.warn("monitor_panicked", &"the answer of a monitor panicked");
        };
        if let Err(error) = self.lobby.enter(self.poll.registry(), passing, held) {
            self.warn("connection_refused", &error);
        }
    }

    /// Gives those in the lobby their turns.
    pub(crate) fn attend_lobby(&mut self) {
        let lame_duck = self.level > Level::Serve;
        for _ in 0..self.lobby.round(self.now).min(TURNS) {
            let left = self.lobby.turn(self.poll.registry(), self.now, lame_duck);
            let counters = &self.shared.control.counters;
            match left {
                None => {}
                Some(Left::Session(arrival, held)) => self.begin(*arrival, held),
                Some(Left::Probe) => {
                    counters.probes.fetch_add(1, Ordering::Relaxed);
                    self.shared.metrics.probes(1);
                }
                Some(Left::Refused(what, words)) => {
                    counters.rejected.fetch_add(1, Ordering::Relaxed);
                    self.shared.metrics.rejected(1);
                    self.warn(what, &words);
                }
            }
        }
    }

    /// Begins a session.
    fn begin(&mut self, arrival: Arrival, held: Held) {
        let Arrival { socket, whence, input } = arrival;
        // No two workers give the same number.
        let connection = ConnectionId(self.opened * self.shared.everybody.len() as u64 + self.index as u64);
        self.opened += 1;
        debug!(name: "connection_opened", peer = %whence, connection = connection.0, "connection opened");
        let reactor = AgentReactor::new(Arc::clone(&self.shared.config), connection, self.now)
            .with_layers(socket.layers());
        let io = Connection::new(socket, reactor).with_input(input);
        let open = self.shared.metrics.open();
        self.admit(Box::new(Conn {
            io,
            whence,
            since: self.now,
            queued: false,
            write_asked: false,
            held: (held, open),
            unfinished: self.shared.unfinished.connection(),
        }));
    }

    /// Takes a session into care: a new one, or another worker's.
    pub(crate) fn admit(&mut self, mut conn: Box<Conn>) {
        conn.queued = false;
        conn.write_asked = false;
        conn.io.reactor_mut().set_lame_duck(self.level != Level::Serve);
        if self.level == Level::Drain {
            conn.io.reactor_mut().drain(self.now);
        }
        let connection = conn.io.reactor().connection();
        let entry = self.conns.vacant_entry();
        let key = entry.key();
        if let Err(error) =
            self.poll.registry().register(conn.io.stream_mut(), Token(key), Interest::READABLE)
        {
            return self.warn("connection_refused", &format_args!("{}: {error}", conn.whence));
        }
        if let Some(session) = conn.io.reactor().session() {
            self.app.hub.join(connection, session);
        }
        entry.insert(conn);
        self.keys.insert(connection, key);
        self.queue(key);
    }

    /// The connections of an engine whose answers may take any of them come together on one worker.
    pub(crate) fn gather(&mut self, key: usize) {
        let Some(conn) = self.conns.get(key) else { return };
        let Some(engine) = conn.io.reactor().session().and_then(|session| session.shared_engine()) else {
            return;
        };
        let mut hasher = DefaultHasher::new();
        engine.hash(&mut hasher);
        let host = (hasher.finish() % self.shared.everybody.len() as u64) as usize;
        // What was asked already stays with the worker that has the handlers at work.
        if host == self.index || self.level >= Level::Drain || conn.io.reactor().in_flight() > 0 {
            return;
        }
        if let Some(mut conn) = self.conns.try_remove(key) {
            self.take_leave(key, &mut conn);
            self.send_to(host, Letter::Guest(conn));
        }
    }

    #[cold]
    pub(crate) fn warn(&mut self, what: &'static str, error: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.app.logs.accept.pass(self.now) {
            warn!(name: "not_accepted", what, %error, suppressed, "not accepted");
        } else {
            debug!(name: "not_accepted", what, %error, "not accepted");
        }
    }
}
