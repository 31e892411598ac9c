//! Listeners on tokio.

#[cfg(unix)]
use std::os::unix::net::SocketAddr as UnixAddr;
use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

#[cfg(unix)]
use spop_server::SocketFile;
use spop_server::{Address, BACKLOG, Entrance, Listening, SocketOptions, is_of_connection};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use crate::{Peer, stream::Stream};

/// An open listener. Dropping it removes the socket file that it made.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    sockets: SocketOptions,
    pub(crate) entrance: Arc<Entrance>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        file: Option<SocketFile>,
    },
}

impl TryFrom<Listening> for Listener {
    type Error = io::Error;

    fn try_from(listening: Listening) -> io::Result<Self> {
        let Listening { listener, sockets, entrance, .. } = listening;
        let socket = match listener {
            spop_server::Listener::Tcp(listener) => Socket::Tcp(TcpListener::from_std(listener)?),
            #[cfg(unix)]
            spop_server::Listener::Unix { listener, file } => {
                Socket::Unix { listener: UnixListener::from_std(listener)?, file }
            }
        };
        Ok(Self { socket, sockets, entrance })
    }
}

impl Listener {
    pub(crate) fn address(&self) -> io::Result<Address> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            #[cfg(unix)]
            Socket::Unix { file: Some(file), .. } => Address::Unix(file.path().to_owned()),
            #[cfg(unix)]
            Socket::Unix { listener, file: None } => UnixAddr::from(listener.local_addr()?).into(),
        })
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        Poll::Ready(Ok(match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                self.sockets.complete(&stream);
                (Stream::Tcp(stream), Peer::Ip(peer))
            }
            #[cfg(unix)]
            Socket::Unix { listener, .. } => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                (Stream::Unix(stream), Peer::unnamed())
            }
        }))
    }

    /// Closes, and returns the connections of the backlog. The system is asked, because the runtime may not know of all of
    /// them; those that are left when a listener is closed, the system resets.
    pub(crate) fn close(self) -> Vec<(Stream, Peer)> {
        let sockets = self.sockets;
        match self.socket {
            Socket::Tcp(listener) => listener.into_std().map_or_else(
                |_| Vec::new(),
                |listener| {
                    last(|| {
                        let (stream, peer) = listener.accept()?;
                        stream.set_nonblocking(true)?;
                        let stream = TcpStream::from_std(stream)?;
                        sockets.complete(&stream);
                        Ok((Stream::Tcp(stream), Peer::Ip(peer)))
                    })
                },
            ),
            #[cfg(unix)]
            Socket::Unix { listener, file: _file } => listener.into_std().map_or_else(
                |_| Vec::new(),
                |listener| {
                    last(|| {
                        let (stream, _) = listener.accept()?;
                        stream.set_nonblocking(true)?;
                        Ok((Stream::Unix(UnixStream::from_std(stream)?), Peer::unnamed()))
                    })
                },
            ),
        }
    }
}

/// Accepts until the backlog is empty, or as many connections as it can hold.
fn last(mut accept: impl FnMut() -> io::Result<(Stream, Peer)>) -> Vec<(Stream, Peer)> {
    let mut connections = Vec::new();
    for _ in 0..BACKLOG {
        match accept() {
            Ok(connection) => connections.push(connection),
            Err(error) if is_of_connection(&error) => {}
            Err(_) => break,
        }
    }
    connections
}
