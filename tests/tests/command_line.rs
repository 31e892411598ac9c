//! The command line `spop` against the echo agents.

#![allow(clippy::unwrap_used, clippy::panic)] // They are tests.

use anyhow::{Result, ensure};
use spop_tests::agent::{AGENTS, Agent};
use spop_tests::cli;

/// Plays a scenario with every echo agent.
fn with_each(args: &[&str], scenario: fn(&str) -> Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    for name in AGENTS {
        let args: Vec<_> = ["--listen", "127.0.0.1:0"].iter().chain(args).copied().collect();
        let agent = Agent::start(name, &args, &dir.path().join(name)).unwrap();
        scenario(agent.address()).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

#[test]
fn check_finds_nothing_in_the_echo_agents() {
    with_each(&[], |address| {
        let run = cli::run(&["check", address])?;
        let out = String::from_utf8(run.stdout)?;
        ensure!(run.status.code() == Some(0) && run.stderr.is_empty(), "{:?}: {out}", run.status);
        ensure!(out.lines().last().unwrap_or_default().ends_with("; 0 wrong, 0 warnings"), "{out}");
        ensure!(out.contains("8 of 8 greetings accepted"), "{out}");
        Ok(())
    });
}

#[test]
fn check_finds_small_frames_in_the_echo_agents() {
    with_each(&["--max-frame-size", "4096", "--capabilities", ""], |address| {
        let run = cli::run(&["check", address, "--strict"])?;
        let out = String::from_utf8(run.stdout)?;
        ensure!(run.status.code() == Some(1), "{out}");
        ensure!(out.contains("warning: max-frame-size is 4096, and HAProxy offers 16380"), "{out}");
        Ok(())
    });
}

/// Plays all cases: none fails, and so many are not applicable.
fn conforms(address: &str, not_applicable: usize) -> Result<()> {
    let run = cli::run(&["conform", address, "--strict", "--message", "check ip=ipv4:203.0.113.7"])?;
    let out = String::from_utf8(run.stdout)?;
    ensure!(run.status.code() == Some(0) && run.stderr.is_empty(), "{:?}: {out}", run.status);
    ensure!(out.ends_with(&format!("{address}: conforms\n")), "{out}");
    let skipped = out.lines().filter(|line| line.starts_with("  not applicable ")).count();
    ensure!(skipped == not_applicable, "{out}");
    Ok(())
}

#[test]
fn the_echo_agents_conform() {
    // No async, no pipelining with HAProxy 3.1 and later, and no agent without fragments.
    with_each(&[], |address| conforms(address, 4));
}

#[test]
fn the_echo_agents_conform_with_all_capabilities() {
    with_each(&["--capabilities", "fragmentation,pipelining,async"], |address| conforms(address, 1));
}

#[test]
fn the_echo_agents_conform_with_no_capabilities_and_small_frames() {
    with_each(&["--capabilities", "", "--max-frame-size", "256"], |address| {
        let run = cli::run(&["conform", address])?;
        let out = String::from_utf8(run.stdout)?;
        ensure!(run.status.code() == Some(0), "{out}");
        ensure!(out.ends_with(&format!("{address}: conforms, but for 1 should\n")), "{out}");
        ensure!(out.contains("A large frame size is accepted as it is offered"), "{out}");
        Ok(())
    });
}

#[test]
fn send_shows_what_the_echo_agents_answer() {
    with_each(&[], |address| {
        let messages = "check ip=ipv6:2001:db8::1 =bool:true text=string:\"\\xff\" ; blob size=int32:15000";
        let run = cli::run(&["send", address, messages, "--engine", "2.6", "--prefix", "e"])?;
        let out = String::from_utf8(run.stdout)?;
        ensure!(run.status.code() == Some(0), "{out}");
        for row in [
            "  set     txn.e.check.ip    ipv6:2001:db8::1\n",
            "  set     txn.e.check.1     bool:true\n",
            "  set     txn.e.check.text  string:\"\\xff\"\n",
            "  set     txn.e.blob        string:\"x\"*15000\n",
        ] {
            ensure!(out.contains(row), "{row}{out}");
        }
        let run = cli::run(&["send", address, "disconnect code=int32:42"])?;
        let out = String::from_utf8(run.stdout)?;
        ensure!(run.status.code() == Some(1) && out.contains("HAProxy reports 298"), "{out}");
        Ok(())
    });
}
