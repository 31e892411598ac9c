//! The TCP connections of a capture: which of them speak SPOP, and what happens on these.

mod opening;
mod spop;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, mem, net::SocketAddr, time::Duration};

use spop_core::link::Side;

pub(crate) use self::opening::proxy_header;
use self::{
    opening::{Opening, Protocol},
    spop::Spop,
};
use super::{
    event::{About, Event, What, unanswered},
    segment::Segment,
    session::{Happened, Session},
    stream::{Piece, Stream},
};

/// Connections that are followed. Beyond it those without a packet for the longest time are forgotten.
const CONNECTIONS: usize = 1 << 16;

/// Bytes that are held of all connections. One that would hold more is not decoded any further.
const HELD_MAX: usize = 256 << 20;

/// What is followed and held at most.
#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: usize,
    held: usize,
}

/// Both ends, the lower first.
type Key = (SocketAddr, SocketAddr);

fn key(a: SocketAddr, b: SocketAddr) -> Key {
    if a <= b { (a, b) } else { (b, a) }
}

/// The connections of a capture, or of a relay.
#[derive(Debug)]
pub(crate) struct Connections {
    map: HashMap<Key, Connection>,
    ports: Vec<u16>,
    held: usize,
    limits: Limits,
    /// Those that are forgotten next, the first last: at the limit, the half whose latest packets are oldest.
    forgotten: Vec<(Duration, Key)>,
    /// Those that are left at the end of the capture, the last first.
    left: Option<Vec<(Duration, Key)>>,
    pub(crate) counts: Counts,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections that speak SPOP.
    pub(crate) spop: u64,
    /// Others.
    pub(crate) others: u64,
    /// Those of them with TLS.
    pub(crate) tls: u64,
}

#[derive(Debug)]
struct Connection {
    /// What each end sends.
    streams: [Option<Stream>; 2],
    /// The time of the latest packet.
    latest: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Too little was sent to know the protocol.
    Opening(Opening),
    Spop(Box<Spop>),
    /// Another protocol, or closed.
    Ignored,
}

impl Connections {
    /// Connections to agents with these ports; without any, those that begin with a HELLO.
    pub(crate) fn new(ports: Vec<u16>) -> Self {
        let limits = Limits { connections: CONNECTIONS, held: HELD_MAX };
        Self {
            map: HashMap::new(),
            ports,
            held: 0,
            limits,
            forgotten: Vec::new(),
            left: None,
            counts: Counts::default(),
        }
    }

    /// A segment.
    pub(crate) fn segment(&mut self, time: Duration, segment: &Segment<'_>, events: &mut Vec<Event>) {
        let ports = [segment.from.port(), segment.to.port()];
        if !self.ports.is_empty() && !ports.iter().any(|port| self.ports.contains(port)) {
            return;
        }
        let key = key(segment.from, segment.to);
        let end = usize::from(key.0 != segment.from);
        let begins = segment.syn && segment.ack.is_none();
        if begins && self.map.get(&key).is_some_and(|connection| connection.is_another(end, segment)) {
            let _ = self.close(key, time, "another connection of the same ports begins", events);
        }
        if !self.map.contains_key(&key) {
            self.make_room(time, events);
            let opening = self.opening(key, end, segment.syn);
            let connection =
                Connection { streams: [None, None], latest: time, state: State::Opening(opening) };
            self.map.insert(key, connection);
        }
        let Some(connection) = self.map.get_mut(&key) else { return };
        connection.latest = connection.latest.max(time);
        if matches!(connection.state, State::Ignored) {
            return;
        }
        let before = connection.bytes();
        let mut pieces = Vec::new();
        connection.receive(end, segment, &mut pieces);
        let mut run = Run { time, key, counts: &mut self.counts, events };
        for (end, piece) in pieces {
            connection.piece(end, piece, &mut run);
        }
        if segment.rst {
            connection.reset(end, &mut run);
        } else if connection.is_ended() {
            let reason = connection.closer();
            connection.ended(reason, &mut run);
        }
        self.held = self.held + connection.bytes() - before;
        if self.held > self.limits.held {
            let reason = "too many bytes of unfinished frames: it is not decoded any further";
            if let Some(connection) = self.close(key, time, reason, events) {
                self.map.insert(key, connection);
            }
        }
    }

    /// The number of a connection whose protocol is known.
    pub(crate) fn number(&self, a: SocketAddr, b: SocketAddr) -> Option<u64> {
        match &self.map.get(&key(a, b))?.state {
            State::Spop(spop) => Some(spop.number),
            State::Opening(_) | State::Ignored => None,
        }
    }

    /// Ends a connection, if it has not ended, and forgets it.
    pub(crate) fn forget(&mut self, a: SocketAddr, b: SocketAddr, time: Duration, events: &mut Vec<Event>) {
        let _ = self.close(key(a, b), time, "by the relay", events);
    }

    /// What is known of a connection whose first packet was sent by `end`.
    fn opening(&self, key: Key, end: usize, syn: bool) -> Opening {
        let ends = [key.0.port(), key.1.port()];
        let is_agent = ends.map(|port| self.ports.contains(&port));
        let engine = match is_agent {
            _ if self.ports.is_empty() => None,
            // The one that connects.
            [true, true] => Some(end),
            [agent, _] => Some(usize::from(agent)),
        };
        Opening::new(engine, syn)
    }

    /// The capture ends: one of the connections that are left, in the order of their latest packets. False if none is left.
    pub(crate) fn finish_one(&mut self, events: &mut Vec<Event>) -> bool {
        let map = &mut self.map;
        let left = self.left.get_or_insert_with(|| {
            let mut left: Vec<_> = map.iter().map(|(key, connection)| (connection.latest, *key)).collect();
            left.sort_unstable_by(|a, b| b.cmp(a));
            left
        });
        let Some((time, key)) = left.pop() else { return false };
        if let Some(mut connection) = self.map.remove(&key) {
            let mut run = Run { time, key, counts: &mut self.counts, events };
            connection.finish(&mut run);
        }
        true
    }

    /// Removes a connection, and ends it.
    fn close(
        &mut self,
        key: Key,
        time: Duration,
        reason: &str,
        events: &mut Vec<Event>,
    ) -> Option<Connection> {
        let mut connection = self.map.remove(&key)?;
        self.held -= connection.bytes();
        let mut run = Run { time, key, counts: &mut self.counts, events };
        connection.ended(reason, &mut run);
        Some(connection)
    }

    /// Forgets a few connections at the limit: each can have a megabyte of frames behind a gap.
    fn make_room(&mut self, time: Duration, events: &mut Vec<Event>) {
        if self.map.len() < self.limits.connections {
            return;
        }
        for _ in 0..2 {
            if self.forgotten.is_empty() {
                let latest = self.map.iter().map(|(key, connection)| (connection.latest, *key));
                let mut latest: Vec<_> = latest.collect();
                latest.sort_unstable();
                latest.truncate((self.limits.connections / 2).max(1));
                latest.reverse();
                self.forgotten = latest;
            }
            while let Some((latest, key)) = self.forgotten.pop() {
                // One with a packet since stays.
                if self.map.get(&key).is_some_and(|connection| connection.latest == latest) {
                    let _ =
                        self.close(key, time, "too many connections: it is not followed any further", events);
                    break;
                }
            }
        }
    }
}

/// What a step of a connection changes beside it.
struct Run<'a> {
    time: Duration,
    key: Key,
    counts: &'a mut Counts,
    events: &'a mut Vec<Event>,
}

impl Run<'_> {
    fn event(&mut self, number: u64, what: What) {
        let event = Event { connection: number, time: self.time, what, about: About::default() };
        self.events.push(event);
    }

    fn happened(&mut self, number: u64, happened: Happened) {
        for (what, about) in happened {
            self.events.push(Event { connection: number, time: self.time, what, about });
        }
    }
}

impl Connection {
    /// Whether a SYN of this end begins another connection.
    fn is_another(&self, end: usize, segment: &Segment<'_>) -> bool {
        match self.streams.get(end).and_then(Option::as_ref) {
            Some(stream) => stream.initial() != segment.sequence.wrapping_add(1),
            // It was closed, or only the other end was seen.
            None => true,
        }
    }

    /// Bytes that are held.
    fn bytes(&self) -> usize {
        let streams: usize = self.streams.iter().flatten().map(Stream::bytes).sum();
        streams
            + match &self.state {
                State::Opening(opening) => opening.bytes(),
                State::Spop(spop) => spop.session.bytes(),
                State::Ignored => 0,
            }
    }

    fn is_ended(&self) -> bool {
        self.streams.iter().all(|stream| stream.as_ref().is_some_and(Stream::is_ended))
    }

    fn receive(&mut self, end: usize, segment: &Segment<'_>, pieces: &mut Vec<(usize, Piece)>) {
        let mut found = Vec::new();
        if let Some(ack) = segment.ack
            && let Some(Some(other)) = self.streams.get_mut(1 - end)
        {
            other.acknowledged(ack, &mut found);
        }
        pieces.extend(found.drain(..).map(|piece| (1 - end, piece)));
        let first = segment.sequence.wrapping_add(segment.syn.into());
        if let Some(stream) = self.streams.get_mut(end)
            && !(segment.rst && stream.is_none())
        {
            let stream = stream.get_or_insert_with(|| Stream::new(first));
            stream.push(first, segment.payload, segment.cut, segment.fin, &mut found);
        }
        pieces.extend(found.into_iter().map(|piece| (end, piece)));
    }

    /// What an end has sent.
    fn piece(&mut self, end: usize, piece: Piece, run: &mut Run<'_>) {
        match &mut self.state {
            State::Opening(opening) => {
                let protocol = opening.push(end, piece);
                if let Some(protocol) = protocol {
                    self.decided(protocol, run);
                }
            }
            State::Spop(spop) => {
                let is_alone = self.streams.get(1 - end).is_none_or(Option::is_none);
                spop.piece(end, piece, is_alone, run);
            }
            State::Ignored => {}
        }
    }

    fn decided(&mut self, protocol: Protocol, run: &mut Run<'_>) {
        let State::Opening(opening) = mem::replace(&mut self.state, State::Ignored) else { return };
        let (engine, session) = match protocol {
            Protocol::Spop { engine, prefix } => (engine, Session::new(prefix)),
            Protocol::Middle { engine } => (engine, Session::from_the_middle()),
            Protocol::Tls | Protocol::Other => {
                run.counts.others += 1;
                run.counts.tls += u64::from(protocol == Protocol::Tls);
                self.streams = [None, None];
                return;
            }
        };
        run.counts.spop += 1;
        let mut spop = Box::new(Spop::new(run.counts.spop, engine, session));
        let (a, b) = run.key;
        let (engine, agent) = if engine == 0 { (a, b) } else { (b, a) };
        run.event(spop.number, What::Opened { engine, agent });
        let is_alone = [1, 0].map(|other| self.streams.get(other).is_none_or(Option::is_none));
        for (end, piece) in opening.into_pieces() {
            let is_alone = is_alone.get(end).copied().unwrap_or_default();
            spop.piece(end, piece, is_alone, run);
        }
        self.state = State::Spop(spop);
    }

    /// Which side has closed first.
    fn closer(&self) -> &'static str {
        match &self.state {
            State::Spop(spop) if spop.closer == Some(Side::Engine) => "by HAProxy, then by the agent",
            _ => "by the agent, then by HAProxy",
        }
    }

    fn reset(&mut self, end: usize, run: &mut Run<'_>) {
        let by = match &self.state {
            State::Spop(spop) if spop.side(end) == Side::Engine => "reset by HAProxy",
            _ => "reset by the agent",
        };
        self.ended(by, run);
    }

    /// The connection ends, or is not followed any further.
    fn ended(&mut self, reason: &str, run: &mut Run<'_>) {
        self.flush(false, run);
        if let State::Spop(spop) = &self.state {
            let unanswered = spop.session.unanswered();
            run.event(spop.number, What::Closed { reason: reason.to_owned(), unanswered });
        }
        self.streams = [None, None];
        self.state = State::Ignored;
    }

    /// The capture ends.
    fn finish(&mut self, run: &mut Run<'_>) {
        self.flush(true, run);
        if let State::Spop(spop) = &self.state {
            let text = format!("open at the end, {}", unanswered(spop.session.unanswered()));
            run.event(spop.number, What::Note { at: None, text });
        }
    }

    /// Delivers what waits, and ends both directions.
    fn flush(&mut self, is_cut: bool, run: &mut Run<'_>) {
        let mut pieces = Vec::new();
        for (end, stream) in self.streams.iter_mut().enumerate() {
            let mut found = Vec::new();
            if let Some(stream) = stream {
                stream.finish(&mut found);
            }
            pieces.extend(found.into_iter().map(|piece| (end, piece)));
        }
        for (end, piece) in pieces {
            self.piece(end, piece, run);
        }
        match &mut self.state {
            State::Opening(opening) => {
                let protocol = opening.finish();
                self.decided(protocol, run);
            }
            State::Spop(spop) => {
                for end in [0, 1] {
                    spop.end(end, is_cut, run);
                }
            }
            State::Ignored => {}
        }
    }
}
