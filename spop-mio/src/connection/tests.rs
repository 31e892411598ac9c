use std::{
    io::{Read, Write},
    sync::Arc,
};

use spop_core::{Actions, ConnectionId, Status, frame::Frame, link::Layers, notation};

use super::*;

const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async";

/// A peer in memory.
#[derive(Default)]
struct Peer {
    sends: Vec<u8>,
    /// How much one read takes, and how much can be written.
    piece: usize,
    room: usize,
    received: Vec<u8>,
    closed: bool,
    shut: Vec<Layer>,
    /// How many attempts to shut it would block.
    blocks: usize,
    /// How many bytes a write claims to have written beyond those it was given.
    claims: usize,
}

impl Read for Peer {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.sends.is_empty() && !self.closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = room.len().min(self.piece).min(self.sends.len());
        room[..n].copy_from_slice(&self.sends[..n]);
        self.sends.drain(..n);
        Ok(n)
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(self.room);
        self.room -= n;
        self.received.extend_from_slice(&bytes[..n]);
        Ok(n + self.claims)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Peer {
    fn shut_write(&mut self, layer: Layer) -> io::Result<()> {
        if let Some(left) = self.blocks.checked_sub(1) {
            self.blocks = left;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.shut.push(layer);
        Ok(())
    }
}

struct Bench {
    connection: Connection<Peer>,
    buffer: ReadBuffer,
    asked: usize,
    closed: Vec<String>,
}

impl Bench {
    fn new(piece: usize) -> Self {
        Self::layered(piece, Layers::Plain)
    }

    fn layered(piece: usize, layers: Layers) -> Self {
        let peer = Peer { piece, room: usize::MAX, ..Peer::default() };
        let config = Arc::default();
        let reactor = AgentReactor::new(config, ConnectionId(1), Timestamp::ZERO).with_layers(layers);
        let connection = Connection::new(peer, reactor);
        let mut bench = Self { connection, buffer: ReadBuffer::new(), asked: 0, closed: Vec::new() };
        bench.send(HELLO);
        while bench.turn(0) == Turn::Again {}
        bench
    }

    fn send(&mut self, line: &str) {
        self.connection.stream_mut().sends.extend(notation::parse_bytes(line).unwrap());
        self.connection.ready(true, false);
    }

    fn turn(&mut self, millis: u64) -> Turn {
        let now = Timestamp::from_millis(millis);
        let Self { connection, buffer, asked, closed } = self;
        connection.turn(now, buffer, |reactor, action| match action {
            Action::RunMessages(notify) => {
                *asked += 1;
                reactor.acknowledge(now, notify.ticket, &Actions::new()).unwrap();
            }
            Action::Close(reason) => closed.push(reason.to_string()),
            _ => {}
        })
    }

    /// What the peer has received since it was last asked, as sentences.
    fn received(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut self.connection.stream_mut().received);
        let mut frames = &bytes[..];
        let mut sentences = Vec::new();
        while let Some((length, rest)) = frames.split_first_chunk::<4>() {
            let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            sentences.push(notation::print(Frame::decode(frame).unwrap()).to_string());
            frames = rest;
        }
        sentences
    }
}

#[test]
fn a_turn_has_an_end() {
    let mut bench = Bench::new(10);
    for id in 0..1000 {
        bench.send(&format!("NOTIFY fin {id} 1 m"));
    }
    let mut turns = 1;
    while bench.turn(1) == Turn::Again {
        turns += 1;
    }
    assert_eq!(bench.asked, 1000);
    assert!(turns > 50, "{turns}");
}

#[test]
fn what_cannot_be_written_waits_and_stops_the_reading() {
    let mut bench = Bench::new(usize::MAX);
    bench.connection.stream_mut().room = 5;
    for id in 0..1000 {
        bench.send(&format!("NOTIFY fin {id} 1 m"));
    }
    assert_eq!(bench.turn(1), Turn::Wait);
    assert!(bench.connection.wants_write());
    assert_eq!(bench.asked, 256, "the limit in flight");
    bench.connection.stream_mut().room = usize::MAX;
    assert_eq!(bench.turn(2), Turn::Wait, "nobody said that it is writable");
    bench.connection.ready(false, true);
    while bench.turn(3) == Turn::Again {}
    assert_eq!(bench.asked, 1000);
    assert!(!bench.connection.wants_write());
}

#[test]
fn an_idle_connection_has_one_turn_to_give_memory_back() {
    let mut bench = Bench::new(usize::MAX);
    let idle = Timestamp::from_millis(600_000);
    for id in 0..60 {
        bench.send(&format!("NOTIFY fin {id} 1 m"));
    }
    assert_eq!(bench.turn(0), Turn::Wait);
    assert_eq!(
        bench.connection.deadline(),
        Some(idle),
        "after its first answers it has given it back at once"
    );
    for id in 60..63 {
        bench.send(&format!("NOTIFY fin {id} 1 m"));
        assert_eq!(bench.turn(0), Turn::Wait);
    }
    assert_eq!(bench.connection.deadline(), Some(Timestamp::from_millis(1000)));
    assert_eq!(bench.turn(1000), Turn::Wait);
    assert_eq!(bench.connection.deadline(), Some(idle));
}

#[test]
fn a_shut_that_would_block_is_tried_again_when_the_stream_is_writable() {
    let mut bench = Bench::layered(usize::MAX, Layers::Data);
    bench.connection.stream_mut().blocks = 2;
    bench.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:x");
    assert_eq!(bench.turn(0), Turn::Wait);
    assert_eq!(bench.turn(1_000), Turn::Wait, "the peer has not closed");
    assert!(bench.connection.wants_write());
    assert_eq!(bench.turn(1_001), Turn::Wait, "nobody said that it is writable");
    assert_eq!(bench.connection.stream().blocks, 1);
    for (shut, turn) in [(&[][..], Turn::Wait), (&[Layer::Data, Layer::Transport], Turn::Over)] {
        bench.connection.ready(false, true);
        assert_eq!(bench.turn(1_002), turn);
        assert_eq!(bench.connection.stream().shut, shut);
    }
    assert!(!bench.connection.wants_write());
}

#[test]
fn a_shut_of_the_transport_that_would_block_does_not_hold_the_thread() {
    let mut bench = Bench::new(usize::MAX);
    bench.connection.stream_mut().blocks = usize::MAX;
    bench.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:x");
    assert_eq!(bench.turn(0), Turn::Wait);
    assert_eq!(bench.turn(1_000), Turn::Wait, "the peer has not closed");
    assert!(bench.connection.wants_write());
    while bench.turn(10_000) == Turn::Again {}
    assert!(usize::MAX - bench.connection.stream().blocks < 10);
}

#[test]
fn an_ended_session_waits_for_the_peer_before_it_shuts() {
    for closes in [true, false] {
        let mut bench = Bench::new(usize::MAX);
        bench.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:x");
        assert_eq!(bench.turn(1), Turn::Wait);
        assert_eq!(bench.connection.stream().shut, []);
        bench.connection.stream_mut().closed = closes;
        bench.connection.ready(true, false);
        assert_eq!(bench.turn(if closes { 2 } else { 1_001 }), Turn::Over, "closed, or the linger timer");
        assert_eq!(bench.connection.stream().shut, [Layer::Transport]);
    }
}

#[test]
fn a_decision_between_turns_has_its_consequence_in_the_next() {
    let mut bench = Bench::new(usize::MAX);
    bench.received();
    // Half of a frame is left from before, and some of what waits in the socket is never looked at.
    let notify = notation::parse_bytes("NOTIFY fin 1 1 m").unwrap();
    bench.connection.stream_mut().sends.extend(&notify[..10]);
    bench.connection.ready(true, false);
    assert_eq!(bench.turn(1), Turn::Wait);
    bench.connection.reactor_mut().disconnect(Timestamp::from_millis(2), Status::RESOURCE, "enough");
    assert_eq!(bench.turn(2), Turn::Wait);
    assert_eq!(bench.closed.len(), 1, "{:?}", bench.closed);
    assert_eq!(bench.received(), ["AGENT-DISCONNECT fin 0 0 status-code=uint32:13 message=string:enough"]);
    assert_eq!(bench.connection.leftover.unused(), []);
    bench.connection.stream_mut().closed = true;
    bench.connection.ready(true, false);
    assert_eq!(bench.turn(3), Turn::Over);
    assert_eq!((bench.asked, bench.closed.len()), (0, 1));
}

#[test]
fn a_drain_reads_once_more_before_it_disconnects() {
    for arrives in [false, true] {
        let mut bench = Bench::new(usize::MAX);
        bench.received();
        bench.connection.reactor_mut().drain(Timestamp::from_millis(1));
        assert_eq!(bench.turn(1), Turn::Wait);
        if arrives {
            // Nothing reports it.
            bench.send("NOTIFY fin 1 1 m");
            bench.connection.readable = false;
        }
        let moment = bench.connection.deadline().unwrap();
        assert_eq!(bench.turn(moment.as_nanos() / 1_000_000), Turn::Wait);
        let sent = bench.received();
        if arrives {
            assert_eq!((bench.asked, bench.closed.len()), (1, 0), "{sent:?}");
        } else {
            assert!(sent.len() == 1 && sent[0].starts_with("AGENT-DISCONNECT"), "{sent:?}");
            assert_eq!(bench.closed.len(), 1);
        }
    }
}

#[test]
fn a_stream_that_claims_to_have_written_too_much_is_broken() {
    let mut bench = Bench::new(usize::MAX);
    bench.connection.stream_mut().claims = 1;
    bench.send("NOTIFY fin 1 1 m");
    assert_eq!(bench.turn(1), Turn::Over);
    assert_eq!(bench.closed.len(), 1, "{:?}", bench.closed);
}

#[test]
fn only_a_connection_with_a_frame_under_way_holds_input() {
    let mut bench = Bench::new(usize::MAX);
    let notify = notation::parse_bytes(&format!("NOTIFY fin 1 1 m x=string:{}", "x".repeat(9_000))).unwrap();
    for (at, piece) in notify.chunks(1_000).enumerate() {
        assert_eq!(bench.connection.leftover.unused().len(), at * 1_000);
        bench.connection.stream_mut().sends.extend(piece);
        bench.connection.ready(true, false);
        assert_eq!(bench.turn(1), Turn::Wait);
    }
    assert_eq!((bench.asked, bench.connection.leftover.capacity()), (1, 0));
}
