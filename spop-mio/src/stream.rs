//! What a connection reads from and writes to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream as StdTcpStream},
};

use mio::{Interest, Registry, Token, event::Source, net::TcpStream};
use spop_core::link::{Layer, Layers};

#[cfg(feature = "tls")]
use crate::tls::TlsStream;

/// A stream of bytes that does not block.
///
/// What a [`Connection`](crate::Connection) needs beyond [`Read`] and [`Write`]. A stream that would have to wait says
/// [`WouldBlock`](io::ErrorKind::WouldBlock). One that takes bytes to write and cannot let them go on at once says
/// `WouldBlock` until it can, and takes none meanwhile: what it said to have written has left.
pub trait Stream: Read + Write {
    /// Whether a read that returned less than there was room for has taken all there was. True of sockets, where it saves
    /// the read that would say so; false of what reads in pieces of its own, such as TLS records.
    #[inline]
    fn short_read_is_all(&self) -> bool {
        false
    }

    /// Shuts the write side of a layer: the peer sees the end of the input.
    /// [`Layer::Data`] comes first, where [`AgentReactor::with_layers`](spop_core::AgentReactor::with_layers) said that
    /// there is such a layer.
    ///
    /// # Errors
    /// Of the stream. A connection that is gone needs no shutting. `WouldBlock` has it called again when the stream is
    /// writable.
    fn shut_write(&mut self, layer: Layer) -> io::Result<()>;
}

/// Whether the platform reports readiness anew after a read that was short. Windows wants to see `WouldBlock`.
const EDGES: bool = cfg!(unix);

impl Stream for TcpStream {
    fn short_read_is_all(&self) -> bool {
        EDGES
    }

    fn shut_write(&mut self, _: Layer) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for StdTcpStream {
    fn shut_write(&mut self, _: Layer) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(unix)]
impl Stream for mio::net::UnixStream {
    fn short_read_is_all(&self) -> bool {
        EDGES
    }

    fn shut_write(&mut self, _: Layer) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(unix)]
impl Stream for std::os::unix::net::UnixStream {
    fn shut_write(&mut self, _: Layer) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A socket that a listener accepted.
#[derive(Debug)]
pub(crate) enum Plain {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
}

/// What a connection of a server reads from and writes to.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(Plain),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<Plain>>),
}

impl Socket {
    /// What has to be shut before it is closed.
    pub(crate) const fn layers(&self) -> Layers {
        match self {
            Self::Plain(_) => Layers::Plain,
            #[cfg(feature = "tls")]
            Self::Tls(_) => Layers::Data,
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        let plain = match self {
            Self::Plain(plain) => plain,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_mut(),
        };
        match plain {
            Plain::Tcp(stream) => stream,
            #[cfg(unix)]
            Plain::Unix(stream) => stream,
        }
    }
}

macro_rules! each_plain {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Plain::Tcp($stream) => $call,
            #[cfg(unix)]
            Plain::Unix($stream) => $call,
        }
    };
}

macro_rules! each {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Plain($stream) => $call,
            #[cfg(feature = "tls")]
            Socket::Tls($stream) => $call,
        }
    };
}

impl Read for Plain {
    #[inline]
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        each_plain!(self, stream => stream.read(room))
    }
}

impl Write for Plain {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each_plain!(self, stream => stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Plain {
    #[inline]
    fn short_read_is_all(&self) -> bool {
        EDGES
    }

    fn shut_write(&mut self, layer: Layer) -> io::Result<()> {
        each_plain!(self, stream => stream.shut_write(layer))
    }
}

impl Read for Socket {
    #[inline]
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        each!(self, stream => stream.read(room))
    }
}

impl Write for Socket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        each!(self, stream => stream.flush())
    }
}

impl Stream for Socket {
    #[inline]
    fn short_read_is_all(&self) -> bool {
        each!(self, stream => stream.short_read_is_all())
    }

    fn shut_write(&mut self, layer: Layer) -> io::Result<()> {
        each!(self, stream => stream.shut_write(layer))
    }
}

impl Source for Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}
