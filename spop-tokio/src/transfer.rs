//! The loop that both sides of the protocol have in common: it moves a connection's bytes and keeps its timer.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::BytesMut;
use spop_core::{Clock, Interest, Timestamp, link::Progress};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{self, coop},
    time::Instant,
};

use crate::{alarm::Alarm, inbox::Inbox};

/// How many reads a connection may do before the others have their turn.
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
    /// So many bytes came, for whoever counts them.
    fn received(&mut self, _bytes: usize) {}
    /// Whether the disconnect depends on nothing having arrived, be it known to the runtime or not.
    fn wants_to_be_sure(&self) -> bool {
        false
    }
    fn on_bytes(&mut self, now: Timestamp, cx: &mut Context<'_>, inbox: &mut BytesMut, eof: bool);
    /// A read found nothing; true when there was something to be done about that.
    fn on_read_blocked(&mut self, cx: &mut Context<'_>) -> bool;
    fn on_sent(&mut self, now: Timestamp, cx: &mut Context<'_>, n: usize);
    fn on_write_shut(&mut self, now: Timestamp, cx: &mut Context<'_>, progress: Progress);
    fn on_transport_error(&mut self, now: Timestamp, cx: &mut Context<'_>);
    fn on_timeout(&mut self, now: Timestamp, cx: &mut Context<'_>);
}

/// The time as tokio has it, so that tests may pause it.
#[inline]
pub(crate) fn now(clock: &Clock) -> Timestamp {
    clock.at(Instant::now().into_std())
}

/// What came of an attempt to read.
enum Input {
    /// Nothing.
    None,
    /// Nothing, but what the end wants may have changed.
    Changed,
    /// Bytes, or the end of them.
    Moved,
}

/// The time of a round: that at which it was first asked for.
#[derive(Default)]
pub(crate) struct Now(Option<Timestamp>);

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
            if interest.read || interest.resume || self.inbox.is_fresh() {
                match self.input(end, interest, now, cx) {
                    Input::None => {}
                    Input::Changed => interest = end.interest(),
                    Input::Moved => (moved, interest) = (true, end.interest()),
                }
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

    /// Reads once, and handles every frame that is there.
    #[inline]
    fn input<E: End>(
        &mut self,
        end: &mut E,
        interest: Interest,
        now: &mut Now,
        cx: &mut Context<'_>,
    ) -> Input {
        if interest.resume || self.inbox.is_fresh() {
            let mut buffer = self.inbox.take();
            end.on_bytes(now.get(end), cx, &mut buffer, false);
            self.inbox.keep(buffer);
            return Input::Moved;
        }
        match self.inbox.poll_read(&mut self.io, cx) {
            Poll::Ready(Ok((mut buffer, n))) => {
                end.received(n);
                end.on_bytes(now.get(end), cx, &mut buffer, n == 0);
                self.inbox.keep(buffer);
            }
            Poll::Ready(Err(_)) => end.on_transport_error(now.get(end), cx),
            // Out of budget, a read finds nothing whatever has arrived.
            Poll::Pending if !coop::has_budget_remaining() => return Input::None,
            Poll::Pending if end.wants_to_be_sure() && !self.looked => {
                self.looked = true;
                // Woken when the runtime has asked the kernel once more.
                let _ = pin!(task::yield_now()).poll(cx);
                return Input::None;
            }
            Poll::Pending => {
                self.looked = false;
                return if end.on_read_blocked(cx) { Input::Changed } else { Input::None };
            }
        }
        Input::Moved
    }

    /// Writes what there is to write; true when something changed.
    #[inline]
    pub(crate) fn output<E: End>(&mut self, end: &mut E, now: &mut Now, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            let bytes = end.outgoing();
            if bytes.is_empty() {
                break;
            }
            match Pin::new(&mut self.io).poll_write(cx, bytes) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    end.on_sent(now.get(end), cx, n);
                    (moved, self.unflushed) = (true, true);
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
        end.on_write_shut(now.get(end), cx, progress);
        progress == Progress::Done
    }

    /// Shuts the write side once more if that can be done at once, and is ready whatever comes of it: before the stream is
    /// closed.
    pub(crate) fn farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
