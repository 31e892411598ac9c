//! Moves the bytes of one connection, on whatever loop.

use std::io;

use spop_core::{
    Action, AgentReactor, Timestamp,
    link::{Layer, Progress},
};

use crate::{
    ReadBuffer, Stream,
    buffer::{Input, Leftover},
};

/// Reads, or inputs resumed at a limit, in one turn. A peer that keeps the socket full waits for the others after that.
const TURN: usize = 4;

/// One connection: a reactor and its stream, for an event loop of your own.
///
/// Its loop tells it of readiness ([`ready`](Self::ready)) and gives it a [`turn`](Self::turn) when it is ready, when its
/// [`deadline`](Self::deadline) has come, and after the application has used the [`reactor`](Self::reactor_mut) outside
/// of a turn.
///
/// ```
/// use std::io;
/// use spop_core::{Action, Actions, Clock};
/// use spop_mio::{Connection, ReadBuffer, Stream, Turn};
///
/// /// To be called when the stream may be ready. True until the connection is over.
/// fn serve<S: Stream>(connection: &mut Connection<S>, buffer: &mut ReadBuffer, clock: &Clock) -> bool {
///     let now = clock.now();
///     connection.ready(true, true);
///     loop {
///         let turn = connection.turn(now, buffer, |reactor, action| {
///             if let Action::RunMessages(notify) = action {
///                 // Cannot fail: the ticket is this connection's, and no answer is too long.
///                 let _ = reactor.acknowledge(now, notify.ticket, &Actions::new());
///             }
///         });
///         match turn {
///             Turn::Again => {}
///             Turn::Wait => return true,
///             Turn::Over => return false,
///         }
///     }
/// }
/// ```
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent facts, not states.
pub struct Connection<S> {
    stream: S,
    reactor: AgentReactor,
    leftover: Leftover,
    /// The leftover was not looked at: it was read before the connection was made, or came behind a handshake after which the
    /// connection may move to the worker that has the others of its engine. Its requests run there.
    fresh: bool,
    /// The reactor's deadline.
    wake: Option<Timestamp>,
    readable: bool,
    writable: bool,
    /// A shutdown would have blocked, and the stream was not reported writable since.
    shut_blocked: bool,
    /// The peer has closed its side. What it sent before may still be there, and its end has not been read.
    closed: bool,
}

/// What follows from a [`turn`](Connection::turn).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Turn {
    /// Wait until the stream is ready, or the deadline has come.
    Wait,
    /// There is more to do: give it another turn, after the others have had theirs.
    Again,
    /// The connection is over: drop it.
    Over,
}

impl<S: Stream> Connection<S> {
    /// A connection that was just opened. Its stream is ready until it says otherwise, so it can have a turn at once.
    pub fn new(stream: S, reactor: AgentReactor) -> Self {
        let wake = reactor.deadline().map(|(at, _)| at);
        Self {
            stream,
            reactor,
            leftover: Leftover::default(),
            fresh: false,
            wake,
            readable: true,
            writable: true,
            shut_blocked: false,
            closed: false,
        }
    }

    /// The peer has sent this already, before its connection was made: behind a PROXY header, for instance.
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

    /// The peer has shut its side, as readiness tells: reading goes on until that is seen.
    #[inline]
    pub fn ready_closed(&mut self) {
        self.readable = true;
        self.closed = true;
    }

    /// Whether something waits until the stream is writable. Until then a loop need not care whether it is.
    #[inline]
    pub fn wants_write(&self) -> bool {
        !self.writable && (!self.reactor.outgoing().is_empty() || self.reactor.interest().shut.is_some())
    }

    /// When the next turn is due, whatever happens. An early turn is harmless: a timer need not be moved when this moves
    /// on.
    #[inline]
    pub const fn deadline(&self) -> Option<Timestamp> {
        self.wake
    }

    /// The stream.
    pub const fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, to be registered for instance.
    pub const fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The protocol's state.
    #[inline]
    pub const fn reactor(&self) -> &AgentReactor {
        &self.reactor
    }

    /// The protocol's state, to answer for instance; give the connection a turn afterwards.
    #[inline]
    pub const fn reactor_mut(&mut self) -> &mut AgentReactor {
        &mut self.reactor
    }

    /// Goes on as far as it gets without waiting: reads, writes, serves timers, shuts.
    ///
    /// `act` carries out what there is to do. It never sees `SendFrames`, `WantBytes` or `Paused`.
    pub fn turn(
        &mut self,
        now: Timestamp,
        buffer: &mut ReadBuffer,
        mut act: impl FnMut(&mut AgentReactor, Action<'_>),
    ) -> Turn {
        let mut turn = self.drive(now, buffer, &mut act);
        let mut deadline = self.reactor.deadline();
        // Timers come after what has arrived in time, however late this turn is.
        if turn != Turn::Over && deadline.is_some_and(|(at, _)| at <= now) {
            loop {
                let action = self.reactor.on_timeout(now);
                if !self.carry_out(action, &mut act) {
                    break;
                }
            }
            if turn == Turn::Wait {
                turn = self.drive(now, buffer, &mut act);
            }
            deadline = self.reactor.deadline();
        }
        self.leftover.trim();
        self.wake = deadline.map(|(at, _)| at);
        turn
    }

    /// The loop of `spop-core`'s front page, until it waits.
    fn drive(
        &mut self,
        now: Timestamp,
        buffer: &mut ReadBuffer,
        act: &mut impl FnMut(&mut AgentReactor, Action<'_>),
    ) -> Turn {
        let mut left = TURN;
        if std::mem::take(&mut self.fresh) {
            self.feed_leftover(now, false, act);
        }
        loop {
            if self.fresh {
                return Turn::Again;
            }
            let interest = self.reactor.interest();
            let reads = interest.read && self.readable || interest.read_now;
            if interest.close {
                return Turn::Over;
            }
            if interest.write && self.writable {
                self.write(now, buffer, act);
            } else if let Some(layer) = interest.shut
                && !self.shut_blocked
                && (self.writable || layer == Layer::Transport)
            {
                self.shut(now, layer, act);
            } else if left == 0 && (interest.resume || reads) {
                return Turn::Again;
            } else if interest.resume {
                left -= 1;
                self.feed_leftover(now, false, act);
            } else if reads {
                left -= 1;
                self.read(now, buffer, act);
            } else {
                return Turn::Wait;
            }
        }
    }

    #[inline]
    fn read(
        &mut self,
        now: Timestamp,
        buffer: &mut ReadBuffer,
        act: &mut impl FnMut(&mut AgentReactor, Action<'_>),
    ) {
        match buffer.read(&mut self.stream, &mut self.leftover) {
            Ok(got) => {
                let ended = got.bytes == 0;
                let was_all = got.short && self.stream.short_read_is_all() && !self.closed;
                self.readable = !ended && !was_all;
                match got.input {
                    Input::InBuffer(len) => {
                        let input = buffer.front(len);
                        let used = self.feed(now, input, ended, act);
                        if used < len {
                            self.leftover.append(input.get(used..).unwrap_or_default());
                        }
                    }
                    Input::InLeftover => self.feed_leftover(now, ended, act),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                let action = self.reactor.on_read_blocked(now);
                self.carry_out(action, act);
            }
            Err(_) => self.fail(now, act),
        }
    }

    #[inline]
    fn write(
        &mut self,
        now: Timestamp,
        buffer: &mut ReadBuffer,
        act: &mut impl FnMut(&mut AgentReactor, Action<'_>),
    ) {
        match self.stream.write(self.reactor.outgoing()) {
            Ok(0) => self.fail(now, act),
            Ok(sent) => {
                buffer.note_sent(sent);
                match self.reactor.on_sent(now, sent) {
                    Ok(action) => drop(self.carry_out(action, act)),
                    // It claims to have written more than there was.
                    Err(_) => self.fail(now, act),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.fail(now, act),
        }
    }

    #[cold]
    fn shut(&mut self, now: Timestamp, layer: Layer, act: &mut impl FnMut(&mut AgentReactor, Action<'_>)) {
        let blocks =
            self.stream.shut_write(layer).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.writable = !blocks;
        self.shut_blocked = blocks;
        // What cannot be shut is gone already.
        let progress = if blocks { Progress::Started } else { Progress::Done };
        match self.reactor.on_write_shut(now, progress) {
            Ok(action) => drop(self.carry_out(action, act)),
            Err(_) => self.fail(now, act),
        }
    }

    #[cold]
    fn fail(&mut self, now: Timestamp, act: &mut impl FnMut(&mut AgentReactor, Action<'_>)) {
        let action = self.reactor.on_transport_error(now);
        self.carry_out(action, act);
    }

    /// Gives the leftover to the reactor, perhaps nothing.
    fn feed_leftover(
        &mut self,
        now: Timestamp,
        ended: bool,
        act: &mut impl FnMut(&mut AgentReactor, Action<'_>),
    ) {
        let mut leftover = std::mem::take(&mut self.leftover);
        let used = self.feed(now, leftover.unused(), ended, act);
        leftover.consume(used);
        self.leftover = leftover;
    }

    /// Gives input to the reactor until there is nothing left of it, or no more to do with it; returns how many bytes were used.
    #[inline]
    fn feed(
        &mut self,
        now: Timestamp,
        input: &[u8],
        ended: bool,
        act: &mut impl FnMut(&mut AgentReactor, Action<'_>),
    ) -> usize {
        let mut used = 0;
        loop {
            let unused = input.get(used..).unwrap_or_default();
            let step = if ended {
                self.reactor.on_input_eof(now, unused)
            } else {
                self.reactor.on_bytes(now, unused)
            };
            used += step.consumed;
            if !self.carry_out(step.action, act) || used == input.len() && !ended {
                return used;
            }
        }
    }

    /// Gives an action to the application. False when there is no more to do with the input that it follows from.
    #[inline]
    fn carry_out(&mut self, action: Action<'_>, act: &mut impl FnMut(&mut AgentReactor, Action<'_>)) -> bool {
        let goes_on = match &action {
            Action::SendFrames | Action::WantBytes { .. } | Action::Paused => return false,
            Action::Close(_) => false,
            Action::Established(session) => {
                self.fresh = session.shared_engine().is_some();
                !self.fresh
            }
            _ => true,
        };
        act(&mut self.reactor, action);
        goes_on
    }
}

#[cfg(test)]
mod tests;
