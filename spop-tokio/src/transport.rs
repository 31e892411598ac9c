//! Streams of tokio as the driver of `spop-server` sees them, and the memory of a thread for its turns.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    marker::PhantomData,
    mem,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::BytesMut;
use spop_core::{Clock, Timestamp};
use spop_server::ReadBuffer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::{self, coop},
    time::Instant,
};

/// A clock whose epoch is now, as tokio has it: paused in a test, that of std may be later.
pub(crate) fn clock() -> Clock {
    Clock::from(Instant::now().into_std())
}

/// The time as tokio has it, so that tests may pause it.
#[inline]
pub(crate) fn now(clock: &Clock) -> Timestamp {
    clock.at(Instant::now().into_std())
}

/// Has the task polled again after the runtime has asked the system for events. A task that wakes itself is polled up to 61 times
/// before that.
pub(crate) fn yield_turn(cx: &mut Context<'_>) {
    let _ = pin!(task::yield_now()).poll(cx);
}

/// The memory that the connections of a thread use in their turns, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) input: ReadBuffer,
    /// For the payloads of requests: used again as soon as they are dropped.
    pub(crate) payloads: BytesMut,
}

thread_local! {
    static MEMORY: Cell<Option<Box<Memory>>> = const { Cell::new(None) };
}

impl Memory {
    /// Lends the memory of this thread for a turn.
    #[inline]
    pub(crate) fn lend<T>(turn: impl FnOnce(&mut Self) -> T) -> T {
        let mut memory = MEMORY.take().unwrap_or_default();
        let result = turn(&mut memory);
        MEMORY.set(Some(memory));
        result
    }
}

/// What is known of a stream beyond its traits.
pub(crate) trait Readiness<I> {
    /// Whether a read that did not fill its buffer has read all there was. Then [`poll_readable`](Self::poll_readable) registers
    /// the waker, and takes fewer instructions than a read that finds nothing.
    const SHORT_READ_IS_ALL: bool;

    fn poll_readable(io: &I, cx: &mut Context<'_>) -> Poll<()>;

    fn poll_write(io: &mut I, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

/// That of any stream.
#[derive(Debug)]
pub(crate) struct Unknown;

impl<I: AsyncWrite + Unpin> Readiness<I> for Unknown {
    const SHORT_READ_IS_ALL: bool = false;

    fn poll_readable(_: &I, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    #[inline]
    fn poll_write(io: &mut I, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(io).poll_write(cx, bytes)
    }
}

/// The state of a stream between two polls of its connection.
#[derive(Debug, Default)]
pub(crate) struct IoState {
    /// The last read was short, and counts as the last of its turn: it has left no waker.
    short: bool,
    /// Bytes that the stream has accepted and perhaps buffers. They are not reported as written before a flush.
    unflushed: usize,
    /// The runtime asks the system for input before the next poll.
    asks: bool,
}

/// A stream for the length of a poll: what would wait, registers the waker and returns
/// [`WouldBlock`](io::ErrorKind::WouldBlock).
pub(crate) struct Polled<'a, 'c, I, R> {
    io: &'a mut I,
    state: &'a mut IoState,
    cx: &'a mut Context<'c>,
    /// The runtime has asked the system for input since a read found nothing.
    asked: bool,
    readiness: PhantomData<R>,
}

impl<'a, 'c, I, R: Readiness<I>> Polled<'a, 'c, I, R> {
    #[inline]
    pub(crate) fn new(io: &'a mut I, state: &'a mut IoState, cx: &'a mut Context<'c>) -> Self {
        let asked = mem::take(&mut state.asks);
        Self { io, state, cx, asked, readiness: PhantomData }
    }

    /// At the end of a turn: whether input has arrived since the last read. If not, the waker is registered.
    #[inline]
    pub(crate) fn has_more(&mut self) -> bool {
        mem::take(&mut self.state.short) && R::poll_readable(self.io, self.cx).is_ready()
    }
}

#[inline]
fn unblocked<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<I: AsyncRead + Unpin, R: Readiness<I>> Read for Polled<'_, '_, I, R> {
    #[inline]
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut space = ReadBuf::new(space);
        self.state.short = false;
        unblocked(Pin::new(&mut *self.io).poll_read(self.cx, &mut space))?;
        self.asked = false;
        let bytes = space.filled().len();
        self.state.short = R::SHORT_READ_IS_ALL && bytes > 0 && space.remaining() > 0;
        Ok(bytes)
    }
}

impl<I: AsyncWrite + Unpin, R: Readiness<I>> Write for Polled<'_, '_, I, R> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.state.unflushed == 0 {
            self.state.unflushed = unblocked(R::poll_write(self.io, self.cx, bytes))?;
        } else {
            // The caller offers the same bytes again; there may be fewer of them.
            self.state.unflushed = self.state.unflushed.min(bytes.len());
        }
        self.flush()?;
        Ok(mem::take(&mut self.state.unflushed))
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        unblocked(Pin::new(&mut *self.io).poll_flush(self.cx))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin, R: Readiness<I>> spop_server::Stream for Polled<'_, '_, I, R> {
    #[inline]
    fn short_read_is_all(&self) -> bool {
        R::SHORT_READ_IS_ALL
    }

    /// The runtime can report `Pending` from cached readiness, or because the task's budget is exhausted.
    fn is_drained(&mut self) -> bool {
        if !coop::has_budget_remaining() {
            return false;
        }
        if !self.asked {
            self.state.asks = true;
            // Wakes the task when the runtime has asked the system.
            let _ = pin!(task::yield_now()).poll(self.cx);
        }
        self.asked
    }

    fn shut_write(&mut self) -> io::Result<()> {
        unblocked(Pin::new(&mut *self.io).poll_shutdown(self.cx))
    }
}
