//! Real HAProxy asks the echo agents. Each scenario plays with every agent on every HAProxy that `tests/run` provides.

// The module puts its name before that of each test, so that `--skip real_haproxy::` leaves them out.
mod real_haproxy {
    mod abandoned;
    mod answers;
    mod bodies;
    mod entrance;
    mod example;
    mod fragments;
    mod inside;
    mod lifecycle;
    mod listen;
    mod production;
    mod profile;
    mod relay;
    mod requests;
    mod routes;
    mod stalls;
    mod values;
}
