//! Listeners on the loop of a worker.

use std::{io, sync::Arc};

use mio::{Interest, Registry, Token, event::Source, net::TcpListener};
use spop_core::accept::Peer;
#[cfg(unix)]
use spop_server::SocketFile;
use spop_server::{Entrance, Listener, Listening, SocketOptions};

use crate::stream::Plain;

/// An open listener, and what its connections pass.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: Socket,
    for_all: bool,
    sockets: SocketOptions,
    entrance: Option<Arc<Entrance>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: mio::net::UnixListener,
        #[allow(dead_code)] // Held for its drop.
        file: Option<SocketFile>,
    },
}

impl From<Listening> for Bound {
    fn from(listening: Listening) -> Self {
        let Listening { listener, shared, sockets, entrance, .. } = listening;
        let socket = match listener {
            Listener::Tcp(listener) => Socket::Tcp(TcpListener::from_std(listener)),
            #[cfg(unix)]
            Listener::Unix { listener, file } => {
                Socket::Unix { listener: mio::net::UnixListener::from_std(listener), file }
            }
        };
        Self { socket, for_all: !shared, sockets, entrance }
    }
}

impl Bound {
    /// Whether its connections are for all workers.
    pub(crate) const fn is_for_all(&self) -> bool {
        self.for_all
    }

    /// What its connections pass, if there is anything.
    pub(crate) fn entrance(&self) -> Option<Arc<Entrance>> {
        self.entrance.clone()
    }

    pub(crate) fn accept(&self) -> io::Result<(Plain, Peer)> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                self.sockets.complete(&stream);
                (Plain::Tcp(stream), Peer::Ip(peer))
            }
            #[cfg(unix)]
            Socket::Unix { listener, .. } => (Plain::Unix(listener.accept()?.0), Peer::unnamed()),
        })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            #[cfg(unix)]
            Socket::Unix { listener, .. } => listener.register(registry, token, Interest::READABLE),
        }
    }
}
