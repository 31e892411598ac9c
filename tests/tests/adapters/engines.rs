//! Async: the connections of an engine, and those of others.

use std::time::Duration;

use anyhow::{Result, ensure};
use spop_core::frame::Capabilities;
use spop_server::ConnectionInfo;
use spop_tests::peer::Peer;
use spop_tests::wait::{PATIENCE, until_true};

use super::log::{Log, name};
use super::stage::{ALL, Over, Server, Stage};

pub(super) const OVER: &[Over] = ALL;

const SILENCE: Duration = Duration::from_millis(80);

fn serve(stage: &Stage<'_>) -> Result<Server> {
    stage.serve_with(|plan| {
        plan.config.agent.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
        // Twenty requests that are held are as many as HAProxy sends: none is to give way.
        plan.config.agent.processing = None;
    })
}

fn session(server: &Server, engine: &str) -> Result<Peer> {
    server.session_with(&format!("capabilities=string:pipelining,async engine-id=string:{engine}"))
}

/// Ends one of two connections of an engine, and waits until the server knows.
fn lose(stage: &Stage<'_>, server: &Server, mut home: Peer, engine: &str) -> Result<()> {
    // A unix socket that is closed looks like one whose peer has ended its side, and may still be told: it is ended in words.
    if stage.over() == Over::Unix {
        home.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye")?;
        home.expect_status(0)?;
    }
    home.reset();
    await_connections(server, engine, 1)
}

/// Waits until an engine has so many connections.
fn await_connections(server: &Server, engine: &str, count: usize) -> Result<()> {
    let of_engine = |info: &ConnectionInfo| info.engine_id.as_deref() == Some(engine);
    until_true(&format!("{engine} has {count} connections"), PATIENCE, || {
        Ok(server.running.connections().into_iter().filter(of_engine).count() == count)
    })
}

pub(super) fn an_answer_takes_its_own_connection_while_it_can(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage)?;
    let (mut home, mut sibling) = (session(&server, "e1")?, session(&server, "e1")?);
    home.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    home.send("NOTIFY fin 3 1 hold key=string:a")?;
    server.gate.release("a")?;
    home.expect("ACK fin 3 1")?;
    sibling.expect_silence(SILENCE)
}

pub(super) fn answers_of_a_lost_connection_take_a_sibling(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage)?;
    let mut home = session(&server, "e1")?;
    let mut sibling = session(&server, "e1")?;
    let mut stranger = session(&server, "e2")?;
    for id in 1..=15 {
        home.send(&format!("NOTIFY fin {id} 1 hold key=string:k{id} ; m v=int32:{id}"))?;
        server.gate.wait(&format!("k{id}"))?;
    }
    // Each of the others has something of its own to do as well.
    sibling.send("NOTIFY fin 100 1 hold key=string:k100")?;
    stranger.send("NOTIFY fin 100 1 hold key=string:other")?;
    server.gate.wait("k100")?;
    server.gate.wait("other")?;
    lose(stage, &server, home, "e1")?;
    for id in 1..=15 {
        ensure!(!server.gate.is_cancelled(&format!("k{id}")), "{id} was given up");
        server.gate.release(&format!("k{id}"))?;
        sibling.expect(&format!("ACK fin {id} 1 set txn v=int32:{id}"))?;
    }
    server.gate.release("k100")?;
    sibling.expect("ACK fin 100 1")?;
    stranger.expect_silence(SILENCE)?;
    server.gate.release("other")?;
    stranger.expect("ACK fin 100 1")?;
    // Who comes later finds nothing left.
    session(&server, "e1")?.expect_silence(SILENCE)
}

pub(super) fn nothing_crosses_to_another_engine(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage)?;
    let mut home = session(&server, "e1")?;
    let mut stranger = session(&server, "e2")?;
    // Without async it is nobody's sibling, though it says the same name.
    let mut alone =
        server.session_with("capabilities=string:pipelining,fragmentation engine-id=string:e1")?;
    home.send("NOTIFY fin 1 1 hold key=string:a")?;
    server.gate.wait("a")?;
    // A unix socket that is closed looks like one whose peer has ended its side, until an answer is written.
    home.reset();
    if stage.over() != Over::Unix {
        server.gate.wait_for_cancel("a")?;
    }
    server.gate.release("a")?;
    stranger.expect_silence(SILENCE)?;
    alone.expect_silence(SILENCE)?;
    stranger.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    alone.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")
}

pub(super) fn without_async_nothing_crosses_at_all(stage: &Stage<'_>) -> Result<()> {
    // The default: async is off.
    let server = stage.serve()?;
    let mut home = session(&server, "e1")?;
    let mut other = session(&server, "e1")?;
    home.send("NOTIFY fin 1 1 hold key=string:a")?;
    server.gate.wait("a")?;
    // The same identifiers mean another request there.
    other.send("NOTIFY fin 1 1 hold key=string:b ; m v=int32:2")?;
    server.gate.wait("b")?;
    // A unix socket that is closed looks like one whose peer has ended its side, until an answer is written.
    home.reset();
    if stage.over() != Over::Unix {
        server.gate.wait_for_cancel("a")?;
    }
    server.gate.release("a")?;
    other.expect_silence(SILENCE)?;
    server.gate.release("b")?;
    other.expect("ACK fin 1 1 set txn v=int32:2")
}

pub(super) fn the_same_ids_on_a_sibling_supersede(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage)?;
    let (mut home, mut sibling) = (session(&server, "e1")?, session(&server, "e1")?);
    home.send("NOTIFY fin 1 1 hold key=string:old ; m v=int32:1")?;
    server.gate.wait("old")?;
    sibling.send("NOTIFY fin 1 1 hold key=string:new ; m v=int32:2")?;
    server.gate.wait("new")?;
    server.gate.wait_for_cancel("old")?;
    server.gate.release("old")?;
    home.expect_silence(SILENCE)?;
    server.gate.release("new")?;
    sibling.expect("ACK fin 1 1 set txn v=int32:2")?;
    home.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")
}

pub(super) fn what_comes_with_the_handshake_has_siblings_too(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage)?;
    // Wherever the connections of each of them arrive.
    for engine in 0..6 {
        let open = |key: &str| -> Result<Peer> {
            let mut peer = server.connect()?;
            peer.send(&format!(
                "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                 capabilities=string:pipelining,async engine-id=string:e{engine}
                 NOTIFY fin {} 1 hold key=string:{key}{engine}",
                key.len()
            ))?;
            let hello = peer.receive()?;
            ensure!(hello.starts_with("AGENT-HELLO "), "{hello}");
            server.gate.wait(&format!("{key}{engine}"))?;
            Ok(peer)
        };
        let (home, mut sibling) = (open("a")?, open("bb")?);
        lose(stage, &server, home, &format!("e{engine}"))?;
        server.gate.release(&format!("a{engine}"))?;
        sibling.expect("ACK fin 1 1")?;
        server.gate.release(&format!("bb{engine}"))?;
        sibling.expect("ACK fin 2 1")?;
    }
    Ok(())
}

pub(super) fn a_disconnect_leaves_what_is_owed_to_a_sibling(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage)?;
    let (mut home, mut sibling) = (session(&server, "e1")?, session(&server, "e1")?);
    home.send("NOTIFY fin 1 1 hold key=string:a\nNOTIFY fin 3 1 m")?;
    home.expect("ACK fin 3 1")?;
    home.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye")?;
    home.expect_status(0)?;
    drop(home);
    await_connections(&server, "e1", 1)?;
    ensure!(!server.gate.is_cancelled("a"), "it was given up");
    server.gate.release("a")?;
    sibling.expect("ACK fin 1 1")?;
    sibling.expect_silence(SILENCE)
}

pub(super) fn what_a_lost_connection_asked_has_a_deadline_too(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| {
        plan.config.agent.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
        // Longer than it takes to lose the connection on a machine that is busy.
        plan.config.agent.timeouts.message = Some(Duration::from_secs(4));
    })?;
    let (mut home, mut sibling) = (session(&server, "e1")?, session(&server, "e1")?);
    for id in 1..=3 {
        home.send(&format!("NOTIFY fin {id} 1 hold key=string:k{id}"))?;
        server.gate.wait(&format!("k{id}"))?;
    }
    lose(stage, &server, home, "e1")?;
    // Each gets what a handler that takes too long gives, once.
    let mut answers = (1..=3).map(|_| sibling.receive()).collect::<Result<Vec<_>>>()?;
    answers.sort_unstable();
    ensure!(answers == ["ACK fin 1 1", "ACK fin 2 1", "ACK fin 3 1"], "{answers:?}");
    for id in 1..=3 {
        server.gate.wait_for_cancel(&format!("k{id}"))?;
        server.gate.release(&format!("k{id}"))?;
    }
    sibling.expect_silence(SILENCE)?;
    sibling.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")
}

pub(super) fn a_disconnect_for_a_lost_connection_is_a_failure(stage: &Stage<'_>) -> Result<()> {
    let log = Log::start();
    let server = serve(stage)?;
    let (mut home, mut sibling) = (session(&server, "e1")?, session(&server, "e1")?);
    home.send("NOTIFY fin 1 1 hold key=string:a ; disconnect code=int32:42")?;
    server.gate.wait("a")?;
    lose(stage, &server, home, "e1")?;
    server.gate.release("a")?;
    sibling.expect("ACK fin 1 1")?;
    // The failure is that of the connection that sends the answer.
    if stage.over() != Over::Unix {
        let line = log.expect_one("request_failed", &[name(&sibling)?])?;
        ensure!(line.contains("what=\"already_disconnected\""), "{line}");
    }
    sibling.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")
}
