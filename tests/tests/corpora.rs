//! The bodies of the fuzz targets, run over their corpora: no invariant is violated.

#![allow(clippy::unwrap_used)] // It is a test.

use spop_fuzz_bodies::TARGETS;
use spop_tests::corpus;

fn replay(target: &str) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let inputs = corpus::read(target).unwrap();
    assert!(inputs.len() > 10, "the corpus is there");
    for (number, input) in inputs.iter().enumerate() {
        // Captured by the harness, and shown with a failure.
        println!("{target}, input {number}: {}", input.escape_ascii());
        body(input);
    }
}

macro_rules! replay {
    ($($target:ident),*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target));
        }
    )*

        #[test]
        fn no_target_is_left_out() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($target)),*]);
        }
    };
}

replay!(wire, frames, notation, agent, reference, engine, pair, accept, hub, cost);
