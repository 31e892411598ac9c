//! What a connection reads from and writes to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream as StdTcpStream},
};

use mio::{Interest, Registry, Token, event::Source, net::TcpStream};

/// A stream of bytes that does not block.
///
/// What a [`Connection`](crate::Connection) needs beyond [`Read`] and [`Write`]. A stream that would have to wait says
/// [`WouldBlock`](io::ErrorKind::WouldBlock).
pub trait Stream: Read + Write {
    /// Whether a read that returns less than there was room for has taken all there is. True of sockets, where it saves
    /// the read that would say so; false of what reads in pieces of its own, such as TLS records.
    const SHORT_READ_IS_ALL: bool = false;

    /// Shuts the write side: the peer sees the end of the input.
    ///
    /// # Errors
    /// Of the stream. A connection that is gone needs no shutting.
    fn shut_write(&mut self) -> io::Result<()>;
}

/// Whether the platform reports readiness anew after a read that was short. Windows wants to see `WouldBlock`.
const EDGES: bool = cfg!(unix);

impl Stream for TcpStream {
    const SHORT_READ_IS_ALL: bool = EDGES;

    fn shut_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for StdTcpStream {
    fn shut_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(unix)]
impl Stream for mio::net::UnixStream {
    const SHORT_READ_IS_ALL: bool = EDGES;

    fn shut_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(unix)]
impl Stream for std::os::unix::net::UnixStream {
    fn shut_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A socket that a listener accepted.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
}

macro_rules! either {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($stream) => $call,
            #[cfg(unix)]
            Socket::Unix($stream) => $call,
        }
    };
}

impl Read for Socket {
    #[inline]
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.read(room))
    }
}

impl Write for Socket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    const SHORT_READ_IS_ALL: bool = EDGES;

    fn shut_write(&mut self) -> io::Result<()> {
        either!(self, stream => stream.shut_write())
    }
}

impl Source for Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        either!(self, stream => stream.register(registry, token, interests))
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        either!(self, stream => stream.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        either!(self, stream => stream.deregister(registry))
    }
}
