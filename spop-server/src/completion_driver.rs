//! Drives a connection over a transport that reports completions: `io_uring`, I/O completion ports.

use std::{io, mem};

use spop_core::{Timestamp, link::Progress};

use crate::{Conn, Handler, Leftover, Protocol, driver::report_written};

/// A connection with what it needs to be driven by operations that end some time after they were started: the unused input,
/// and the operations under way: one receive and one send at most. There is no TLS.
///
/// Its loop reports each operation that has ended ([`received`](Self::received), [`sent`](Self::sent)). After that, when the time
/// of the last [`Wait`](Operation::Wait) has come, and when the connection was woken, the loop performs what
/// [`next_operation`](Self::next_operation) returns until that is `Wait` or [`Over`](Operation::Over).
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
    /// Find out whether there is input, and report it to [`peeked`](CompletionDriver::peeked).
    Peek,
    /// Close the transport so that operations under way end, a send after it has sent what it can without waiting.
    Close,
    /// Wait until an operation has ended, the time has come, or the connection is woken.
    Wait(Option<Timestamp>),
    /// Drop the connection. No operation is under way.
    Over,
}

impl CompletionDriver {
    /// A connection whose transport was just opened.
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

    /// The answer to [`Peek`](Operation::Peek): whether there is no input.
    pub fn peeked(&mut self, now: Timestamp, handler: &mut impl Handler, is_empty: bool) {
        if is_empty {
            self.conn.on_read_blocked(now, handler);
        }
    }

    /// Does what needs no transport: messages of other threads, input that waited, timers. Returns what to do next.
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

    /// Processes the leftover, perhaps nothing.
    fn feed_leftover(&mut self, now: Timestamp, handler: &mut impl Handler, eof: bool) {
        let used = Protocol::on_bytes(&mut self.conn, now, handler, self.leftover.unused(), eof);
        self.leftover.consume(used);
    }
}

#[cfg(test)]
mod tests;
