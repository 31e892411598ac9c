//! The instructions of a pool per request, by the number of its connections, counted by valgrind's callgrind. They should not grow.
//!
//! `cargo bench -p spop-core --bench pool` compares with the recorded figures of `pool.txt`; `-- --record` writes the file.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod callgrind;

use std::{hint::black_box, process::ExitCode};

use callgrind::{counted, record};
use spop_core::{
    ConnectionId, EngineConfig, MessageList, Timestamp,
    engine::pool::{Pool, PoolAction, PoolConfig},
    frame::{Flags, FrameType, Header, Ids, put_frame},
    notation,
};

const CONNECTIONS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// The requests in flight on each connection; 0 is one on all connections together.
const DEPTHS: [usize; 3] = [0, 1, 16];
const REQUESTS: usize = 200;
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pool.txt");

fn main() -> ExitCode {
    if callgrind::is_counted() {
        for depth in DEPTHS {
            for connections in CONNECTIONS {
                let mut load = Load::new(connections, depth);
                load.requests(REQUESTS);
                counted(&mut || load.requests(REQUESTS));
            }
        }
        return ExitCode::SUCCESS;
    }
    let totals = callgrind::counts();
    let mut table =
        String::from("# Instructions of the pool per request, its three inputs included.\n# connections");
    table += "  1 in flight  1 on each  16 on each\n";
    for (row, connections) in CONNECTIONS.iter().enumerate() {
        let of = |depth: usize| totals[depth * CONNECTIONS.len() + row] / REQUESTS as u64;
        let row = format!("{connections:>13} {:>12} {:>10} {:>11}\n", of(0), of(1), of(2));
        table += &row;
    }
    record::check(RECORD, &table, |row| {
        let (connections, figures) = row.split_at(13);
        (connections.trim(), figures.split_whitespace().map(|figure| figure.parse().unwrap()).collect())
    })
}

/// A pool whose agent answers the oldest request whenever another is sent.
struct Load {
    pool: Pool,
    now: Timestamp,
    messages: MessageList,
    /// The ACK of each request in flight.
    acks: Vec<Vec<u8>>,
    /// The connection of each request in flight.
    asked_on: Vec<ConnectionId>,
    next: usize,
}

impl Load {
    fn new(connections: usize, depth: usize) -> Self {
        let mut engine = EngineConfig::default();
        engine.max_waiting_frames = depth.max(1);
        let mut config = PoolConfig::new(engine, 1);
        config.max_connections = connections;
        config.max_queue = usize::MAX;
        let mut messages = MessageList::new();
        messages.message("check").arg("ip", "203.0.113.7").arg("port", 443_u32);
        // As many as fill all connections.
        let filling = connections * depth.max(1);
        let ack = |request: usize| {
            let (mut ack, ids) = (Vec::new(), ids(request));
            put_frame(&mut ack, Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids }, &[]);
            ack
        };
        let mut load = Self {
            pool: Pool::new(config.checked().unwrap(), Timestamp::ZERO),
            now: Timestamp::ZERO,
            messages,
            acks: (0..filling).map(ack).collect(),
            asked_on: vec![ConnectionId(0); filling],
            next: 0,
        };
        for request in 0..filling {
            load.pool.ask(load.now, Some(ids(request)), &load.messages).unwrap();
        }
        let hello = "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining";
        let hello = notation::parse_bytes(hello).unwrap();
        let mut opened = Vec::new();
        while let Some(action) = load.pool.next_action() {
            if let PoolAction::Open { connection, .. } = action {
                opened.push(connection);
            }
        }
        assert_eq!(opened.len(), connections);
        for (number, connection) in opened.into_iter().enumerate() {
            load.pool.on_open(load.now, connection);
            load.flush(connection);
            load.pool.on_bytes(load.now, connection, &hello);
            load.flush(connection);
            load.asked_on[number * depth.max(1)..][..depth.max(1)].fill(connection);
            while load.pool.next_action().is_some() {}
        }
        assert_eq!((load.pool.queued(), load.pool.waiting()), (0, filling));
        if depth == 0 {
            for request in 1..filling {
                load.answer(request);
            }
            load.acks.truncate(1);
            load.asked_on.truncate(1);
        }
        load
    }

    fn flush(&mut self, connection: ConnectionId) {
        let interest = self.pool.interest(connection);
        if interest.write {
            let sent = black_box(self.pool.outgoing(connection)).len();
            self.pool.on_sent(self.now, connection, sent).unwrap();
        }
    }

    fn answer(&mut self, request: usize) {
        let used = self.pool.on_bytes(self.now, self.asked_on[request], &self.acks[request]);
        assert_eq!(used, self.acks[request].len());
        let mut answers = 0;
        while let Some(action) = self.pool.next_action() {
            answers += usize::from(matches!(action, PoolAction::Answered { .. }));
        }
        assert_eq!(answers, 1);
        black_box(self.pool.deadline());
    }

    /// Answers the oldest request and sends another, so many times.
    fn requests(&mut self, count: usize) {
        for _ in 0..count {
            self.now = self.now + std::time::Duration::from_micros(1);
            let request = self.next;
            self.next = (self.next + 1) % self.acks.len();
            self.answer(request);
            self.pool.ask(self.now, Some(ids(request)), &self.messages).unwrap();
            while let Some(action) = self.pool.next_action() {
                if let PoolAction::Drive(connection) = action {
                    self.asked_on[request] = connection;
                }
            }
            black_box(self.pool.deadline());
            self.flush(self.asked_on[request]);
            while self.pool.next_action().is_some() {}
            black_box(self.pool.deadline());
        }
    }
}

fn ids(request: usize) -> Ids {
    Ids::new(70_000 + request as u64, 1)
}
