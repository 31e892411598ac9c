//! One thread of a server: its connections, and the loop that gives each its turns.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, event::Event};
use slab::Slab;
use spop_core::{ConnectionId, Status, Timestamp};
use spop_server::{ConnectionInfo, Level, Open, TOO_MUCH_UNFINISHED, UnfinishedBytes};

use tracing::warn;

use crate::{
    Connection, Handler, ReadBuffer, Turn,
    app::App,
    arrivals::{Held, Listener},
    listen::Bound,
    lobby::{self, Lobby},
    passing::Whence,
    responder::Letter,
    shared::Shared,
    stream::Socket,
    timers::Timers,
};

/// What the mailbox is woken under.
pub(crate) const MAIL: Token = Token(usize::MAX);

/// Events taken in one go.
const EVENTS: usize = 1024;

/// A connection in the care of a worker.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) io: Connection<Socket>,
    pub(crate) whence: Whence,
    pub(crate) since: Timestamp,
    /// Whether it is among those that are ready.
    pub(crate) queued: bool,
    /// Whether its being writable is reported.
    pub(crate) write_asked: bool,
    #[allow(dead_code)] // Held for its drop.
    pub(crate) held: (Held, Open),
    /// What it holds of requests that have not arrived whole.
    pub(crate) unfinished: UnfinishedBytes,
}

impl Conn {
    pub(crate) fn info(&self, now: Timestamp) -> ConnectionInfo {
        ConnectionInfo::of(self.io.reactor(), self.whence.peer.clone(), now.since(self.since))
    }
}

pub(crate) struct Worker<H> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) app: App<H>,
    pub(crate) poll: Poll,
    pub(crate) letters: Receiver<Letter>,
    /// There may be letters.
    pub(crate) mail: bool,
    pub(crate) level: Level,
    /// When the lame duck stage ends.
    lame_until: Option<Timestamp>,
    pub(crate) now: Timestamp,
    buffer: ReadBuffer,
    timers: Timers,
    /// Boxed: a slab that grows moves what is in it.
    pub(crate) conns: Slab<Box<Conn>>,
    pub(crate) keys: HashMap<ConnectionId, usize>,
    /// Who has something to do, in the order in which that was found.
    ready: VecDeque<usize>,
    /// Whose turn was over before there was nothing more to do. They come after those who are ready: a quiet connection waits
    /// for the turn under way when it is asked something, and for no other.
    again: VecDeque<usize>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) lobby: Lobby,
    pub(crate) opened: u64,
    /// Who gets the next connection of a listener that is for all.
    pub(crate) next: usize,
}

/// What a worker begins with.
pub(crate) struct Start<H> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) app: App<H>,
    pub(crate) poll: Poll,
    pub(crate) letters: Receiver<Letter>,
    pub(crate) listeners: Vec<Bound>,
}

impl<H: Handler> Worker<H> {
    pub(crate) fn new(start: Start<H>) -> io::Result<Self> {
        let Start { shared, index, app, poll, letters, listeners } = start;
        let mut worker = Self {
            now: shared.clock.now(),
            shared,
            index,
            app,
            poll,
            letters,
            mail: false,
            level: Level::Serve,
            lame_until: None,
            buffer: ReadBuffer::new(),
            timers: Timers::default(),
            conns: Slab::new(),
            keys: HashMap::new(),
            ready: VecDeque::new(),
            again: VecDeque::new(),
            listeners: Vec::new(),
            lobby: Lobby::default(),
            opened: 0,
            next: 0,
        };
        for (number, mut bound) in listeners.into_iter().enumerate() {
            bound.register(worker.poll.registry(), Token(MAIL.0 - 1 - number))?;
            worker.listeners.push(Listener { bound, ready: true, rests: None });
        }
        Ok(worker)
    }

    /// Serves until the server ends and the last connection is gone.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.follow();
            if self.is_done() {
                return Ok(());
            }
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.now = self.shared.clock.now();
            for event in &events {
                self.note(event);
            }
            self.read_mail();
            while let Some(key) = self.timers.due(self.now) {
                self.queue(key);
            }
            self.fail_overdue();
            self.accept();
            self.attend_lobby();
            // Those that come to have more to do wait for the next round, after whatever else has happened by then.
            let again = self.again.len();
            for _ in 0..self.ready.len() {
                if let Some(key) = self.ready.pop_front() {
                    self.turn(key);
                }
            }
            for _ in 0..again {
                if let Some(key) = self.again.pop_front() {
                    self.turn(key);
                }
            }
            self.app.tally.report(&self.shared.metrics, &mut self.buffer);
        }
    }

    /// Whether the server has ended as far as this worker is concerned.
    fn is_done(&mut self) -> bool {
        match self.level {
            Level::Serve | Level::LameDuck => false,
            // Another worker that still accepts may send one more.
            Level::Drain => self.conns.is_empty() && self.lobby.is_empty() && self.no_more_letters(),
            Level::Stop => true,
        }
    }

    /// How long there is nothing to do unless something happens.
    fn patience(&self) -> Option<Duration> {
        let ready = !self.ready.is_empty() || !self.again.is_empty() || self.lobby.is_ready() || self.mail;
        if ready || self.listeners.iter().any(|listener| listener.ready) {
            return Some(Duration::ZERO);
        }
        let rests = self.listeners.iter().filter_map(|listener| listener.rests).min();
        let next = [self.timers.next(), self.lobby.next(), self.app.pending.next(), rests, self.lame_until]
            .into_iter()
            .flatten()
            .min();
        // Handlers may have taken their time since `now`.
        next.map(|next| next.since(self.shared.clock.now()))
    }

    #[inline]
    fn note(&mut self, event: &Event) {
        let Token(key) = event.token();
        if let Some(conn) = self.conns.get_mut(key) {
            if event.is_read_closed() {
                conn.io.ready_closed();
            }
            conn.io.ready(event.is_readable() || event.is_error(), event.is_writable());
            self.queue(key);
        } else if event.token() == MAIL {
            self.app.mailbox.look();
            self.mail = true;
        } else if key >= lobby::FIRST && self.lobby.note(key - lobby::FIRST) {
        } else if let Some(listener) = self.listeners.get_mut(MAIL.0 - 1 - key) {
            listener.ready = listener.rests.is_none();
        }
    }

    #[inline]
    pub(crate) fn queue(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.queued
        {
            conn.queued = true;
            self.ready.push_back(key);
        }
    }

    #[inline]
    fn turn(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.queued = false;
        // The handlers of others may have taken their time.
        self.now = self.shared.clock.now();
        let (app, now, whence) = (&mut self.app, self.now, &conn.whence);
        let mut turn =
            conn.io.turn(now, &mut self.buffer, |reactor, action| app.act(now, reactor, whence, action));
        let held = conn.io.reactor().unfinished_bytes();
        if !self.shared.unfinished.count(&mut conn.unfinished, held) {
            conn.io.reactor_mut().disconnect(now, Status::RESOURCE, TOO_MUCH_UNFINISHED);
            if let Some(suppressed) = self.app.logs.closed.pass(now) {
                let connection = conn.io.reactor().connection().0;
                let reason = TOO_MUCH_UNFINISHED;
                warn!(name: "connection_failed", peer = %whence, connection, reason, suppressed, "connection failed");
            }
            // What it held is gone now, and not when the peer has closed.
            let _ = self.shared.unfinished.count(&mut conn.unfinished, conn.io.reactor().unfinished_bytes());
            turn = Turn::Again;
        }
        if turn == Turn::Over {
            self.remove(key);
        } else {
            if turn == Turn::Again {
                conn.queued = true;
                self.again.push_back(key);
            }
            if conn.io.wants_write() != conn.write_asked {
                self.ask_for_write(key);
            }
            self.set_timer(key);
        }
        if self.app.joined {
            self.app.joined = false;
            self.gather(key);
        }
        if !self.app.superseded.is_empty() {
            self.release_superseded();
        }
    }

    /// Being writable is reported to who waits for it only: a unix socket would report it whenever the peer has read.
    #[cold]
    fn ask_for_write(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.write_asked = conn.io.wants_write();
        let interests =
            if conn.write_asked { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        if self.poll.registry().reregister(conn.io.stream_mut(), Token(key), interests).is_err() {
            let action = conn.io.reactor_mut().on_transport_error(self.now);
            self.app.act(self.now, conn.io.reactor_mut(), &conn.whence, action);
            self.remove(key);
        }
    }

    #[inline]
    fn set_timer(&mut self, key: usize) {
        let Some(deadline) = self.conns.get(key).and_then(|conn| conn.io.deadline()) else { return };
        if self.timers.get(key).is_none_or(|at| deadline < at) {
            self.timers.set(key, deadline);
        }
    }

    pub(crate) fn remove(&mut self, key: usize) {
        if let Some(mut conn) = self.conns.try_remove(key) {
            self.take_leave(key, &mut conn);
        }
    }

    pub(crate) fn take_leave(&mut self, key: usize, conn: &mut Conn) {
        let connection = conn.io.reactor().connection();
        self.timers.clear(key);
        self.keys.remove(&connection);
        self.app.forget(self.now, conn.io.reactor());
        // It is closed next, or registered elsewhere.
        let _ = self.poll.registry().deregister(conn.io.stream_mut());
    }

    // ---- the end ----

    /// Does what the server has come to.
    fn follow(&mut self) {
        if self.lame_until.is_some_and(|until| until <= self.now) {
            self.lame_until = None;
            self.shared.control.raise(Level::Drain);
        }
        let level = self.shared.control.level();
        if level == self.level {
            return;
        }
        self.now = self.shared.clock.now();
        let before = std::mem::replace(&mut self.level, level);
        if before == Level::Serve
            && self.index == 0
            && let Err(error) = spop_server::tell_stopping(self.shared.control.counters.stats().open)
        {
            warn!(name: "service_manager", %error, "the service manager was not told");
        }
        if level == Level::LameDuck {
            self.lame_until = Some(self.now + self.shared.control.lame_duck());
            self.conns.iter_mut().for_each(|(_, conn)| conn.io.reactor_mut().set_lame_duck(true));
            return;
        }
        self.lame_until = None;
        if before <= Level::LameDuck {
            // Who has come already is served.
            self.accept_last();
            self.shared.control.stopped_accepting();
        }
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let reactor = conn.io.reactor_mut();
            if level == Level::Drain {
                reactor.drain(self.now);
                self.queue(key);
            } else {
                let message = "the agent is shutting down";
                reactor.disconnect(self.now, Status::NORMAL, message);
                self.turn(key);
            }
        }
    }
}
