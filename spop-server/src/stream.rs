//! What a driver reads from and writes to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
};

/// A transport that does not block: what a [`Driver`](crate::Driver) needs beyond [`Read`] and [`Write`].
///
/// A call that would have to wait returns [`WouldBlock`](io::ErrorKind::WouldBlock). `write` reports only bytes that were passed
/// to the system, because `flush` is not called: a stream with a write buffer of its own flushes it in `write`, and returns
/// `WouldBlock` until that is done.
pub trait Stream: Read + Write {
    /// Whether a read that did not fill its buffer has read all there was. It is so for sockets, where returning true saves a
    /// system call; the default is false.
    #[inline]
    fn short_read_is_all(&self) -> bool {
        false
    }

    /// After a read returned `WouldBlock`: whether that is the answer of a system call. A stream of a runtime that caches readiness
    /// returns false if it did not make the call; it then wakes the connection after the runtime has polled the system.
    fn is_drained(&mut self) -> bool {
        true
    }

    /// Shuts the write side: the peer reads the end of the input.
    ///
    /// # Errors
    /// Of the transport. After `WouldBlock` it is called again when the stream is writable. Any other error counts as shut,
    /// because the connection is gone.
    fn shut_write(&mut self) -> io::Result<()>;
}

impl Stream for TcpStream {
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
