//! How sessions begin, and how they do not.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spop_tests::peer::bytes;

use super::stage::{ALL, Over, Stage};

pub(super) const OVER: &[Over] = ALL;

const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async engine-id=string:e1";
const AGREED: &str = "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 \
                      capabilities=string:fragmentation,pipelining";

pub(super) fn a_session_is_agreed_on(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.connect()?;
    peer.ask(HELLO, AGREED)?;
    peer.ask("NOTIFY fin 1 1 engine", "ACK fin 1 1 set txn engine=string:e1")
}

pub(super) fn a_handshake_may_come_byte_by_byte(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.connect()?;
    for byte in bytes(HELLO)? {
        peer.send_bytes(&[byte])?;
    }
    peer.expect(AGREED)?;
    peer.ask("NOTIFY fin 1 1 m a=null", "ACK fin 1 1 set txn a=null")
}

pub(super) fn every_refusal_has_its_status(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let hello = |keys: &str| format!("HAPROXY-HELLO fin 0 0 {keys}");
    let version = "supported-versions=string:2.0";
    let size = "max-frame-size=uint32:16380";
    let capabilities = "capabilities=string:pipelining,async";
    for (sentence, status) in [
        (hello(&format!("supported-versions=uint32:2 {size} {capabilities}")), 4),
        ("NOTIFY fin 1 1 m".to_owned(), 4),
        ("TYPE:42 fin 0 0".to_owned(), 4),
        (format!("HAPROXY-HELLO fin 0 1 {version} {size} {capabilities}"), 4),
        (format!("{HELLO}\n{HELLO}"), 4),
        (hello(&format!("{size} {capabilities}")), 5),
        (hello(&format!("{version} {capabilities}")), 6),
        (hello(&format!("{version} {size}")), 7),
        (hello(&format!("supported-versions=string:1.0,3.0 {size} {capabilities}")), 8),
        (hello(&format!("{version} max-frame-size=uint32:255 {capabilities}")), 9),
        (format!("HAPROXY-HELLO - 0 0 {version} {size} {capabilities}"), 10),
        (hello(&format!("{version} {size} {capabilities} x=string:\"x\"*16400")), 3),
    ] {
        let mut peer = server.connect()?;
        peer.send(&sentence)?;
        if sentence.contains('\n') {
            peer.expect(AGREED)?;
        }
        peer.expect_status(status).with_context(|| sentence.get(..60).unwrap_or(&sentence).to_owned())?;
    }
    server.wait_for("all are gone", |stats| stats.open == 0)?;
    server.expect_alive()
}

pub(super) fn a_health_check_is_answered_and_closed(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.connect()?;
    // As HAProxy sends it: without an engine-id or capabilities.
    peer.greet_with("capabilities=string:\"\" healthcheck=bool:true")?;
    peer.expect_eof()?;
    drop(peer);
    server.wait_for("it is gone", |stats| stats.open == 0)
}

pub(super) fn a_handshake_has_a_deadline(stage: &Stage<'_>) -> Result<()> {
    let time = Duration::from_millis(150);
    let server = stage.serve_with(|plan| plan.config.agent.timeouts.hello = Some(time))?;
    for first in [&[][..], &[0, 0, 0]] {
        let start = Instant::now();
        let mut peer = server.connect()?;
        // With TLS this does its handshake too.
        peer.send_bytes(first)?;
        peer.expect_status(2)?;
        ensure!(start.elapsed() > time / 3, "after {:?}", start.elapsed());
    }
    server.expect_alive_soon()
}
