//! Connections over a stream in memory, in virtual time.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use spop_core::{Actions, Clock, Status, accept::Peer, agent::Reply, notation};

use super::*;
use crate::{Agent, Conn, Handler, Outcome, Request, Responder, ServerConfig, test_support::sentences};

const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async";

/// A stream in memory, and what its peer does.
#[derive(Default)]
struct Memory {
    sends: Vec<u8>,
    /// How much one read returns, and how much can be written.
    piece: usize,
    space: usize,
    received: Vec<u8>,
    closed: bool,
    /// The write side was shut.
    shut: bool,
    /// How many attempts to shut it would block.
    blocks: usize,
    /// How many bytes a write claims to have written beyond those it was given.
    claims: usize,
}

impl Read for Memory {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.sends.is_empty() && !self.closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = space.len().min(self.piece).min(self.sends.len());
        space[..n].copy_from_slice(&self.sends[..n]);
        self.sends.drain(..n);
        Ok(n)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.space == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(self.space);
        self.space -= n;
        self.received.extend_from_slice(&bytes[..n]);
        Ok(n + self.claims)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Memory {
    fn shut_write(&mut self) -> io::Result<()> {
        if let Some(left) = self.blocks.checked_sub(1) {
            self.blocks = left;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.shut = true;
        Ok(())
    }
}

/// Answers with nothing; `later` is left to the test.
#[derive(Default)]
struct App {
    called: usize,
    deferred: Option<Responder>,
}

impl Handler for App {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        self.called += 1;
        if request.message("later").is_some() {
            return request.defer(|responder| self.deferred = Some(responder));
        }
        Actions::new().into()
    }
}

/// A connection whose handshake is done.
struct Bench {
    agent: Arc<Agent>,
    driver: Driver<Conn>,
    stream: Memory,
    buffer: ReadBuffer,
    app: App,
}

impl Bench {
    fn new(piece: usize) -> Self {
        let agent = Agent::new(ServerConfig::default(), Clock::start()).unwrap();
        let conn = agent.accept(Timestamp::ZERO, Peer::unnamed(), None).unwrap();
        let stream = Memory { piece, space: usize::MAX, ..Memory::default() };
        let (driver, buffer, app) = (Driver::new(conn), ReadBuffer::new(), App::default());
        let mut bench = Self { agent, driver, stream, buffer, app };
        bench.send(HELLO);
        while bench.turn(0) == Turn::Again {}
        bench
    }

    fn send(&mut self, line: &str) {
        self.stream.sends.extend(notation::parse_bytes(line).unwrap());
        self.driver.ready(true, false);
    }

    fn turn(&mut self, millis: u64) -> Turn {
        let now = Timestamp::from_millis(millis);
        self.driver.turn(now, Some(&mut self.stream), &mut self.buffer, &mut self.app)
    }

    fn wants_write(&self) -> bool {
        self.driver.wants_write::<App>()
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.driver.protocol().deadline()
    }

    fn is_closed(&self) -> bool {
        self.driver.protocol().closed().is_some()
    }

    /// What the peer has received since the last call, as sentences.
    fn received(&mut self) -> Vec<String> {
        sentences(&std::mem::take(&mut self.stream.received))
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
    assert_eq!(bench.app.called, 1000);
    assert!(turns > 50, "{turns}");
}

#[test]
fn a_turn_has_an_end_in_frames_and_in_bytes() {
    let mut bench = Bench::new(usize::MAX);
    bench.stream.sends.extend(notation::parse_bytes("NOTIFY - 1 1").unwrap());
    let empty = notation::parse_bytes("UNSET - 1 1").unwrap();
    bench.stream.sends.extend(empty.repeat((1 << 20) / empty.len()));
    bench.driver.ready(true, false);
    let mut turns = 0;
    loop {
        let before = bench.stream.sends.len();
        let turn = bench.turn(1);
        assert!(before - bench.stream.sends.len() <= 2 * 64 * 1024, "one read more than the budget");
        turns += 1;
        if turn != Turn::Again {
            break;
        }
    }
    assert!(turns > (1 << 20) / empty.len() / 70, "{turns} turns");
}

#[test]
fn what_cannot_be_written_waits_and_stops_reading() {
    let mut bench = Bench::new(usize::MAX);
    bench.stream.space = 5;
    for id in 0..1000 {
        bench.send(&format!("NOTIFY fin {id} 1 m"));
    }
    while bench.turn(1) == Turn::Again {}
    assert!(bench.wants_write());
    assert_eq!(bench.app.called, 256, "the limit in flight");
    bench.stream.space = usize::MAX;
    assert_eq!(bench.turn(2), Turn::Wait, "it was not reported writable");
    bench.driver.ready(false, true);
    while bench.turn(3) == Turn::Again {}
    assert_eq!(bench.app.called, 1000);
    assert!(!bench.wants_write());
}

#[test]
fn an_idle_connection_has_one_turn_to_give_memory_back() {
    let mut bench = Bench::new(usize::MAX);
    let idle = Timestamp::from_millis(600_000);
    for id in 0..60 {
        bench.send(&format!("NOTIFY fin {id} 1 m"));
    }
    assert_eq!(bench.turn(0), Turn::Wait);
    assert_eq!(bench.deadline(), Some(idle), "after its first answers it has given it back at once");
    for id in 60..63 {
        bench.send(&format!("NOTIFY fin {id} 1 m"));
        assert_eq!(bench.turn(0), Turn::Wait);
    }
    assert_eq!(bench.deadline(), Some(Timestamp::from_millis(1000)));
    assert_eq!(bench.turn(1000), Turn::Wait);
    assert_eq!(bench.deadline(), Some(idle));
}

#[test]
fn what_has_arrived_comes_before_a_deadline_that_has_passed() {
    let frame = notation::parse_bytes("NOTIFY fin 1 1 m").unwrap();
    for begun in [0, 5] {
        let mut bench = Bench::new(usize::MAX);
        bench.received();
        bench.stream.sends.extend(&frame[..begun]);
        bench.driver.ready(true, false);
        assert_eq!(bench.turn(0), Turn::Wait);
        // The idle time, or that of the frame, is long over when the rest is read.
        bench.stream.sends.extend(&frame[begun..]);
        bench.driver.ready(true, false);
        assert_eq!(bench.turn(700_000), Turn::Wait);
        assert_eq!(bench.received(), ["ACK fin 1 1"], "{begun} bytes were early");
        assert!(!bench.is_closed());
    }
}

#[test]
fn a_shut_that_would_block_is_tried_again_when_the_stream_is_writable() {
    let mut bench = Bench::new(usize::MAX);
    bench.stream.blocks = 2;
    bench.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:x");
    assert_eq!(bench.turn(0), Turn::Wait);
    assert_eq!(bench.turn(1_000), Turn::Wait, "the peer has not closed");
    assert!(bench.wants_write());
    assert_eq!(bench.turn(1_001), Turn::Wait, "it was not reported writable");
    assert_eq!(bench.stream.blocks, 1);
    for (shut, turn) in [(false, Turn::Wait), (true, Turn::Over)] {
        bench.driver.ready(false, true);
        assert_eq!(bench.turn(1_002), turn);
        assert_eq!(bench.stream.shut, shut);
    }
    assert!(!bench.wants_write());
}

#[test]
fn a_shut_that_always_blocks_does_not_spin() {
    let mut bench = Bench::new(usize::MAX);
    bench.stream.blocks = usize::MAX;
    bench.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:x");
    assert_eq!(bench.turn(0), Turn::Wait);
    assert_eq!(bench.turn(1_000), Turn::Wait, "the peer has not closed");
    assert!(bench.wants_write());
    while bench.turn(10_000) == Turn::Again {}
    assert!(usize::MAX - bench.stream.blocks < 10);
}

#[test]
fn an_ended_session_waits_for_the_peer_before_it_shuts() {
    for closes in [true, false] {
        let mut bench = Bench::new(usize::MAX);
        bench.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:x");
        assert_eq!(bench.turn(1), Turn::Wait);
        assert!(!bench.stream.shut);
        bench.stream.closed = closes;
        bench.driver.ready(true, false);
        assert_eq!(bench.turn(if closes { 2 } else { 1_001 }), Turn::Over, "closed, or the linger timer");
        assert!(bench.stream.shut);
    }
}

#[test]
fn a_decision_between_turns_has_its_consequence_in_the_next() {
    let mut bench = Bench::new(usize::MAX);
    bench.send("NOTIFY fin 0 1 later");
    assert_eq!(bench.turn(0), Turn::Wait);
    bench.received();
    // Half of a frame is left from before, and some of what waits in the socket is never read.
    let notify = notation::parse_bytes("NOTIFY fin 1 1 m").unwrap();
    bench.stream.sends.extend(&notify[..10]);
    bench.driver.ready(true, false);
    assert_eq!(bench.turn(1), Turn::Wait);
    let responder = bench.app.deferred.take().unwrap();
    responder.reply(Reply::Disconnect { status: Status::RESOURCE, message: "enough".into() });
    assert_eq!(bench.turn(2), Turn::Wait);
    assert!(bench.is_closed());
    assert_eq!(bench.received(), ["AGENT-DISCONNECT fin 0 0 status-code=uint32:13 message=string:enough"]);
    bench.stream.closed = true;
    bench.driver.ready(true, false);
    assert_eq!(bench.turn(3), Turn::Over);
    assert_eq!(bench.app.called, 1);
}

#[test]
fn a_drain_reads_once_more_before_it_disconnects() {
    for arrives in [false, true] {
        let mut bench = Bench::new(usize::MAX);
        bench.received();
        bench.agent.handle().drain();
        assert_eq!(bench.turn(1), Turn::Wait);
        if arrives {
            // It is not reported.
            bench.send("NOTIFY fin 1 1 m");
            bench.driver.readable = false;
        }
        let moment = bench.deadline().unwrap();
        assert_eq!(bench.turn(moment.as_nanos() / 1_000_000), Turn::Wait);
        let sent = bench.received();
        if arrives {
            assert_eq!((bench.app.called, bench.is_closed()), (1, false), "{sent:?}");
        } else {
            assert!(sent.len() == 1 && sent[0].starts_with("AGENT-DISCONNECT"), "{sent:?}");
            assert!(bench.is_closed());
        }
    }
}

#[test]
fn a_stream_that_claims_to_have_written_too_much_is_broken() {
    let mut bench = Bench::new(usize::MAX);
    bench.stream.claims = 1;
    bench.send("NOTIFY fin 1 1 m");
    assert_eq!(bench.turn(1), Turn::Over);
    assert!(bench.is_closed());
}

#[test]
fn only_a_connection_with_a_frame_under_way_holds_input() {
    let mut bench = Bench::new(usize::MAX);
    let notify = notation::parse_bytes(&format!("NOTIFY fin 1 1 m x=string:{}", "x".repeat(9_000))).unwrap();
    for (at, piece) in notify.chunks(1_000).enumerate() {
        assert_eq!(bench.driver.leftover.unused().len(), at * 1_000);
        bench.stream.sends.extend(piece);
        bench.driver.ready(true, false);
        assert_eq!(bench.turn(1), Turn::Wait);
    }
    assert_eq!((bench.app.called, bench.driver.leftover.capacity()), (1, 0));
}
