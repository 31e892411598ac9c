//! What a driver reads from and writes to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
};

/// A transport that does not block: what a [`Driver`](crate::Driver) needs beyond [`Read`] and [`Write`].
///
/// A call that would have to wait returns [`WouldBlock`](io::ErrorKind::WouldBlock). A stream that buffers what is written
/// returns `WouldBlock` until its buffer has left: what it reported as written must have left.
pub trait Stream: Read + Write {
    /// Whether a read that returned less than it could has read all there was. True of sockets, where it saves the read that
    /// would say so.
    #[inline]
    fn short_read_is_all(&self) -> bool {
        false
    }

    /// After a read returned `WouldBlock`: whether the system was asked. False from a stream that learns from a runtime whether
    /// there is input; it then has the connection woken when the runtime has asked.
    fn is_drained(&mut self) -> bool {
        true
    }

    /// Shuts the write side: the peer reads the end of the input.
    ///
    /// # Errors
    /// Of the transport. A connection that is gone needs no shutting. After `WouldBlock` it is called again when the stream is
    /// writable.
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
