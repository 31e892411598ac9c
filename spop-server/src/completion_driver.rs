//! Drives a connection over a transport that reports completions: `io_uring`, I/O completion ports.

use std::{io, mem};

use spop_core::{Timestamp, link::Progress};

use crate::{Conn, Handler, Leftover, Protocol, driver::report_written};

/// A connection with what it needs to be driven by operations that end some time after they were started: the unused input,
/// and the operations under way: one receive and one send at most. There is no TLS.
///
/// Its loop reports each operation that has ended ([`received`](Self::received), [`sent`](Self::sent)). After that, when the
/// [`deadline`](Conn::deadline) of the connection has come, and when it was woken, the loop performs what
/// [`next_operation`](Self::next_operation) returns until that is [`Wait`](Operation::Wait) or [`Over`](Operation::Over).
///
/// The example `io-uring` is such a loop.
#[derive(Debug)]
pub struct CompletionDriver {
    conn: Conn,
    leftover: Leftover,
    receiving: bool,
    sending: bool,
    closed: bool,
}

/// What a [`CompletionDriver`] asks of its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Operation {
    /// Start to receive.
    Receive,
    /// Start to send a copy of [`outgoing`](Conn::outgoing): answers are appended to it in the meantime.
    Send,
    /// Shut the write side. What cannot be shut is gone already.
    ShutWrite,
    /// Find out whether there is input. If there is none, call [`on_read_blocked`](Conn::on_read_blocked); otherwise wait.
    Peek,
    /// Close the transport so that operations under way end, a send after it has sent what it can without waiting.
    Close,
    /// Wait until an operation has ended, the deadline has come, or the connection is woken.
    Wait,
    /// Drop the connection. No operation is under way.
    Over,
}

impl CompletionDriver {
    /// A connection whose transport was just opened.
    pub fn new(conn: Conn) -> Self {
        Self { conn, leftover: Leftover::default(), receiving: false, sending: false, closed: false }
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

    /// The receive has ended. `result` is its buffer: what was received follows `headroom` bytes of space, which a leftover of
    /// earlier input is copied to if it is the shorter of the two. Nothing received is the end of the input, and
    /// [`Interrupted`](io::ErrorKind::Interrupted) starts another receive.
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

    /// The send has ended: so many bytes were sent.
    pub fn sent(&mut self, now: Timestamp, handler: &mut impl Handler, result: io::Result<usize>) {
        self.sending = false;
        report_written(&mut self.conn, now, result, handler);
    }

    /// Does what needs no transport: messages of other threads, timers, input that waited. Returns what to do next.
    pub fn next_operation(&mut self, now: Timestamp, handler: &mut impl Handler) -> Operation {
        if self.conn.is_woken() {
            self.conn.on_wake(now, handler);
        }
        if self.conn.deadline().is_some_and(|deadline| deadline <= now) {
            self.conn.on_timeout(now, handler);
        }
        loop {
            let interest = self.conn.interest();
            let stopping = self.conn.is_stopping();
            if interest.write && !self.sending && !self.closed {
                self.sending = true;
                return Operation::Send;
            } else if interest.close || stopping {
                if !mem::replace(&mut self.closed, true) {
                    self.conn.on_transport_closed();
                    self.leftover = Leftover::default();
                    return Operation::Close;
                }
                let over = (stopping || self.conn.is_over()) && !self.receiving && !self.sending;
                return if over { Operation::Over } else { Operation::Wait };
            } else if interest.shut.is_some() && !self.sending {
                // It was asked for.
                let _ = self.conn.on_write_shut(now, handler, Progress::Done);
                return Operation::ShutWrite;
            } else if self.conn.wants_tls() {
                self.conn.on_tls_failed(now, &io::Error::other("the transport has no TLS"));
            } else if interest.resume {
                self.feed_leftover(now, handler, false);
                self.leftover.trim();
            } else if interest.read && !self.receiving {
                self.receiving = true;
                return Operation::Receive;
            } else {
                return if interest.read_now { Operation::Peek } else { Operation::Wait };
            }
        }
    }

    /// Processes the leftover, perhaps nothing.
    fn feed_leftover(&mut self, now: Timestamp, handler: &mut impl Handler, eof: bool) {
        let used = Protocol::on_bytes(&mut self.conn, now, handler, self.leftover.unused(), eof);
        self.leftover.consume(used);
    }
}

#[cfg(test)]
mod tests;
