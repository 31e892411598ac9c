//! One direction of a connection: bytes pass as they come, unless a fault strikes them.

use std::{
    collections::VecDeque,
    future::pending,
    io,
    time::{Duration, Instant},
};

use bytes::{Buf as _, BufMut as _, BytesMut};
use spop_core::link::Side;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{sleep_until, timeout},
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

/// A receiver that takes nothing for so long ends the connection, although it has not closed it.
const STALLED: Duration = Duration::from_secs(60);

/// How a direction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its sender has shut it, and so was it to its receiver.
    Shut,
    /// Its sender has reset the connection.
    Reset,
    /// Its receiver takes nothing more.
    Gone,
    /// Its receiver has taken nothing for too long.
    Stalled,
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
    /// [`STALLED`], or less in tests.
    stalled: Duration,
}

enum Event {
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Time,
}

impl Pump {
    /// The direction of this tap.
    pub(super) const fn new(tap: Tap, injector: Injector) -> Self {
        Self {
            tap,
            injector,
            queue: VecDeque::new(),
            queued: 0,
            is_over: false,
            parts: Vec::new(),
            stalled: STALLED,
        }
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
        // The latest time at which the receiver has taken something.
        let mut taken = Instant::now();
        loop {
            let now = Instant::now();
            let (due, bytes) = match self.queue.front() {
                Some(Next::End(end)) => return self.end(*end, writer).await,
                Some(Next::Bytes(bytes, due)) => (Some(*due), &bytes[..]),
                None => (None, &[][..]),
            };
            let is_due = due.is_some_and(|due| due <= now);
            let until = if is_due { due.map(|due| due.max(taken) + self.stalled) } else { due };
            let wait = async {
                match until {
                    Some(until) => sleep_until(until.into()).await,
                    None => pending().await,
                }
            };
            input.reserve(READ);
            let mut free = (&mut input).limit(READ);
            let event = tokio::select! {
                biased;
                written = writer.write(bytes), if is_due => Event::Written(written),
                read = reader.read_buf(&mut free), if !self.is_over && self.queued < limit => Event::Read(read),
                () = wait => Event::Time,
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
                    match timeout(self.stalled, writer.flush()).await {
                        Ok(Ok(())) => taken = Instant::now(),
                        Ok(Err(_)) => return self.end(End::Gone, writer).await,
                        Err(_) => return self.end(End::Stalled, writer).await,
                    }
                }
                Event::Written(_) => return self.end(End::Gone, writer).await,
                Event::Time if is_due => return self.end(End::Stalled, writer).await,
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
            // A receiver that has gone has heard of it. TLS sends a close_notify, which may find no place.
            let _ = timeout(self.stalled, writer.shutdown()).await;
        }
        let closer = match end {
            End::Stalled => Some("by the relay: nothing was taken from it for a minute"),
            End::Fault { reset: false } => Some("by a fault"),
            End::Fault { reset: true } => Some("reset by a fault"),
            End::Shut | End::Reset | End::Gone => None,
        };
        if let Some(closer) = closer {
            self.tap.closes(closer);
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

#[cfg(test)]
mod tests {
    use spop_core::notation::Direction;
    use tokio::{io::duplex, runtime, time::sleep};

    use super::{
        super::{faults::Faults, tap::taps},
        *,
    };

    /// How a direction ends whose receiver takes 64 bytes every 20 ms, of 4096 in all, if it takes any.
    async fn end(is_slow: bool) -> End {
        let injector = Faults::new(Vec::new(), 0).of(1, Direction::ToAgent);
        let mut pump = Pump::new(taps().0.accepted(), injector);
        pump.stalled = Duration::from_millis(500);
        let (mut writer, mut receiver) = duplex(64);
        let receiving = async {
            let mut part = [0; 64];
            while is_slow && receiver.read_exact(&mut part).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            pending::<()>().await;
        };
        let mut sent = &[7; 4_096][..];
        tokio::select! {
            end = pump.run(&mut sent, &mut writer) => end,
            () = receiving => unreachable!(),
        }
    }

    #[test]
    fn a_receiver_that_takes_nothing_ends_the_connection_and_a_slow_one_does_not() {
        let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
        assert_eq!(runtime.block_on(end(false)), End::Stalled);
        assert_eq!(runtime.block_on(end(true)), End::Shut);
    }
}
