//! The programs among the examples, with the configurations that come with them, in front of real HAProxy.

#![allow(clippy::indexing_slicing)] // They are tests.

// The module puts its name before that of each test, so that `--skip real_haproxy::` leaves them out.
#[path = "programs"]
mod real_haproxy {
    mod configurations;
    mod forward_auth;
    mod mirror;
    mod rate_limit;
    mod waf;
}
