//! `spop listen` in the place of an agent.

use anyhow::{Context, Result, ensure};
use spop_tests::cli::Listen;
use spop_tests::haproxy::{Binary, Config, Haproxy};
use spop_tests::stage::Failures;
use spop_tests::wait::{PATIENCE, until_true};

fn scenario(binary: &Binary) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("agent.sock");
    let socket = socket.to_str().context("a path")?;
    let answers = ["--set", "txn score=int32:42", "--on", "bye", "disconnect 42", "--on", "late", "ignore"];
    let listen = Listen::start(socket, &answers)?;
    let config = Config::new(listen.address())
        .server_options("check inter 100ms")
        .backend("option spop-check")
        .agent("timeout processing 2s")
        .message("check", "n=int(7) none=req.hdr(none)")
        .message_on("on-frontend-http-request if { path /bye }", "bye", "x=int(1)")
        .message_on("on-frontend-http-request if { path /late }", "late", "x=int(1)")
        .show("score");
    let haproxy = Haproxy::start(binary, dir.path(), &config)?;
    haproxy.wait_for_server("UP")?;
    haproxy.get("/")?.expect(&[("score", "42")])?;
    haproxy.get("/late")?.expect_error(1)?;
    haproxy.get("/bye")?.expect_error(298)?;
    haproxy.get("/")?.expect(&[("score", "42")])?;
    let checked = "* closed: a health check was answered";
    until_true("a check has ended", PATIENCE, || {
        Ok(listen.lines().iter().any(|line| line.contains(checked)))
    })?;
    let (code, lines) = listen.interrupt()?;
    ensure!(code == Some(130), "{code:?}");
    for shown in [
        "> HAPROXY-HELLO fin 0 0 supported-versions=string:2.0",
        checked,
        " 1 check n=int64:7 none=null",
        " 1 set txn score=int32:42",
        " is not answered, as told",
        "< AGENT-DISCONNECT fin 0 0 status-code=uint32:42",
    ] {
        ensure!(lines.iter().any(|line| line.contains(shown)), "{shown} is not in\n{}", lines.join("\n"));
    }
    Ok(())
}

#[test]
fn a_listener_shows_what_haproxy_sends_and_answers_what_it_is_told() -> Result<(), Failures> {
    for binary in Binary::all()? {
        scenario(&binary).with_context(|| format!("with HAProxy {}", binary.version()))?;
    }
    Ok(())
}
