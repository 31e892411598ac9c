//! One thread of a server: its connections, and the loop that gives each its turns.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, event::Event};
use slab::Slab;
use spop_core::{
    AgentConfig, AgentReactor, Clock, ConnectionId, Reply, Status, Ticket, Timestamp,
    accept::Peer,
    hub::{Connections, Route},
    server::Seat,
};
use tracing::{debug, warn};

use crate::{
    Connection, Handler, ReadBuffer, Turn,
    app::{Answer, App, Failure},
    control::{Control, Level},
    listen::Bound,
    mail::Mailbox,
    responder::Letter,
    stream::Socket,
    timers::Timers,
};

/// What the mailbox is woken under.
pub(crate) const MAIL: Token = Token(usize::MAX);

/// How long a listener rests that cannot accept: the process has no file descriptors left, as a rule.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Connections accepted in one go, before those that are open have their turn.
const BATCH: usize = 64;

/// Events taken in one go.
const EVENTS: usize = 1024;

/// A connection in the care of a worker.
#[derive(Debug)]
pub(crate) struct Conn {
    io: Connection<Socket>,
    peer: Peer,
    /// Whether it is among those that are ready.
    queued: bool,
    /// Whether its being writable is reported.
    write_asked: bool,
    _seat: Seat,
}

struct Listener {
    bound: Bound,
    /// There may be somebody to accept.
    ready: bool,
    /// When to try again after a failure.
    rests: Option<Timestamp>,
}

pub(crate) struct Worker<H> {
    pub(crate) config: Arc<AgentConfig>,
    pub(crate) app: App<H>,
    pub(crate) clock: Clock,
    control: Arc<Control>,
    poll: Poll,
    letters: Receiver<Letter>,
    mailbox: Arc<Mailbox<Letter>>,
    /// Those of all workers, this one's among them.
    everybody: Arc<[Arc<Mailbox<Letter>>]>,
    index: usize,
    max_connections: usize,
    level: Level,
    now: Timestamp,
    buffer: ReadBuffer,
    timers: Timers,
    /// Boxed: a slab that grows moves what is in it.
    conns: Slab<Box<Conn>>,
    keys: HashMap<ConnectionId, usize>,
    /// Who has something to do, in the order in which that was found.
    ready: VecDeque<usize>,
    listeners: Vec<Listener>,
    opened: u64,
    /// Who gets the next connection of a listener that is for all.
    next: usize,
}

/// What a worker begins with.
pub(crate) struct Start<H> {
    pub(crate) config: Arc<AgentConfig>,
    pub(crate) app: App<H>,
    pub(crate) clock: Clock,
    pub(crate) control: Arc<Control>,
    pub(crate) poll: Poll,
    pub(crate) letters: Receiver<Letter>,
    pub(crate) everybody: Arc<[Arc<Mailbox<Letter>>]>,
    pub(crate) index: usize,
    pub(crate) max_connections: usize,
    pub(crate) listeners: Vec<Bound>,
}

impl<H: Handler> Worker<H> {
    pub(crate) fn new(start: Start<H>) -> io::Result<Self> {
        let Start {
            config,
            app,
            clock,
            control,
            poll,
            letters,
            everybody,
            index,
            max_connections,
            listeners,
        } = start;
        let mut worker = Self {
            mailbox: Arc::clone(&app.ends.mailbox),
            config,
            app,
            clock,
            control,
            poll,
            letters,
            everybody,
            index,
            max_connections,
            level: Level::Serve,
            now: clock.now(),
            buffer: ReadBuffer::new(),
            timers: Timers::default(),
            conns: Slab::new(),
            keys: HashMap::new(),
            ready: VecDeque::new(),
            listeners: Vec::new(),
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
            if self.level == Level::Stop || self.level == Level::Drain && self.conns.is_empty() {
                return Ok(());
            }
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.now = self.clock.now();
            for event in &events {
                self.note(event);
            }
            while let Some(key) = self.timers.due(self.now) {
                self.queue(key);
            }
            self.accept();
            // Those that come to have more to do wait for the next round, after whatever else has happened by then.
            for _ in 0..self.ready.len() {
                if let Some(key) = self.ready.pop_front() {
                    self.turn(key);
                }
            }
        }
    }

    /// How long there is nothing to do unless something happens.
    fn patience(&self) -> Option<Duration> {
        if !self.ready.is_empty() || self.listeners.iter().any(|listener| listener.ready) {
            return Some(Duration::ZERO);
        }
        let rests = self.listeners.iter().filter_map(|listener| listener.rests).min();
        let next = self.timers.next();
        let next = next.map_or(rests, |next| Some(rests.map_or(next, |rests| rests.min(next))));
        // Handlers may have taken their time since `now`.
        next.map(|next| next.since(self.clock.now()))
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
            self.mailbox.look();
            self.read_mail();
        } else if let Some(listener) = self.listeners.get_mut(MAIL.0 - 1 - key) {
            listener.ready = listener.rests.is_none();
        }
    }

    #[inline]
    fn queue(&mut self, key: usize) {
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
        let (app, now, peer) = (&mut self.app, self.now, &conn.peer);
        let turn = conn.io.turn(now, &mut self.buffer, |reactor, action| app.act(now, reactor, peer, action));
        if turn == Turn::Over {
            self.remove(key);
        } else {
            if turn == Turn::Again {
                conn.queued = true;
                self.ready.push_back(key);
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

    fn remove(&mut self, key: usize) {
        if let Some(mut conn) = self.conns.try_remove(key) {
            self.take_leave(key, &mut conn);
        }
    }

    fn take_leave(&mut self, key: usize, conn: &mut Conn) {
        let connection = conn.io.reactor().connection();
        self.timers.clear(key);
        self.keys.remove(&connection);
        self.app.forget(connection);
        // It is closed next, or registered elsewhere.
        let _ = self.poll.registry().deregister(conn.io.stream_mut());
    }

    // ---- connections that come ----

    fn accept(&mut self) {
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

    fn accept_from(&mut self, number: usize) {
        for _ in 0..BATCH {
            let Some(listener) = self.listeners.get_mut(number) else { return };
            match listener.bound.accept() {
                Ok((socket, peer)) => {
                    let for_all = listener.bound.is_for_all();
                    self.welcome(socket, peer, for_all);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.ready = false;
                    return;
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    listener.ready = false;
                    listener.rests = Some(self.now + BACK_OFF);
                    self.control.counters.failed_accepts.fetch_add(1, Ordering::Relaxed);
                    self.warn("accept_failed", &error);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, socket: Socket, peer: Peer, for_all: bool) {
        let Some(seat) = self.control.counters.seat(self.max_connections) else {
            self.control.counters.refused.fetch_add(1, Ordering::Relaxed);
            self.warn("connection_refused", &format_args!("{peer}: too many connections"));
            return;
        };
        self.control.counters.accepted.fetch_add(1, Ordering::Relaxed);
        // No two workers give the same number.
        let connection = ConnectionId(self.opened * self.everybody.len() as u64 + self.index as u64);
        self.opened += 1;
        debug!(name: "connection_opened", %peer, connection = connection.0, "connection opened");
        let reactor = AgentReactor::new(Arc::clone(&self.config), connection, self.now);
        let io = Connection::new(socket, reactor);
        let conn = Box::new(Conn { io, peer, queued: false, write_asked: false, _seat: seat });
        if !for_all {
            return self.admit(conn);
        }
        let host = self.next;
        self.next = (self.next + 1) % self.everybody.len();
        self.send_to(host, conn);
    }

    fn send_to(&mut self, host: usize, conn: Box<Conn>) {
        if host == self.index {
            self.admit(conn);
        } else if let Some(mailbox) = self.everybody.get(host) {
            // A worker that is gone has ended with the server, and so has this connection.
            let _ = mailbox.send(Letter::Guest(conn));
        }
    }

    fn admit(&mut self, mut conn: Box<Conn>) {
        conn.queued = false;
        conn.write_asked = false;
        let now = self.now;
        if self.level == Level::Drain {
            conn.io.reactor_mut().drain(now);
        }
        let reactor = conn.io.reactor();
        let connection = reactor.connection();
        let entry = self.conns.vacant_entry();
        let key = entry.key();
        if let Err(error) =
            self.poll.registry().register(conn.io.stream_mut(), Token(key), Interest::READABLE)
        {
            return self.warn("connection_refused", &format_args!("{}: {error}", conn.peer));
        }
        if let Some(session) = conn.io.reactor().session() {
            self.app.hub.join(connection, session);
        }
        entry.insert(conn);
        self.keys.insert(connection, key);
        self.queue(key);
    }

    /// The connections of an engine whose answers may take any of them come together on one worker.
    fn gather(&mut self, key: usize) {
        let Some(conn) = self.conns.get(key) else { return };
        let Some(engine) = conn.io.reactor().session().and_then(|session| session.shared_engine()) else {
            return;
        };
        let mut hasher = DefaultHasher::new();
        engine.hash(&mut hasher);
        let host = (hasher.finish() % self.everybody.len() as u64) as usize;
        // What was asked already stays with the worker that has the handlers at work.
        if host == self.index || self.level != Level::Serve || conn.io.reactor().in_flight() > 0 {
            return;
        }
        if let Some(mut conn) = self.conns.try_remove(key) {
            self.take_leave(key, &mut conn);
            self.send_to(host, conn);
        }
    }

    #[cold]
    fn warn(&mut self, what: &'static str, error: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.app.logs.accept.pass(self.now) {
            warn!(name: "not_accepted", what, %error, suppressed, "not accepted");
        } else {
            debug!(name: "not_accepted", what, %error, "not accepted");
        }
    }

    // ---- answers that come later ----

    fn read_mail(&mut self) {
        while let Ok(letter) = self.letters.try_recv() {
            match letter {
                Letter::Answer { ticket, answer } => self.answer(ticket, answer),
                Letter::Guest(conn) => self.admit(conn),
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let (home, id, ids) = (ticket.connection(), ticket.id(), ticket.ids());
        self.app.pending.remove(home, id);
        if ticket.engine_id().is_none() {
            return self.answer_on(home, ticket, answer);
        }
        let mut net = Net { conns: &mut self.conns, keys: &self.keys };
        if let Ok(Reply::Ack(actions)) = answer {
            match self.app.hub.settle(self.now, ticket, &actions, &mut net) {
                Ok((_, target)) => target.map(|target| self.queue_connection(target)).unwrap_or_default(),
                Err((target, error)) => {
                    let failure = Failure::new("answer_unsendable", &error.to_string());
                    self.answer_on(target, error.into_ticket(), Err(failure));
                }
            }
            // Giving up the ticket may have made room at home.
            self.queue_connection(home);
        } else if net.get(home).is_some() {
            self.app.hub.cancel(home, ids, id);
            self.answer_on(home, ticket, answer);
        } else if let Route::Sibling(sibling, ticket) =
            self.app.hub.route(ticket, |connection| net.get(connection)?.room())
            && !matches!(answer, Ok(Reply::Disconnect { .. }))
        {
            self.answer_on(sibling, ticket, answer);
        }
    }

    fn answer_on(&mut self, connection: ConnectionId, ticket: Ticket, answer: Answer) {
        let Some(key) = self.keys.get(&connection).copied() else { return };
        if let Some(conn) = self.conns.get_mut(key) {
            self.app.settle(self.now, conn.io.reactor_mut(), &conn.peer, ticket, answer);
            self.queue(key);
        }
    }

    fn queue_connection(&mut self, connection: ConnectionId) {
        if let Some(key) = self.keys.get(&connection).copied() {
            self.queue(key);
        }
    }

    #[cold]
    fn release_superseded(&mut self) {
        for (connection, ticket) in std::mem::take(&mut self.app.superseded) {
            self.app.pending.cancel(connection, ticket);
            let mut net = Net { conns: &mut self.conns, keys: &self.keys };
            if let Some(reactor) = net.get(connection) {
                reactor.release(ticket);
                self.queue_connection(connection);
            }
        }
    }

    // ---- the end ----

    /// Does what the server has come to.
    fn follow(&mut self) {
        let level = self.control.level();
        if level == self.level {
            return;
        }
        self.now = self.clock.now();
        if self.level == Level::Serve {
            // Who has come already is served.
            self.accept();
            self.listeners.clear();
        }
        self.level = level;
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let reactor = conn.io.reactor_mut();
            if level == Level::Drain {
                reactor.drain(self.now);
                self.queue(key);
            } else {
                let message = "the agent is shutting down";
                self.app.disconnect(self.now, reactor, &conn.peer, Status::NORMAL, message);
                self.turn(key);
            }
        }
    }
}

/// The connections of a worker, as a hub sees them.
struct Net<'a> {
    conns: &'a mut Slab<Box<Conn>>,
    keys: &'a HashMap<ConnectionId, usize>,
}

impl Connections for Net<'_> {
    fn get(&mut self, connection: ConnectionId) -> Option<&mut AgentReactor> {
        let conn = self.conns.get_mut(*self.keys.get(&connection)?)?;
        Some(conn.io.reactor_mut())
    }
}

/// Whether an error of accept is about the connection, not about accepting.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
