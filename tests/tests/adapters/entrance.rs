//! What connections pass before their sessions.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use spop_core::accept::{
    AcceptConfig, Addresses, ExpectProxy, Monitor, Policy, ProxyVersion, SourceRules, encode_proxy_header,
};
use spop_tests::peer::Peer;
use spop_tests::wait::{PATIENCE, until_true};

use super::stage::{Over, Server, Stage};

pub(super) const OVER: &[Over] = &[Over::Tcp];

fn serve(stage: &Stage<'_>, accept: AcceptConfig) -> Result<Server> {
    stage.serve_with(|plan| plan.accept = accept)
}

fn address(server: &Server) -> Result<SocketAddr> {
    Ok(server.running.address().parse()?)
}

pub(super) fn source_rules_decide(stage: &Stage<'_>) -> Result<()> {
    let rules = SourceRules::new(Policy::Deny).deny("127.0.0.6/32".parse()?).allow("127.0.0.0/29".parse()?);
    let server = serve(stage, AcceptConfig::new().with(rules)?)?;
    let from = |last: u8| Peer::tcp_from([127, 0, 0, last], address(&server)?);
    from(5)?.greet()?;
    from(6)?.expect_end()?;
    from(8)?.expect_end()?;
    server.wait_for("both are counted", |stats| stats.rejected == 2)?;
    from(7)?.greet()
}

pub(super) fn a_probe_is_answered_and_closed(stage: &Stage<'_>) -> Result<()> {
    let monitor = Monitor::new("GET /health ", "HTTP/1.0 200 OK\r\n\r\nalive\n");
    let server = serve(stage, AcceptConfig::new().with(monitor)?)?;
    for piece in [1, 5, 100] {
        let mut probe = server.connect()?;
        for bytes in b"GET /health HTTP/1.0\r\n\r\n".chunks(piece) {
            // It may have been answered before all of it came.
            if probe.send_bytes(bytes).is_err() {
                break;
            }
        }
        ensure!(probe.rest()? == b"HTTP/1.0 200 OK\r\n\r\nalive\n", "in pieces of {piece}");
    }
    server.wait_for("they are counted", |stats| stats.probes == 3 && stats.rejected == 0)?;
    server.expect_alive()?;
    // Nearly a probe: a session that begins badly.
    let mut peer = server.connect()?;
    peer.send_bytes(b"GET /healthy HTTP/1.0\r\n\r\n")?;
    peer.expect_status(3)
}

pub(super) fn a_probe_has_another_answer_in_lame_duck(stage: &Stage<'_>) -> Result<()> {
    let mut accept = AcceptConfig::new()
        .with(Monitor::new("ping\n", "pong\n").lame_duck("gone\n"))?
        .with(Monitor::new("check\n", "fine\n"))?;
    // One of them says nothing for as long as it takes to see the stage.
    accept.timeout = Duration::from_secs(60);
    let mut server = stage.serve_with(|plan| {
        plan.accept = accept;
        plan.config.lame_duck = Duration::from_secs(60);
    })?;
    let answer = |mut probe: Peer, request: &[u8]| {
        probe.send_bytes(request)?;
        probe.rest()
    };
    let silent = server.connect()?;
    for _ in 0..10 {
        ensure!(answer(server.connect()?, b"ping\n")? == b"pong\n", "before");
        ensure!(answer(server.connect()?, b"check\n")? == b"fine\n", "before");
    }
    server.running.drain();
    let mut gone = 0;
    // Each thread of the server hears of it by itself.
    until_true("it says so", PATIENCE, || {
        gone = if answer(server.connect()?, b"ping\n")? == b"gone\n" { gone + 1 } else { 0 };
        Ok(gone == 8)
    })?;
    ensure!(answer(silent, b"ping\n")? == b"gone\n", "on a connection that was open before");
    // A monitor that has no answer for this stage gives none.
    ensure!(answer(server.connect()?, b"check\n")?.is_empty(), "it is said to be fine");
    ensure!(server.running.stats().rejected == 0, "a probe was refused");
    server.expect_alive()?;
    server.running.stop();
    server.running.wait()
}

fn header(version: ProxyVersion) -> Result<Vec<u8>> {
    let (source, destination) =
        ("203.0.113.9:4711".parse::<SocketAddr>()?.into(), "192.0.2.1:443".parse::<SocketAddr>()?.into());
    let mut header = Vec::new();
    encode_proxy_header(version, Some(&Addresses { source, destination }), &mut header);
    Ok(header)
}

pub(super) fn a_proxy_header_says_who_asks(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage, AcceptConfig::new().with(ExpectProxy::new())?)?;
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        for piece in [1, 7, 1000] {
            let mut peer = server.connect()?;
            for bytes in header(version)?.chunks(piece) {
                peer.send_bytes(bytes)?;
            }
            peer.greet()?;
            peer.ask(
                "NOTIFY fin 1 1 who",
                "ACK fin 1 1 set txn source=string:203.0.113.9:4711 ; set txn destination=string:192.0.2.1:443",
            )?;
        }
    }
    // The header of a proxy that speaks for itself announces nobody.
    let mut peer = server.connect()?;
    peer.send_bytes(b"PROXY UNKNOWN\r\n")?;
    peer.greet()?;
    let own = peer.local()?;
    peer.ask("NOTIFY fin 1 1 who", &format!("ACK fin 1 1 set txn source=string:{own}"))
}

pub(super) fn without_its_proxy_header_a_connection_ends(stage: &Stage<'_>) -> Result<()> {
    let server = serve(stage, AcceptConfig::new().with(ExpectProxy::new())?)?;
    for first in
        [&b"\x00\x00\x00\x50\x01"[..], b"PROXY TCP4 nonsense\r\n", b"\r\n\r\n\x00\r\nQUIT\n\xff\xff\xff\xff"]
    {
        let mut peer = server.connect()?;
        peer.send_bytes(first)?;
        peer.expect_end()?;
    }
    server.wait_for("they are counted", |stats| stats.rejected == 3 && stats.open == 0)
}

pub(super) fn rules_judge_whom_they_know_at_their_place(stage: &Stage<'_>) -> Result<()> {
    let inside = SourceRules::new(Policy::Deny).allow("127.0.0.2/32".parse()?);
    let clients = SourceRules::new(Policy::Allow).deny("203.0.113.0/24".parse()?);
    let accept = AcceptConfig::new().with(inside)?.with(ExpectProxy::new())?.with(clients)?;
    let server = serve(stage, accept)?;
    let from = |last: u8| Peer::tcp_from([127, 0, 0, last], address(&server)?);
    // Not one of ours, before it has said anything.
    from(3)?.expect_end()?;
    // One of ours, for a client that may not.
    let mut peer = from(2)?;
    peer.send_bytes(&header(ProxyVersion::V2)?)?;
    peer.expect_end()?;
    server.wait_for("both are counted", |stats| stats.rejected == 2)?;
    let mut peer = from(2)?;
    peer.send_bytes(b"PROXY TCP4 198.51.100.1 192.0.2.1 4711 443\r\n")?;
    peer.greet()
}

pub(super) fn who_says_nothing_is_closed_in_time(stage: &Stage<'_>) -> Result<()> {
    let mut accept = AcceptConfig::new().with(Monitor::new("ping\n", "pong\n"))?.with(ExpectProxy::new())?;
    accept.timeout = Duration::from_millis(100);
    let server = serve(stage, accept)?;
    for first in [&b""[..], b"pi", b"PROXY TCP4 "] {
        let mut peer = server.connect()?;
        peer.send_bytes(first)?;
        peer.expect_end()?;
    }
    server.wait_for("they are counted", |stats| stats.rejected == 3 && stats.open == 0)
}

pub(super) fn a_stop_ends_those_without_a_session(stage: &Stage<'_>) -> Result<()> {
    let mut server = serve(stage, AcceptConfig::new().with(Monitor::new("ping\n", "pong\n"))?)?;
    let mut peer = server.connect()?;
    server.wait_for("it is there", |stats| stats.open == 1)?;
    server.running.stop();
    peer.expect_end()?;
    server.running.wait()
}
