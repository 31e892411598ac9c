//! The loop that both sides of the protocol have in common: it moves a connection's bytes and keeps its timer.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use spop_core::{Clock, Interest, Misuse, Timestamp, link::Progress};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{self, coop},
    time::Instant,
};
use tracing::warn;

use crate::{alarm::Alarm, inbox::Inbox};

/// How many reads a connection may do before it yields to the others.
const ROUNDS: usize = 8;

/// What the protocol makes of a connection: an agent's session, or an engine's.
pub(crate) trait End {
    fn clock(&self) -> &Clock;
    fn interest(&self) -> Interest;
    /// When [`on_timeout`](Self::on_timeout) is to be called; `None` for an end that has a timer elsewhere.
    fn deadline(&self) -> Option<Timestamp>;
    fn outgoing(&mut self) -> &[u8];
    /// Does what has become possible without the peer; true when there was something.
    fn work(&mut self, cx: &mut Context<'_>) -> bool;
    /// So many bytes were read.
    fn received(&mut self, _bytes: usize) {}
    /// Returns how many bytes of the input were used.
    fn on_bytes(&mut self, now: Timestamp, cx: &mut Context<'_>, input: &Bytes, eof: bool) -> usize;
    /// A read that [`Interest::read_now`] wanted found nothing.
    fn on_read_blocked(&mut self, now: Timestamp, cx: &mut Context<'_>);
    fn on_sent(&mut self, now: Timestamp, cx: &mut Context<'_>, n: usize) -> Result<(), Misuse>;
    fn on_write_shut(
        &mut self,
        now: Timestamp,
        cx: &mut Context<'_>,
        progress: Progress,
    ) -> Result<(), Misuse>;
    fn on_transport_error(&mut self, now: Timestamp, cx: &mut Context<'_>);
    fn on_timeout(&mut self, now: Timestamp, cx: &mut Context<'_>);
}

/// The time as tokio has it, so that tests may pause it.
#[inline]
pub(crate) fn now(clock: &Clock) -> Timestamp {
    clock.at(Instant::now().into_std())
}

/// The time of a round: that at which it was first asked for.
#[derive(Default)]
struct Now(Option<Timestamp>);

impl Now {
    #[inline]
    fn get(&mut self, end: &impl End) -> Timestamp {
        *self.0.get_or_insert_with(|| now(end.clock()))
    }
}

/// A stream, and what it has brought that was not used.
pub(crate) struct Transfer<I> {
    io: I,
    inbox: Inbox,
    alarm: Alarm,
    /// Bytes were written that the stream may still hold.
    unflushed: bool,
    /// The runtime has looked for input since a read found nothing.
    looked: bool,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Transfer<I> {
    /// A stream, of which the inbox holds what was read already.
    pub(crate) fn new(io: I, inbox: Inbox) -> Self {
        Self { io, inbox, alarm: Alarm::default(), unflushed: false, looked: false }
    }

    /// Goes on until nothing can be done. Ready when the stream is to be closed.
    pub(crate) fn poll<E: End>(&mut self, end: &mut E, cx: &mut Context<'_>) -> Poll<()> {
        // What the end wants is asked for again only where it may have changed, and the time where it is needed: most
        // polls are one read, one write, and a second read that finds nothing.
        let mut interest = end.interest();
        for _ in 0..ROUNDS {
            let mut moved = false;
            let now = &mut Now::default();
            if end.work(cx) {
                (moved, interest) = (true, end.interest());
            }
            if (interest.read || interest.resume || self.inbox.is_fresh())
                && self.input(end, interest, now, cx)
            {
                (moved, interest) = (true, end.interest());
            }
            if (interest.write || self.unflushed) && self.output(end, now, cx) {
                (moved, interest) = (true, end.interest());
            }
            if interest.shut.is_some() {
                moved |= self.shut(end, now, cx);
                interest = end.interest();
            }
            if interest.close {
                return Poll::Ready(());
            }
            // Timers come after what has arrived in time.
            if !moved {
                if !self.time_out(end, cx) {
                    return Poll::Pending;
                }
                interest = end.interest();
            }
        }
        self.time_out(end, cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, unless there is input to be used without that, and passes it on; true when something changed.
    #[inline]
    fn input<E: End>(
        &mut self,
        end: &mut E,
        interest: Interest,
        now: &mut Now,
        cx: &mut Context<'_>,
    ) -> bool {
        if interest.resume || self.inbox.is_fresh() {
            self.resume(end, now, cx);
            return true;
        }
        match self.inbox.poll_read(&mut self.io, cx) {
            Poll::Ready(Ok((input, n))) => {
                self.looked = false;
                end.received(n);
                let used = end.on_bytes(now.get(end), cx, &input, n == 0);
                self.inbox.keep(input, used);
            }
            Poll::Ready(Err(_)) => end.on_transport_error(now.get(end), cx),
            // Out of budget, a read finds nothing whatever has arrived.
            Poll::Pending if !coop::has_budget_remaining() => return false,
            Poll::Pending => {
                let look = interest.read_now && !self.looked;
                self.looked = look;
                if look {
                    // Woken when the runtime has asked the kernel once more.
                    let _ = pin!(task::yield_now()).poll(cx);
                }
                if look || !interest.read_now {
                    return false;
                }
                end.on_read_blocked(now.get(end), cx);
            }
        }
        true
    }

    /// Passes on what is left of the input.
    fn resume<E: End>(&mut self, end: &mut E, now: &mut Now, cx: &mut Context<'_>) {
        let input = self.inbox.take();
        let used = end.on_bytes(now.get(end), cx, &input, false);
        self.inbox.keep(input, used);
    }

    /// Writes what there is to write; true when something changed.
    #[inline]
    fn output<E: End>(&mut self, end: &mut E, now: &mut Now, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            let bytes = end.outgoing();
            if bytes.is_empty() {
                break;
            }
            match Pin::new(&mut self.io).poll_write(cx, bytes) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    let sent = end.on_sent(now.get(end), cx, n);
                    (moved, self.unflushed) = (true, true);
                    if misused(end, now, cx, sent) {
                        return true;
                    }
                }
                Poll::Ready(_) => {
                    end.on_transport_error(now.get(end), cx);
                    return true;
                }
                Poll::Pending => break,
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => {
                    end.on_transport_error(now.get(end), cx);
                    moved = true;
                }
                Poll::Pending => {}
            }
        }
        moved
    }

    /// Shuts the write side when that is wanted; true when it was done.
    fn shut<E: End>(&mut self, end: &mut E, now: &mut Now, cx: &mut Context<'_>) -> bool {
        let progress = match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => Progress::Done,
            Poll::Ready(Err(_)) => {
                end.on_transport_error(now.get(end), cx);
                return true;
            }
            Poll::Pending => Progress::Started,
        };
        let shut = end.on_write_shut(now.get(end), cx, progress);
        misused(end, now, cx, shut) || progress == Progress::Done
    }

    /// Collects an end that was decided elsewhere, and writes what can be written at once. The stream is to be closed then.
    pub(crate) fn stop<E: End>(&mut self, end: &mut E, cx: &mut Context<'_>) {
        let now = &mut Now::default();
        if end.interest().resume {
            self.resume(end, now, cx);
        }
        self.output(end, now, cx);
    }

    /// Shuts the write side once more if that can be done at once, and is ready whatever comes of it: before the stream is
    /// closed.
    pub(crate) fn shut_at_once(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        drop(Pin::new(&mut self.io).poll_shutdown(cx));
        Poll::Ready(())
    }

    /// Sets the alarm, and serves the timers if it went off; true if it did, be that too early.
    fn time_out<E: End>(&mut self, end: &mut E, cx: &mut Context<'_>) -> bool {
        self.alarm.set(end.clock(), end.deadline());
        if !self.alarm.went_off(cx) {
            return false;
        }
        end.on_timeout(now(end.clock()), cx);
        true
    }
}

/// Ends a connection whose stream says what cannot be; true when it did.
fn misused(end: &mut impl End, now: &mut Now, cx: &mut Context<'_>, reported: Result<(), Misuse>) -> bool {
    let Err(error) = reported else { return false };
    warn!(name: "stream_faulty", %error, "the stream is faulty: its connection is closed");
    end.on_transport_error(now.get(end), cx);
    true
}
