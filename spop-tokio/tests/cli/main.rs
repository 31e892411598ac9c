//! The command line `spop`: the program is run, and its output, its JSON and its exit status are checked.

mod check;
mod explain;
mod listen;
mod program;
mod send;
mod support;
