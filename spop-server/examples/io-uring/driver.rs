//! The loop. All completions of a round are handled before anything is sent: one send has the answers to all that a connection
//! has received. A round is one system call.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, PipeReader, PipeWriter, Write as _},
    mem::{self, ManuallyDrop},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    task::Wake,
    time::Duration,
};

use slab::Slab;
use spop_core::{Timestamp, accept::Peer, link::Progress};
use spop_server::{Agent, Conn, Entrance, Handler, Leftover, Stage, is_of_connection};

use self::ring::{ACCEPT, Completion, HEADROOM, RECEIVE, Ring, SEND, WAKE};

#[path = "ring.rs"]
mod ring;

/// After an accept has failed, because descriptors are exhausted for instance, the next one waits for this long.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Serves until the agent has shut down, and its last connection has ended.
pub(crate) fn serve<H: Handler>(
    listener: TcpListener,
    agent: &Arc<Agent>,
    entrance: Option<&Arc<Entrance>>,
    handler: &mut H,
) -> io::Result<()> {
    let (pipe, writer) = io::pipe()?;
    let wakes = Arc::new((Mutex::default(), writer));
    let _subscription = agent.subscribe(&Arc::new(Notify(Arc::clone(&wakes), usize::MAX)).into());
    // An error leaves operations under way, and with them the memory that they use.
    let mut ring = ManuallyDrop::new(Ring::new()?);
    ring.wait_for_wake(&pipe)?;
    let server = Server {
        ring: &mut ring,
        agent,
        entrance,
        handler,
        now: agent.clock().now(),
        listener: Some(listener),
        accept_at: Some(agent.clock().now()),
        connections: Slab::new(),
        wakes,
        pipe,
        changed: Vec::new(),
        reading_now: Vec::new(),
        timers: BTreeSet::new(),
    };
    server.run()?;
    drop(ManuallyDrop::into_inner(ring));
    Ok(())
}

/// The keys of the connections that were woken. With the first of them a byte is written.
type Wakes = Arc<(Mutex<Vec<usize>>, PipeWriter)>;
struct Notify(Wakes, usize);

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        let (keys, mut pipe) = (&self.0.0, &self.0.1);
        let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.push(self.1);
        if keys.len() == 1 {
            let _ = pipe.write(&[0]);
        }
    }
}

struct Server<'a, H> {
    ring: &'a mut Ring,
    agent: &'a Arc<Agent>,
    entrance: Option<&'a Arc<Entrance>>,
    handler: &'a mut H,
    now: Timestamp,
    /// Until the drain.
    listener: Option<TcpListener>,
    /// When to accept, unless that is under way.
    accept_at: Option<Timestamp>,
    connections: Slab<Connection>,
    wakes: Wakes,
    pipe: PipeReader,
    /// Connections whose interest may have changed.
    changed: Vec<usize>,
    /// Connections whose receive is tried once more before they are told that there is nothing to read.
    reading_now: Vec<usize>,
    /// For each connection a time that is not later than its deadline.
    timers: BTreeSet<(Timestamp, usize)>,
}

struct Connection {
    stream: TcpStream,
    conn: Conn,
    leftover: Leftover,
    sending: bool,
    receiving: bool,
    /// The receive is being cancelled.
    cancelling: bool,
    timer: Option<Timestamp>,
}

impl<H: Handler> Server<'_, H> {
    fn run(mut self) -> io::Result<()> {
        while self.listener.is_some() || !self.connections.is_empty() {
            let now = self.agent.clock().now();
            let timer = self.timers.first().map(|(at, _)| *at);
            let deadline =
                timer.into_iter().chain(self.accept_at).chain(self.agent.shutdown_deadline()).min();
            let deadline = if self.reading_now.is_empty() { deadline } else { Some(now) };
            let completions = self.ring.wait(deadline.map(|at| at.since(now)))?;
            self.now = self.agent.clock().now();
            completions.into_iter().try_for_each(|completion| self.complete(completion))?;
            self.reads_found_nothing();
            self.expire_timers();
            self.listen()?;
            self.changed.sort_unstable();
            self.changed.dedup();
            mem::take(&mut self.changed).into_iter().try_for_each(|key| self.apply_interest(key))?;
        }
        Ok(())
    }

    fn complete(&mut self, completion: Completion) -> io::Result<()> {
        let Completion { kind, key, result, accepted, buffer, goes_on } = completion;
        let (now, handler) = (self.now, &mut *self.handler);
        match (kind, self.connections.get_mut(key)) {
            (ACCEPT, _) => {
                accepted.into_iter().for_each(|stream| self.open(stream));
                if !goes_on {
                    self.accept_at = Some(now);
                }
                if let Some(error) = result.err().filter(|error| !is_of_connection(error)) {
                    self.agent.accept_failed(now, &error);
                    self.accept_at = Some(now + BACK_OFF);
                }
            }
            (WAKE, _) => {
                self.changed.append(&mut self.wakes.0.lock().unwrap_or_else(PoisonError::into_inner));
                self.ring.wait_for_wake(&self.pipe)?;
            }
            (RECEIVE, Some(connection)) => {
                connection.receiving = goes_on;
                match (result, buffer) {
                    (Ok(0), _) => connection.feed(now, handler, true),
                    (Ok(n), Some(id)) => connection.receive(now, handler, self.ring.buffer(id), n),
                    (Err(error), _) if error.kind() != ErrorKind::Interrupted => {
                        connection.conn.on_transport_error(now, handler, &error);
                    }
                    _ => {}
                }
                buffer.into_iter().for_each(|id| self.ring.give_back(id));
                self.changed.push(key);
            }
            (SEND, Some(Connection { conn, sending, .. })) => {
                *sending = false;
                let sent = result.and_then(|n| conn.on_sent(now, handler, n).map_err(io::Error::other));
                if let Err(error) = sent {
                    conn.on_transport_error(now, handler, &error);
                }
                self.changed.push(key);
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, stream: TcpStream) {
        // A connection that is gone already cannot be set up.
        let Ok(peer) = stream.set_nodelay(true).and_then(|()| stream.peer_addr()) else { return };
        let Some(mut conn) = self.agent.accept(self.now, Peer::Ip(peer), self.entrance) else { return };
        let key = self.connections.vacant_key();
        conn.set_waker(&Arc::new(Notify(Arc::clone(&self.wakes), key)).into());
        let (leftover, timer) = (Leftover::default(), None);
        let (sending, receiving, cancelling) = (false, false, false);
        self.connections.insert(Connection { stream, conn, leftover, sending, receiving, cancelling, timer });
        self.changed.push(key);
    }

    /// Accepts until a drain. The connections that the system has accepted before it are the last.
    fn listen(&mut self) -> io::Result<()> {
        let draining = self.agent.poll_shutdown(self.now) >= Stage::Drain;
        match (&self.listener, self.accept_at) {
            (Some(_), None) if draining => self.ring.cancel(ACCEPT, 0)?,
            (Some(listener), Some(_)) if draining => {
                listener.set_nonblocking(true)?;
                let last: Vec<_> = listener.incoming().map_while(Result::ok).collect();
                last.into_iter().for_each(|stream| self.open(stream));
                (self.listener, self.accept_at) = (None, None);
            }
            (Some(listener), Some(at)) if at <= self.now => {
                self.ring.accept(listener)?;
                self.accept_at = None;
            }
            _ => {}
        }
        Ok(())
    }

    /// All that had arrived when `read_now` was seen was received, if a receive is under way since.
    fn reads_found_nothing(&mut self) {
        for key in self.reading_now.drain(..) {
            let Some(Connection { conn, receiving, cancelling, .. }) = self.connections.get_mut(key) else {
                continue;
            };
            if *receiving && !*cancelling && conn.interest().read_now {
                conn.on_read_blocked(self.now, self.handler);
            }
            self.changed.push(key);
        }
    }

    fn expire_timers(&mut self) {
        while let Some((_, key)) = self.timers.first().copied().filter(|(at, _)| *at <= self.now) {
            self.timers.pop_first();
            let Some(Connection { conn, timer, .. }) = self.connections.get_mut(key) else { continue };
            *timer = None;
            conn.on_timeout(self.now, self.handler);
            self.changed.push(key);
        }
    }

    fn apply_interest(&mut self, key: usize) -> io::Result<()> {
        let (now, handler) = (self.now, &mut *self.handler);
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        if connection.conn.is_woken() {
            connection.conn.on_wake(now, handler);
        }
        if connection.conn.wants_tls() {
            connection.conn.on_tls_failed(now, &io::Error::other("there is no TLS"));
        }
        let mut interest = connection.conn.interest();
        while interest.resume || interest.shut.is_some() && !connection.sending {
            if interest.resume {
                connection.feed(now, handler, false);
            } else {
                // What cannot be shut is gone already.
                let _ = connection.stream.shutdown(Shutdown::Write);
                connection.conn.on_write_shut(now, handler, Progress::Done).map_err(io::Error::other)?;
            }
            interest = connection.conn.interest();
        }
        let Connection { stream, conn, sending, receiving, cancelling, timer, .. } = connection;
        let stopping = conn.is_stopping();
        if stopping && !*sending {
            // What cannot be written at once is lost.
            let _ = stream.set_nonblocking(true).and_then(|()| stream.write(conn.outgoing()));
        }
        if stopping || interest.close {
            // Ends the operations that are under way.
            let _ = stream.shutdown(Shutdown::Both);
            if !*sending && !*receiving && (stopping || conn.is_over()) {
                timer.map(|at| self.timers.remove(&(at, key)));
                self.connections.remove(key);
                return Ok(());
            }
        } else {
            if interest.write && !*sending {
                self.ring.send(stream, conn.outgoing(), key)?;
                *sending = true;
            }
            if interest.read && !*receiving {
                self.ring.receive(stream, key)?;
                (*receiving, *cancelling) = (true, false);
            } else if !interest.read && *receiving && !*cancelling {
                self.ring.cancel(RECEIVE, key)?;
                *cancelling = true;
            }
            if interest.read_now {
                self.reading_now.push(key);
            }
        }
        if let Some(deadline) = conn.deadline().filter(|deadline| timer.is_none_or(|timer| *deadline < timer))
        {
            timer.replace(deadline).map(|at| self.timers.remove(&(at, key)));
            self.timers.insert((deadline, key));
        }
        Ok(())
    }
}

impl Connection {
    /// Handles what was received, behind the leftover. The shorter of the two is copied: the leftover to the headroom, or, when
    /// a long frame arrives in small pieces, the piece to the leftover.
    fn receive(&mut self, now: Timestamp, handler: &mut impl Handler, buffer: &mut [u8], len: usize) {
        let kept = self.leftover.unused().len();
        if kept > HEADROOM.min(len) {
            self.leftover.append(buffer.get(HEADROOM..HEADROOM + len).unwrap_or_default());
            return self.feed(now, handler, false);
        }
        let Some(input) = buffer.get_mut(HEADROOM - kept..HEADROOM + len) else { return };
        input.split_at_mut(kept).0.copy_from_slice(self.leftover.unused());
        let used = self.conn.on_bytes(now, handler, input);
        self.leftover = input.get(used..).unwrap_or_default().to_vec().into();
    }

    fn feed(&mut self, now: Timestamp, handler: &mut impl Handler, eof: bool) {
        let used = spop_server::Protocol::on_bytes(&mut self.conn, now, handler, self.leftover.unused(), eof);
        self.leftover.consume(used);
        self.leftover.trim();
    }
}
