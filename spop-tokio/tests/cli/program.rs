//! What all commands have in common.

use std::{fs, process::Stdio};

use crate::support::{command, finish, spop};

const COMMANDS: [&str; 10] =
    ["check", "conform", "send", "bench", "listen", "relay", "decode", "explain", "completions", "man"];

#[test]
fn the_help_names_all_commands_and_exit_statuses() {
    let help = spop(["--help"]);
    assert_eq!(help.code, Some(0));
    for text in COMMANDS.into_iter().chain(["Exit status:", "130  interrupted", "--json"]) {
        assert!(help.out.contains(text), "{text}: {}", help.out);
    }
    for name in COMMANDS {
        let help = spop([name, "--help"]);
        assert_eq!(help.code, Some(0));
        assert!(help.out.contains("Usage: spop "), "{}", help.out);
        // A line is read on a terminal.
        assert!(help.out.lines().all(|line| line.chars().count() <= 125), "{}", help.out);
    }
}

#[test]
fn a_wrong_command_line_is_status_2() {
    for args in [
        &[][..],
        &["nonsense"],
        &["send"],
        &["send", "127.0.0.1:1"],
        &["send", "127.0.0.1", "a"],
        &["send", "127.0.0.1:1", "a b"],
        &["send", "127.0.0.1:1", "a", "--engine", "2.4"],
        &["send", "127.0.0.1:1", "a", "--abort-after", "1"],
        &["send", "127.0.0.1:1", "a", "--repeat", "0"],
        &["send", "127.0.0.1:1", "a", "--timeout", "0"],
        &["send", "127.0.0.1:1", "a", "--tls"],
        &["bench", "127.0.0.1:1"],
        &["bench", "127.0.0.1:1", "a", "--rate", "0"],
        &["bench", "127.0.0.1:1", "a", "--rate", "1..2", "--requests", "9"],
        &["bench", "127.0.0.1:1", "a", "--connections", "0"],
        &["bench", "127.0.0.1:1", "a", "--rounds", "2"],
        &["bench", "127.0.0.1:1", "a x=int32:{m}"],
        &["check", "127.0.0.1:1", "--proxy=v3"],
        &["conform"],
        &["conform", "127.0.0.1"],
        &["conform", "127.0.0.1:1", "--level", "may"],
        &["conform", "127.0.0.1:1", "--message", "a b"],
        &["conform", "127.0.0.1:1", "--timeout", "0"],
        &["conform", "127.0.0.1:1", "--only", "no such case"],
        &["listen", "127.0.0.1:0", "--set", "txn score"],
        &["listen", "127.0.0.1:0", "--on", "a", "explode"],
        &["listen", "127.0.0.1:0", "--fail", "--ignore"],
        &["listen", "127.0.0.1:0", "--capabilities", "teleport"],
        &["listen", "127.0.0.1:0", "--tls-cert", "x"],
        &["relay", "127.0.0.1:0"],
        &["relay", "127.0.0.1:0", "127.0.0.1:1", "--delay", "soon"],
        &["relay", "127.0.0.1:0", "127.0.0.1:1", "--delay", "1s byte=1"],
        &["relay", "127.0.0.1:0", "127.0.0.1:1", "--drop", "share=2"],
        &["relay", "127.0.0.1:0", "127.0.0.1:1", "--close", "type=PING"],
        &["relay", "127.0.0.1:0", "127.0.0.1:1", "--record-max", "1t"],
        &["relay", "127.0.0.1:0", "127.0.0.1:1", "--listen-tls-cert", "x"],
        &["relay", "127.0.0.1:0", "127.0.0.1:1", "--filter", "x=1"],
        &["explain"],
    ] {
        let run = spop(args.iter().copied());
        assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{args:?}: {run:?}");
        assert!(!run.err.is_empty(), "{args:?}");
    }
    spop(["send", "127.0.0.1:1", "a", "--tls"])
        .expect_error(2, "spop: --tls needs --tls-ca FILE, or --tls-insecure");
    let run = spop(["send", "127.0.0.1:1", "check ip=ipv4:1.2"]);
    assert!(run.err.contains("column 15: expected an IPv4 address, found `1.2`"), "{}", run.err);
}

#[test]
fn no_connection_is_status_3() {
    for command in ["check", "conform", "send", "bench"] {
        let asks = ["send", "bench"].contains(&command);
        let with = |address| spop([command, address].into_iter().chain(asks.then_some("a")));
        with("127.0.0.1:1").expect_error(3, "spop: 127.0.0.1:1: connection refused: is the agent running?");
        with("/nonexistent/agent.sock")
            .expect_error(3, "spop: /nonexistent/agent.sock: there is no such socket: is the agent running?");
    }
    for args in
        [&["listen", "/nonexistent/agent.sock"][..], &["relay", "/nonexistent/agent.sock", "127.0.0.1:1"]]
    {
        let run = spop(args.iter().copied());
        assert!(
            run.code == Some(3) && run.err.starts_with("spop: cannot listen on /nonexistent/agent.sock"),
            "{run:?}"
        );
        assert_eq!(run.err.lines().count(), 1, "{run:?}");
    }
    spop(["relay", "127.0.0.1:0", "127.0.0.1:1", "--record", "/nonexistent/a.pcap"])
        .expect_error(3, "spop: /nonexistent/a.pcap: no such file or directory");
    let missing = ["send", "127.0.0.1:1", "a", "--tls", "--tls-ca", "/nonexistent/ca.pem"];
    let run = spop(missing);
    assert!(run.code == Some(3) && run.err.contains("/nonexistent/ca.pem"), "{run:?}");
}

#[test]
fn completions_and_pages_are_for_all_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = spop(["completions", shell]);
        assert_eq!(run.code, Some(0));
        assert!(COMMANDS.iter().all(|name| run.out.contains(name)), "{shell}");
    }
    let page = spop(["man"]);
    assert!(page.code == Some(0) && page.out.contains(".TH spop 1"), "{page:?}");
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    assert_eq!(spop(["man", pages.to_str().unwrap()]).code, Some(0));
    for name in COMMANDS {
        let page = fs::read_to_string(pages.join(format!("spop-{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
}

#[test]
fn colors_are_for_terminals_or_when_asked_for() {
    let plain = spop(["explain", "258"]).out;
    assert!(!plain.contains('\u{1b}'));
    let colored = spop(["explain", "258", "--color", "always"]).out;
    assert!(colored.starts_with("\u{1b}[1merror 258: "), "{colored:?}");
    assert_eq!(spop(["explain", "258", "--color", "never"]).out, plain);
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let mut child = command(["explain", "258"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = finish(child.stdout(Stdio::from(writer)).spawn().unwrap());
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
}
