//! The instructions per NOTIFY, counted by valgrind's callgrind, and a check against the recorded figures.
//!
//! The result depends only on the code and the compiler, so it can be checked on a busy machine. `instructions.txt` has the
//! recorded figures and names the compiler. `cargo bench -p spop-core --bench instructions` checks them; `-- --record` writes
//! the file.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod callgrind;
mod round;

use std::{env, process::ExitCode};

use callgrind::{counted, record};

use round::{BATCHES, SHAPES, VARIANTS, variants};

/// The repetitions of each round while it is counted, and of the warm-up.
const ROUNDS: usize = 32;
const WARM_UP: usize = 4;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

fn main() -> ExitCode {
    let args: Vec<_> = env::args().collect();
    if callgrind::is_counted() {
        rounds(&args.iter().filter_map(|arg| arg.parse().ok()).collect::<Vec<_>>());
        return ExitCode::SUCCESS;
    }
    // The column of this crate.
    record::check(RECORD, &table(&counts()), |row| {
        let (name, figures) = row.split_at(24);
        (name, vec![figures.split_whitespace().nth(2).unwrap().parse().unwrap()])
    })
}

/// Runs all counted work, in the order of [`cases`]; or only one case of one variant, given by their numbers: under
/// `valgrind --tool=callgrind --toggle-collect='*callgrind::counted'`, that shows where the instructions are.
fn rounds(only: &[usize]) {
    for (case, (shape, frames)) in cases().enumerate() {
        let bytes = SHAPES[shape].read(frames);
        for (number, mut variant) in variants().into_iter().enumerate() {
            if !only.is_empty() && only != [case, number] {
                continue;
            }
            for _ in 0..WARM_UP {
                variant.round(&bytes);
            }
            counted(&mut || {
                for _ in 0..ROUNDS {
                    variant.round(&bytes);
                }
            });
        }
    }
}

fn cases() -> impl Iterator<Item = (usize, usize)> {
    (0..SHAPES.len()).flat_map(|shape| BATCHES.map(|frames| (shape, frames)))
}

/// The instructions per NOTIFY of each case on each variant.
fn counts() -> Vec<[u64; VARIANTS.len()]> {
    let totals = callgrind::counts();
    let (totals, _) = totals.as_chunks();
    let per_notify = |(totals, (_, frames)): (&[u64; VARIANTS.len()], _)| {
        totals.map(|total| total / (ROUNDS * frames) as u64)
    };
    totals.iter().zip(cases()).map(per_notify).collect()
}

fn table(counts: &[[u64; VARIANTS.len()]]) -> String {
    let mut table = format!("# Instructions per NOTIFY, net of the read. {}", record::compiler());
    table += "# shape          frames   bytes   floor  spop-core    spop   spop-core/floor  spop/spop-core\n";
    for ((shape, frames), &[read, floor, ours, spop]) in cases().zip(counts) {
        let shape = &SHAPES[shape];
        let [floor, ours, spop] = [floor, ours, spop].map(|count| count - read.min(count));
        let ratio = |a: u64, b: u64| a as f64 / b as f64;
        let row = format!(
            "{:<16} {frames:>6} {:>7} {floor:>7} {ours:>10} {spop:>7} {:>17.2} {:>15.2}\n",
            shape.name,
            shape.read(1).len(),
            ratio(ours, floor),
            ratio(spop, ours),
        );
        table += &row;
    }
    table
}
