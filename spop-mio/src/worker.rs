//! A worker: the event loop of a thread, and its connections.

use std::{
    io, mem,
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};

use mio::{Events, Interest, Poll, Registry, Token, event::Event, event::Source as _};
use slab::Slab;
use spop_core::Timestamp;
use spop_server::{Agent, Conn, Driver, ReadBuffer, Stage, Subscription, Turn};

use crate::{
    Handler,
    listen::Listener,
    messages::{ConnectionWaker, Message, MessageQueue, Workers},
    run_queue::RunQueue,
    stream::Socket,
    timers::Timers,
};

/// The token of messages. Those of listeners count down from here, and those of connections are their keys.
pub(crate) const MESSAGES: Token = Token(usize::MAX);

/// Events taken from the system at once.
const EVENTS: usize = 1024;

/// Messages received at once, before the connections have their turns.
const BATCH: usize = 4_096;

/// A connection of a worker.
#[derive(Debug)]
pub(crate) struct Connection {
    driver: Driver<Conn>,
    /// `None` if it only waits for answers that other connections of its engine will send.
    socket: Option<Socket>,
    /// It is in the run queue.
    queued: bool,
    /// The system reports when its socket is writable.
    write_asked: bool,
    /// Its last turn had much input: it has its next after those that had little.
    busy: bool,
}

impl Connection {
    pub(crate) const fn new(driver: Driver<Conn>, socket: Socket) -> Self {
        Self { driver, socket: Some(socket), queued: false, write_asked: false, busy: false }
    }

    /// Closes its socket.
    fn close(&mut self, registry: &Registry) {
        if let Some(mut socket) = self.socket.take() {
            // It is closed next.
            let _ = socket.deregister(registry);
        }
    }

    #[inline]
    fn has_session(&self) -> bool {
        self.driver.protocol().reactor().is_some()
    }
}

pub(crate) struct Worker<H> {
    pub(crate) agent: Arc<Agent>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) index: usize,
    handler: H,
    poll: Poll,
    queue: Arc<MessageQueue>,
    messages: Receiver<Message>,
    /// There may be messages.
    has_messages: bool,
    /// The stage of the shutdown, as far as it was applied.
    pub(crate) stage: Stage,
    #[allow(dead_code)] // Held for its drop.
    subscription: Subscription,
    pub(crate) now: Timestamp,
    /// No handler was called since `now` was read.
    now_is_fresh: bool,
    buffer: ReadBuffer,
    timers: Timers,
    /// Boxed: a slab that grows moves its entries.
    connections: Slab<Box<Connection>>,
    run_queue: RunQueue,
    pub(crate) listeners: Vec<Listener>,
    /// The worker that gets the next connection of a shared listener.
    pub(crate) next: usize,
}

impl<H: Handler> Worker<H> {
    pub(crate) fn new(
        agent: &Arc<Agent>,
        workers: &Arc<Workers>,
        index: usize,
        handler: H,
        (poll, queue, messages): (Poll, Arc<MessageQueue>, Receiver<Message>),
        listeners: Vec<spop_server::Listening>,
    ) -> io::Result<Self> {
        let listeners = listeners.into_iter().enumerate().map(|(number, listening)| {
            Listener::new(listening, poll.registry(), Token(MESSAGES.0 - 1 - number))
        });
        let listeners = listeners.collect::<io::Result<_>>()?;
        Ok(Self {
            agent: Arc::clone(agent),
            workers: Arc::clone(workers),
            index,
            handler,
            poll,
            subscription: agent.subscribe(&Arc::clone(&queue).into()),
            queue,
            messages,
            has_messages: false,
            stage: Stage::Serve,
            now: agent.clock().now(),
            now_is_fresh: false,
            buffer: ReadBuffer::new(),
            timers: Timers::default(),
            connections: Slab::new(),
            run_queue: RunQueue::default(),
            listeners,
            next: 0,
        })
    }

    /// Serves until the server has shut down and the last connection has ended.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.apply_stage();
            if self.is_done() {
                return Ok(());
            }
            match self.poll.poll(&mut events, self.poll_timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.now = self.agent.clock().now();
            self.now_is_fresh = true;
            for event in &events {
                self.on_event(event);
            }
            self.receive();
            while let Some(key) = self.timers.due(self.now) {
                self.queue(key);
            }
            self.accept();
            let mut round = self.run_queue.round();
            while let Some(key) = self.run_queue.pop(&mut round) {
                self.turn(key);
            }
        }
    }

    fn is_done(&mut self) -> bool {
        match self.stage {
            Stage::Serve | Stage::LameDuck => false,
            Stage::Drain => {
                let last = self.workers.all_stopped_accepting();
                // Another worker may have sent a connection before it stopped accepting.
                last && self.connections.is_empty() && !self.receive_all()
            }
            Stage::Stop => true,
        }
    }

    /// How long to wait for events. `None` if there is no timer.
    fn poll_timeout(&self) -> Option<Duration> {
        let busy = self.has_messages || !self.run_queue.is_empty();
        if busy || self.listeners.iter().any(|listener| listener.ready) {
            return Some(Duration::ZERO);
        }
        let retry = self.listeners.iter().filter_map(|listener| listener.retry_at).min();
        let next = [self.timers.next(), retry, self.agent.shutdown_deadline()].into_iter().flatten().min();
        // Handlers may have taken time since `now`.
        next.map(|next| next.since(self.agent.clock().now()))
    }

    #[inline]
    fn on_event(&mut self, event: &Event) {
        let Token(key) = event.token();
        if let Some(connection) = self.connections.get_mut(key) {
            if event.is_read_closed() {
                connection.driver.ready_closed();
            }
            connection.driver.ready(event.is_readable() || event.is_error(), event.is_writable());
            self.queue(key);
        } else if event.token() == MESSAGES {
            self.queue.reset();
            self.has_messages = true;
        } else if let Some(listener) = self.listeners.get_mut(MESSAGES.0 - 1 - key) {
            listener.ready = listener.retry_at.is_none();
        }
    }

    // ---- messages ----

    /// Receives messages of other threads, at most [`BATCH`].
    fn receive(&mut self) {
        for _ in 0..BATCH {
            if !self.has_messages {
                return;
            }
            match self.messages.try_recv() {
                Ok(Message::Wake(waker)) => self.wake(&waker),
                Ok(Message::Connection(connection)) => self.insert(connection),
                Err(_) => self.has_messages = false,
            }
        }
    }

    /// Receives messages; true if there are connections or further messages then.
    fn receive_all(&mut self) -> bool {
        self.has_messages = true;
        self.receive();
        self.has_messages || !self.connections.is_empty()
    }

    fn wake(&mut self, waker: &ConnectionWaker) {
        let (key, id) = waker.receive();
        if self.connections.get(key).is_some_and(|connection| connection.driver.protocol().id() == id) {
            self.queue(key);
        }
    }

    // ---- connections ----

    /// Takes a connection, and queues it for its first turn.
    pub(crate) fn insert(&mut self, mut connection: Box<Connection>) {
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let Some(socket) = &mut connection.socket else { return };
        if let Err(error) = socket.register(self.poll.registry(), Token(key), Interest::READABLE) {
            return self.agent.accept_failed(self.now, &error);
        }
        entry.insert(connection);
        self.queue(key);
    }

    #[inline]
    fn queue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.queued
        {
            connection.queued = true;
            if connection.busy {
                self.run_queue.push_busy(key, connection.has_session());
            } else {
                self.run_queue.push(key, connection.has_session());
            }
        }
    }

    #[inline]
    fn turn(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.queued = false;
        if !mem::take(&mut self.now_is_fresh) {
            // The handlers of other connections may have taken time.
            self.now = self.agent.clock().now();
        }
        let socket = connection.socket.as_mut();
        match connection.driver.turn(self.now, socket, &mut self.buffer, &mut self.handler) {
            Turn::Wait => {}
            Turn::Again => {
                connection.queued = true;
                self.run_queue.push_busy(key, connection.has_session());
            }
            Turn::Closed => connection.close(self.poll.registry()),
            Turn::Over => return self.remove(key),
        }
        connection.busy = connection.driver.had_much_input();
        let conn = connection.driver.protocol_mut();
        if conn.wants_waker() {
            let waker = ConnectionWaker::new(&self.queue, key, conn.id());
            conn.set_waker(&Arc::new(waker).into());
        }
        if let Some(deadline) = connection.driver.deadline()
            && self.timers.get(key).is_none_or(|at| deadline < at)
        {
            self.timers.set(key, deadline);
        }
        if connection.socket.is_some() && connection.driver.wants_write::<H>() != connection.write_asked {
            self.reregister(key);
        }
    }

    /// Asks the system to report when the socket is writable only as long as the connection waits for that: a unix socket would
    /// report it whenever the peer has read.
    #[cold]
    fn reregister(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(socket) = &mut connection.socket else { return };
        connection.write_asked = connection.driver.wants_write::<H>();
        let interests =
            if connection.write_asked { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        if let Err(error) = socket.reregister(self.poll.registry(), Token(key), interests) {
            connection.driver.protocol_mut().on_transport_error(self.now, &mut self.handler, &error);
            self.queue(key);
        }
    }

    fn remove(&mut self, key: usize) {
        self.timers.clear(key);
        if let Some(mut connection) = self.connections.try_remove(key) {
            connection.close(self.poll.registry());
        }
    }

    // ---- shutdown ----

    /// Applies the stage of the shutdown: each connection gets a turn.
    fn apply_stage(&mut self) {
        if self.agent.stage() != self.stage {
            // Handlers may have taken time, and the drain begins now.
            self.now = self.agent.clock().now();
        }
        let stage = self.agent.poll_shutdown(self.now);
        if stage == self.stage {
            return;
        }
        let before = mem::replace(&mut self.stage, stage);
        if before < Stage::Drain && stage >= Stage::Drain {
            self.accept_last();
        }
        if stage == Stage::Stop {
            self.receive_all();
        }
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            if stage == Stage::Stop { self.turn(key) } else { self.queue(key) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_small() {
        let metrics = if cfg!(feature = "metrics") { 48 } else { 0 };
        // Those of `AgentReactor` and of the sockets of mio.
        let (debug, debug_socket) = if cfg!(debug_assertions) { (16, 16) } else { (0, 0) };
        let (driver, connection) = (size_of::<Driver<Conn>>(), size_of::<Connection>());
        // Its memory while it is idle, besides what `Conn` has allocated.
        assert!(driver <= 488 + metrics + debug, "{driver} bytes");
        assert!(connection <= driver + 16 + debug_socket, "{connection} bytes");
    }
}
