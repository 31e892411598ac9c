//! TLS over a stream that does not block.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
};

use rustls::ServerConnection;

use super::{Tls, TlsPeer};
use crate::Stream;

/// The bytes that one write encrypts: a record. More would be queued for a peer that reads slowly.
const RECORD: usize = 16 * 1024;

/// The bytes of records without data that one read accepts. Records may be empty; without a limit a peer could keep a read from
/// returning.
const EMPTY: usize = 4 * RECORD;

/// The server's side of TLS, without its stream.
pub(crate) struct TlsSession {
    session: ServerConnection,
    /// Bytes that were encrypted, and are reported as written when their records are.
    taken: usize,
    first: First,
}

/// The first bytes of the peer: with them, plain SPOP is recognized.
#[derive(Default)]
struct First {
    bytes: [u8; 5],
    len: usize,
}

impl First {
    fn keep(&mut self, received: &[u8]) {
        if let Some(free) = self.bytes.get_mut(self.len..) {
            let n = free.len().min(received.len());
            free.iter_mut().zip(received).for_each(|(to, from)| *to = *from);
            self.len += n;
        }
    }

    /// A HAPROXY-HELLO of at most 16 MiB. No TLS record begins with zero.
    fn is_spop(&self) -> bool {
        matches!(self.bytes, [0, _, _, _, 1]) && self.len == self.bytes.len()
    }
}

/// Reads, and keeps the first bytes.
struct Keep<'a, S> {
    stream: &'a mut S,
    first: &'a mut First,
}

impl<S: io::Read> io::Read for Keep<'_, S> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(space)?;
        self.first.keep(space.get(..n).unwrap_or_default());
        Ok(n)
    }
}

impl TlsSession {
    /// A session whose handshake the peer begins; `received` was read already.
    pub(crate) fn new(tls: &Tls, stream: &mut impl Stream, mut received: &[u8]) -> io::Result<Self> {
        let session = ServerConnection::new(tls.current()).map_err(io::Error::other)?;
        let mut this = Self { session, taken: 0, first: First::default() };
        this.first.keep(received);
        while !received.is_empty() {
            this.session.read_tls(&mut received)?;
            this.process(stream)?;
        }
        Ok(this)
    }

    /// Continues the handshake; true when it is done. If it fails, an alert is sent if the stream takes it; after
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) the peer has closed the stream.
    pub(crate) fn handshake(&mut self, stream: &mut impl Stream) -> io::Result<bool> {
        let blocks = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => Ok(false),
            _ => Err(error),
        };
        loop {
            if let Err(error) = self.send_records(stream) {
                return blocks(error);
            }
            if !self.session.is_handshaking() {
                return Ok(true);
            }
            match self.receive(stream) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return blocks(error),
            }
        }
    }

    /// Whether records are queued for the stream.
    pub(crate) fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// What is known of the peer when the handshake is done.
    pub(crate) fn peer(&self) -> TlsPeer {
        TlsPeer::of(&self.session)
    }

    /// Receives records, and processes them. Zero at the end of the stream.
    fn receive(&mut self, stream: &mut impl Stream) -> io::Result<usize> {
        let n = retry(|| self.session.read_tls(&mut Keep { stream, first: &mut self.first }))?;
        self.process(stream)?;
        Ok(n)
    }

    fn process(&mut self, stream: &mut impl Stream) -> io::Result<()> {
        if let Err(error) = self.session.process_new_packets() {
            // The first error is reported, also if the alert cannot be sent.
            let _ = self.send_records(stream);
            return Err(if self.session.is_handshaking() && self.first.is_spop() {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "plain SPOP on a TLS listener: add `ssl` to HAProxy's server line, or connect to another listener",
                )
            } else {
                io::Error::new(io::ErrorKind::InvalidData, error)
            });
        }
        Ok(())
    }

    /// Sends the records that are queued. An error if some are left.
    fn send_records(&mut self, stream: &mut impl Stream) -> io::Result<()> {
        while self.session.wants_write() {
            if retry(|| self.session.write_tls(stream))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, stream: &mut impl Stream, space: &mut [u8]) -> io::Result<usize> {
        let mut without_data = 0;
        loop {
            match self.session.reader().read(space) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    without_data += self.receive(stream)?;
                }
                other => return other,
            }
            if without_data > EMPTY {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "records without data"));
            }
        }
    }

    pub(crate) fn write(&mut self, stream: &mut impl Stream, bytes: &[u8]) -> io::Result<usize> {
        // Records of the handshake, or of the previous call.
        self.send_records(stream)?;
        if self.taken == 0 {
            self.taken = self.session.writer().write(bytes.get(..RECORD).unwrap_or(bytes))?;
            self.send_records(stream)?;
        }
        // The caller passes the same bytes again until they are written; it may pass fewer of them.
        let written = self.taken.min(bytes.len());
        self.taken -= written;
        Ok(written)
    }

    /// Sends `close_notify`, once, however often it is called.
    pub(crate) fn close(&mut self, stream: &mut impl Stream) -> io::Result<()> {
        self.session.send_close_notify();
        self.send_records(stream)
    }
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession").finish_non_exhaustive()
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
