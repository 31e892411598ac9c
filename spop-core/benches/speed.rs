//! Nanoseconds per NOTIFY: the best of many short runs. The variants take turns, so that a busy machine affects all alike.
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

use round::{BATCHES, SHAPES, VARIANTS, Variant, variants};

/// The NOTIFYs of one run, and the number of runs of each variant.
const NOTIFYS: usize = 2_048;
const RUNS: usize = 300;

fn main() {
    println!("Nanoseconds per NOTIFY, net of the read, best of {RUNS} runs");
    println!("shape            frames   bytes   floor  spop-core    spop   spop-core/floor  spop/spop-core");
    for shape in &SHAPES {
        for frames in BATCHES {
            let bytes = shape.read(frames);
            let mut variants = variants();
            let answers = variants.each_mut().map(|variant| variant.round(&bytes).to_vec());
            assert!(answers[1] == answers[2] && answers[2] == answers[3], "the variants answer alike");
            let mut best = [f64::MAX; VARIANTS.len()];
            for _ in 0..RUNS {
                for (best, variant) in best.iter_mut().zip(&mut variants) {
                    *best = best.min(run(&mut **variant, &bytes, NOTIFYS / frames) / NOTIFYS as f64);
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

/// The nanoseconds of a number of rounds.
fn run(variant: &mut dyn Variant, bytes: &[u8], rounds: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..rounds {
        black_box(variant.round(black_box(bytes)));
    }
    start.elapsed().as_nanos() as f64
}
