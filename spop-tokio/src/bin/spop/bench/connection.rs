//! A connection to the agent under load.

use std::{collections::VecDeque, io, sync::Arc};

use spop_core::{
    ConnectionId, EngineAction, EngineConfig, EngineReactor, Timestamp,
    config::Checked,
    engine::{Answer, Ended, NotifyError, NotifyId, UnclaimedAck},
    frame::AckActions,
};

use super::{channel::Channel, stats::Stats};
use crate::exit::reason;

/// A connection, open or not.
pub(super) struct Connection {
    channel: Channel,
    engine: EngineReactor,
    /// Part of a frame.
    rest: Vec<u8>,
    /// The requests in flight, and when each was due.
    in_flight: VecDeque<(NotifyId, Timestamp)>,
    /// How many there may be.
    most: usize,
    /// It has answered a request.
    pub(super) has_answered: bool,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum State {
    Open,
    Over,
}

/// What a turn of a connection needs.
pub(super) struct Turn<'a> {
    pub(super) now: Timestamp,
    pub(super) buffer: &'a mut [u8],
    pub(super) stats: &'a mut Stats,
    /// ACKs that may answer requests of other connections (`async`).
    pub(super) unclaimed: &'a mut Vec<UnclaimedAck>,
}

impl Connection {
    pub(super) fn new(
        channel: Channel,
        config: &Arc<Checked<EngineConfig>>,
        most: usize,
        key: usize,
        now: Timestamp,
    ) -> Self {
        let engine = EngineReactor::new(Arc::clone(config), ConnectionId(key as u64), now);
        let in_flight = VecDeque::new();
        Self { channel, engine, rest: Vec::new(), in_flight, most, has_answered: false }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.in_flight.len() < self.most && self.engine.is_ready()
    }

    pub(super) fn has_session(&self) -> bool {
        self.engine.session().is_some()
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.engine.outgoing().is_empty() || self.channel.wants_write()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// It has a session that accepts no request, though none is in flight: HAProxy would open another connection.
    pub(super) fn is_stuck(&self) -> bool {
        self.has_session() && self.in_flight.is_empty() && !self.engine.is_ready()
    }

    pub(super) fn ask(&mut self, now: Timestamp, due: Timestamp, payload: &[u8]) -> Result<(), NotifyError> {
        let id = self.engine.notify_raw(now, None, payload)?;
        self.in_flight.push_back((id, due));
        Ok(())
    }

    /// Reads what has arrived.
    pub(super) fn read(&mut self, turn: &mut Turn<'_>) -> State {
        loop {
            let kept = self.rest.len();
            let Some((front, free)) = turn.buffer.split_at_mut_checked(kept) else { return State::Over };
            front.copy_from_slice(&self.rest);
            let space = free.len();
            let (read, state) = match self.channel.read(free) {
                Ok(0) => return self.eof(turn),
                Ok(read) => (read, self.process(kept + read, turn)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return State::Open,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A TLS connection that ends without close_notify.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return self.eof(turn),
                Err(error) => return self.broken(&error, turn),
            };
            if state == State::Over || !self.engine.interest().read {
                return state;
            }
            if read < space && !self.channel.buffers_input() {
                return State::Open;
            }
        }
    }

    fn process(&mut self, len: usize, turn: &mut Turn<'_>) -> State {
        let mut input = turn.buffer.get(..len).unwrap_or_default();
        let state = loop {
            let step = self.engine.on_bytes(turn.now, input);
            input = input.get(step.consumed..).unwrap_or_default();
            match step.action {
                EngineAction::Answered(answer) => {
                    self.has_answered = true;
                    answered(&mut self.in_flight, &answer, turn.now, turn.stats);
                }
                EngineAction::Failed(failure) => {
                    forget(&mut self.in_flight, failure.id);
                    turn.stats.failed(failure.error.code(), 1);
                }
                EngineAction::Unclaimed(ack) => turn.unclaimed.push(ack),
                EngineAction::Close(ended) => break self.over(&ended, turn.stats),
                EngineAction::SendFrames | EngineAction::WantBytes { .. } => break State::Open,
                _ => {}
            }
        };
        self.rest.clear();
        self.rest.extend_from_slice(input);
        state
    }

    fn eof(&mut self, turn: &mut Turn<'_>) -> State {
        let rest = std::mem::take(&mut self.rest);
        let mut input = &rest[..];
        loop {
            let step = self.engine.on_input_eof(turn.now, input);
            input = input.get(step.consumed..).unwrap_or_default();
            match step.action {
                EngineAction::Answered(answer) => {
                    answered(&mut self.in_flight, &answer, turn.now, turn.stats);
                }
                EngineAction::Close(ended) => return self.over(&ended, turn.stats),
                // A silent HAProxy keeps the connection until its requests have timed out; its replacement is better here.
                action if action.ends_input() => {
                    return self.lost("the agent closed the connection", turn.stats);
                }
                _ => {}
            }
        }
    }

    fn broken(&mut self, error: &io::Error, turn: &mut Turn<'_>) -> State {
        if let EngineAction::Close(ended) = self.engine.on_transport_error(turn.now) {
            turn.stats.failed(ended.error.code(), self.in_flight.len() as u64);
        }
        self.in_flight.clear();
        turn.stats.ended(format!("the connection broke: {}", reason(error)), 1);
        State::Over
    }

    /// The session has ended, and with it all requests in flight. Those of `async` could still be answered on another connection;
    /// they count as failed.
    fn over(&mut self, ended: &Ended, stats: &mut Stats) -> State {
        stats.failed(ended.error.code(), self.in_flight.len() as u64);
        self.in_flight.clear();
        stats.ended(ended.closed.reason.to_string(), 1);
        // A DISCONNECT in reply.
        let _ = self.channel.write(self.engine.outgoing());
        State::Over
    }

    fn lost(&mut self, reason: &str, stats: &mut Stats) -> State {
        stats.failed(257, self.in_flight.len() as u64);
        self.in_flight.clear();
        stats.ended(reason.to_owned(), 1);
        State::Over
    }

    /// Writes what is queued, as far as the socket accepts it.
    pub(super) fn write(&mut self, turn: &mut Turn<'_>) -> State {
        let result = loop {
            let outgoing = self.engine.outgoing();
            if outgoing.is_empty() {
                break self.channel.flush();
            }
            match self.channel.write(outgoing) {
                Ok(sent) => {
                    let _ = self.engine.on_sent(turn.now, sent);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                // What the agent said before it closed is still to be read.
                match self.read(turn) {
                    State::Open => self.broken(&error, turn),
                    State::Over => State::Over,
                }
            }
            _ => State::Open,
        }
    }

    /// Fails what has timed out.
    pub(super) fn check_time(&mut self, turn: &mut Turn<'_>) -> State {
        while self.engine.deadline().is_some_and(|(at, _)| at <= turn.now) {
            match self.engine.on_timeout(turn.now) {
                EngineAction::Failed(failure) => {
                    forget(&mut self.in_flight, failure.id);
                    turn.stats.failed(failure.error.code(), 1);
                }
                EngineAction::Close(ended) => return self.over(&ended, turn.stats),
                action if action.ends_input() => break,
                _ => {}
            }
        }
        State::Open
    }

    /// Offers an ACK that arrived on another connection.
    pub(super) fn claim(&mut self, ack: UnclaimedAck, turn: &mut Turn<'_>) -> Result<(), UnclaimedAck> {
        let answer = self.engine.claim(turn.now, ack)?;
        answered(&mut self.in_flight, &answer, turn.now, turn.stats);
        Ok(())
    }

    /// Ends the session as HAProxy does, without waiting.
    pub(super) fn close(mut self, now: Timestamp) {
        self.engine.disconnect(now, spop_core::Status::NORMAL);
        let _ = self.channel.write(self.engine.outgoing());
        let _ = self.channel.flush();
    }
}

fn answered(
    in_flight: &mut VecDeque<(NotifyId, Timestamp)>,
    answer: &Answer<'_>,
    now: Timestamp,
    stats: &mut Stats,
) {
    if let Some(due) = forget(in_flight, answer.id) {
        stats.answered(now.since(due));
    }
    if AckActions::lenient(&answer.payload).error().is_some() {
        stats.malformed += 1;
    }
}

/// Removes a request; the oldest is nearly always the first to be answered.
fn forget(in_flight: &mut VecDeque<(NotifyId, Timestamp)>, id: NotifyId) -> Option<Timestamp> {
    let index = in_flight.iter().position(|(other, _)| *other == id)?;
    in_flight.remove(index).map(|(_, due)| due)
}
