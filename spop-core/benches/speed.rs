//! Nanoseconds per NOTIFY: the best of many short runs, the roads in turn, so that a busy machine harms all alike.
//! `cargo bench -p spop-core --bench speed`
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod round;

use std::{hint::black_box, time::Instant};

use round::{BATCHES, ROADS, Road, SHAPES, roads};

/// NOTIFYs of one run, and how many runs there are of each road.
const NOTIFYS: usize = 2_048;
const RUNS: usize = 300;

fn main() {
    println!("Nanoseconds per NOTIFY, net of the read, best of {RUNS} runs");
    println!("shape            frames   bytes   floor  spop-core    spop   spop-core/floor  spop/spop-core");
    for shape in &SHAPES {
        for frames in BATCHES {
            let bytes = shape.read(frames);
            let mut roads = roads();
            let answers = roads.each_mut().map(|road| road.round(&bytes).to_vec());
            assert!(answers[1] == answers[2] && answers[2] == answers[3], "the roads answer alike");
            let mut best = [f64::MAX; ROADS.len()];
            for _ in 0..RUNS {
                for (best, road) in best.iter_mut().zip(&mut roads) {
                    *best = best.min(run(&mut **road, &bytes, NOTIFYS / frames) / NOTIFYS as f64);
                }
            }
            let [read, floor, ours, spop] = best;
            let [floor, ours, spop] = [floor, ours, spop].map(|time| time - read);
            println!(
                "{:<16} {frames:>6} {:>7} {floor:>7.1} {ours:>10.1} {spop:>7.1} {:>17.2} {:>15.2}",
                shape.name,
                bytes.len() / frames,
                ours / floor,
                spop / ours,
            );
        }
    }
}

/// How many nanoseconds a number of rounds takes.
fn run(road: &mut dyn Road, bytes: &[u8], rounds: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..rounds {
        black_box(road.round(black_box(bytes)));
    }
    start.elapsed().as_nanos() as f64
}
