//! Listeners, and the connections that they accept.

use std::{io, sync::Arc};

use mio::{Interest, Registry, Token, event::Source, net::TcpListener};
use spop_core::{Timestamp, accept::Peer};
#[cfg(unix)]
use spop_server::SocketFile;
use spop_server::{ACCEPT_BACK_OFF, Driver, Entrance, Listening, SocketOptions, Stage, is_of_connection};

use crate::{
    Handler,
    messages::Message,
    stream::Socket,
    worker::{Connection, Worker},
};

/// Connections accepted at once, before those that are open have their turns.
const BATCH: usize = 64;

/// Batches that are accepted before a listener is closed: all of its backlog.
const LAST_BATCHES: usize = spop_server::BACKLOG as usize / BATCH;

/// A listener of a worker.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: ListenerSocket,
    /// Its connections go to all workers in turn.
    shared: bool,
    options: SocketOptions,
    entrance: Arc<Entrance>,
    /// There may be a connection to accept.
    pub(crate) ready: bool,
    /// When to try again after a failure.
    pub(crate) retry_at: Option<Timestamp>,
}

#[derive(Debug)]
enum ListenerSocket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: mio::net::UnixListener,
        #[allow(dead_code)] // Held for its drop.
        file: Option<SocketFile>,
    },
}

impl Listener {
    pub(crate) fn new(listening: Listening, registry: &Registry, token: Token) -> io::Result<Self> {
        // Where each worker has a listener of its own, the system spreads the connections.
        let Listening { listener, shared: several, sockets: options, entrance, .. } = listening;
        let mut socket = match listener {
            spop_server::Listener::Tcp(listener) => ListenerSocket::Tcp(TcpListener::from_std(listener)),
            #[cfg(unix)]
            spop_server::Listener::Unix { listener, file } => {
                ListenerSocket::Unix { listener: mio::net::UnixListener::from_std(listener), file }
            }
        };
        match &mut socket {
            ListenerSocket::Tcp(listener) => listener.register(registry, token, Interest::READABLE)?,
            #[cfg(unix)]
            ListenerSocket::Unix { listener, .. } => {
                listener.register(registry, token, Interest::READABLE)?;
            }
        }
        Ok(Self { socket, shared: !several, options, entrance, ready: true, retry_at: None })
    }

    fn accept(&self) -> io::Result<(Socket, Peer)> {
        Ok(match &self.socket {
            ListenerSocket::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                self.options.complete(&stream);
                (Socket::Tcp(stream), Peer::Ip(peer))
            }
            #[cfg(unix)]
            ListenerSocket::Unix { listener, .. } => (Socket::Unix(listener.accept()?.0), Peer::unnamed()),
        })
    }
}

impl<H: Handler> Worker<H> {
    /// Accepts connections.
    pub(crate) fn accept(&mut self) {
        let now = self.now;
        for number in 0..self.listeners.len() {
            if let Some(listener) = self.listeners.get_mut(number)
                && (listener.ready || listener.retry_at.is_some_and(|at| at <= now))
            {
                listener.ready = true;
                listener.retry_at = None;
                self.accept_from(number);
            }
        }
    }

    /// Accepts the backlog, and closes the listeners: the system resets connections that a closed listener has not accepted.
    pub(crate) fn accept_last(&mut self) {
        // The last of them may not have been reported yet.
        for listener in &mut self.listeners {
            listener.ready = true;
        }
        for _ in 0..LAST_BATCHES {
            self.accept();
            if !self.listeners.iter().any(|listener| listener.ready) {
                break;
            }
        }
        self.listeners.clear();
        self.workers.stopped_accepting();
    }

    fn accept_from(&mut self, number: usize) {
        for _ in 0..BATCH {
            let Some(listener) = self.listeners.get_mut(number) else { return };
            match listener.accept() {
                Ok((socket, peer)) => {
                    let shared = listener.shared;
                    // Otherwise it exceeds a limit.
                    if let Some(conn) = self.agent.accept(self.now, peer, Some(&listener.entrance)) {
                        let connection = Box::new(Connection::new(Driver::new(conn), socket));
                        if shared { self.distribute(connection) } else { self.insert(connection) }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.ready = false;
                    return;
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    listener.ready = false;
                    listener.retry_at = Some(self.now + ACCEPT_BACK_OFF);
                    return self.agent.accept_failed(self.now, &error);
                }
            }
        }
    }

    /// Gives a connection to the next worker.
    fn distribute(&mut self, connection: Box<Connection>) {
        let index = self.next;
        self.next = (self.next + 1) % self.workers.len();
        match self.workers.get(index) {
            // In a drain the others may have ended.
            Some(queue) if index != self.index && self.stage < Stage::Drain => {
                queue.send(Message::Connection(connection));
            }
            _ => self.insert(connection),
        }
    }
}
