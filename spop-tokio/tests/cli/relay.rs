//! `spop relay`.

mod bytes;
mod faults;
mod recording;

use std::{
    fs,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    HELLO, Listen, PATIENT, Run, json, read_frame, read_to_end, server, spop, write_frames,
};

const HAPROXY_HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                             capabilities=string:pipelining engine-id=string:e";

/// A session through the relay.
fn session(relay: &Listen) -> TcpStream {
    let mut socket = TcpStream::connect(&relay.address).unwrap();
    write_frames(&mut socket, &[HAPROXY_HELLO]);
    assert!(read_frame(&mut socket).unwrap().starts_with("AGENT-HELLO fin 0 0"));
    socket
}

/// An agent that answers each request with these frames.
fn agent(answers: &'static [&'static str]) -> String {
    server(move |socket, _| {
        write_frames(socket, &[HELLO]);
        while read_frame(socket).is_some() {
            write_frames(socket, answers);
        }
    })
}

/// The lines without their times.
fn lines(run: &Run) -> Vec<&str> {
    run.out.lines().map(|line| line.split_once(" #1 ").map_or(line, |(_, line)| line)).collect()
}

#[test]
fn both_directions_are_shown_and_counted() {
    let agent = Listen::start(&["--set", "txn score=int32:42"]).without_output();
    let relay = Listen::relay(&agent.address, &[]);
    let sent = spop(["send", &relay.address, "check x=string:\"a b\"", "--engine", "3.0", "--repeat", "2"]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let run = relay.signal_after("* closed", "INT");
    assert_eq!((run.code, run.err.as_str()), (Some(130), ""), "{run:?}");
    let expected = [
        "* connection from 127.0.0.1:",
        "> HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining,async engine-id=string:",
        "< AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:fragmentation,pipelining",
        "* session: max-frame-size 16380, fragmentation,pipelining, engine ",
        "> NOTIFY fin 0 1 check x=string:\"a b\"",
        "< ACK fin 0 1 set txn score=int32:42",
        "> NOTIFY fin 1 1 check x=string:\"a b\"",
        "< ACK fin 1 1 set txn score=int32:42",
        "> HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:normal",
        "< AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=",
        "* closed: by ",
        "connections: 1, frames: 8, requests: 2, answered: 2, violations: 0",
        "ms from NOTIFY to ACK: p50 ",
    ];
    let lines = lines(&run);
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

#[test]
fn frames_and_counts_are_objects_in_json() {
    let agent = Listen::start(&["--set", "txn score=int32:42"]).without_output();
    let args = ["--json", "--drop", "type=ACK after=1 times=1", "--seed", "7"];
    let relay = Listen::relay(&agent.address, &args);
    let run = spop(["send", &relay.address, "check", "other", "--timeout", PATIENT]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let run = relay.signal_after("\"closed\"", "TERM");
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    let events = json(&run.out);
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let expected =
        ["opened", "frame", "frame", "session", "frame", "frame", "frame", "fault", "closed", "end"];
    assert_eq!(names, expected);
    let ack = &events[5];
    assert_eq!((ack["direction"].as_str(), ack["type"].as_str()), (Some("to-haproxy"), Some("ACK")));
    assert!(ack["latency_ms"].as_f64().unwrap() > 0.0 && ack["size"] == 22, "{ack}");
    let fault = &events[7];
    assert_eq!((fault["fault"].as_str(), fault["direction"].as_str()), (Some("drop"), Some("to-haproxy")));
    assert_eq!((fault["type"].as_str(), fault["stream"].as_u64()), (Some("ACK"), Some(3)), "{fault}");
    let end = &events[9];
    let counts = ["connections", "refused", "frames", "requests", "answered", "unanswered", "violations"]
        .map(|name| end[name].as_u64().unwrap());
    assert_eq!(counts, [1, 0, 5, 2, 1, 1, 0], "{end}");
    assert_eq!(end["faults"], serde_json::json!({ "delay": 0, "drop": 1, "close": 0, "reset": 0 }));
    assert_eq!(end["latency_ms"]["max"], ack["latency_ms"]);
}

#[test]
fn what_is_illegal_is_marked_and_passes() {
    let agent = agent(&["ACK fin 9 1", "ACK fin 1 1 hex:07"]);
    let relay = Listen::relay(&agent, &[]);
    let mut socket = session(&relay);
    write_frames(&mut socket, &["NOTIFY fin 1 1 check"]);
    for expected in ["ACK fin 9 1", "ACK fin 1 1 hex:07"] {
        assert_eq!(read_frame(&mut socket).as_deref(), Some(expected));
    }
    drop(socket);
    let run = relay.signal("TERM");
    assert_eq!(run.code, Some(1), "{run:?}");
    let lines = lines(&run);
    for reason in ["ACK 9/1: it answers no request", "ACK 1/1: the action type 7 is unknown"] {
        assert!(
            lines.iter().any(|line| line.starts_with("! < byte ") && line.ends_with(reason)),
            "{lines:#?}"
        );
    }
    assert!(run.out.contains(", violations: 2\n"), "{run:?}");
    // They count also where they are not shown.
    let relay = Listen::relay(&agent, &["--filter", "message=other"]);
    let mut socket = session(&relay);
    write_frames(&mut socket, &["NOTIFY fin 1 1 check"]);
    read_frame(&mut socket);
    drop(socket);
    let run = relay.signal("TERM");
    assert!(!run.out.contains(" ! ") && run.code == Some(1), "{run:?}");
}

#[test]
fn filters_and_statistics_are_those_of_decode() {
    let agent = Listen::start(&["--set", "txn score=int32:42"]).without_output();
    let relay = Listen::relay(&agent.address, &["--filter", "message=other"]);
    assert_eq!(spop(["send", &relay.address, "check", "other"]).code, Some(0));
    let run = relay.interrupt();
    let shown: Vec<_> = lines(&run).into_iter().take(2).collect();
    assert_eq!(shown, ["> NOTIFY fin 3 1 other", "< ACK fin 3 1 set txn score=int32:42"]);
    assert!(run.out.contains(", frames: 6, requests: 2, answered: 2, "), "{run:?}");
    let relay = Listen::relay(&agent.address, &["--stats", "--filter", "message=other"]);
    assert_eq!(spop(["send", &relay.address, "check", "other"]).code, Some(0));
    let run = relay.interrupt();
    assert!(run.out.contains("\nother    1        1  ") && !run.out.contains("\ncheck "), "{run:?}");
    assert!(run.out.contains(", frames: 6, requests: 2, answered: 2, "), "{run:?}");
    let relay = Listen::relay(&agent.address, &["--stats"]);
    assert_eq!(spop(["send", &relay.address, "check", "other"]).code, Some(0));
    let run = relay.interrupt();
    assert!(!run.out.contains(" > ") && run.out.contains("\ncheck    1        1  "), "{run:?}");
}

#[test]
fn an_agent_that_is_not_there_is_one_line_and_the_connections_are_closed_after_a_second() {
    let relay = Listen::relay("127.0.0.1:1", &[]);
    let begun = Instant::now();
    let sockets: Vec<_> = (0..3).map(|_| TcpStream::connect(&relay.address).unwrap()).collect();
    for mut socket in sockets {
        read_to_end(&mut socket);
    }
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let run = relay.signal("TERM");
    assert_eq!(run.code, Some(0), "{run:?}");
    let lines: Vec<_> = run.out.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert!(lines[0].starts_with("* connection from 127.0.0.1:"), "{lines:?}");
    assert!(
        lines[0].ends_with(" is closed: 127.0.0.1:1: connection refused: is the agent running?"),
        "{lines:?}"
    );
    assert_eq!(lines[1], "* 2 more connections were closed for the same reason");
    assert_eq!(lines[2], "3, not relayed: 3, frames: 0, requests: 0, answered: 0, violations: 0");
}

#[test]
fn connections_are_limited() {
    let agent = Listen::start(&[]).without_output();
    let mut relay = Listen::relay(&agent.address, &["--max-connections", "1"]);
    let first = session(&relay);
    read_to_end(&mut TcpStream::connect(&relay.address).unwrap());
    let line = relay.wait_for("is closed: ");
    assert!(line.ends_with("is closed: 1 others are open (--max-connections)\n"), "{line}");
    drop(first);
    relay.wait_for("* closed: ");
    drop(session(&relay));
}

#[test]
fn open_files_are_enough_for_the_connections() {
    let relay = Listen::relay_behind("ulimit -Sn 100", "127.0.0.1:1");
    let limits = fs::read_to_string(format!("/proc/{}/limits", relay.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = [3, 4].map(|column| line.split_whitespace().nth(column).unwrap().parse::<u64>());
    assert_eq!(soft.unwrap(), hard.map_or(2_024, |hard| hard.min(2_024)), "{limits}");
}

#[test]
fn connections_that_are_not_accepted_for_want_of_files_are_one_line() {
    let agent = Listen::start(&[]).without_output();
    let mut relay = Listen::relay_behind("ulimit -n 28", &agent.address);
    let sockets: Vec<_> = (0..40).map(|_| TcpStream::connect(&relay.address).unwrap()).collect();
    relay.wait_for("* a connection was not accepted: too many open files");
    thread::sleep(Duration::from_millis(500));
    drop(sockets);
    let run = relay.interrupt();
    assert!(!run.out.contains("not accepted"), "{run:?}");
    let line = "spop: warning: 28 open files (ulimit -Hn) are enough for 2 connections, and not for --max-connections 1000\n";
    assert_eq!((run.code, run.err.as_str()), (Some(130), line), "{run:?}");
}

#[test]
fn it_ends_in_the_middle_of_a_connection() {
    let agent = Listen::start(&["--ignore"]).without_output();
    let mut relay = Listen::relay(&agent.address, &[]);
    let mut socket = session(&relay);
    write_frames(&mut socket, &["NOTIFY fin 1 1 check"]);
    relay.wait_for("> NOTIFY");
    let run = relay.interrupt();
    assert_eq!((run.code, run.err.as_str()), (Some(130), ""), "{run:?}");
    assert!(run.out.contains("* open at the end, 1 request without an answer\n"), "{run:?}");
    assert!(run.out.ends_with("requests: 1, answered: 0, unanswered: 1, violations: 0\n"), "{run:?}");
    read_to_end(&mut socket);
}

#[test]
fn unix_sockets_and_proxy_headers_are_addresses_as_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (target, address) = (path("agent.sock"), path("relay.sock"));
    let agent = Listen::start_at(&target, &["--proxy"]).without_output();
    let mut relay = Listen::run(["relay", &address, &agent.address]);
    for (args, number) in [(["--proxy=v1"], 1), (["--proxy=v2"], 2)] {
        let run = spop(["send", &relay.address, "a"].into_iter().chain(args));
        assert_eq!(run.code, Some(0), "{run:?}");
        relay.wait_for(&format!(" #{number} * connection from 192.0.2.1:{number} to 192.0.2.2:12345"));
        relay.wait_for("> NOTIFY");
    }
    let run = relay.interrupt();
    assert!(run.out.ends_with("ms\n") || run.out.contains(", violations: 0\n"), "{run:?}");
    assert!(!fs::exists(&address).unwrap(), "the socket is removed");
}

/// The files of a certificate and of its key.
fn certificate(dir: &tempfile::TempDir) -> (String, String) {
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (file("agent.crt"), file("agent.key"));
    let pair = rcgen::generate_simple_self_signed(["agent.example".to_owned()]).unwrap();
    fs::write(&certificate, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

#[test]
fn tls_ends_and_begins_at_the_relay_or_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(&dir);
    let agent = Listen::start(&["--tls-cert", &certificate, "--tls-key", &key]).without_output();
    let send = |relay: &Listen, args: &[&str]| {
        let run = spop(["send", &relay.address, "a"].iter().chain(args).copied());
        assert_eq!(run.code, Some(0), "{run:?}");
    };
    let both = ["--listen-tls-cert", &certificate, "--listen-tls-key", &key, "--tls", "--tls-insecure"];
    let relay = Listen::relay(&agent.address, &both);
    send(&relay, &["--tls=agent.example", "--tls-ca", &certificate]);
    let run = relay.interrupt();
    assert!(run.out.contains(" #1 > NOTIFY fin 1 1 a\n"), "{run:?}");
    assert!(run.out.contains("requests: 1, answered: 1, violations: 0"), "{run:?}");
    let mut relay = Listen::relay(&agent.address, &["--tls", "--tls-insecure"]);
    send(&relay, &[]);
    relay.wait_for("> NOTIFY fin 1 1 a");
    // End to end.
    let mut relay = Listen::relay(&agent.address, &[]);
    send(&relay, &["--tls", "--tls-insecure"]);
    relay.wait_for("* TLS passes, and is not decoded: ");
    // No TLS where it is expected.
    let mut relay = Listen::relay(&agent.address, &both);
    assert_eq!(spop(["send", &relay.address, "a"]).code, Some(1));
    relay.wait_for(" is closed: TLS failed: ");
}

#[test]
fn a_reader_that_has_gone_ends_neither_the_relay_nor_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.pcap").to_str().unwrap().to_owned();
    let agent = Listen::start(&[]).without_output();
    for (name, code) in [("TERM", 3), ("INT", 130)] {
        let args = ["relay", "127.0.0.1:0", &agent.address, "--record", &file];
        let mut relay = crate::support::command(args).spawn().unwrap();
        let mut out = std::io::BufReader::new(relay.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        drop(out);
        let address = line.strip_prefix("listening on ").unwrap().trim().to_owned();
        for _ in 0..2 {
            assert_eq!(spop(["send", &address, "a"]).code, Some(0));
        }
        crate::support::signal(&relay, name);
        let run = crate::support::finish(relay);
        let line =
            "spop: the reader of the output has gone: nothing more is shown; it relays until it is stopped";
        run.expect_error(code, line);
        let decoded = spop(["decode", &file]);
        assert_eq!((decoded.code, decoded.out.matches("> NOTIFY fin 1 1 a").count()), (Some(0), 2));
    }
}
