//! The loop. All completions of a round are handled before anything is sent: one send has the answers to all that a connection
//! has received. A round is one system call.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, PipeWriter, Read as _, Write as _},
    mem::{ManuallyDrop, take},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    task::Wake,
    time::Duration,
};

use rustix::{io::Errno, net};
use slab::Slab;
use spop_core::{Timestamp, accept::Peer, link::Progress};
use spop_server::{Agent, Conn, Entrance, Handler, Leftover, Protocol, Stage, is_of_connection};

use self::ring::{Completion, HEADROOM, Ring};

#[path = "ring.rs"]
mod ring;

/// After an accept has failed, because descriptors are exhausted for instance, the next one waits for this long.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The keys of what is polled.
const LISTENER: usize = 0;
const WAKES: usize = 1;
/// Finds out whether there is input.
const PEEK: net::RecvFlags = net::RecvFlags::PEEK.union(net::RecvFlags::DONTWAIT);

/// Serves until the agent has shut down, and its last connection has ended.
pub(crate) fn serve<H: Handler>(
    listener: TcpListener,
    agent: &Arc<Agent>,
    entrance: Option<&Arc<Entrance>>,
    handler: &mut H,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (mut pipe, writer) = io::pipe()?;
    let wakes = Arc::new((Mutex::default(), writer));
    let _subscription = agent.subscribe(&Arc::new(Notify(Arc::clone(&wakes), usize::MAX)).into());
    // An error leaves operations under way, and with them the memory that they use.
    let mut ring = ManuallyDrop::new(Ring::new()?);
    ring.poll(&pipe, WAKES)?;
    // To accept, unless the listener is polled.
    let (clock, mut listener, mut accept_at) = (agent.clock(), Some(listener), Some(agent.clock().now()));
    let (mut connections, mut changed) = (Slab::<Connection>::new(), Vec::new());
    // For each connection a time that is not later than its deadline.
    let mut timers = BTreeSet::new();
    while listener.is_some() || !connections.is_empty() {
        let timer = timers.first().map(|(at, _)| *at);
        let deadline = timer.into_iter().chain(accept_at).chain(agent.shutdown_deadline()).min();
        let completions = ring.wait(deadline.map(|at| at.since(clock.now())))?;
        let now = clock.now();
        for completion in completions {
            match completion {
                Completion::Ready(WAKES) => {
                    pipe.read_exact(&mut [0])?;
                    changed.append(&mut wakes.0.lock().unwrap_or_else(PoisonError::into_inner));
                    ring.poll(&pipe, WAKES)?;
                }
                Completion::Ready(_) => accept_at = listener.is_some().then_some(now),
                Completion::Received(key, buffer, result) => {
                    if let Some(connection) = connections.get_mut(key) {
                        let input = buffer.map(|id| ring.buffer(id)).unwrap_or_default();
                        connection.received(now, handler, input, result);
                    }
                    if let Some(id) = buffer {
                        ring.give_back(id);
                    }
                    changed.push(key);
                }
                Completion::Sent(key, result) => {
                    let Some(Connection { conn, sending, .. }) = connections.get_mut(key) else { continue };
                    *sending = false;
                    let sent = result.and_then(|n| conn.on_sent(now, handler, n).map_err(io::Error::other));
                    if let Err(error) = sent {
                        conn.on_transport_error(now, handler, &error);
                    }
                    changed.push(key);
                }
            }
        }
        while let Some((_, key)) = timers.first().copied().filter(|(at, _)| *at <= now) {
            timers.pop_first();
            let Some(connection) = connections.get_mut(key) else { continue };
            connection.timer = None;
            connection.conn.on_timeout(now, handler);
            changed.push(key);
        }
        let draining = agent.poll_shutdown(now) >= Stage::Drain;
        // In a drain also the connections that the system has accepted already.
        while let Some(open) = listener.as_ref().filter(|_| draining || accept_at.is_some_and(|at| at <= now))
        {
            match open.accept() {
                Ok((stream, peer)) => {
                    // A connection that is gone already cannot be set up.
                    if stream.set_nodelay(true).is_ok()
                        && let Some(mut conn) = agent.accept(now, Peer::Ip(peer), entrance)
                    {
                        let key = connections.vacant_key();
                        conn.set_waker(&Arc::new(Notify(Arc::clone(&wakes), key)).into());
                        let (leftover, sending, receiving, timer) = (Leftover::default(), false, false, None);
                        connections.insert(Connection { stream, conn, leftover, sending, receiving, timer });
                        changed.push(key);
                    }
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    accept_at = None;
                    if error.kind() != ErrorKind::WouldBlock {
                        agent.accept_failed(now, &error);
                        accept_at = Some(now + BACK_OFF);
                    } else if !draining {
                        ring.poll(open, LISTENER)?;
                    }
                    break;
                }
            }
        }
        if draining && let Some(closed) = listener.take() {
            // Ends the poll, which would keep the socket open.
            let _ = net::shutdown(closed, net::Shutdown::Both);
            accept_at = None;
        }
        changed.sort_unstable();
        changed.dedup();
        for key in take(&mut changed) {
            let Some(connection) = connections.get_mut(key) else { continue };
            let over = connection.apply_interest(now, handler, &mut ring, key)?;
            let deadline = connection.conn.deadline().filter(|_| !over);
            if over || deadline.is_some_and(|at| connection.timer.is_none_or(|timer| at < timer)) {
                connection.timer.map(|at| timers.remove(&(at, key)));
                timers.extend(deadline.map(|at| (at, key)));
                connection.timer = deadline;
            }
            if over {
                connections.remove(key);
            }
        }
    }
    drop(ManuallyDrop::into_inner(ring));
    Ok(())
}

/// The keys of the connections that were woken. With the first of them a byte is written.
struct Notify(Arc<(Mutex<Vec<usize>>, PipeWriter)>, usize);

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

struct Connection {
    stream: TcpStream,
    conn: Conn,
    leftover: Leftover,
    sending: bool,
    receiving: bool,
    timer: Option<Timestamp>,
}

impl Connection {
    /// Processes what was received, behind the leftover. The shorter of the two is copied: the leftover to the headroom, or,
    /// when a long frame arrives in small pieces, the piece to the leftover.
    fn received(
        &mut self,
        now: Timestamp,
        handler: &mut impl Handler,
        buffer: &mut [u8],
        result: io::Result<usize>,
    ) {
        self.receiving = false;
        let kept = self.leftover.unused().len();
        match result {
            Ok(0) => self.feed(now, handler, true),
            Ok(len) if kept > HEADROOM.min(len) => {
                self.leftover.append(buffer.get(HEADROOM..HEADROOM + len).unwrap_or_default());
                self.feed(now, handler, false);
            }
            Ok(len) => {
                let input = buffer.get_mut(HEADROOM - kept..HEADROOM + len).unwrap_or_default();
                input.iter_mut().zip(self.leftover.unused()).for_each(|(to, from)| *to = *from);
                let used = self.conn.on_bytes(now, handler, input);
                self.leftover = input.get(used..).unwrap_or_default().to_vec().into();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.conn.on_transport_error(now, handler, &error),
        }
    }

    fn feed(&mut self, now: Timestamp, handler: &mut impl Handler, eof: bool) {
        let used = Protocol::on_bytes(&mut self.conn, now, handler, self.leftover.unused(), eof);
        self.leftover.consume(used);
        self.leftover.trim();
    }

    /// Starts what the connection is interested in. True when it is over, and no operation is under way.
    fn apply_interest(
        &mut self,
        now: Timestamp,
        handler: &mut impl Handler,
        ring: &mut Ring,
        key: usize,
    ) -> io::Result<bool> {
        if self.conn.is_woken() {
            self.conn.on_wake(now, handler);
        }
        if self.conn.wants_tls() {
            self.conn.on_tls_failed(now, &io::Error::other("there is no TLS"));
        }
        let interest = loop {
            let interest = self.conn.interest();
            if interest.resume {
                self.feed(now, handler, false);
            } else if interest.shut.is_some() && !self.sending {
                // What cannot be shut is gone already.
                let _ = self.stream.shutdown(Shutdown::Write);
                self.conn.on_write_shut(now, handler, Progress::Done).map_err(io::Error::other)?;
            } else if interest.read_now && net::recv(&self.stream, &mut [0; 1], PEEK) == Err(Errno::AGAIN) {
                self.conn.on_read_blocked(now, handler);
            } else {
                break interest;
            }
        };
        let stopping = self.conn.is_stopping();
        if stopping && !self.sending {
            // What cannot be sent at once is lost.
            let _ = net::send(&self.stream, self.conn.outgoing(), net::SendFlags::DONTWAIT);
        }
        if stopping || interest.close {
            // Ends what is under way.
            let _ = self.stream.shutdown(Shutdown::Both);
            return Ok(!self.sending && !self.receiving && (stopping || self.conn.is_over()));
        }
        if interest.write && !self.sending {
            ring.send(&self.stream, key, self.conn.outgoing())?;
            self.sending = true;
        }
        if interest.read && !self.receiving {
            ring.receive(&self.stream, key)?;
            self.receiving = true;
        }
        Ok(false)
    }
}
