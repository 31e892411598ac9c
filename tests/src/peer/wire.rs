//! What a connection runs over.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

#[derive(Debug)]
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

macro_rules! each {
    ($wire:expr, $io:ident => $call:expr) => {
        match $wire {
            Wire::Tcp($io) => $call,
            Wire::Unix($io) => $call,
            Wire::Tls($io) => $call,
        }
    };
}

macro_rules! socket {
    ($wire:expr, $io:ident => $call:expr) => {
        match $wire {
            Wire::Tcp($io) => $call,
            Wire::Unix($io) => $call,
            Wire::Tls(tls) => {
                let $io = &tls.sock;
                $call
            }
        }
    };
}

impl Wire {
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(_) => None,
            Self::Tls(stream) => Some(&stream.sock),
        }
    }

    pub(super) fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        socket!(self, io => io.set_read_timeout(Some(time)))
    }

    pub(super) fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        socket!(self, io => io.set_write_timeout(Some(time)))
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        socket!(self, io => io.set_nonblocking(nonblocking))
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        socket!(self, io => io.shutdown(how))
    }

    /// Ends this side: with TLS by a `close_notify` first.
    pub(super) fn shut(&mut self) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.shutdown(Shutdown::Write)
    }
}

impl Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        each!(self, io => io.read(room))
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, io => io.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        each!(self, io => io.flush())
    }
}
