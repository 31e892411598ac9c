//! Payloads in fragments, both ways, and ABORT, both ways.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::stage::{ALL, Over, Plan, Stage};

pub(super) const OVER: &[Over] = ALL;

const SILENCE: Duration = Duration::from_millis(60);

/// A payload in so many bytes at a time.
fn fragmented(ids: &str, payload: &str, length: usize, piece: usize) -> Result<String> {
    let mut lines = String::new();
    for start in (0..length).step_by(piece) {
        let kind = if start == 0 { "NOTIFY" } else { "UNSET" };
        let end = start + piece;
        if end < length {
            writeln!(lines, "{kind} - {ids} messages[{start}..{end}] {payload}")?;
        } else {
            writeln!(lines, "{kind} fin {ids} messages[{start}..] {payload}")?;
        }
    }
    Ok(lines)
}

pub(super) fn a_payload_in_fragments_is_one_request(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session_with("capabilities=string:pipelining,async max-frame-size=uint32:1024")?;
    // The name and the length are 13 bytes.
    for piece in [7, 400, 1000] {
        let lines = fragmented("5 1", r#"m a=int32:5 ; waf body=string:"x"*600"#, 622, piece)?;
        peer.send(&lines)?;
        peer.expect(r#"ACK fin 5 1 set txn a=int32:5 ; set txn body=string:"x"*600"#)?;
    }
    Ok(())
}

pub(super) fn payloads_may_be_interleaved(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    peer.send(
        "NOTIFY - 5 1 messages[..2] one a=int32:1
         NOTIFY - 7 1 messages[..3] two a=int32:2
         NOTIFY fin 9 1 three a=int32:3
         UNSET - 7 1 messages[3..4] two a=int32:2
         UNSET fin 5 1 messages[2..] one a=int32:1
         UNSET fin 7 1 messages[4..] two a=int32:2",
    )?;
    peer.expect("ACK fin 9 1 set txn a=int32:3\nACK fin 5 1 set txn a=int32:1\nACK fin 7 1 set txn a=int32:2")
}

pub(super) fn a_long_answer_leaves_in_fragments(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let keys = "capabilities=string:pipelining,fragmentation max-frame-size=uint32:256";
    let mut peer = server.session_with(keys)?;
    peer.send("NOTIFY fin 5 1 blob size=int32:300\nNOTIFY fin 7 1 blob size=int32:300")?;
    // Not interleaved, though both are there.
    for ids in ["5 1", "7 1"] {
        peer.expect(&format!(
            r#"ACK - {ids} hex:01030204626c6f6208fc03 raw:"x"*220
               UNSET fin {ids} raw:"x"*80"#
        ))?;
    }
    // Who accepts no fragments gets what a failed handler gives.
    let mut peer = server.session_with("capabilities=string:pipelining,async max-frame-size=uint32:256")?;
    peer.ask("NOTIFY fin 5 1 blob size=int32:300", "ACK fin 5 1")
}

pub(super) fn the_peer_aborts_what_it_sends(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    peer.send(
        "NOTIFY - 5 1 messages[..2] hold key=string:a
         UNSET fin,abort 5 1
         NOTIFY - 7 1 messages[..2] hold key=string:b
         UNSET abort 7 1 raw:x
         NOTIFY fin,abort 9 1 hold key=string:c
         NOTIFY fin 11 1 m",
    )?;
    // None of the others is answered.
    peer.expect("ACK fin 11 1")?;
    ensure!(["a", "b", "c"].iter().all(|key| !server.gate.holds(key)), "a handler was called");
    // It is complete, and being worked on.
    peer.send(
        "NOTIFY - 13 1 messages[..2] hold key=string:d
         UNSET fin 13 1 messages[2..] hold key=string:d",
    )?;
    server.gate.wait("d")?;
    peer.send("UNSET fin,abort 13 1")?;
    server.gate.wait_for_cancel("d")?;
    server.gate.release("d")?;
    peer.expect_silence(SILENCE)?;
    peer.ask("NOTIFY fin 15 1 m", "ACK fin 15 1")
}

/// Lets a peer be quiet after a refusal: this one is not HAProxy, and may be slow.
fn patient(plan: &mut Plan) {
    plan.config.agent.drain_after_refusal = None;
}

pub(super) fn the_agent_refuses_what_arrives(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| {
        plan.config.agent.watch_fragments = true;
        patient(plan);
    })?;
    let mut peer = server.session()?;
    let payload = r#"refuse body=string:"x"*600"#;
    peer.send(&format!("NOTIFY - 5 1 messages[..200] {payload}"))?;
    peer.expect("ACK fin,abort 5 1")?;
    // What was on its way is swallowed.
    peer.send(&format!(
        "UNSET - 5 1 messages[200..400] {payload}
         UNSET fin 5 1 messages[400..] {payload}
         NOTIFY fin 7 1 m"
    ))?;
    peer.expect("ACK fin 7 1")?;
    // Whole, there is nothing to refuse.
    peer.ask("NOTIFY fin 9 1 refuse", "ACK fin 9 1")?;
    // A look that panics refuses nothing.
    peer.send(
        "NOTIFY - 11 1 messages[..14] watch-panics a=int32:1
         UNSET fin 11 1 messages[14..] watch-panics a=int32:1",
    )?;
    peer.expect("ACK fin 11 1 set txn a=int32:1")
}

pub(super) fn a_refused_connection_that_falls_silent_is_drained(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| plan.config.agent.watch_fragments = true)?;
    let mut peer = server.session()?;
    peer.send("NOTIFY - 5 1 messages[..8] refuse a=int32:1")?;
    peer.expect("ACK fin,abort 5 1")?;
    peer.expect_status(0)
}

pub(super) fn a_payload_over_the_limit_is_refused(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| {
        plan.config.agent.limits.max_payload = 300;
        patient(plan);
    })?;
    let mut peer = server.session()?;
    peer.send(&fragmented("5 1", r#"waf body=string:"x"*600"#, 613, 200)?)?;
    peer.expect("ACK fin,abort 5 1")?;
    peer.ask("NOTIFY fin 7 1 m", "ACK fin 7 1")
}

pub(super) fn a_payload_that_does_not_go_on_is_refused(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve_with(|plan| {
        plan.config.agent.timeouts.frame = Some(Duration::from_millis(100));
        patient(plan);
    })?;
    let mut peer = server.session()?;
    peer.send("NOTIFY - 5 1 messages[..2] one")?;
    peer.expect("ACK fin,abort 5 1")?;
    peer.ask("UNSET fin 5 1 messages[2..] one\nNOTIFY fin 7 1 m", "ACK fin 7 1")
}

pub(super) fn breaches_have_their_status(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let many: Vec<_> = (1..=17).map(|id| format!("NOTIFY - {id} 1")).collect();
    for (sentences, status) in [
        ("UNSET fin 6 1".to_owned(), 12),
        (many.join("\n"), 11),
        ("NOTIFY - 5 1 messages[..9] one a=string:abc\nUNSET fin 5 1".to_owned(), 4),
        ("HAPROXY-DISCONNECT - 0 0 status-code=uint32:0 message=string:x".to_owned(), 10),
    ] {
        let mut peer = server.session()?;
        peer.send(&sentences)?;
        peer.expect_status(status).with_context(|| sentences.clone())?;
    }
    let plain = stage
        .serve_with(|plan| plan.config.agent.capabilities = spop_core::frame::Capabilities::PIPELINING)?;
    let mut peer = plain.session()?;
    peer.send("NOTIFY - 5 1 messages[..1] m")?;
    peer.expect_status(10)?;
    server.expect_alive()
}
