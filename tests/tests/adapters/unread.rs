//! Async: a connection whose peer does not read, and its siblings.

use anyhow::{Result, ensure};
use spop_core::frame::Capabilities;
use spop_tests::peer::Peer;
use spop_tests::wait::{PATIENCE, until_true};

use super::stage::{ALL, Over, Server, Stage};

pub(super) const OVER: &[Over] = ALL;

fn serve(stage: &Stage<'_>) -> Result<Server> {
    stage.serve_with(|plan| {
        plan.config.agent.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
        plan.config.agent.processing = None;
        // Requests are read whatever waits to be sent.
        plan.config.agent.limits.max_outgoing = 1 << 30;
        plan.config.agent.limits.max_in_flight = 100_000;
        plan.config.agent.timeouts.write = None;
    })
}

fn session(server: &Server) -> Result<Peer> {
    server.session_with("capabilities=string:pipelining,async engine-id=string:e1")
}

/// Sends requests with long answers, and reads none, until more wait in the server than the sockets will ever take. It has no
/// sibling yet, which would send them.
fn stall(server: &Server, home: &mut Peer) -> Result<()> {
    until_true("answers wait", PATIENCE, || {
        home.send(&"NOTIFY fin 99 1 blob size=int32:15000\n".repeat(50))?;
        Ok(server.running.connections().iter().any(|home| home.outgoing > 16 << 20))
    })
}

/// The first frame that is no answer with a blob.
fn behind_blobs(home: &mut Peer) -> Result<String> {
    loop {
        let frame = home.receive()?;
        if !frame.starts_with("ACK fin 99 1 ") {
            return Ok(frame);
        }
    }
}

pub(super) fn an_answer_takes_a_sibling(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage)?;
    let mut home = session(&server)?;
    home.send("NOTIFY fin 1 1 hold key=string:a")?;
    server.gate.wait("a")?;
    stall(&server, &mut home)?;
    let mut sibling = session(&server)?;
    server.gate.release("a")?;
    // Some of the blobs may have been asked for after it was there.
    let found = behind_blobs(&mut sibling)?;
    ensure!(found == "ACK fin 1 1", "{found}");
    Ok(())
}

pub(super) fn an_answer_at_once_takes_a_sibling(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage)?;
    let mut home = session(&server)?;
    stall(&server, &mut home)?;
    let mut sibling = session(&server)?;
    home.send("NOTIFY fin 1 1 m v=int32:1")?;
    let found = behind_blobs(&mut sibling)?;
    ensure!(found == "ACK fin 1 1 set txn v=int32:1", "{found}");
    Ok(())
}

pub(super) fn a_disconnect_is_for_the_connection_of_its_request(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage)?;
    let mut home = session(&server)?;
    home.send("NOTIFY fin 1 1 hold key=string:a ; disconnect code=int32:42")?;
    server.gate.wait("a")?;
    stall(&server, &mut home)?;
    let mut sibling = session(&server)?;
    server.gate.release("a")?;
    let found = behind_blobs(&mut home)?;
    ensure!(found.starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:42 "), "{found}");
    // It has nothing to do with it.
    sibling.send("NOTIFY fin 3 1 m")?;
    let found = behind_blobs(&mut sibling)?;
    ensure!(found == "ACK fin 3 1", "{found}");
    Ok(())
}
