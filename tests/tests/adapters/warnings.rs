//! What a server warns of, and how often.

use anyhow::{Result, ensure};

use super::log::{Log, name};
use super::stage::{Over, Stage};

pub(super) const OVER: &[Over] = &[Over::Tcp];

pub(super) fn requests_longer_than_the_agent_takes(stage: &Stage<'_>) -> Result<()> {
    let log = Log::start();
    let mut server = stage.serve_with(|plan| plan.config.agent.max_frame_size = 1024)?;
    let session = |size: u32, capabilities: &str| {
        server.session_with(&format!("max-frame-size=uint32:{size} capabilities=string:{capabilities}"))
    };
    let cannot = session(65_532, "pipelining")?;
    // HAProxy 2.6 and 3.0 send what is too long in fragments, and other peers send nothing that is longer.
    let can = [session(65_532, "pipelining,async")?, session(1024, "pipelining")?];
    let line = log.expect_one("frame_size_reduced", &[name(&cannot)?])?;
    ensure!(line.contains(" offered=65532 agreed=1024 "), "{line}");
    server.running.stop();
    server.running.wait()?;
    for peer in &can {
        log.expect_none("frame_size_reduced", &[name(peer)?])?;
    }
    Ok(())
}

pub(super) fn a_variable_that_haproxy_drops(stage: &Stage<'_>) -> Result<()> {
    let log = Log::start();
    let mut server = stage.serve()?;
    // As `auth-status`; other servers of this process have other ports.
    let (bad, good) = (format!("auth-{}", port(&server.running.address())), "auth_status");
    let (mut one, mut other) = (server.session()?, server.session()?);
    for id in 0..5 {
        for peer in [&mut one, &mut other] {
            for name in [&bad, good] {
                // It is sent as it is.
                peer.ask(
                    &format!("NOTIFY fin {id} 1 m {name}=int32:{id}"),
                    &format!("ACK fin {id} 1 set txn {name}=int32:{id}"),
                )?;
            }
        }
    }
    server.running.stop();
    server.running.wait()?;
    let line = log.expect_one("variable_dropped", &[bad])?;
    ensure!(!line.contains(good), "{line}");
    Ok(())
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or(address)
}

pub(super) fn a_client_of_another_protocol(stage: &Stage<'_>) -> Result<()> {
    let log = Log::start();
    // The rate is bounded for each thread of spop-mio.
    let mut server = stage.serve_with(|plan| plan.workers = Some(1))?;
    let mut foreign = Vec::new();
    for _ in 0..20 {
        let mut peer = server.connect()?;
        foreign.push(name(&peer)?);
        peer.send_bytes(b"GET /health HTTP/1.1\r\nHost: agent\r\n\r\n")?;
        peer.expect_status(3)?;
    }
    // One of HAProxy's own is not hidden by them.
    let mut peer = server.connect()?;
    peer.send("NOTIFY fin 1 1 m")?;
    peer.expect_status(4)?;
    let line = log.expect_one("connection_failed", &[name(&peer)?])?;
    ensure!(line.contains(" suppressed=0 "), "{line}");
    server.running.stop();
    server.running.wait()?;
    let line = log.expect_one("not_spop", &foreign)?;
    ensure!(line.contains("an HTTP request arrived instead of a HAPROXY-HELLO"), "{line}");
    log.expect_none("connection_failed", &foreign)
}
