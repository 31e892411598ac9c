//! Servers and engines of spop-tokio over real sockets. One program: each would be compiled with all of the runtime.
#![allow(unreachable_pub)] // No module is seen outside.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that panics has failed.

mod addresses;
mod decided_ends;
mod endings;
mod engine;
mod engine_backoff;
mod engine_tls;
mod entrance;
mod failures;
mod production;
mod requests;
mod router;
mod routes;
mod siblings;
mod support;
mod tls;
