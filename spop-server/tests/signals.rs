//! Signals that end a server. They are sent to this process, so it has no other test.
#![cfg(all(feature = "signals", unix))]
#![allow(clippy::unwrap_used, clippy::panic)] // A test that panics has failed.

use std::time::{Duration, Instant};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::raise,
};
use spop_core::Clock;
use spop_server::{Agent, ServerConfig, Stage};

#[test]
fn the_first_signal_drains_the_second_stops_and_none_ends_the_process() {
    let mut config = ServerConfig::default();
    config.lame_duck = Duration::from_secs(600);
    let handle = Agent::new(config, Clock::start()).unwrap().handle();
    handle.end_on_signals().unwrap();
    assert_eq!(handle.stage(), Stage::Serve);
    for (signal, stage) in [(SIGTERM, Stage::LameDuck), (SIGINT, Stage::Stop), (SIGTERM, Stage::Stop)] {
        raise(signal).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while handle.stage() != stage {
            assert!(Instant::now() < end, "{signal} left it at {:?}", handle.stage());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
