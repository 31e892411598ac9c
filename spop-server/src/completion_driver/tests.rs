//! Connections over operations that the test ends, in virtual time.

use std::sync::Arc;

use spop_core::{
    Actions, Clock,
    accept::{AcceptConfig, AcceptHandler, Monitor, Peer},
    notation,
};

use super::*;
use crate::{Agent, Entrance, Outcome, Request, ServerConfig, test_support::sentences};

const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async";

const WAIT: Operation = Operation::Wait(None);

/// Counts the calls, and answers with nothing.
#[derive(Default)]
struct App(usize);

impl Handler for App {
    fn handle(&mut self, _: Request<'_>) -> Outcome {
        self.0 += 1;
        Actions::new().into()
    }
}

struct Bench {
    agent: Arc<Agent>,
    driver: CompletionDriver,
    app: App,
    headroom: usize,
    now: Timestamp,
}

impl Bench {
    fn new(entrance: Option<&Arc<Entrance>>) -> Self {
        let agent = Agent::new(ServerConfig::default(), Clock::start()).unwrap();
        let conn = agent.accept(Timestamp::ZERO, Peer::unnamed(), entrance).unwrap();
        let (driver, app) = (CompletionDriver::new(conn), App::default());
        Self { agent, driver, app, headroom: 0, now: Timestamp::ZERO }
    }

    /// A connection whose handshake is done.
    fn with_session() -> Self {
        let mut bench = Self::new(None);
        bench.expect(&[Operation::Receive, WAIT]);
        bench.receive(&notation::parse_bytes(HELLO).unwrap());
        assert!(bench.send()[0].starts_with("AGENT-HELLO"));
        bench
    }

    /// The operations of a turn. It ends with `Over`, or with `WAIT`, whatever the time.
    fn turn(&mut self) -> Vec<Operation> {
        let mut operations = Vec::new();
        loop {
            match self.driver.next_operation(self.now, &mut self.app) {
                Operation::Wait(deadline) => {
                    assert_eq!(deadline, self.driver.conn().deadline());
                    operations.push(WAIT);
                    return operations;
                }
                operation => operations.push(operation),
            }
            if operations.last() == Some(&Operation::Over) {
                return operations;
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, operations: &[Operation]) {
        assert_eq!(self.turn(), operations);
    }

    fn receive(&mut self, input: &[u8]) {
        let mut buffer = [&vec![0; self.headroom], input].concat();
        self.driver.received(self.now, &mut self.app, self.headroom, Ok(&mut buffer));
    }

    fn receive_frame(&mut self, line: &str) {
        self.receive(&notation::parse_bytes(line).unwrap());
    }

    /// Ends the send of a turn, and has another turn.
    fn send(&mut self) -> Vec<String> {
        self.expect(&[Operation::Send, Operation::Receive, WAIT]);
        self.sent()
    }

    fn sent(&mut self) -> Vec<String> {
        let outgoing = self.driver.conn().outgoing().to_vec();
        self.driver.sent(self.now, &mut self.app, Ok(outgoing.len()));
        self.expect(&[WAIT]);
        sentences(&outgoing)
    }

    fn is_closed(&self) -> bool {
        self.driver.conn().closed().is_some()
    }
}

#[test]
fn input_in_pieces_is_joined_whatever_the_headroom() {
    let frame = |id| format!("NOTIFY fin {id} 1 m x=string:{}", "x".repeat(300));
    let bytes: Vec<u8> = (0..50).flat_map(|id| notation::parse_bytes(&frame(id)).unwrap()).collect();
    for (headroom, piece) in [(0, 1), (0, 1000), (100, 170), (400, 500), (4096, 7), (4096, usize::MAX)] {
        let mut bench = Bench::with_session();
        bench.headroom = headroom;
        let mut answers = 0;
        for input in bytes.chunks(piece) {
            bench.receive(input);
            match bench.turn()[..] {
                [Operation::Send, ..] => answers += bench.sent().len(),
                ref operations => assert_eq!(operations, [Operation::Receive, WAIT]),
            }
        }
        assert_eq!((bench.app.0, answers), (50, 50), "{headroom} {piece}");
        assert_eq!(bench.driver.leftover.capacity(), 0, "an idle connection holds no input");
    }
}

#[test]
fn one_send_is_under_way_and_answers_join_the_next() {
    let mut bench = Bench::with_session();
    bench.receive_frame("NOTIFY fin 1 1 m");
    bench.expect(&[Operation::Send, Operation::Receive, WAIT]);
    let first = bench.driver.conn().outgoing().len();
    for id in [2, 3] {
        bench.receive_frame(&format!("NOTIFY fin {id} 1 m"));
        bench.expect(&[Operation::Receive, WAIT]);
    }
    bench.driver.sent(bench.now, &mut bench.app, Ok(first));
    bench.expect(&[Operation::Send, WAIT]);
    assert_eq!(bench.sent(), ["ACK fin 2 1", "ACK fin 3 1"]);
}

#[test]
fn a_connection_is_over_when_its_operations_have_ended() {
    let mut bench = Bench::with_session();
    bench.receive_frame("NOTIFY fin 1 1 m");
    bench.expect(&[Operation::Send, Operation::Receive, WAIT]);
    bench.agent.handle().stop();
    bench.expect(&[Operation::Close, WAIT]);
    assert_eq!(bench.agent.handle().connections().len(), 0);
    bench.driver.sent(bench.now, &mut bench.app, Err(io::ErrorKind::BrokenPipe.into()));
    bench.expect(&[WAIT]);
    bench.receive(&[]);
    bench.expect(&[Operation::Over]);
}

#[test]
fn the_end_of_a_receive_after_the_close_is_not_the_peers() {
    let health = Monitor::new("GET /health ", "HTTP/1.0 200 OK");
    let entrance = Arc::new(Entrance::new(AcceptConfig::new().with(health).unwrap()).unwrap());
    let mut bench = Bench::new(Some(&entrance));
    bench.expect(&[Operation::Receive, WAIT]);
    bench.agent.handle().stop();
    bench.expect(&[Operation::Close, WAIT]);
    // Which the close leads to.
    bench.receive(&[]);
    let stats = bench.agent.stats();
    assert_eq!((stats.rejected, stats.probes), (0, 0));
    bench.expect(&[Operation::Over]);
}

#[test]
fn a_stop_sends_what_is_queued() {
    let mut bench = Bench::with_session();
    bench.agent.handle().stop();
    bench.expect(&[Operation::Send, Operation::Close, WAIT]);
}

#[test]
fn a_drain_looks_for_input_before_it_disconnects() {
    let mut bench = Bench::with_session();
    bench.agent.handle().drain();
    bench.expect(&[WAIT]);
    bench.now = bench.driver.conn().deadline().unwrap();
    for _ in 0..2 {
        bench.expect(&[Operation::Peek, WAIT]);
        assert!(!bench.is_closed());
    }
    bench.driver.peeked(bench.now, &mut bench.app, true);
    bench.expect(&[Operation::Send, WAIT]);
    assert!(bench.sent()[0].starts_with("AGENT-DISCONNECT"));
    // The peer closes first.
    bench.receive(&[]);
    bench.expect(&[Operation::ShutWrite, Operation::Close, Operation::Over]);
}

#[test]
fn an_interrupted_receive_is_started_again_and_a_failed_one_ends_the_session() {
    let mut bench = Bench::with_session();
    for (error, closes) in [(io::ErrorKind::Interrupted, false), (io::ErrorKind::ConnectionReset, true)] {
        bench.driver.received(bench.now, &mut bench.app, 0, Err(error.into()));
        assert_eq!(bench.is_closed(), closes);
        if !closes {
            bench.expect(&[Operation::Receive, WAIT]);
        }
    }
    bench.expect(&[Operation::Close, Operation::Over]);
}

#[test]
fn timers_run_and_faulty_results_end_the_session() {
    let mut bench = Bench::new(None);
    bench.expect(&[Operation::Receive, WAIT]);
    bench.now = bench.driver.conn().deadline().unwrap();
    bench.expect(&[Operation::Send, WAIT]);
    assert!(bench.sent()[0].starts_with("AGENT-DISCONNECT"), "the hello timeout");
    for result in [0, 10_000] {
        let mut bench = Bench::with_session();
        bench.receive_frame("NOTIFY fin 1 1 m");
        bench.expect(&[Operation::Send, Operation::Receive, WAIT]);
        bench.driver.sent(bench.now, &mut bench.app, Ok(result));
        assert!(bench.is_closed(), "{result}");
    }
}

#[test]
fn a_connection_that_needs_tls_is_rejected() {
    let config = AcceptConfig::new().with(AcceptHandler::Tls).unwrap().checked().unwrap();
    let entrance = Entrance { config: Arc::new(config), ..Entrance::new(AcceptConfig::new()).unwrap() };
    let mut bench = Bench::new(Some(&Arc::new(entrance)));
    bench.expect(&[Operation::Close, Operation::Over]);
    assert_eq!(bench.agent.stats().rejected, 1);
}
