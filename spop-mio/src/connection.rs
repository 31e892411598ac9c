//! Moves the bytes of one connection, on whatever loop.

use std::io;

use bytes::BytesMut;
use spop_core::{
    Action, AgentReactor, Timestamp,
    link::{Layer, Progress, Step},
};
use spop_server::Tidy;

use crate::{ReadBuffer, Stream, buffer::SMALL};

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
    /// What was read and not used: a frame that is not whole, or what waits for a limit. Empty as a rule.
    rest: BytesMut,
    /// The rest was not looked at: it was read before the connection was made, or came behind a handshake after which the
    /// connection may move to where the others of its engine are. What it asks is asked there.
    fresh: bool,
    /// When the next turn is due; not later than the reactor's deadline.
    wake: Option<Timestamp>,
    tidy: Tidy,
    readable: bool,
    writable: bool,
    /// The peer has closed its side. What it sent before may still be there, and its end has not been read.
    closed: bool,
}

/// What was read and not used, in the course of a turn.
struct Inbox {
    bytes: BytesMut,
    /// Whether it is a slice of the buffer of all connections.
    shared: bool,
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
            rest: BytesMut::new(),
            fresh: false,
            wake,
            tidy: Tidy::default(),
            readable: true,
            writable: true,
            closed: false,
        }
    }

    /// The peer has sent this already, before its connection was made: behind a PROXY header, for instance.
    #[must_use]
    pub fn with_input(mut self, input: BytesMut) -> Self {
        self.fresh = !input.is_empty();
        self.rest = input;
        self
    }

    /// The stream may be readable, or writable, again.
    #[inline]
    pub fn ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
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
        let mut inbox = Inbox { bytes: std::mem::take(&mut self.rest), shared: false };
        let mut turn = self.go(now, buffer, &mut inbox, &mut act);
        let mut deadline = self.reactor.deadline();
        // Timers come after what has arrived in time, however late this turn is.
        if turn != Turn::Over && deadline.is_some_and(|(at, _)| at <= now) {
            while self.act(&mut act, |reactor| reactor.on_timeout(now)) {}
            if turn == Turn::Wait {
                turn = self.go(now, buffer, &mut inbox, &mut act);
            }
            deadline = self.reactor.deadline();
        }
        if !inbox.bytes.is_empty() {
            // A slice would keep the whole of the buffer that others read into.
            // Nor does the little behind a long frame keep that one's memory.
            let copy = inbox.shared || inbox.bytes.len() <= SMALL;
            self.rest = if copy { BytesMut::from(&*inbox.bytes) } else { inbox.bytes };
        }
        self.tidy.postpone(now);
        let deadlines = [deadline.map(|(at, _)| at), self.tidy.deadline()];
        self.wake = deadlines.into_iter().flatten().min();
        turn
    }

    fn go(
        &mut self,
        now: Timestamp,
        buffer: &mut ReadBuffer,
        inbox: &mut Inbox,
        act: &mut impl FnMut(&mut AgentReactor, Action<'_>),
    ) -> Turn {
        let draining = self.reactor.closing().progress(Step::Drain) == Progress::Started;
        // A drain ends a connection on which nothing has arrived, and asks the stream about that.
        self.readable |= draining;
        let mut left = TURN;
        let mut quiet = false;
        if std::mem::take(&mut self.fresh) {
            while self.act(act, |reactor| reactor.on_bytes(now, &mut inbox.bytes)) {}
        }
        loop {
            if self.fresh {
                return Turn::Again;
            }
            let interest = self.reactor.interest();
            if interest.close {
                return Turn::Over;
            }
            if interest.write && self.writable {
                self.write(now, buffer, act);
            } else if let Some(layer) = interest.shut
                && (self.writable || layer == Layer::Transport)
            {
                self.shut(now, layer, act);
            } else if left == 0 && (interest.resume || interest.read && self.readable) {
                return Turn::Again;
            } else if interest.resume {
                left -= 1;
                while self.act(act, |reactor| reactor.on_bytes(now, &mut inbox.bytes)) {}
            } else if interest.read && self.readable {
                left -= 1;
                self.read(now, buffer, inbox, draining, act);
            } else if !self.readable && !quiet && (draining || self.tidy.is_due(now)) {
                quiet = true;
                self.tidy.done();
                self.act(act, |reactor| reactor.on_read_blocked(now));
                self.reactor.trim();
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
        inbox: &mut Inbox,
        draining: bool,
        act: &mut impl FnMut(&mut AgentReactor, Action<'_>),
    ) {
        match buffer.read(&mut self.stream, &mut inbox.bytes) {
            Ok(got) if got.bytes == 0 => {
                self.readable = false;
                while self.act(act, |reactor| reactor.on_input_eof(now, &mut inbox.bytes)) {}
            }
            Ok(got) => {
                inbox.shared = got.shared;
                buffer.note_received(got.bytes);
                self.readable = !(got.short && self.stream.short_read_is_all()) || self.closed || draining;
                while self.act(act, |reactor| reactor.on_bytes(now, &mut inbox.bytes)) {}
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(_) => self.failed(now, act),
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
            Ok(0) => self.failed(now, act),
            Ok(sent) => {
                buffer.note_sent(sent);
                self.act(act, |reactor| reactor.on_sent(now, sent));
                if self.tidy.used(now) {
                    // After the handshake and the first request, or requests that came alone, there may be nothing for long.
                    self.reactor.trim();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.failed(now, act),
        }
    }

    #[cold]
    fn shut(&mut self, now: Timestamp, layer: Layer, act: &mut impl FnMut(&mut AgentReactor, Action<'_>)) {
        let blocks =
            self.stream.shut_write(layer).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.writable = !blocks;
        // What cannot be shut is gone already.
        let progress = if blocks { Progress::Started } else { Progress::Done };
        self.act(act, |reactor| reactor.on_write_shut(now, progress));
    }

    #[cold]
    fn failed(&mut self, now: Timestamp, act: &mut impl FnMut(&mut AgentReactor, Action<'_>)) {
        self.act(act, |reactor| reactor.on_transport_error(now));
    }

    /// Gives an input to the reactor, and the action that follows to the application. False when there is no more to do
    /// with that input.
    #[inline]
    fn act<'i>(
        &mut self,
        act: &mut impl FnMut(&mut AgentReactor, Action<'_>),
        input: impl FnOnce(&mut AgentReactor) -> Action<'i>,
    ) -> bool {
        match input(&mut self.reactor) {
            Action::SendFrames | Action::WantBytes { .. } | Action::Paused => false,
            action => {
                let last = match &action {
                    Action::Close(_) => true,
                    Action::Established(session) => {
                        self.fresh = session.shared_engine().is_some();
                        self.fresh
                    }
                    _ => false,
                };
                act(&mut self.reactor, action);
                !last
            }
        }
    }
}

#[cfg(test)]
mod tests;
