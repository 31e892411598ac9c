//! Servers of spop-mio over real sockets. One program: each would be compiled with all of the server.
#![allow(unreachable_pub)] // No module is seen outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // It is a test.
#![allow(clippy::needless_pass_by_value)] // A handler takes its request.

#[cfg(target_os = "linux")]
mod addresses;
mod endings;
mod entrance;
mod load;
mod production;
mod requests;
mod siblings;
mod support;
mod tls;
