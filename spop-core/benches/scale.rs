//! The cost of a NOTIFY by the number of requests in flight, and by the number of arguments. Both should be linear.
//! `cargo bench -p spop-core --bench scale`
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, ConnectionId, Scope, Step, Ticket, Timestamp,
    frame::{Flags, FrameType, Header, Ids, put_frame, put_message},
    notation,
    wire::Value,
};

const RUNS: usize = 200;
/// The pacing interval between two bursts of answers.
const PAUSE: Duration = Duration::from_millis(1);

fn main() {
    println!("in flight   ns per NOTIFY");
    for in_flight in [1, 4, 8, 9, 16, 64, 256, 1_000] {
        println!("{in_flight:>9}   {:>13.1}", best(in_flight, 2) / in_flight as f64);
    }
    println!("arguments   ns per NOTIFY   ns per argument");
    let least = best(1, 0);
    for arguments in [1, 2, 4, 16, 64, 255] {
        let time = best(1, arguments);
        println!("{arguments:>9}   {time:>13.1}   {:>15.1}", (time - least) / arguments as f64);
    }
}

/// Nanoseconds for a read of `in_flight` NOTIFYs, all answered after the last has arrived, with this many arguments each.
fn best(in_flight: usize, arguments: usize) -> f64 {
    let mut config = AgentConfig::default();
    config.limits.max_in_flight = in_flight + 1;
    let mut now = Timestamp::ZERO;
    let mut agent = AgentReactor::new(Arc::new(config.checked().unwrap()), ConnectionId(1), now);
    let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining,async";
    let _ = agent.on_bytes(now, &notation::parse_bytes(hello).unwrap());
    let _ = agent.on_sent(now, agent.outgoing().len()).unwrap();

    let mut payload = Vec::new();
    put_message(&mut payload, "check", vec![("name", Value::String(b"a short text")); arguments]);
    let mut bytes = Vec::new();
    for stream in 0..in_flight as u64 {
        let ids = Ids::new(70_000 + stream, 1);
        put_frame(&mut bytes, Header { frame_type: FrameType::Notify, flags: Flags::FIN, ids }, &payload);
    }

    let mut tickets: Vec<Ticket> = Vec::new();
    let repeat = 1_000 / in_flight;
    let mut best = f64::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..repeat {
            let mut input = &bytes[..];
            while let Step { consumed, action: Action::RunMessages(notify) } = agent.on_bytes(now, input) {
                input = &input[consumed..];
                for message in notify.messages() {
                    for argument in message.args() {
                        black_box(argument);
                    }
                }
                tickets.push(notify.ticket);
            }
            assert_eq!(tickets.len(), in_flight);
            for ticket in tickets.drain(..) {
                let mut actions = Actions::new();
                actions.set_var(Scope::Session, "ip_score", black_box(42_i32));
                agent.acknowledge(now, ticket, &actions).unwrap();
            }
            while agent.outgoing_bytes() > 0 {
                let _ = agent.on_sent(now, agent.outgoing().len()).unwrap();
                now = now + PAUSE;
                let _ = agent.on_timeout(now);
            }
        }
        best = best.min(start.elapsed().as_nanos() as f64 / repeat as f64);
    }
    best
}
