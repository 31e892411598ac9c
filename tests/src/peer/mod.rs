//! HAProxy's side of a connection, written by hand: sentences over a blocking socket, well-formed or not.

mod tls;
mod wire;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use spop_core::{frame::Frame, notation};

use crate::http::connect_from;
use crate::wait::PATIENCE;
use wire::Wire;

pub use tls::{Authority, Identity, trusting};

/// No frame of an agent is longer; a longer one is not one.
const LONGEST: usize = 1 << 20;

/// One connection to an agent.
#[derive(Debug)]
pub struct Peer {
    wire: Wire,
    inbox: Vec<u8>,
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The agent shut its side, between two frames.
    Eof,
    /// It was reset, or cut without the end of its TLS session.
    Reset,
}

/// Opening.
impl Peer {
    /// Connects to an address as an agent prints it: one with a slash is the path of a unix socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: &str) -> Result<Self> {
        if address.contains('/') { Self::unix(address) } else { Self::tcp(address.parse()?) }
    }

    /// Connects to a TCP address.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        Self::over(Wire::Tcp(stream))
    }

    /// Connects from an address of this machine.
    ///
    /// # Errors
    /// Nobody listens there, or the address is not this machine's.
    pub fn tcp_from(source: impl Into<IpAddr>, address: SocketAddr) -> Result<Self> {
        let source = source.into();
        let stream =
            connect_from(source, address).with_context(|| format!("cannot connect from {source}"))?;
        Self::over(Wire::Tcp(stream))
    }

    /// Connects to a unix socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let stream =
            UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
        Self::over(Wire::Unix(stream))
    }

    fn over(wire: Wire) -> Result<Self> {
        wire.set_read_timeout(PATIENCE)?;
        wire.set_write_timeout(PATIENCE)?;
        Ok(Self { wire, inbox: Vec::new() })
    }

    /// Does the handshake of a session: pipelining, and no engine-id.
    ///
    /// # Errors
    /// The agent does not agree.
    pub fn greet(&mut self) -> Result<()> {
        self.greet_with("capabilities=string:pipelining,async")
    }

    /// Does the handshake with these keys beside the version, and with a `max-frame-size` unless they have one.
    ///
    /// # Errors
    /// The agent does not agree.
    pub fn greet_with(&mut self, keys: &str) -> Result<()> {
        let size = if keys.contains("max-frame-size") { "" } else { "max-frame-size=uint32:16380" };
        self.send(&format!("HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 {size} {keys}"))?;
        let hello = self.receive()?;
        ensure!(hello.starts_with("AGENT-HELLO fin 0 0 "), "{hello} is no AGENT-HELLO");
        Ok(())
    }

    /// The address that this side connects from.
    ///
    /// # Errors
    /// It is not TCP.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.wire.tcp().context("not TCP")?.local_addr()?)
    }
}

/// Sending.
impl Peer {
    /// Sends sentences, one a line, in one write.
    ///
    /// # Errors
    /// They are no sentences, or the connection is lost.
    pub fn send(&mut self, sentences: &str) -> Result<()> {
        self.send_bytes(&bytes(sentences)?)
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.wire.write_all(bytes).context("cannot send")?;
        Ok(self.wire.flush()?)
    }

    /// Sends without waiting, and says how much was taken.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn send_some(&mut self, bytes: &[u8]) -> Result<usize> {
        self.wire.set_nonblocking(true)?;
        let sent = self.wire.write(bytes);
        self.wire.set_nonblocking(false)?;
        match sent {
            Ok(n) => Ok(n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error).context("cannot send"),
        }
    }

    /// Ends this side of the connection, in every layer.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn shut(&mut self) -> Result<()> {
        self.wire.shut().context("cannot shut")
    }

    /// Closes so that the agent learns of it as a reset, where there is such a thing.
    pub fn reset(self) {
        if let Some(tcp) = self.wire.tcp() {
            // It is closed all the same.
            let _ = rustix::net::sockopt::set_socket_linger(tcp, Some(Duration::ZERO));
        } else {
            let _ = self.wire.shutdown(Shutdown::Both);
        }
    }
}

/// Receiving.
impl Peer {
    /// The next frame as a sentence.
    ///
    /// # Errors
    /// There is none: the connection has ended, or nothing comes.
    pub fn receive(&mut self) -> Result<String> {
        match self.next()? {
            Ok(frame) => Ok(notation::print(Frame::decode(&frame)?).to_string()),
            Err(end) => bail!("the connection has ended: {end:?}"),
        }
    }

    /// Receives these frames.
    ///
    /// # Errors
    /// Something else comes, or nothing.
    pub fn expect(&mut self, sentences: &str) -> Result<()> {
        for expected in lines(sentences) {
            let found = self.receive().with_context(|| format!("waiting for {expected}"))?;
            ensure!(found == expected, "expected {expected}\n   found {found}");
        }
        Ok(())
    }

    /// Sends a NOTIFY and receives what answers it.
    ///
    /// # Errors
    /// Something else comes, or nothing.
    pub fn ask(&mut self, notify: &str, answer: &str) -> Result<()> {
        self.send(notify)?;
        self.expect(answer)
    }

    /// Receives a DISCONNECT with this status and ends this side, as HAProxy does; then the end.
    ///
    /// # Errors
    /// Something else comes, or nothing.
    pub fn expect_status(&mut self, status: u32) -> Result<()> {
        self.expect_disconnect(status)?;
        self.shut()?;
        self.expect_eof()
    }

    /// Receives a DISCONNECT with this status.
    ///
    /// # Errors
    /// Something else comes, or nothing.
    pub fn expect_disconnect(&mut self, status: u32) -> Result<()> {
        let found = self.receive().with_context(|| format!("waiting for status {status}"))?;
        let expected = format!("AGENT-DISCONNECT fin 0 0 status-code=uint32:{status} ");
        ensure!(found.starts_with(&expected), "expected status {status}, found {found}");
        Ok(())
    }

    /// Receives the end of the agent's side, and nothing before it.
    ///
    /// # Errors
    /// Something else comes, or nothing.
    pub fn expect_eof(&mut self) -> Result<()> {
        let end = self.expect_end()?;
        ensure!(end == End::Eof, "the connection was reset");
        Ok(())
    }

    /// Receives the end of the connection in whatever way, and nothing before it.
    ///
    /// # Errors
    /// Something else comes, or nothing.
    pub fn expect_end(&mut self) -> Result<End> {
        match self.next()? {
            Ok(frame) => Err(anyhow!("still there, and says {}", notation::print(Frame::decode(&frame)?))),
            Err(end) => Ok(end),
        }
    }

    /// Whether more has come with what was received last.
    pub fn has_more(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Receives nothing for this long.
    ///
    /// # Errors
    /// Something comes.
    pub fn expect_silence(&mut self, time: Duration) -> Result<()> {
        ensure!(self.inbox.is_empty(), "something had come already");
        self.wire.set_read_timeout(time)?;
        let read = self.read();
        self.wire.set_read_timeout(PATIENCE)?;
        match read {
            Err(error) if is_timeout(&error) => Ok(()),
            Err(error) => Err(error).context("it was to be silent"),
            Ok(_) => bail!("it was to be silent, and said {:?}", self.inbox.escape_ascii().to_string()),
        }
    }

    /// Receives all there is until the end, frames or not.
    ///
    /// # Errors
    /// The connection goes on for long.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        let end = Instant::now() + PATIENCE;
        loop {
            ensure!(Instant::now() < end, "the connection does not end");
            match self.read() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if is_reset(&error) => break,
                Err(error) => return Err(error).context("waiting for the end"),
            }
        }
        Ok(std::mem::take(&mut self.inbox))
    }

    /// After the end of a TLS session: whether the socket under it has ended as well.
    ///
    /// # Errors
    /// It has not, or it is not TLS.
    pub fn expect_transport_eof(&mut self) -> Result<()> {
        let mut tcp = self.wire.tcp().context("not TCP")?;
        ensure!(tcp.read(&mut [0]).context("waiting for the FIN")? == 0, "more came after the close_notify");
        Ok(())
    }

    /// The next frame without its length, or the end.
    fn next(&mut self) -> Result<Result<Vec<u8>, End>> {
        loop {
            if let Some((prefix, rest)) = self.inbox.split_first_chunk() {
                let length = u32::from_be_bytes(*prefix) as usize;
                ensure!(length <= LONGEST, "a frame of {length} bytes announced");
                if let Some(frame) = rest.get(..length) {
                    let frame = frame.to_vec();
                    self.inbox.drain(..4 + length);
                    return Ok(Ok(frame));
                }
            }
            match self.read() {
                Ok(0) if self.inbox.is_empty() => return Ok(Err(End::Eof)),
                Ok(0) => bail!("the end came in the middle of a frame: {}", self.inbox.escape_ascii()),
                Ok(_) => {}
                Err(error) if is_reset(&error) => return Ok(Err(End::Reset)),
                Err(error) => return Err(error).context("nothing came"),
            }
        }
    }

    fn read(&mut self) -> std::io::Result<usize> {
        let mut room = [0; 16 << 10];
        let n = loop {
            match self.wire.read(&mut room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.inbox.extend_from_slice(room.get(..n).unwrap_or_default());
        Ok(n)
    }
}

/// The bytes of sentences, one a line.
///
/// # Errors
/// They are no sentences.
pub fn bytes(sentences: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in lines(sentences) {
        bytes.extend(notation::parse_bytes(line).map_err(|error| anyhow!("{line}: {error}"))?);
    }
    Ok(bytes)
}

fn lines(sentences: &str) -> impl Iterator<Item = &str> {
    sentences.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_reset(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof)
}
