//! What is over a limit is refused, counted, and costs nobody else.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use spop_server::FailureKind;
use spop_tests::peer::{Peer, bytes};
use spop_tests::wait::PATIENCE;

use super::log::{Log, name};
use super::stage::{Over, Server, Stage};

pub(super) const OVER: &[Over] = &[Over::Tcp];

pub(super) fn requests_in_flight_on_a_connection(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| {
        plan.config.agent.limits.max_in_flight = 2;
        // None gives way to those that wait, however long this takes.
        plan.config.agent.processing = None;
    })?;
    let mut peer = server.session()?;
    let lines: Vec<_> = (0..5).map(|id| format!("NOTIFY fin {id} 1 hold key=string:{id}")).collect();
    peer.send(&lines.join("\n"))?;
    server.gate.wait("0")?;
    server.gate.wait("1")?;
    // Other connections have limits of their own.
    server.expect_alive()?;
    ensure!(!server.gate.holds("2"), "three are worked on");
    for id in 0..5 {
        server.gate.release(&id.to_string())?;
        peer.expect(&format!("ACK fin {id} 1"))?;
    }
    Ok(())
}

pub(super) fn requests_in_flight_in_all(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| plan.config.max_in_flight = Some(2))?;
    let (mut one, mut other) = (server.session()?, server.session()?);
    one.send("NOTIFY fin 1 1 hold key=string:a ; m v=int32:1")?;
    other.send("NOTIFY fin 1 1 hold key=string:b ; m v=int32:2")?;
    server.gate.wait("a")?;
    server.gate.wait("b")?;
    // What a failed handler gives, and no handler is called.
    one.ask("NOTIFY fin 3 1 m v=int32:3", "ACK fin 3 1")?;
    other.ask("NOTIFY fin 3 1 m v=int32:3", "ACK fin 3 1")?;
    server.wait_for("both are counted", |stats| stats.failures.of(FailureKind::Overloaded) == 2)?;
    server.gate.release("a")?;
    one.expect("ACK fin 1 1 set txn v=int32:1")?;
    other.ask("NOTIFY fin 5 1 m v=int32:3", "ACK fin 5 1 set txn v=int32:3")?;
    server.gate.release("b")?;
    other.expect("ACK fin 1 1 set txn v=int32:2")
}

/// A session with a HAProxy whose frames are long.
fn long_session(server: &Server) -> Result<Peer> {
    server.session_with("capabilities=string:pipelining,async max-frame-size=uint32:1048576")
}

/// A request of so many KiB and a few bytes, and its answer.
fn long_request(kib: usize) -> (String, String) {
    let value = format!("a=string:\"x\"*{}", kib << 10);
    (format!("m {value}"), format!("ACK fin 1 1 set txn {value}"))
}

/// The front of a request in fragments has been read.
fn hold_fragment(peer: &mut Peer, request: &str, kib: usize) -> Result<()> {
    peer.send(&format!("NOTIFY - 1 1 messages[..{}] {request}\nNOTIFY fin 3 1 m", kib << 10))?;
    peer.expect("ACK fin 3 1")
}

pub(super) fn unfinished_bytes_in_all(stage: &Stage<'_>) -> Result<()> {
    let log = Log::start();
    let server = stage.serve_with(|plan| {
        plan.config.max_buffered_bytes = 512 << 10;
        plan.config.agent.timeouts.linger = Duration::from_millis(100);
    })?;
    let mut bystander = server.session()?;
    let (fragmented, answer) = long_request(250);
    let mut fragments = long_session(&server)?;
    hold_fragment(&mut fragments, &fragmented, 200)?;
    // Two more of 140 KiB are as much as may be. Which of three is one too many depends on what is read first.
    let (long, long_answer) = long_request(190);
    let long = bytes(&format!("NOTIFY fin 1 1 {long}"))?;
    let (front, rest) = long.split_at_checked(140 << 10).context("it is shorter")?;
    let mut peers = (0..3).map(|_| long_session(&server)).collect::<Result<Vec<_>>>()?;
    for peer in &mut peers {
        peer.send_bytes(front)?;
    }
    server.wait_for("one of them is gone", |stats| stats.open == 4)?;
    let mut ended = 0;
    for peer in &mut peers {
        if peer.expect_silence(Duration::from_millis(1)).is_err() {
            ended += 1;
            let who = name(peer)?;
            peer.expect_disconnect(13)?;
            peer.expect_end()?;
            let line = log.expect_one("connection_failed", &[who])?;
            ensure!(line.contains("too many bytes of unfinished requests"), "{line}");
        } else {
            peer.send_bytes(rest)?;
            peer.expect(&long_answer)?;
        }
    }
    ensure!(ended == 1, "{ended} of them were ended");
    bystander.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    fragments.ask(&format!("UNSET fin 1 1 messages[{}..] {fragmented}", 200 << 10), &answer)?;
    // Each time nearly all there is, which is free again when the request is there, or its connection is gone.
    let (most, answer) = long_request(490);
    let most = bytes(&format!("NOTIFY fin 1 1 {most}"))?;
    let (front, rest) = most.split_at_checked(480 << 10).context("it is shorter")?;
    for _ in 0..3 {
        fragments.send_bytes(front)?;
        fragments.send_bytes(rest)?;
        fragments.expect(&answer)?;
        // By its next answer it is counted.
        fragments.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")?;
        let mut lost = long_session(&server)?;
        hold_fragment(&mut lost, &fragmented, 240)?;
        lost.reset();
        server.wait_for("it is gone", |stats| stats.open == 4)?;
    }
    bystander.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")
}

pub(super) fn unfinished_bytes_of_a_connection_that_is_ended(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| {
        plan.config.max_buffered_bytes = 512 << 10;
        plan.config.agent.timeouts.linger = PATIENCE;
    })?;
    let (request, answer) = long_request(400);
    let (mut one, mut other) = (long_session(&server)?, long_session(&server)?);
    hold_fragment(&mut one, &request, 300)?;
    hold_fragment(&mut other, &request, 200)?;
    // In one read: nothing more comes of it.
    other.send(&format!("UNSET - 1 1 messages[{}..{}] {request}", 200 << 10, 212 << 10))?;
    other.expect("ACK fin,abort 1 1")?;
    other.expect_disconnect(13)?;
    // Others may have what it held, before it has closed.
    one.ask(&format!("UNSET fin 1 1 messages[{}..] {request}", 300 << 10), &answer)?;
    // What was sent is counted until the write has returned, and the peer may have read it before.
    one.ask("NOTIFY fin 5 1 m", "ACK fin 5 1")?;
    let mut third = long_session(&server)?;
    hold_fragment(&mut third, &request, 300)?;
    third.ask(&format!("UNSET fin 1 1 messages[{}..] {request}", 300 << 10), &answer)?;
    other.shut()?;
    other.expect_eof()
}

pub(super) fn unfinished_bytes_of_a_request_that_is_given_up(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| {
        plan.config.max_buffered_bytes = 512 << 10;
        // Longer than a payload that goes on takes to arrive on a machine that is busy.
        plan.config.agent.timeouts.frame = Some(Duration::from_secs(4));
        plan.config.agent.drain_after_refusal = None;
    })?;
    let (request, _) = long_request(400);
    let (mut one, mut other) = (long_session(&server)?, long_session(&server)?);
    hold_fragment(&mut one, &request, 300)?;
    one.expect("ACK fin,abort 1 1")?;
    // Free again, though its connection has read nothing since.
    hold_fragment(&mut other, &request, 300)?;
    one.ask("NOTIFY fin 5 1 m", "ACK fin 5 1")
}

pub(super) fn connections_in_all(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| plan.config.max_connections = 2)?;
    let (mut first, second) = (server.session()?, server.session()?);
    for _ in 0..10 {
        server.connect()?.expect_end()?;
    }
    server.wait_for("they are counted", |stats| stats.refused == 10)?;
    first.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    drop(second);
    server.wait_for("there is room", |stats| stats.open == 1)?;
    server.expect_alive()?;
    let stats = server.running.stats();
    ensure!((stats.accepted, stats.refused) == (3, 10), "{stats:?}");
    Ok(())
}

pub(super) fn connections_of_a_source(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| plan.config.max_connections_per_source = Some(2))?;
    let address = server.running.address().parse()?;
    let from = |last: u8| Peer::tcp_from([127, 0, 0, last], address);
    let mut open = Vec::new();
    for source in [2, 2, 3, 3] {
        let mut peer = from(source)?;
        peer.greet()?;
        open.push(peer);
    }
    from(2)?.expect_end()?;
    from(3)?.expect_end()?;
    from(4)?.greet()?;
    server.wait_for("they are counted", |stats| stats.refused == 2)?;
    drop(open);
    server.wait_for("there is room", |stats| stats.open == 0)?;
    from(2)?.greet()
}

pub(super) fn the_length_of_an_engine_id(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let hello = |length: usize| {
        format!(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
             capabilities=string:\"\" engine-id=string:\"x\"*{length}"
        )
    };
    let mut peer = server.connect()?;
    peer.send(&hello(256))?;
    ensure!(peer.receive()?.starts_with("AGENT-HELLO "), "256 bytes are too many");
    let mut peer = server.connect()?;
    peer.send(&hello(257))?;
    peer.expect_status(4)
}

pub(super) fn a_frame_longer_than_agreed(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| plan.config.agent.max_frame_size = 300)?;
    // The lower of both.
    for (keys, agreed) in [("", 300), ("max-frame-size=uint32:256", 256)] {
        let session = || server.session_with(&format!("capabilities=string:pipelining,async {keys}"));
        // Besides the string there are 7 bytes of header, 2 of `m`, 1 that counts arguments, 2 of `a`, 1 of its type, and
        // the length of the string. The answer has as many.
        let length = agreed - 13 - if agreed - 14 < 240 { 1 } else { 2 };
        session()?.ask(
            &format!("NOTIFY fin 5 1 m a=string:\"x\"*{length}"),
            &format!("ACK fin 5 1 set txn a=string:\"x\"*{length}"),
        )?;
        let mut peer = session()?;
        peer.send("NOTIFY fin 1 1 m")?;
        peer.expect("ACK fin 1 1")?;
        peer.send(&format!("NOTIFY fin 5 1 m a=string:\"x\"*{}", length + 1))?;
        peer.expect_status(3)?;
    }
    Ok(())
}
