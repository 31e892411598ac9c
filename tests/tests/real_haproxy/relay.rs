//! `spop relay` between HAProxy and an agent: what it records is what `tcpdump` sees.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use spop_tests::agent::{AGENTS, Agent};
use spop_tests::cli::{self, Listen};
use spop_tests::haproxy::{Binary, Config, Engine, Haproxy};
use spop_tests::http::Request;
use spop_tests::load::concurrently;
use spop_tests::stage::Failures;
use spop_tests::tcpdump::Tcpdump;
use spop_tests::wait::{PATIENCE, until_true};

use super::fragments::body;

/// What happened on each connection with a request, by HAProxy's address: the lines of each kind in their order. That of the
/// directions depends on where one looks.
type Shown = BTreeMap<(String, char), Vec<String>>;

fn shown<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Shown> {
    let (mut shown, mut peers) = (Shown::new(), HashMap::new());
    for line in lines {
        // The time, the number of the connection, and the rest.
        let Some((_, line)) = line.split_once(" #") else { continue };
        let (number, line) = line.split_once(' ').context("a number")?;
        if let Some(ends) = line.strip_prefix("* connection from ") {
            peers.insert(number, ends.to_owned());
        }
        let peer = peers.get(number).with_context(|| format!("{line} is of no connection"))?;
        let kind = line.chars().next().context("a line")?;
        shown.entry((peer.clone(), kind)).or_default().push(line.to_owned());
    }
    // When HAProxy is killed, a health check may be on a connection that the relay never accepts.
    let asks = |lines: &Vec<String>| lines.iter().any(|line| line.starts_with("> NOTIFY"));
    let asked: BTreeSet<_> =
        shown.iter().filter(|(_, lines)| asks(lines)).map(|((peer, _), _)| peer.clone()).collect();
    shown.retain(|(peer, _), _| asked.contains(peer));
    Ok(shown)
}

fn decoded(file: &Path) -> Result<Shown> {
    let run = cli::run(&["decode", file.to_str().context("a path")?, "--cut", "0"])?;
    let text = String::from_utf8(run.stdout)?;
    let errors = String::from_utf8(run.stderr)?;
    ensure!(run.status.code() == Some(0) && errors.is_empty(), "{}: {errors}{text}", file.display());
    shown(text.lines())
}

fn scenario(binary: &Binary, name: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let agent = Agent::start(name, &["--listen", "127.0.0.1:0"], &dir.path().join("agent.log"))?;
    let (recording, capture) = (dir.path().join("relay.pcap"), dir.path().join("tcpdump.pcap"));
    let record = recording.to_str().context("a path")?;
    let relay = Listen::relay(agent.address(), &["--record", record, "--cut", "0"])?;
    let port = relay.address().rsplit(':').next().context("a port")?;
    let tcpdump = Tcpdump::start(port, &capture)?;
    let config = Config::new(relay.address())
        .server_options("check inter 100ms")
        .backend("option spop-check")
        .frontend("option http-buffer-request")
        .message("check", "v=url_param(v) b=req.body")
        .show("check.v");
    let haproxy = Haproxy::start(binary, dir.path(), &config)?;
    haproxy.wait_for_server("UP")?;
    // Up to 3.0 in fragments.
    let longest = if binary.engine() == Engine::Applet { 40_000 } else { 12_000 };
    concurrently(4, |client| {
        for length in [0, 10, 3_000, longest] {
            let value = client.to_string();
            let reply = haproxy.send(&Request::post(&format!("/?v={value}"), body(length)))?;
            reply.expect(&[("check.v", &value)])?;
        }
        Ok(())
    })?;
    // All connections are closed before the relay is.
    drop(haproxy);
    until_true("all connections are closed", PATIENCE, || {
        let lines = relay.lines();
        let count = |text| lines.iter().filter(|line| line.contains(text)).count();
        Ok(count(" * connection from ") == count(" * closed: "))
    })?;
    let (code, lines) = relay.interrupt()?;
    ensure!(code == Some(130), "{code:?}");
    let seen = shown(lines.iter().map(String::as_str))?;
    let ended =
        |shown: &Shown| shown.values().flatten().filter(|line| line.starts_with("* closed: ")).count();
    // What it has not yet read when it is interrupted is lost. It may be in the middle of a packet.
    until_true("tcpdump has seen the end of all connections", PATIENCE, || {
        Ok(decoded(&capture).is_ok_and(|captured| ended(&captured) >= ended(&seen)))
    })?;
    tcpdump.finish()?;

    let (recorded, captured) = (decoded(&recording)?, decoded(&capture)?);
    let requests = recorded.iter().filter(|((_, kind), _)| *kind == '>').flat_map(|(_, lines)| lines);
    ensure!(requests.filter(|line| line.contains("> NOTIFY")).count() >= 16, "{recorded:#?}");
    for (other, what) in [(captured, "tcpdump has captured"), (seen, "was shown")] {
        for (key, lines) in &recorded {
            let other = other.get(key).map(Vec::as_slice).unwrap_or_default();
            ensure!(other == lines, "{key:?}: recorded is {lines:#?}, {what} {other:#?}");
        }
        ensure!(other.len() == recorded.len(), "{what} more: {other:#?}");
    }
    let summary = lines.iter().find(|line| line.starts_with("connections: ")).context("a summary")?;
    ensure!(summary.contains("requests: 16, answered: 16, violations: 0"), "{summary}");
    Ok(())
}

#[test]
fn a_recording_is_what_tcpdump_captures() -> Result<(), Failures> {
    for binary in Binary::all()? {
        for name in AGENTS {
            scenario(&binary, name).with_context(|| format!("{name} with HAProxy {}", binary.version()))?;
        }
    }
    Ok(())
}
