//! Servers against engines in virtual time: no sockets, no sleeps, one thread. A run depends on its seed only.
//!
//! `SPOP_SIM_SEED=N` replays the run of a seed, and prints what it came to.

#![allow(unreachable_pub)] // No module is seen outside.
// It is a test: it fails by a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

/// Tells what happens, when one seed is replayed.
macro_rules! tell {
    ($($text:tt)*) => {
        if crate::seed().is_some() {
            println!($($text)*);
        }
    };
}

mod app;
mod drive;
mod engine;
mod faults;
mod frames;
mod hostile;
mod invariants;
mod kept;
mod ledger;
mod logs;
mod losses;
mod node;
mod recorder;
mod rng;
mod wire;
mod world;

use std::{env, num::NonZero, ops::Range, panic, thread, time::Instant};

use world::{Summary, Weather, World};

fn run(seed: u64, requests: usize) -> Summary {
    let weather = [Weather::Calm, Weather::Restarts, Weather::Losses, Weather::Storm][seed as usize % 4];
    let run = panic::catch_unwind(|| World::new(seed, weather).run(requests));
    run.unwrap_or_else(|failure| {
        eprintln!("SPOP_SIM_SEED={seed} replays this failure ({weather:?})");
        panic::resume_unwind(failure)
    })
}

/// Each run has its thread to itself: on all processors, so many at once.
fn run_all(seeds: Range<u64>, requests: usize) -> Summary {
    let begin = Instant::now();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let all = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|first| {
                let seeds = seeds.clone().skip(first).step_by(threads);
                scope.spawn(move || {
                    seeds.map(|seed| run(seed, requests)).fold(Summary::default(), Summary::add)
                })
            })
            .collect();
        let summaries = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|failure| panic::resume_unwind(failure)));
        summaries.fold(Summary::default(), Summary::add)
    });
    let per_second = |n: u64| (n as f64 / begin.elapsed().as_secs_f64()) as u64;
    println!("{all:?}: {} steps, {} requests per second", per_second(all.steps), per_second(all.asked));
    all
}

fn seed() -> Option<u64> {
    Some(env::var("SPOP_SIM_SEED").ok()?.parse().expect("SPOP_SIM_SEED is a number"))
}

#[test]
fn requests_end_once_and_nothing_is_lost_or_kept() {
    if let Some(seed) = seed() {
        run_all(
            seed..seed + 1,
            env::var("SPOP_SIM_REQUESTS").map_or(150, |text| text.parse().expect("a number")),
        );
        return;
    }
    let all = run_all(0..64, 150);
    // Otherwise it proves little.
    assert!(all.answered * 10 > all.asked * 6, "{all:?}");
    assert!(all.rescued > 0 && all.restarts > 0 && all.failed > 0 && all.empty > 0, "{all:?}");
}

#[test]
fn a_run_depends_on_its_seed_only() {
    let one = || format!("{:?}", run(3, 100));
    assert_eq!(one(), one());
}

/// `SPOP_SIM_SEEDS` runs so many seeds, from `SPOP_SIM_FIRST` on.
#[test]
#[ignore = "takes minutes"]
fn many_seeds() {
    let number = |name, default| env::var(name).map_or(default, |text| text.parse().expect(name));
    let first = number("SPOP_SIM_FIRST", 1_000);
    let mut failed = Vec::new();
    for seed in first..first + number("SPOP_SIM_SEEDS", 2_000) {
        if panic::catch_unwind(|| run(seed, 300)).is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "SPOP_SIM_SEED, with SPOP_SIM_REQUESTS=300: {failed:?}");
}
