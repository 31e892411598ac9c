//! The command line `spop`: the program is run, and its output, its JSON and its exit status are checked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // They are tests.

mod bad_input;
mod bench;
mod check;
mod conform;
mod decode;
mod explain;
mod listen;
mod program;
mod relay;
mod send;
mod support;
mod terminal;
