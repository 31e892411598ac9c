//! The first stage of a shutdown: health checks are refused, sessions are served.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use spop_tests::peer::Peer;
use spop_tests::wait::{PATIENCE, until_true};

use super::stage::{ALL, LONG, Over, Server, Stage};

pub(super) const OVER: &[Over] = ALL;

/// As HAProxy sends it: without an engine-id or capabilities.
const CHECK: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:\"\" healthcheck=bool:true";

/// Whether a health check on a new connection is refused, as it is to be.
fn is_refused(peer: &mut Peer) -> Result<bool> {
    peer.send(CHECK)?;
    let answer = peer.receive()?;
    if answer.starts_with("AGENT-HELLO ") {
        peer.expect_eof()?;
        return Ok(false);
    }
    ensure!(answer.starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0 "), "{answer}");
    peer.shut()?;
    peer.expect_eof()?;
    Ok(true)
}

/// Each thread of a server hears of it by itself.
fn wait_for_lame_duck(server: &Server) -> Result<()> {
    let mut refused = 0;
    until_true("health checks are refused", PATIENCE, || {
        refused = if is_refused(&mut server.connect()?)? { refused + 1 } else { 0 };
        Ok(refused == 8)
    })
}

pub(super) fn health_checks_are_refused_and_sessions_served(stage: &Stage<'_>) -> Result<()> {
    let mut server = stage.serve_with(|plan| {
        plan.config.lame_duck = LONG;
        // One of them says nothing for as long as it takes to see the stage.
        plan.config.agent.timeouts.hello = Some(LONG);
    })?;
    let (mut old, mut silent) = (server.session()?, server.connect()?);
    server.wait_for("both are there", |stats| stats.open == 2)?;
    ensure!(!is_refused(&mut server.connect()?)?, "refused while it serves");
    server.running.drain();
    wait_for_lame_duck(&server)?;
    ensure!(is_refused(&mut silent)?, "not refused on a connection that was open before");
    let mut new = server.session()?;
    for id in 0..10 {
        for peer in [&mut old, &mut new] {
            peer.ask(
                &format!("NOTIFY fin {id} 1 m a=int32:{id}"),
                &format!("ACK fin {id} 1 set txn a=int32:{id}"),
            )?;
        }
    }
    // A stop ends this stage too, whatever is owed.
    old.send("NOTIFY fin 11 1 hold key=string:a")?;
    server.gate.wait("a")?;
    let start = Instant::now();
    server.running.stop();
    for peer in [&mut old, &mut new] {
        peer.expect_disconnect(0)?;
        peer.expect_end()?;
    }
    server.running.wait()?;
    ensure!(start.elapsed() < Duration::from_secs(8), "it stops after {:?}", start.elapsed());
    Ok(())
}

pub(super) fn when_it_is_over_the_server_drains(stage: &Stage<'_>) -> Result<()> {
    let time = Duration::from_millis(400);
    let mut server = stage.serve_with(|plan| plan.config.lame_duck = time)?;
    let (mut busy, mut idle) = (server.session()?, server.session()?);
    busy.send("NOTIFY fin 1 1 hold key=string:a")?;
    server.gate.wait("a")?;
    let start = Instant::now();
    server.running.drain();
    idle.expect_status(0)?;
    ensure!(start.elapsed() >= time, "it drains after {:?}", start.elapsed());
    // From here on as any drain.
    until_true("it no longer listens", PATIENCE, || Ok(Peer::connect(&server.running.address()).is_err()))?;
    busy.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")?;
    server.gate.release("a")?;
    busy.expect("ACK fin 1 1")?;
    busy.expect_status(0)?;
    drop((busy, idle));
    server.running.wait()
}

pub(super) fn without_it_a_drain_begins_at_once(stage: &Stage<'_>) -> Result<()> {
    let mut server = stage.serve()?;
    let mut idle = server.session()?;
    let start = Instant::now();
    server.running.drain();
    idle.expect_status(0)?;
    ensure!(start.elapsed() < Duration::from_secs(6), "after {:?}", start.elapsed());
    drop(idle);
    server.running.wait()
}
