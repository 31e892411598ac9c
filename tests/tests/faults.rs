//! A bad network, processes that are killed, and resources that run out, with real HAProxy: after each, service goes on.

// The module puts its name before that of each test, so that `--skip real_haproxy::` leaves them out.
#[path = "faults"]
mod real_haproxy {
    mod network;
    mod processes;
    mod siblings;
}
