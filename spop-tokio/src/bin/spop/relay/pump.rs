//! One direction of a connection: bytes pass as they come, unless a fault strikes them.

use std::{collections::VecDeque, future::pending, io, time::Instant};

use bytes::{Buf as _, BufMut as _, BytesMut};
use spop_core::link::Side;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::sleep_until,
};

use super::{
    faults::{Injector, Part},
    tap::Tap,
};

/// Bytes that are read at once.
const READ: usize = 16 << 10;

/// Bytes that wait to be written; more are not read. Those that are delayed may be more.
const QUEUE: usize = 64 << 10;
const DELAYED: usize = 1 << 20;

/// What a part takes beside its bytes.
const PART: usize = 128;

/// How a direction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its sender has shut it, and so was it to its receiver.
    Shut,
    /// Its sender has reset the connection.
    Reset,
    /// Its receiver takes nothing more.
    Gone,
    /// A fault ends the connection.
    Fault { reset: bool },
}

/// What is to be written.
enum Next {
    /// Bytes, and when.
    Bytes(BytesMut, Instant),
    End(End),
}

/// One direction.
pub(super) struct Pump {
    pub(super) tap: Tap,
    injector: Injector,
    queue: VecDeque<Next>,
    queued: usize,
    is_over: bool,
    parts: Vec<Part>,
}

enum Event {
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Time,
}

impl Pump {
    /// The direction of this tap.
    pub(super) const fn new(tap: Tap, injector: Injector) -> Self {
        Self { tap, injector, queue: VecDeque::new(), queued: 0, is_over: false, parts: Vec::new() }
    }

    /// Bytes that were read before.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        // HAProxy's side is watched: what it sends, as it comes; what it receives, as it leaves.
        if self.tap.from() == Side::Engine && !bytes.is_empty() {
            self.tap.data(bytes);
        }
        let mut struck = Vec::new();
        self.injector.push(bytes, &mut self.parts, &mut struck);
        for struck in &struck {
            self.tap.fault(struck);
        }
        self.queue_parts();
    }

    /// Passes on what a side sends, until its end.
    pub(super) async fn run(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> End {
        let limit = if self.injector.is_idle() { QUEUE } else { DELAYED };
        let mut input = BytesMut::new();
        loop {
            let now = Instant::now();
            let (due, bytes) = match self.queue.front() {
                Some(Next::End(end)) => return self.end(*end, writer).await,
                Some(Next::Bytes(bytes, due)) => (Some(*due), &bytes[..]),
                None => (None, &[][..]),
            };
            let is_due = due.is_some_and(|due| due <= now);
            let wait = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => pending().await,
                }
            };
            input.reserve(READ);
            let mut free = (&mut input).limit(READ);
            let event = tokio::select! {
                biased;
                written = writer.write(bytes), if is_due => Event::Written(written),
                read = reader.read_buf(&mut free), if !self.is_over && self.queued < limit => Event::Read(read),
                () = wait, if !is_due => Event::Time,
            };
            match event {
                Event::Read(Ok(0)) => self.ends(End::Shut),
                Event::Read(Ok(_)) => {
                    let bytes = input.split();
                    self.received(&bytes);
                }
                // TLS: the sender has closed the connection without a close_notify.
                Event::Read(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.ends(End::Shut);
                }
                Event::Read(Err(_)) => self.ends(End::Reset),
                Event::Written(Ok(len)) if len > 0 => {
                    self.written(len);
                    // TLS has a buffer of its own.
                    if writer.flush().await.is_err() {
                        return self.end(End::Gone, writer).await;
                    }
                }
                Event::Written(_) => return self.end(End::Gone, writer).await,
                Event::Time => {}
            }
        }
    }

    /// The sender sends nothing more.
    fn ends(&mut self, end: End) {
        self.is_over = true;
        if self.tap.from() == Side::Engine {
            match end {
                End::Reset => self.tap.reset(Side::Engine),
                _ => self.tap.shut(),
            }
        }
        self.injector.finish(&mut self.parts);
        self.queue_parts();
        self.queue.push_back(Next::End(end));
    }

    fn queue_parts(&mut self) {
        let now = Instant::now();
        for part in self.parts.drain(..) {
            let next = match part {
                Part::Bytes(bytes, _) if bytes.is_empty() => continue,
                Part::Bytes(bytes, delay) => {
                    self.queued += bytes.len() + PART;
                    Next::Bytes(bytes, now.checked_add(delay).unwrap_or(now))
                }
                Part::End { reset } => {
                    self.is_over = true;
                    Next::End(End::Fault { reset })
                }
            };
            self.queue.push_back(next);
        }
    }

    fn written(&mut self, len: usize) {
        let Some(Next::Bytes(bytes, _)) = self.queue.front_mut() else { return };
        if self.tap.from() == Side::Agent {
            self.tap.data(bytes.get(..len).unwrap_or_default());
        }
        bytes.advance(len);
        self.queued -= len;
        if bytes.is_empty() {
            self.queued -= PART;
            self.queue.pop_front();
        }
    }

    async fn end(&mut self, end: End, writer: &mut (impl AsyncWrite + Unpin)) -> End {
        let is_closed = matches!(end, End::Shut | End::Fault { reset: false });
        if is_closed {
            // A receiver that has gone has heard of it.
            let _ = writer.shutdown().await;
        }
        // What HAProxy does was told when it was read. How its connection ends otherwise is told when it does.
        match (self.tap.from(), end) {
            (Side::Agent, End::Gone) => self.tap.reset(Side::Engine),
            (Side::Agent, _) if is_closed => self.tap.shut(),
            _ => {}
        }
        end
    }
}
