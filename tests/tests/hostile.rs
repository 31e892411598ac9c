//! Malicious and faulty peers against the echo agents, which run as processes: the status that each peer gets, the memory and
//! processor time that it takes, and the latency of other peers meanwhile.

mod hostile {
    mod arena;
    mod crowds;
    mod echo;
    mod floods;
    mod input;
    mod program;
}
