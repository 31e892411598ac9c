//! Drives a connection over a transport that reports completions: `io_uring`, I/O completion ports.

use std::{io, mem};

use spop_core::{Timestamp, link::Progress};

use crate::{Conn, Handler, Leftover, Protocol, driver::report_written};

/// A connection with what it needs to be driven by asynchronous operations: the unused input, and which operations are under
/// way, at most one receive and one send. There is no TLS: a connection whose accept stage asks for it is rejected.
///
/// The loop does the following:
///
/// 1. Register a waker at the connection ([`conn_mut`](Self::conn_mut)), as step 2 of [`Conn`] says.
/// 2. Report each operation that has ended: [`received`](Self::received) or [`sent`](Self::sent).
/// 3. Call [`next_operation`](Self::next_operation) and carry out what it returns, until that is [`Wait`](Operation::Wait) or
///    [`Over`](Operation::Over). Do so at the start, after step 2, when the time of the last `Wait` has passed, when the
///    connection was woken, and after a decision such as [`Conn::on_answer`].
///
/// If several operations have ended, report all of them before step 3: one send then has all answers.
///
/// The example `io-uring` is such a loop.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent facts, not states.
pub struct CompletionDriver {
    conn: Conn,
    leftover: Leftover,
    receiving: bool,
    sending: bool,
    /// In this turn.
    peeked: bool,
    closed: bool,
}

/// What a [`CompletionDriver`] asks its loop to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Operation {
    /// Start to receive. Its end is reported to [`received`](CompletionDriver::received).
    Receive,
    /// Start to send a copy of [`outgoing`](Conn::outgoing), or of its beginning: answers are appended to it before the send ends.
    /// The end is reported to [`sent`](CompletionDriver::sent).
    Send,
    /// Shut the write side. Ignore errors: the connection is gone already.
    ShutWrite,
    /// Find out without waiting whether the socket has input (`FIONREAD`), and report it to
    /// [`peeked`](CompletionDriver::peeked) before the next operation. A receive may be under way.
    Peek,
    /// Close the transport so that the operations under way end. A send first sends what it can without waiting. Report their ends
    /// as always; a shutdown of both sides keeps the descriptor until then.
    Close,
    /// Wait until an operation has ended, the time has passed, or the connection is woken.
    Wait(Option<Timestamp>),
    /// Drop the connection. No operation is under way.
    Over,
}

impl CompletionDriver {
    /// A driver for a connection whose transport was just opened.
    pub fn new(conn: Conn) -> Self {
        let leftover = Leftover::default();
        Self { conn, leftover, receiving: false, sending: false, peeked: false, closed: false }
    }

    /// The connection.
    #[inline]
    pub const fn conn(&self) -> &Conn {
        &self.conn
    }

    /// The connection: ask for the next operation after a decision.
    #[inline]
    pub const fn conn_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// The receive has ended. `result` is its buffer: `headroom` bytes of free space, followed by the received bytes. Unused input is
    /// copied to the end of the headroom if it fits there and is not longer than the received bytes; otherwise these are copied.
    /// No received byte is the end of the input. The error [`Interrupted`](io::ErrorKind::Interrupted) starts another receive.
    pub fn received(
        &mut self,
        now: Timestamp,
        handler: &mut impl Handler,
        headroom: usize,
        result: io::Result<&mut [u8]>,
    ) {
        self.receiving = false;
        match result {
            _ if self.closed => {}
            Ok(buffer) => {
                let eof = buffer.len() <= headroom;
                match self.leftover.join(buffer, headroom) {
                    Some(input) => {
                        let used = Protocol::on_bytes(&mut self.conn, now, handler, input, eof);
                        if used < input.len() {
                            self.leftover.append(input.get(used..).unwrap_or_default());
                        }
                    }
                    None => self.feed_leftover(now, handler, eof),
                }
                self.leftover.trim();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.conn.on_transport_error(now, handler, &error),
        }
    }

    /// The send has ended. `result` is the number of bytes that were sent.
    pub fn sent(&mut self, now: Timestamp, handler: &mut impl Handler, result: io::Result<usize>) {
        self.sending = false;
        match result {
            // The session has ended meanwhile, and discarded what it had to send.
            Ok(n) if self.conn.interest().close && n > self.conn.outgoing().len() => {}
            result => report_written(&mut self.conn, now, result, handler),
        }
    }

    /// The answer to [`Peek`](Operation::Peek): whether there is no input.
    pub fn peeked(&mut self, now: Timestamp, handler: &mut impl Handler, is_empty: bool) {
        if is_empty {
            self.conn.on_read_blocked(now, handler);
        }
    }

    /// Does what needs no transport: messages of other threads, input that waited for a limit, timers. Returns what to do next.
    pub fn next_operation(&mut self, now: Timestamp, handler: &mut impl Handler) -> Operation {
        if self.conn.is_woken() {
            self.conn.on_wake(now, handler);
        }
        loop {
            let interest = self.conn.interest();
            if interest.write && !self.sending && !self.closed {
                self.sending = true;
                return Operation::Send;
            } else if interest.close || self.conn.is_stopping() {
                if !mem::replace(&mut self.closed, true) {
                    self.conn.on_transport_closed();
                    self.leftover = Leftover::default();
                    return Operation::Close;
                } else if !self.receiving && !self.sending && (self.conn.is_stopping() || self.conn.is_over())
                {
                    return Operation::Over;
                }
            } else if interest.shut.is_some() && !self.sending {
                // It was asked for.
                let _ = self.conn.on_write_shut(now, handler, Progress::Done);
                return Operation::ShutWrite;
            } else if self.conn.wants_tls() {
                self.conn.on_tls_failed(now, &io::Error::other("the transport has no TLS"));
                continue;
            } else if interest.resume {
                self.feed_leftover(now, handler, false);
                self.leftover.trim();
                continue;
            } else if interest.read && !self.receiving {
                self.receiving = true;
                return Operation::Receive;
            }
            // Timers come after what has arrived in time.
            let deadline = self.conn.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.conn.on_timeout(now, handler);
            } else if interest.read_now && !mem::replace(&mut self.peeked, true) {
                return Operation::Peek;
            } else {
                self.peeked = false;
                return Operation::Wait(deadline);
            }
        }
    }

    /// Processes the leftover, which can be empty.
    fn feed_leftover(&mut self, now: Timestamp, handler: &mut impl Handler, eof: bool) {
        let used = Protocol::on_bytes(&mut self.conn, now, handler, self.leftover.unused(), eof);
        self.leftover.consume(used);
    }
}

#[cfg(test)]
mod tests;
