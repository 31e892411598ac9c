//! Drives a connection over a transport that does not block.

use std::io;

use spop_core::{
    Timestamp,
    link::{Layer, Progress},
};
use tracing::warn;

#[cfg(feature = "tls")]
use crate::tls::TlsSession;
use crate::{Leftover, Protocol, ReadBuffer, Stream, buffer::Input};

/// Input bytes that are read in one turn, so that a peer that keeps its socket full does not block the others.
const BUDGET: usize = 64 * 1024;

/// Input of one turn that is much: what is more than 20 short requests.
const MUCH: usize = 4 * 1024;

/// The least that a read takes from the budget, however short it is.
const LEAST_COST: usize = BUDGET / 4;

/// A connection with what it needs to be driven: the unused input, the TLS session, the readiness of its transport.
///
/// It performs all steps of [`Conn`](crate::Conn) but these, which are the loop's:
///
/// 1. Register a waker at the connection ([`protocol_mut`](Self::protocol_mut)): at the start, or after each turn in which
///    [`Conn::wants_waker`](crate::Conn::wants_waker) is true.
/// 2. Report readiness of the transport with [`ready`](Self::ready). The driver remembers it until a call would block, so
///    edge-triggered readiness suffices. With level-triggered readiness, ask for readable only while
///    [`Conn::interest`](crate::Conn::interest) has `read` or [`Conn::wants_tls`](crate::Conn::wants_tls) is true, and for
///    writable only while [`wants_write`](Self::wants_write) is true.
/// 3. Call [`turn`](Self::turn) when the transport is ready, when the [`deadline`](Self::deadline) has passed, when the
///    connection was woken, after a decision from outside such as [`Conn::on_answer`](crate::Conn::on_answer), and for the first
///    time at once. Carry out the [`Turn`] it returns.
///
/// A turn ends after 64 frames, or 64 KiB of input, of which each read counts at least 16 KiB, with [`Turn::Again`]. All connections of a
/// thread share one [`ReadBuffer`] of 64 KiB.
///
/// ```
/// use std::net::TcpStream;
/// use spop_core::Timestamp;
/// use spop_server::{Conn, Driver, Handler, ReadBuffer, Turn};
///
/// /// To be called when the stream may be ready. True until the connection is over.
/// fn drive(
///     now: Timestamp,
///     driver: &mut Driver<Conn>,
///     stream: &mut Option<TcpStream>,
///     buffer: &mut ReadBuffer,
///     handler: &mut impl Handler,
/// ) -> bool {
///     driver.ready(true, true);
///     loop {
///         match driver.turn(now, stream.as_mut(), buffer, handler) {
///             // With other connections on this thread: return, and call it again after their turns.
///             Turn::Again => {}
///             Turn::Wait => return true,
///             Turn::Closed => {
///                 // Other connections of its engine send the answers to its requests.
///                 *stream = None;
///                 return true;
///             }
///             Turn::Over => return false,
///         }
///     }
/// }
/// ```
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent facts, not states.
pub struct Driver<P> {
    protocol: P,
    leftover: Leftover,
    #[cfg(feature = "tls")]
    tls: Option<Box<TlsSession>>,
    /// The leftover was read before the driver was made, and is not processed yet.
    fresh: bool,
    readable: bool,
    writable: bool,
    /// A shutdown would have blocked, and the stream was not reported writable since.
    shut_blocked: bool,
    /// The peer has shut its write side. What it sent before may still be unread.
    peer_closed: bool,
    /// The last turn had more input than [`MUCH`].
    had_much: bool,
    /// The deadline of the connection at the end of the last turn: a loop needs it, and so did the turn.
    deadline: Option<Timestamp>,
}

/// The result of a [`turn`](Driver::turn): what the loop has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Turn {
    /// Wait until the transport is ready, the deadline has passed, or the connection is woken.
    Wait,
    /// The budget of the turn is exhausted, and no readiness will be reported for the rest: give it another turn, after the other
    /// connections.
    Again,
    /// Close the transport. Then wait for the deadline or a wake-up, and call `turn` without a stream: other connections of its engine
    /// will send answers to its requests.
    Closed,
    /// Close the transport, and drop the connection.
    Over,
}

impl<P> Driver<P> {
    /// A connection that was just opened. Its transport counts as ready until a call would block, so it can have a turn at
    /// once.
    pub fn new(protocol: P) -> Self {
        Self {
            protocol,
            leftover: Leftover::default(),
            #[cfg(feature = "tls")]
            tls: None,
            fresh: false,
            readable: true,
            writable: true,
            shut_blocked: false,
            peer_closed: false,
            had_much: false,
            deadline: None,
        }
    }

    /// Input of the peer that was read before the driver was made.
    #[must_use]
    pub fn with_input(mut self, input: impl Into<Vec<u8>>) -> Self {
        let input = input.into();
        self.fresh = !input.is_empty();
        self.leftover = input.into();
        self
    }

    /// The stream may be readable, or writable, again.
    #[inline]
    pub fn ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
        self.shut_blocked &= !writable;
    }

    /// The peer has shut its write side, as reported by the system (`EPOLLRDHUP`): every read is followed by another until one
    /// returns the end of the input.
    #[inline]
    pub fn ready_closed(&mut self) {
        self.readable = true;
        self.peer_closed = true;
    }

    /// Whether the last turn had much input: more than 4 KiB. A loop can give such connections their next turns after the others.
    #[inline]
    pub const fn had_much_input(&self) -> bool {
        self.had_much
    }

    /// When the next turn is due at the latest, as of the end of the last turn: the deadline of the connection.
    #[inline]
    pub const fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// The connection.
    #[inline]
    pub const fn protocol(&self) -> &P {
        &self.protocol
    }

    /// The connection: give it a turn after a decision.
    #[inline]
    pub const fn protocol_mut(&mut self) -> &mut P {
        &mut self.protocol
    }

    /// Whether the driver waits for the stream to be writable. If not, the loop need not ask the system for it.
    #[inline]
    pub fn wants_write<H: ?Sized>(&self) -> bool
    where
        P: Protocol<H>,
    {
        !self.writable && {
            let interest = self.protocol.interest();
            interest.write || interest.shut.is_some() || self.protocol.wants_tls()
        }
    }

    /// Does what can be done without waiting: messages of other threads, reads, writes, timers, shutdowns. `stream` is `None` after
    /// [`Turn::Closed`].
    pub fn turn<H: ?Sized, S: Stream>(
        &mut self,
        now: Timestamp,
        stream: Option<&mut S>,
        buffer: &mut ReadBuffer,
        handler: &mut H,
    ) -> Turn
    where
        P: Protocol<H>,
    {
        self.had_much = false;
        if self.protocol.is_woken() {
            self.protocol.on_wake(now, handler);
        }
        let Some(stream) = stream else {
            if self.is_due(now) {
                self.expire(now, handler);
            }
            return if self.protocol.is_over() { Turn::Over } else { Turn::Wait };
        };
        let mut turn = self.drive(now, stream, buffer, handler);
        // Timers come after what has arrived in time, however late this turn is.
        if self.is_due(now) {
            self.expire(now, handler);
            if turn == Turn::Wait || self.protocol.interest().close {
                turn = self.drive(now, stream, buffer, handler);
                self.deadline = self.protocol.deadline();
            }
        }
        if turn == Turn::Closed {
            self.release();
        }
        self.leftover.trim();
        debug_assert_eq!(self.deadline, self.protocol.deadline());
        turn
    }

    /// The deadline has passed.
    #[cold]
    fn expire<H: ?Sized>(&mut self, now: Timestamp, handler: &mut H)
    where
        P: Protocol<H>,
    {
        self.protocol.on_timeout(now, handler);
        self.deadline = self.protocol.deadline();
    }

    /// Releases what only a connection with a transport needs.
    #[cold]
    fn release<H: ?Sized>(&mut self)
    where
        P: Protocol<H>,
    {
        self.protocol.on_transport_closed();
        self.deadline = self.protocol.deadline();
        self.leftover = Leftover::default();
        #[cfg(feature = "tls")]
        {
            self.tls = None;
        }
    }

    /// Reads the deadline of the connection, and whether it has passed.
    #[inline]
    fn is_due<H: ?Sized>(&mut self, now: Timestamp) -> bool
    where
        P: Protocol<H>,
    {
        self.deadline = self.protocol.deadline();
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Applies the interest of the connection until it waits.
    fn drive<H: ?Sized, S: Stream>(
        &mut self,
        now: Timestamp,
        stream: &mut S,
        buffer: &mut ReadBuffer,
        handler: &mut H,
    ) -> Turn
    where
        P: Protocol<H>,
    {
        let (mut budget, mut fed, mut received) = (BUDGET, false, 0);
        loop {
            let interest = self.protocol.interest();
            if interest.close {
                return if self.protocol.is_over() { Turn::Over } else { Turn::Closed };
            }
            let reads = interest.read && self.readable || interest.read_now;
            if interest.write && self.writable {
                self.write(now, stream, handler);
            } else if self.protocol.is_stopping() {
                // What cannot be written at once is lost.
                return Turn::Over;
            } else if let Some(layer) = interest.shut
                && !self.shut_blocked
                && (self.writable || layer == Layer::Transport)
            {
                self.shut(now, stream, layer, handler);
            } else if self.protocol.wants_tls() {
                if !self.handshake(now, stream) {
                    return Turn::Wait;
                }
            } else if fed && interest.resume || budget == 0 && (reads || self.fresh) {
                return Turn::Again;
            } else if interest.resume || self.fresh {
                self.feed_leftover(now, false, handler);
                fed = true;
            } else if reads {
                let Some(bytes) = self.read(now, stream, buffer, handler, interest.read_now) else {
                    return Turn::Wait;
                };
                budget = budget.saturating_sub(bytes.max(LEAST_COST));
                received += bytes;
                self.had_much |= received > MUCH;
                fed = true;
            } else {
                return Turn::Wait;
            }
        }
    }

    /// Reads once; returns how many bytes. `None` if there is nothing to do until the stream is ready: the read would block, or
    /// the stream has yet to ask the system.
    #[inline]
    fn read<H: ?Sized, S: Stream>(
        &mut self,
        now: Timestamp,
        stream: &mut S,
        buffer: &mut ReadBuffer,
        handler: &mut H,
        read_now: bool,
    ) -> Option<usize>
    where
        P: Protocol<H>,
    {
        #[cfg(feature = "tls")]
        let (got, short_is_all) = match &mut self.tls {
            Some(tls) => (buffer.read(&mut self.leftover, |space| tls.read(stream, space)), false),
            None => (buffer.read(&mut self.leftover, |space| stream.read(space)), stream.short_read_is_all()),
        };
        #[cfg(not(feature = "tls"))]
        let (got, short_is_all) =
            (buffer.read(&mut self.leftover, |space| stream.read(space)), stream.short_read_is_all());
        match got {
            Ok(got) => {
                let ended = got.bytes == 0;
                let was_all = got.short && short_is_all && !self.peer_closed;
                self.readable = !ended && !was_all;
                match got.input {
                    Input::InBuffer(len) => {
                        let input = buffer.front(len);
                        let used = self.protocol.on_bytes(now, handler, input, ended);
                        if used < len {
                            self.leftover.append(input.get(used..).unwrap_or_default());
                        }
                    }
                    Input::InLeftover => self.feed_leftover(now, ended, handler),
                }
                return Some(got.bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                if !read_now || !stream.is_drained() {
                    return None;
                }
                self.protocol.on_read_blocked(now, handler);
            }
            Err(error) => self.protocol.on_transport_error(now, handler, &error),
        }
        Some(0)
    }

    #[inline]
    fn write<H: ?Sized, S: Stream>(&mut self, now: Timestamp, stream: &mut S, handler: &mut H)
    where
        P: Protocol<H>,
    {
        let outgoing = self.protocol.outgoing();
        #[cfg(feature = "tls")]
        let written = match &mut self.tls {
            Some(tls) => tls.write(stream, outgoing),
            None => stream.write(outgoing),
        };
        #[cfg(not(feature = "tls"))]
        let written = stream.write(outgoing);
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
            written => report_written(&mut self.protocol, now, written, handler),
        }
    }

    #[cold]
    fn shut<H: ?Sized, S: Stream>(&mut self, now: Timestamp, stream: &mut S, layer: Layer, handler: &mut H)
    where
        P: Protocol<H>,
    {
        #[cfg(feature = "tls")]
        let shut = match (&mut self.tls, layer) {
            (Some(tls), Layer::Data) => tls.close(stream),
            _ => stream.shut_write(),
        };
        #[cfg(not(feature = "tls"))]
        let shut = if layer == Layer::Transport { stream.shut_write() } else { Ok(()) };
        let blocks = shut.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.writable = !blocks;
        self.shut_blocked = blocks;
        // If this fails otherwise, the connection is gone already.
        let progress = if blocks { Progress::Started } else { Progress::Done };
        if let Err(misuse) = self.protocol.on_write_shut(now, handler, progress) {
            self.protocol.on_transport_error(now, handler, &io::Error::other(misuse));
        }
    }

    /// Continues the TLS handshake; false if it waits for the peer.
    #[cold]
    fn handshake<H: ?Sized, S: Stream>(&mut self, now: Timestamp, stream: &mut S) -> bool
    where
        P: Protocol<H>,
    {
        #[cfg(feature = "tls")]
        {
            if self.tls.is_none() {
                let received = std::mem::take(&mut self.leftover);
                let session = match self.protocol.tls() {
                    Some(tls) => TlsSession::new(tls, stream, received.unused()),
                    None => Err(io::Error::other("the listener has no certificate")),
                };
                match session {
                    Ok(session) => self.tls = Some(Box::new(session)),
                    Err(error) => {
                        self.protocol.on_tls_failed(now, &error);
                        return true;
                    }
                }
            }
            let Some(tls) = &mut self.tls else { return true };
            match tls.handshake(stream) {
                Ok(true) => {
                    let peer = tls.peer();
                    // What followed the handshake may be in the TLS session already: no readiness will be reported for it.
                    (self.readable, self.writable) = (true, true);
                    // It was asked for.
                    let _ = self.protocol.on_tls_done(now, peer);
                }
                Ok(false) => {
                    self.writable = !tls.wants_write();
                    return false;
                }
                Err(error) => self.protocol.on_tls_failed(now, &error),
            }
        }
        #[cfg(not(feature = "tls"))]
        {
            let _ = stream;
            self.protocol.on_tls_failed(now, &io::Error::other("built without TLS"));
        }
        true
    }

    /// Processes the leftover, which can be empty.
    fn feed_leftover<H: ?Sized>(&mut self, now: Timestamp, ended: bool, handler: &mut H)
    where
        P: Protocol<H>,
    {
        self.fresh = false;
        let mut leftover = std::mem::take(&mut self.leftover);
        let used = self.protocol.on_bytes(now, handler, leftover.unused(), ended);
        leftover.consume(used);
        self.leftover = leftover;
    }
}

/// Reports what a write returned that did not block.
#[inline]
pub(crate) fn report_written<P: Protocol<H>, H: ?Sized>(
    protocol: &mut P,
    now: Timestamp,
    written: io::Result<usize>,
    handler: &mut H,
) {
    match written {
        Ok(0) => protocol.on_transport_error(now, handler, &io::ErrorKind::WriteZero.into()),
        Ok(n) => {
            // A stream may claim to have written more than there was.
            if let Err(misuse) = protocol.on_sent(now, handler, n) {
                warn!(name: "stream_faulty", error = %misuse, "the stream is faulty: its connection is closed");
                protocol.on_transport_error(now, handler, &io::Error::other(misuse));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => protocol.on_transport_error(now, handler, &error),
    }
}

#[cfg(test)]
mod tests;
