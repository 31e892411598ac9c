//! What comes too late, and what only seems to.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // It is a test.

mod support;

use std::{io::Write as _, sync::mpsc, thread, time::Duration};

use spop_core::config::Timeouts;
use spop_mio::{Actions, AgentConfig, Request};

use crate::support::{Running, bytes, until, within};

#[test]
fn short_timeouts_end_silent_connections() {
    within(|| {
        let mut config = AgentConfig::default();
        let mut timeouts = Timeouts::default();
        timeouts.hello = Some(Duration::from_secs(1));
        timeouts.idle = Some(Duration::from_secs(3));
        timeouts.frame = Some(Duration::from_secs(2));
        config.timeouts = timeouts;
        let server = Running::with(|_: Request<'_>| Actions::new(), config, |server| server.workers(1));
        let mut silent = server.connect();
        let mut idle = server.session();
        let mut half = server.session();
        half.io.write_all(&[0, 0, 0, 100, 3]).unwrap();
        for (client, words) in [(&mut silent, "handshake"), (&mut half, "frame"), (&mut idle, "idle")] {
            let end = client.receive().unwrap();
            assert!(
                end.starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:2") && end.contains(words),
                "{end}"
            );
            assert_eq!(client.receive(), None);
        }
        until(|| server.handle.stats().open == 0);
    });
}

#[test]
fn what_has_arrived_in_time_counts_though_the_worker_was_held_up() {
    within(|| {
        let mut config = AgentConfig::default();
        config.timeouts.frame = Some(Duration::from_millis(300));
        let (reached, handled) = mpsc::channel();
        let handler = move |request: Request<'_>| {
            if request.messages().get("blocks").is_some() {
                reached.send(()).unwrap();
                thread::sleep(Duration::from_millis(700));
            }
            Actions::new()
        };
        let server = Running::with(handler, config, |server| server.workers(1));
        let (mut slow, mut busy) = (server.session(), server.session());
        let notify = bytes("NOTIFY fin 1 1 m");
        slow.io.write_all(&notify[..5]).unwrap();
        // It has been read when a later request of another is answered.
        busy.ask("NOTIFY fin 1 1 m", "ACK fin 1 1");
        busy.ask("NOTIFY fin 1 2 m", "ACK fin 1 2");
        busy.send("NOTIFY fin 3 1 blocks");
        handled.recv().unwrap();
        slow.io.write_all(&notify[5..]).unwrap();
        assert_eq!(slow.receive().as_deref(), Some("ACK fin 1 1"));
        assert_eq!(busy.receive().as_deref(), Some("ACK fin 3 1"));
    });
}
