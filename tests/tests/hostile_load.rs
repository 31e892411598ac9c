//! What malicious peers can take from others: the latency of their neighbours, the memory and the processor time of the
//! server. Each test is about one echo agent as a program of its own, and all of them run one after the other.

mod hostile_load {
    mod attack;
    mod attackers;
    mod cost;
    mod latency;
    mod memory;
    mod server;
}
