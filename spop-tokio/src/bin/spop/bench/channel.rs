//! A connection of an event loop: a non-blocking socket, with TLS or without.

use std::io::{self, Read, Write as _};

use mio::{
    Interest, Registry, Token,
    event::Source as _,
    net::{TcpStream, UnixStream},
};
use tokio_rustls::rustls::{ClientConnection, Stream};

use crate::address::{Bare, Socket};

pub(super) struct Channel {
    socket: Socket<TcpStream, UnixStream>,
    tls: Option<Box<ClientConnection>>,
}

impl Channel {
    pub(super) fn register(bare: Bare, registry: &Registry, token: Token) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let socket = match bare.socket {
            Socket::Tcp(socket) => {
                let mut socket = TcpStream::from_std(socket);
                socket.register(registry, token, interest)?;
                Socket::Tcp(socket)
            }
            Socket::Unix(socket) => {
                let mut socket = UnixStream::from_std(socket);
                socket.register(registry, token, interest)?;
                Socket::Unix(socket)
            }
        };
        Ok(Self { socket, tls: bare.tls })
    }

    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&mut self.socket, &mut self.tls) {
            (Socket::Tcp(socket), None) => socket.read(buffer),
            (Socket::Unix(socket), None) => socket.read(buffer),
            (Socket::Tcp(socket), Some(tls)) => Stream::new(&mut **tls, socket).read(buffer),
            (Socket::Unix(socket), Some(tls)) => Stream::new(&mut **tls, socket).read(buffer),
        }
    }

    /// Whether a read that did not fill its buffer may have left something that no event reports: a record of TLS.
    pub(super) const fn buffers_input(&self) -> bool {
        self.tls.is_some()
    }

    /// Writes once. With TLS, what was accepted may still be queued: see [`flush`](Self::flush).
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (&mut self.socket, &mut self.tls) {
            (Socket::Tcp(socket), None) => socket.write(bytes),
            (Socket::Unix(socket), None) => socket.write(bytes),
            (Socket::Tcp(socket), Some(tls)) => Stream::new(&mut **tls, socket).write(bytes),
            (Socket::Unix(socket), Some(tls)) => Stream::new(&mut **tls, socket).write(bytes),
        }
    }

    pub(super) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Writes what TLS has queued.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match &mut self.socket {
                Socket::Tcp(socket) => tls.write_tls(socket)?,
                Socket::Unix(socket) => tls.write_tls(socket)?,
            };
        }
        Ok(())
    }
}
