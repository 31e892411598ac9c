use std::{
    io::{Read, Write},
    sync::Arc,
};

use spop_core::{Actions, ConnectionId, link::Layers, notation};

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
        Ok(n)
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
        let mut bench = Self { connection, buffer: ReadBuffer::new(), asked: 0 };
        bench.send(HELLO);
        while bench.turn(0) == Turn::Again {}
        bench
    }

    fn send(&mut self, line: &str) {
        self.connection.stream_mut().sends.extend(notation::parse_bytes(line).unwrap());
        self.connection.ready(true, false);
    }

    fn turn(&mut self, millis: u64) -> Turn {
        let (now, asked) = (Timestamp::from_millis(millis), &mut self.asked);
        self.connection.turn(now, &mut self.buffer, |reactor, action| {
            if let Action::RunMessages(notify) = action {
                *asked += 1;
                reactor.acknowledge(now, notify.ticket, &Actions::new()).unwrap();
            }
        })
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
fn after_a_burst_it_is_tidied_up_once() {
    let mut bench = Bench::new(usize::MAX);
    let idle = Timestamp::from_millis(600_000);
    for id in 0..60 {
        bench.send(&format!("NOTIFY fin {id} 1 m"));
    }
    assert_eq!(bench.turn(0), Turn::Wait);
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
