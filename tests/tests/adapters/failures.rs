//! Handlers that fail: HAProxy gets an answer at once, and nobody else notices.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use spop_core::agent::OnFailure;
use spop_core::{Actions, Scope, Status};

use super::stage::{ALL, Over, Plan, Server, Stage};

pub(super) const OVER: &[Over] = ALL;

const FAILING: [&str; 5] = ["fail", "panic", "drop", "blob size=int32:20000", "disconnect code=string:x"];

fn expect_each(server: &Server, answer: &str) -> Result<()> {
    let (mut peer, mut bystander) = (server.session()?, server.session()?);
    for (id, message) in (1..).zip(FAILING) {
        peer.send(&format!("NOTIFY fin 0 {id} m a=int32:1\nNOTIFY fin {id} 1 m a=int32:1 ; {message}"))?;
        peer.expect(&format!("ACK fin 0 {id} set txn a=int32:1\nACK fin {id} 1{answer}"))?;
        bystander.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    }
    Ok(())
}

pub(super) fn a_failed_handler_gives_an_empty_answer(stage: &Stage<'_>) -> Result<()> {
    expect_each(&stage.serve()?, "")
}

pub(super) fn or_sets_a_variable(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| {
        let mut actions = Actions::new();
        actions.set_var(Scope::Transaction, "failed", true);
        plan.config.agent.on_failure = OnFailure::Answer(actions);
    })?;
    expect_each(&server, " set txn failed=bool:true")
}

pub(super) fn or_disconnects(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| {
        plan.config.agent.on_failure = OnFailure::Disconnect { status: Status(99), message: "sorry".into() };
    })?;
    let mut bystander = server.session()?;
    for message in FAILING {
        let mut peer = server.session()?;
        peer.send(&format!("NOTIFY fin 1 1 {message}"))?;
        peer.expect_status(99)?;
        bystander.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    }
    Ok(())
}

pub(super) fn a_handler_disconnects_with_its_status(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    peer.send("NOTIFY fin 1 1 m\nNOTIFY fin 3 1 disconnect code=int32:42\nNOTIFY fin 5 1 m")?;
    peer.expect("ACK fin 1 1")?;
    peer.expect_status(42)?;
    server.expect_alive()
}

fn with_deadline(plan: &mut Plan) {
    // Longer than it takes to serve the others on a machine that is busy.
    plan.config.agent.timeouts.message = Some(Duration::from_secs(4));
}

pub(super) fn a_handler_that_takes_too_long_is_given_up(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(with_deadline)?;
    let (mut peer, mut bystander) = (server.session()?, server.session()?);
    let start = Instant::now();
    peer.send("NOTIFY fin 1 1 hold key=string:stuck")?;
    server.gate.wait("stuck")?;
    bystander.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
    peer.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")?;
    peer.expect("ACK fin 1 1")?;
    ensure!(start.elapsed() >= Duration::from_millis(3_900), "after {:?}", start.elapsed());
    // The handler hears of it, and its answer goes nowhere.
    server.gate.wait_for_cancel("stuck")?;
    server.gate.release("stuck")?;
    peer.expect_silence(Duration::from_millis(60))?;
    peer.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")
}

pub(super) fn a_handler_that_is_stuck_holds_up_nobody(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peers = Vec::new();
    for index in 0..8 {
        let mut peer = server.session()?;
        peer.send(&format!("NOTIFY fin 1 1 hold key=string:{index}"))?;
        server.gate.wait(&index.to_string())?;
        peers.push(peer);
    }
    for _ in 0..20 {
        for peer in &mut peers {
            peer.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")?;
        }
        server.expect_alive()?;
    }
    Ok(())
}
