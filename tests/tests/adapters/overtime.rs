//! Requests that HAProxy has given up: late answers, requests that give way, and those that a newer one replaces.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use spop_core::agent::PipeliningPolicy;
use spop_server::{Cancelled, FailureKind};

use super::log::{Log, name};
use super::stage::{Over, Stage};

pub(super) const OVER: &[Over] = &[Over::Tcp];

/// Long enough for what must not come to come.
const SILENCE: Duration = Duration::from_millis(60);

pub(super) fn a_late_answer_is_sent_and_counted(stage: &Stage<'_>) -> Result<()> {
    let log = Log::start();
    // Any answer that another thread gives is late; one that is given at once takes no time.
    let server = stage.serve_with(|plan| plan.config.agent.processing = Some(Duration::from_nanos(1)))?;
    let mut peer = server.session()?;
    peer.ask("NOTIFY fin 1 1 m a=int32:1", "ACK fin 1 1 set txn a=int32:1")?;
    peer.send("NOTIFY fin 3 1 hold key=string:a ; m a=int32:3")?;
    server.gate.wait("a")?;
    server.gate.release("a")?;
    peer.expect("ACK fin 3 1 set txn a=int32:3")?;
    server.wait_for("it is counted, and no other", |stats| {
        stats.late == 1 && stats.failures.of(FailureKind::Overdue) == 0
    })?;
    let line = log.expect_one("answered_late", &[name(&peer)?])?;
    ensure!(line.contains(" ids=3/1 "), "{line}");
    Ok(())
}

pub(super) fn at_the_limit_in_flight_the_oldest_gives_way(stage: &Stage<'_>) -> Result<()> {
    let (log, processing) = (Log::start(), Duration::from_millis(150));
    let server = stage.serve_with(|plan| {
        plan.config.agent.limits.max_in_flight = 2;
        plan.config.agent.processing = Some(processing);
    })?;
    let mut peer = server.session()?;
    let start = Instant::now();
    peer.send("NOTIFY fin 1 1 hold key=string:a ; m a=int32:1")?;
    server.gate.wait("a")?;
    peer.send("NOTIFY fin 3 1 hold key=string:b ; m a=int32:3\nNOTIFY fin 5 1 m a=int32:5")?;
    // What a failed handler gives, and then what had to wait for it.
    peer.expect("ACK fin 1 1\nACK fin 5 1 set txn a=int32:5")?;
    ensure!(start.elapsed() >= processing, "after {:?}", start.elapsed());
    server.gate.wait_for_reason("a", Cancelled::Overdue)?;
    // Nobody waits for the place of the other.
    ensure!(!server.gate.is_cancelled("b"), "the younger gave way as well");
    server.gate.release("a")?;
    server.gate.release("b")?;
    peer.expect("ACK fin 3 1 set txn a=int32:3")?;
    peer.expect_silence(SILENCE)?;
    server.wait_for("it is counted", |stats| stats.failures.of(FailureKind::Overdue) == 1)?;
    let line = log.expect_one("request_failed", &[name(&peer)?])?;
    ensure!(line.contains(" ids=1/1 messages=hold and 1 more what=\"overdue\""), "{line}");
    Ok(())
}

pub(super) fn haproxy_3_1_has_one_request_at_a_time(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.connect()?;
    peer.ask(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining \
         engine-id=string:e1",
        "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:fragmentation",
    )?;
    peer.send("NOTIFY fin 1 1 hold key=string:a ; m a=int32:1")?;
    server.gate.wait("a")?;
    peer.send("NOTIFY fin 3 1 hold key=string:b ; m a=int32:3")?;
    server.gate.wait("b")?;
    server.gate.wait_for_reason("a", Cancelled::Abandoned)?;
    server.gate.release("a")?;
    peer.expect_silence(SILENCE)?;
    server.gate.release("b")?;
    peer.expect("ACK fin 3 1 set txn a=int32:3")
}

pub(super) fn haproxy_3_1_with_pipelining_takes_short_answers(stage: &Stage<'_>) -> Result<()> {
    let log = Log::start();
    let server = stage.serve_with(|plan| plan.config.agent.pipelining = PipeliningPolicy::Always)?;
    let mut peer = server.connect()?;
    peer.ask(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining",
        "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 \
         capabilities=string:fragmentation,pipelining",
    )?;
    peer.send("NOTIFY fin 1 1 hold key=string:a\nNOTIFY fin 3 1 m")?;
    peer.expect("ACK fin 3 1")?;
    server.gate.release("a")?;
    peer.expect("ACK fin 1 1")?;
    // Besides the string an answer has 22 bytes, its length prefix included.
    peer.ask("NOTIFY fin 5 1 blob size=int32:758", "ACK fin 5 1 set txn blob=string:\"x\"*758")?;
    peer.ask("NOTIFY fin 7 1 blob size=int32:759", "ACK fin 7 1")?;
    let line = log.expect_one("request_failed", &[name(&peer)?])?;
    ensure!(line.contains(" ids=7/1 messages=blob what=\"answer_unsendable\""), "{line}");
    Ok(())
}
