//! TLS, by rustls.

use std::{
    fmt,
    io::{self, Read, Write},
};

pub use rustls;
use rustls::ServerConnection;
use spop_core::link::Layer;
pub use spop_server::tls::{Tls, TlsFiles, TlsPeer};

use crate::Stream;

/// How much one write encrypts: a record. More would wait in memory for a peer that reads slowly.
const RECORD: usize = 16 * 1024;

/// How much may come without a byte for the session. Records may be empty; without a limit a peer that sends nothing else
/// would keep a read from ever coming back.
const EMPTY: usize = 4 * RECORD;

/// A stream inside of TLS, on the server's side. For a loop of your own: [`Server`](crate::Server) makes its own.
pub struct TlsStream<S> {
    stream: S,
    session: ServerConnection,
    /// Bytes that were encrypted, and are not reported as written before their records have left.
    taken: usize,
}

impl<S: Stream> TlsStream<S> {
    /// A stream on which the peer begins a handshake; `first` is what was read of it already.
    ///
    /// # Errors
    /// The configuration is unusable, or the bytes are no TLS.
    pub fn new(tls: &Tls, stream: S, mut first: &[u8]) -> io::Result<Self> {
        let session = ServerConnection::new(tls.current()).map_err(io::Error::other)?;
        let mut this = Self { stream, session, taken: 0 };
        while !first.is_empty() {
            this.session.read_tls(&mut first)?;
            this.process()?;
        }
        Ok(this)
    }

    /// Goes on with the handshake; true when it is done. To be called when the stream is readable or writable.
    ///
    /// # Errors
    /// It failed, and the peer was told so if it could be; with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) the peer
    /// closed the stream.
    pub fn handshake(&mut self) -> io::Result<bool> {
        let blocks = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => Ok(false),
            _ => Err(error),
        };
        loop {
            if let Err(error) = self.send_records() {
                return blocks(error);
            }
            if !self.session.is_handshaking() {
                return Ok(true);
            }
            match self.receive() {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return blocks(error),
            }
        }
    }

    /// What is known of the peer when the handshake is done.
    pub fn peer(&self) -> TlsPeer {
        TlsPeer::of(&self.session)
    }

    /// The stream below.
    pub const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream below, to be registered for instance.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Takes records from the stream, and what is in them. None at the end of the stream.
    fn receive(&mut self) -> io::Result<usize> {
        let n = retry(|| self.session.read_tls(&mut self.stream))?;
        self.process()?;
        Ok(n)
    }

    fn process(&mut self) -> io::Result<()> {
        if let Err(error) = self.session.process_new_packets() {
            // An alert that cannot be sent is one more thing that went wrong with this stream.
            let _ = self.send_records();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(())
    }

    /// Sends what TLS has to send. An error when something is left.
    fn send_records(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if retry(|| self.session.write_tls(&mut self.stream))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
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

impl<S: Stream> Read for TlsStream<S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut fruitless = 0;
        loop {
            match self.session.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => fruitless += self.receive()?,
                other => return other,
            }
            if fruitless > EMPTY {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "records without data"));
            }
        }
    }
}

impl<S: Stream> Write for TlsStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Records before these, from the last call or of the handshake.
        self.send_records()?;
        if self.taken == 0 {
            self.taken = self.session.writer().write(bytes.get(..RECORD).unwrap_or(bytes))?;
            self.send_records()?;
        }
        // The caller offers the same bytes again until they have left; there may be fewer of them.
        let written = self.taken.min(bytes.len());
        self.taken -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_records()
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    fn shut_write(&mut self, layer: Layer) -> io::Result<()> {
        match layer {
            Layer::Data => {
                // Said once, however often it is asked for.
                self.session.send_close_notify();
                self.send_records()
            }
            Layer::Transport => self.stream.shut_write(layer),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}
