//! What each byte of a peer costs at most: the instructions per byte of many shapes of input, counted by valgrind's callgrind.
//!
//! None may cost more than ten times as much per byte as an ordinary NOTIFY. A new connection may cost ten handshakes as well,
//! and a read of one byte ten NOTIFYs. `cargo bench -p spop-core --bench cost` prints the table and fails above the bound.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod callgrind;
#[path = "cost/peer.rs"]
mod peer;
#[path = "cost/shapes.rs"]
mod shapes;

use std::process::ExitCode;

use callgrind::counted;
use peer::Peer;
use shapes::{SHAPES, Shape};

fn main() -> ExitCode {
    if callgrind::is_counted() {
        // A number counts one shape only: with `callgrind_annotate`, that shows where the instructions are.
        let only: Option<usize> = std::env::args().find_map(|arg| arg.parse().ok());
        for (_, shape) in
            SHAPES.iter().enumerate().filter(|(index, _)| only.is_none_or(|only| only == *index))
        {
            run(shape);
        }
        return ExitCode::SUCCESS;
    }
    let costs = callgrind::counts();
    assert_eq!(costs.len(), SHAPES.len());
    let per_byte = |index: usize| costs[index] as f64 / shapes::bytes(&SHAPES[index]) as f64;
    // The first two are what the others are compared with.
    let (notify, handshake) = (per_byte(0), costs[1] as f64 / SHAPES[1].connections as f64);
    let mut code = ExitCode::SUCCESS;
    println!("{:<58} {:>9} {:>17} {:>9}", "input", "bytes", "instructions/byte", "ratio");
    for (index, shape) in SHAPES.iter().enumerate() {
        let bytes = shapes::bytes(shape) as f64;
        // Of new connections, each may cost a handshake as well; of reads, each a NOTIFY.
        let opened = if shape.connections > 1 { handshake * shape.connections as f64 } else { 0.0 };
        let read = if shape.read == 1 { bytes * notify * 92.0 } else { 0.0 };
        let ratio = costs[index] as f64 / (notify * bytes + opened + read);
        println!("{:<58} {bytes:>9} {:>17.1} {ratio:>9.2}", shape.name, per_byte(index));
        if ratio > shape.bound {
            println!("above the bound: {}", shape.name);
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Feeds the shape to its connections, and counts that.
fn run(shape: &Shape) {
    let (before, input) = ((shape.before)(), (shape.input)());
    let mut peers: Vec<_> = (0..shape.connections).map(|_| Peer::prepare(shape, &before)).collect();
    counted(&mut || {
        for peer in &mut peers {
            peer.feed(&input);
        }
    });
    for peer in peers {
        (shape.check)(&peer);
    }
}
