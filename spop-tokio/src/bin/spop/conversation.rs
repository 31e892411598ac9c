//! A connection to an agent at the level of frames.

use std::{
    fmt::Write as _,
    io,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use spop_core::{
    EngineConfig,
    agent::Session,
    engine::Ended,
    excerpt::Escaped,
    frame::{Disconnect, Flags, Frame, FrameType, Header, Ids, put_frame},
    link::CloseReason,
    wire::Status,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout_at,
};

use crate::{
    address::{Connector, Transport},
    exit::{Failure, reason},
    frames::{self, Next, Splitter},
    haproxy::{self, Verdict},
};

/// The longest frame that is accepted: the highest `max-frame-size` that the commands announce.
const FRAME_MAX: u32 = 1 << 20;

/// How many reads are recorded. An AGENT-HELLO comes in one.
const READS: usize = 1024;

/// A connection on which frames are sent and received.
pub(crate) struct Conversation {
    io: Box<dyn Transport>,
    splitter: Splitter,
    /// What each read has returned, as long as it is recorded.
    reads: Option<Vec<Bytes>>,
    /// The agent has shut its write side.
    eof: bool,
}

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A frame without its length prefix.
    Frame(Bytes),
    /// The agent has shut its write side, in the middle of a frame if the number of bytes is not 0.
    Eof(usize),
    /// Nothing whole arrived in time.
    Nothing,
    /// A length prefix that no frame can have.
    TooLong(u32),
    /// The connection broke.
    Broken(String),
}

impl Conversation {
    /// Opens a connection. Its reads are recorded until [`stop_recording`](Self::stop_recording).
    pub(crate) async fn open(connector: &Connector) -> Result<Self, Failure> {
        let io = connector.open().await?;
        Ok(Self { io, splitter: Splitter::new(FRAME_MAX), reads: Some(Vec::new()), eof: false })
    }

    /// Sends encoded frames, in one write if the system accepts them.
    pub(crate) async fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        self.io.write_all(frames).await?;
        self.io.flush().await
    }

    /// Shuts the write side.
    pub(crate) async fn shut(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    /// The next frame, until a deadline. No byte is lost when it is dropped before it is ready.
    pub(crate) async fn receive(&mut self, deadline: Instant) -> Received {
        let mut buffer = BytesMut::with_capacity(16 << 10);
        loop {
            match self.splitter.next() {
                Next::Frame(frame) => return Received::Frame(frame),
                Next::TooLong(len) => return Received::TooLong(len),
                Next::Partial(bytes) if self.eof => return Received::Eof(bytes),
                Next::Partial(_) => {}
            }
            buffer.reserve(16 << 10);
            match timeout_at(deadline.into(), self.io.read_buf(&mut buffer)).await {
                Err(_) => return Received::Nothing,
                Ok(Err(error)) => return Received::Broken(reason(&error)),
                Ok(Ok(0)) => self.eof = true,
                Ok(Ok(_)) => {
                    self.splitter.push(&buffer);
                    if let Some(reads) = &mut self.reads
                        && reads.len() < READS
                    {
                        // A copy: a read of one byte does not keep the whole buffer.
                        reads.push(Bytes::copy_from_slice(&buffer));
                    }
                    buffer.clear();
                }
            }
        }
    }

    /// What each read has returned so far.
    pub(crate) fn reads(&self) -> &[Bytes] {
        self.reads.as_deref().unwrap_or_default()
    }

    pub(crate) fn stop_recording(&mut self) {
        self.reads = None;
    }

    /// Whether the agent has shut its write side.
    pub(crate) const fn is_eof(&self) -> bool {
        self.eof
    }

    /// The bytes that have arrived and belong to no whole frame.
    pub(crate) fn rest(&self) -> &[u8] {
        self.splitter.rest()
    }

    /// Why no AGENT-HELLO came in time.
    pub(crate) fn no_hello(&self, limit: Duration) -> String {
        match frames::part(self.rest()) {
            Some(part) => format!("no whole AGENT-HELLO came within {limit:?}, but {part}"),
            None => format!("no AGENT-HELLO came within {limit:?}: is it an agent?"),
        }
    }

    /// Does the handshake as an HAProxy with this configuration.
    ///
    /// # Errors
    /// Why there is no session.
    pub(crate) async fn greet(&mut self, config: &EngineConfig, limit: Duration) -> Result<Session, String> {
        let hello = haproxy::hello(config.clone()).map_err(|error| error.to_string())?;
        self.send(&hello).await.map_err(|error| reason(&error))?;
        let received = self.receive(Instant::now() + limit).await;
        let verdict = haproxy::judge(config.clone(), self.reads(), self.eof);
        let verdict = verdict.map_err(|error| error.to_string())?;
        self.stop_recording();
        match (verdict, received) {
            (Verdict::Established(session), _) => Ok(*session),
            (_, Received::TooLong(_)) => Err(not_spop(self.rest())),
            (_, Received::Broken(error)) => Err(format!("no AGENT-HELLO came: {error}")),
            (Verdict::Ended(ended), _) => Err(refused(&ended)),
            (Verdict::Undecided, _) => Err(self.no_hello(limit)),
        }
    }

    /// Ends the session with a HAPROXY-DISCONNECT, and awaits the agent's for a short time.
    pub(crate) async fn disconnect(&mut self, status: Status, limit: Duration) -> Received {
        let frame = disconnect(status);
        if let Err(error) = self.send(&frame).await {
            return Received::Broken(reason(&error));
        }
        let deadline = Instant::now() + limit;
        loop {
            match self.receive(deadline).await {
                Received::Frame(frame)
                    if frames::header(&frame)
                        .is_none_or(|header| header.frame_type != FrameType::AgentDisconnect) => {}
                received => return received,
            }
        }
    }
}

/// A HAPROXY-DISCONNECT with its length prefix.
fn disconnect(status: Status) -> Vec<u8> {
    let mut payload = Vec::new();
    let message = status.reason().unwrap_or_default().as_bytes();
    Disconnect { status, message }.encode(&mut payload);
    let mut frame = Vec::new();
    let header = Header { frame_type: FrameType::HaproxyDisconnect, flags: Flags::FIN, ids: Ids::ZERO };
    put_frame(&mut frame, header, &payload);
    frame
}

/// What a server is that sends bytes which are no frame.
pub(crate) fn not_spop(first: &[u8]) -> String {
    let other_order = first.first_chunk().and_then(|len| frames::byte_order(u32::from_be_bytes(*len)));
    match (frames::foreign(first), other_order) {
        (Some(what), _) => format!("this is no SPOP agent but {what}"),
        (None, Some(why)) => format!("its answer begins with \"{}\": {why}", Escaped(first)),
        (None, None) => format!("this is no SPOP agent: its answer begins with \"{}\"", Escaped(first)),
    }
}

/// Why a handshake has failed.
pub(crate) fn refused(ended: &Ended) -> String {
    match &ended.closed.reason {
        CloseReason::PeerDisconnect { status, message, .. } => {
            let mut text = format!("the agent refuses the session: AGENT-DISCONNECT with status {status}");
            if !message.is_empty() && status.reason().map(str::as_bytes) != Some(message) {
                // Writing to a string cannot fail.
                let _ = write!(text, ", \"{}\"", Escaped(message));
            }
            text
        }
        CloseReason::Eof if ended.closed.lost.frame_bytes > 0 => {
            format!(
                "the agent closed the connection after {} bytes of a frame",
                ended.closed.lost.frame_bytes
            )
        }
        CloseReason::Eof => "the agent closed the connection without an AGENT-HELLO: is it an agent?".into(),
        CloseReason::Violation(violation) => format!("HAProxy rejects what the agent sends: {violation}"),
        other => other.to_string(),
    }
}

/// The status and the message of a DISCONNECT without its length prefix.
pub(crate) fn disconnected(frame: &[u8]) -> Option<(Status, String)> {
    let frame = Frame::decode(frame).ok()?;
    let disconnect = Disconnect::decode(frame.payload).ok()?;
    Some((disconnect.status, Escaped(disconnect.message).to_string()))
}
