//! The bodies of the fuzz targets: one function for each target of `fuzz/`.
//!
//! Each takes any bytes and panics if an invariant is violated. They are a crate of their own, so that the tests run them over the
//! corpora and with random bytes, without the fuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc
)] // It is a test.

// For what is shared with the tests of `spop-core`.
extern crate alloc;

mod accept;
pub mod agent;
mod codec;
mod cost;
#[path = "../../../spop-core/src/testing/tests/echo.rs"]
mod echo;
mod engine;
mod hub;
mod input;
pub mod model;
pub mod pair;
pub mod reference;
#[cfg(test)]
mod storms;
#[cfg(test)]
#[path = "../../../spop-core/src/testing/tests/strategies.rs"]
mod strategies;
#[cfg(test)]
mod tests;

pub use accept::accept;
pub use agent::agent;
pub use codec::{frames, notation, wire};
pub use cost::{cost, count_work};
pub use engine::engine;
pub use hub::hub;
pub use input::Input;
pub use pair::pair;
pub use reference::reference;
pub use spop_core::testing::transcript::{driver, random};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: [(&str, Target); 10] = [
    ("wire", wire),
    ("frames", frames),
    ("notation", notation),
    ("agent", agent),
    ("reference", reference),
    ("engine", engine),
    ("pair", pair),
    ("accept", accept),
    ("hub", hub),
    ("cost", cost),
];
