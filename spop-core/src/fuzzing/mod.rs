//! What is tried with whatever a fuzzer makes up, and must hold: one function for each target of `fuzz/`.
//!
//! Each takes any bytes and panics when a promise is broken. They are here, and not in the fuzzer's crate, so that the
//! corpora run as an ordinary test, and so that the tests with random events share them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc
)] // It is a test.

mod accept;
pub mod agent;
mod codec;
mod engine;
mod hub;
mod input;
pub mod model;
pub mod pair;
pub mod reference;
#[cfg(test)]
mod tests;

pub use crate::testing::transcript::{driver, random};
pub use accept::accept;
pub use agent::agent;
pub use codec::{frames, notation, wire};
pub use engine::engine;
pub use hub::hub;
pub use input::Input;
pub use pair::pair;
pub use reference::reference;

/// A target's body.
pub type Target = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: [(&str, Target); 9] = [
    ("wire", wire),
    ("frames", frames),
    ("notation", notation),
    ("agent", agent),
    ("reference", reference),
    ("engine", engine),
    ("pair", pair),
    ("accept", accept),
    ("hub", hub),
];
