//! TLS, PROXY headers, unix sockets, and the view on a terminal.

use std::fs;

use super::bench;
use crate::support::{Listen, spop};

#[test]
fn connections_are_opened_as_by_the_other_commands() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, path) = (file("agent.crt"), file("agent.key"), file("agent.sock"));
    let pair = rcgen::generate_simple_self_signed(["agent.example".to_owned()]).unwrap();
    fs::write(&certificate, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let tls = ["--tls-cert", certificate.as_str(), "--tls-key", &key];

    for (at, listen, connect) in [
        ("127.0.0.1:0", &[&tls[..], &["--proxy"]].concat()[..], &["--tls", "--tls-insecure", "--proxy"][..]),
        (
            "127.0.0.1:0",
            &tls,
            &["--tls=agent.example", "--tls-ca", &certificate, "--engine", "2.6", "--in-flight", "7"],
        ),
        (&path, &["--proxy"], &["--proxy=v1"]),
        (&path, &tls, &["--tls", "--tls-insecure", "--rate", "500"]),
    ] {
        let agent = Listen::start_at(at, listen).without_output();
        // Answers longer than a record of TLS, and than what the socket accepts at once.
        let args = ["a x=string:{random:15000}", "b", "--requests", "300", "-c", "4"];
        let (run, result) = bench(&[&[agent.address.as_str()][..], &args, connect].concat());
        assert_eq!((run.code, result["answered"].as_u64()), (Some(0), Some(300)), "{connect:?}: {run:?}");
    }
    let agent = Listen::start(&tls).without_output();
    let run = spop(["bench", &agent.address, "a"]);
    assert!(run.code == Some(1) && run.err.contains("no SPOP agent but a TLS server: try --tls"), "{run:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_terminal_shows_the_run_while_it_lasts() {
    use std::process::{Command, Stdio};

    use crate::support::{PATIENT, finish};

    let agent = Listen::start(&[]).without_output();
    let spop = env!("CARGO_BIN_EXE_spop");
    let command = format!("{spop} bench {} a --rate 300 --time 2s --timeout {PATIENT}", agent.address);
    // `script` runs it on a pseudo-terminal.
    let run = |command: &str| {
        let mut script = Command::new("script");
        script.args(["-qec", command, "/dev/null"]).env("TERM", "xterm");
        let child =
            script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child)
    };
    let shown = run(&command);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for text in
        [" s of 2.0 s, 10 connections", "  rate  ", "/s    ", "█", "  p99 ", "  all   p50 ", "errors  none"]
    {
        assert!(shown.out.contains(text), "{text}: {}", shown.out);
    }
    let (_, end) = shown.out.rsplit_once("errors  none").unwrap();
    assert!(end.contains("\u{1b}[2K") && end.contains("600 answers in "), "the view is removed: {end:?}");
    assert!(!run(&format!("{command} --quiet")).out.contains("errors  none"));
}
