//! How connections and servers end.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spop_core::agent::DrainTiming;
use spop_tests::{
    peer::Peer,
    wait::{PATIENCE, until_true},
};

use super::stage::{ALL, LONG, Over, Stage};

pub(super) const OVER: &[Over] = ALL;

const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async";

pub(super) fn a_drain_finishes_what_is_owed(stage: &Stage<'_>) -> Result<()> {
    let mut server = stage.serve()?;
    let (mut busy, mut idle) = (server.session()?, server.session()?);
    busy.send("NOTIFY fin 1 1 hold key=string:a")?;
    server.gate.wait("a")?;
    server.running.drain();
    idle.expect_status(0)?;
    // Served on: there is no way to tell HAProxy to stop asking.
    busy.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")?;
    // Each worker has a listener of its own.
    until_true("it no longer listens", PATIENCE, || Ok(Peer::connect(&server.running.address()).is_err()))?;
    server.gate.release("a")?;
    busy.expect("ACK fin 1 1")?;
    busy.expect_status(0)?;
    drop((busy, idle));
    server.running.wait()
}

pub(super) fn who_has_connected_before_a_drain_is_told(stage: &Stage<'_>) -> Result<()> {
    for _ in 0..5 {
        let mut server = stage.serve_with(|plan| {
            plan.config.agent.drain_timing = Some(idle_for(10));
            // The first still has time when the last has connected.
            plan.config.agent.timeouts.hello = Some(LONG);
        })?;
        // Some of them nobody has accepted yet.
        let mut peers = (0..50).map(|_| server.connect()).collect::<Result<Vec<_>>>()?;
        server.running.drain();
        for (index, peer) in peers.iter_mut().enumerate() {
            peer.expect_disconnect(0).with_context(|| format!("number {index}"))?;
        }
        drop(peers);
        server.running.wait()?;
    }
    Ok(())
}

pub(super) fn who_has_connected_before_a_drain_and_speaks_is_served(stage: &Stage<'_>) -> Result<()> {
    // A machine may take its time to come from one line to the next.
    let mut server = stage.serve_with(|plan| {
        plan.config.agent.drain_timing = Some(idle_for(8_000));
        plan.config.agent.timeouts.drain = LONG;
        plan.config.agent.timeouts.hello = Some(LONG);
    })?;
    let mut peers = (0..5).map(|_| server.connect()).collect::<Result<Vec<_>>>()?;
    let mut busy = server.session()?;
    busy.send("NOTIFY fin 1 1 hold key=string:a")?;
    server.gate.wait("a")?;
    server.running.drain();
    until_true("it no longer listens", PATIENCE, || Ok(Peer::connect(&server.running.address()).is_err()))?;
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.greet_with("capabilities=string:pipelining,async").with_context(|| format!("number {index}"))?;
        peer.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    }
    server.gate.release("a")?;
    busy.expect("ACK fin 1 1")?;
    drop((busy, peers));
    server.running.wait()
}

/// How a drain ends a connection that has been idle for so many milliseconds.
fn idle_for(idle: u64) -> DrainTiming {
    let mut timing = DrainTiming::default();
    timing.idle = Duration::from_millis(idle);
    timing
}

pub(super) fn a_drain_has_an_end(stage: &Stage<'_>) -> Result<()> {
    let time = Duration::from_millis(150);
    let mut server = stage.serve_with(|plan| plan.config.agent.timeouts.drain = time)?;
    let mut peer = server.session()?;
    peer.send("NOTIFY fin 1 1 hold key=string:a\nNOTIFY fin 3 1 m")?;
    peer.expect("ACK fin 3 1")?;
    server.running.drain();
    peer.expect_status(0)?;
    drop(peer);
    server.gate.wait_for_cancel("a")?;
    server.running.wait()
}

pub(super) fn a_stop_is_at_once(stage: &Stage<'_>) -> Result<()> {
    let mut server = stage.serve()?;
    let mut peer = server.session()?;
    let silent = server.connect()?;
    peer.send("NOTIFY fin 1 1 hold key=string:a\nNOTIFY fin 3 1 m")?;
    peer.expect("ACK fin 3 1")?;
    server.running.stop();
    peer.expect_disconnect(0)?;
    peer.expect_end()?;
    server.running.wait()?;
    drop(silent);
    ensure!(
        stage.over() != Over::Unix || !stage.file("agent-0.sock").exists(),
        "the socket file is still there"
    );
    Ok(())
}

pub(super) fn a_disconnect_is_answered_with_its_status(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    for status in [0, 2, 4, 99] {
        let mut peer = server.session()?;
        peer.send(&format!(
            "NOTIFY fin 1 1 hold key=string:{status}
             NOTIFY fin 3 1 m
             HAPROXY-DISCONNECT fin 0 0 status-code=uint32:{status} message=string:bye
             NOTIFY fin 5 1 m"
        ))?;
        // What was ready goes before it, nothing after it.
        peer.expect("ACK fin 3 1")?;
        peer.expect_status(status)?;
        server.gate.wait_for_cancel(&status.to_string())?;
    }
    server.expect_alive()
}

pub(super) fn who_ends_its_side_gets_what_it_is_owed(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    peer.send("NOTIFY fin 1 1 hold key=string:a\nNOTIFY fin 3 1 m")?;
    peer.shut()?;
    peer.expect("ACK fin 3 1")?;
    server.gate.wait("a")?;
    // It is read before what others send after it.
    server.expect_alive()?;
    ensure!(!server.gate.is_cancelled("a"), "it was given up");
    server.gate.release("a")?;
    peer.expect("ACK fin 1 1")?;
    peer.expect_eof()?;
    server.wait_for("it is gone", |stats| stats.open == 0)
}

pub(super) fn what_is_lost_is_cancelled(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    peer.send("NOTIFY fin 1 1 hold key=string:a")?;
    server.gate.wait("a")?;
    // A unix socket that is closed looks like one whose peer has ended its side, until an answer is written.
    peer.send_bytes(&[0, 0])?;
    peer.reset();
    if stage.over() == Over::Unix {
        server.gate.release("a")?;
    } else {
        server.gate.wait_for_cancel("a")?;
    }
    server.wait_for("it is gone", |stats| stats.open == 0)?;
    server.expect_alive()
}

pub(super) fn bad_input_has_its_status_and_costs_one_connection(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut bystander = server.session()?;
    let before: [(&[u8], u32); 5] = [
        (b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n", 3),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 3),
        (b"\xff\xff\xff\xff", 3),
        (b"\x00\x00\x00\x00", 4),
        (b"\x00\x00\x00\x02ab", 4),
    ];
    for (bytes, status) in before {
        for greeted in [false, true] {
            let mut peer = if greeted { server.session()? } else { server.connect()? };
            peer.send_bytes(bytes)?;
            peer.expect_status(status).with_context(|| bytes.escape_ascii().to_string())?;
        }
        bystander.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    }
    for (sentence, status) in [
        ("NOTIFY fin 5 1 hex:05", 4),
        ("NOTIFY fin 5 1 raw:\"\\x01m\\x01\\x01a\\x0a\"", 4),
        ("ACK fin 5 1", 4),
        ("AGENT-HELLO fin 0 0", 4),
        ("HAPROXY-DISCONNECT fin 0 0", 4),
        ("NOTIFY fin 5 1 m a=string:\"x\"*16400", 3),
    ] {
        let mut peer = server.session()?;
        // What came before it is served.
        peer.send("NOTIFY fin 3 1 m")?;
        peer.expect("ACK fin 3 1")?;
        peer.send(sentence)?;
        peer.expect_status(status).with_context(|| sentence.to_owned())?;
        bystander.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    }
    drop(bystander);
    server.wait_for("all are gone", |stats| stats.open == 0)
}

pub(super) fn a_frame_that_stops_half_way_is_given_up(stage: &Stage<'_>) -> Result<()> {
    let server =
        stage.serve_with(|plan| plan.config.agent.timeouts.frame = Some(Duration::from_millis(100)))?;
    let mut peer = server.session()?;
    peer.send_bytes(&[0, 0, 0, 20, 3])?;
    peer.expect_status(2)?;
    server.expect_alive()
}

pub(super) fn an_idle_connection_is_ended(stage: &Stage<'_>) -> Result<()> {
    let server =
        stage.serve_with(|plan| plan.config.agent.timeouts.idle = Some(Duration::from_millis(600)))?;
    let mut owed = server.connect()?;
    // In one write: it is idle at no time before, however slow this is.
    owed.send(&format!("{HELLO}\nNOTIFY fin 1 1 hold key=string:a"))?;
    let hello = owed.receive()?;
    ensure!(hello.starts_with("AGENT-HELLO "), "{hello}");
    server.gate.wait("a")?;
    let mut idle = server.session()?;
    idle.expect_status(2)?;
    // One that is owed an answer is not idle.
    server.gate.release("a")?;
    owed.expect("ACK fin 1 1")?;
    owed.expect_status(2)
}

pub(super) fn a_request_that_comes_at_the_end_of_the_idle_time_is_served(stage: &Stage<'_>) -> Result<()> {
    // Longer than it takes to come from one line to the next on a machine that is busy.
    let idle = Duration::from_secs(4);
    let server = stage.serve_with(|plan| {
        plan.config.agent.timeouts.idle = Some(idle);
        plan.workers = Some(1);
    })?;
    let (mut blocker, mut peer) = (server.session()?, server.session()?);
    blocker.send("NOTIFY fin 1 1 block key=string:a")?;
    server.gate.wait("a")?;
    peer.send("NOTIFY fin 1 1 m")?;
    if stage.shares_threads() {
        // The timer of the operating system goes off meanwhile: the only thread finds both at once.
        sleep(idle);
    }
    server.gate.release("a")?;
    peer.expect("ACK fin 1 1")?;
    blocker.expect("ACK fin 1 1")?;
    // It goes on.
    peer.expect_silence(Duration::from_millis(60))?;
    peer.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")
}

pub(super) fn a_connection_that_is_old_enough_is_drained(stage: &Stage<'_>) -> Result<()> {
    let age = Duration::from_millis(300);
    // Peers that are active have time for it before the drain ends them; the idle one is on another server.
    let server = stage.serve_with(|plan| {
        plan.config.agent.max_age = Some(age);
        plan.config.agent.drain_timing = Some(idle_for(8_000));
    })?;
    let others = stage.serve_with(|plan| plan.config.agent.max_age = Some(age))?;
    let start = Instant::now();
    let (mut busy, mut idle, mut owed) = (server.session()?, others.session()?, server.session()?);
    let opened = Instant::now();
    owed.send("NOTIFY fin 1 1 hold key=string:a")?;
    server.gate.wait("a")?;
    for id in 0.. {
        ensure!(start.elapsed() < PATIENCE, "it does not end");
        // Each gets its answer, the last one too.
        busy.ask(&format!("NOTIFY fin {id} 1 m"), &format!("ACK fin {id} 1"))?;
        if busy.expect_silence(Duration::from_millis(10)).is_err() {
            break;
        }
    }
    // Give or take a tenth.
    ensure!(start.elapsed() >= age * 9 / 10, "after {:?}", start.elapsed());
    busy.expect_status(0)?;
    idle.expect_status(0)?;
    // This one is drained by now as well.
    sleep((age * 12 / 10).saturating_sub(opened.elapsed()));
    owed.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")?;
    server.gate.release("a")?;
    owed.expect("ACK fin 1 1")?;
    owed.expect_status(0)?;
    server.expect_alive()
}

pub(super) fn after_a_disconnect_the_peer_closes_first(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| plan.config.agent.timeouts.linger = PATIENCE)?;
    for ending in ["NOTIFY fin 1 1 disconnect code=int32:4", "ACK fin 1 1"] {
        let mut peer = server.session()?;
        peer.send(ending)?;
        peer.expect_disconnect(4)?;
        // A FIN, or a `close_notify`, that comes with it makes HAProxy 3.2 and 3.4 leave a request hanging.
        peer.expect_silence(Duration::from_millis(200)).with_context(|| ending.to_owned())?;
        peer.shut()?;
        peer.expect_eof()?;
    }
    server.wait_for("both are gone", |stats| stats.open == 0)
}

pub(super) fn or_does_not_and_is_not_waited_for(stage: &Stage<'_>) -> Result<()> {
    let linger = Duration::from_millis(300);
    let server = stage.serve_with(|plan| plan.config.agent.timeouts.linger = linger)?;
    let mut peer = server.session()?;
    let start = Instant::now();
    peer.send("NOTIFY fin 1 1 disconnect code=int32:42")?;
    peer.expect_disconnect(42)?;
    peer.expect_end()?;
    let time = start.elapsed();
    ensure!(time >= linger && time < linger * 20, "after {time:?}");
    server.wait_for("it is gone", |stats| stats.open == 0)
}
