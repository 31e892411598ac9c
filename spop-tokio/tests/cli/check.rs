//! `spop check`: agents with one fault each, and it is found.

use std::{io::Write as _, net::TcpStream, thread, time::Duration};

use serde_json::Value;
use spop_core::notation;

use crate::support::{
    HELLO, Listen, PATIENT, Run, command, interrupt_after, read_frame, read_to_end, server, spop,
    write_frames,
};

/// An AGENT-HELLO, and the answer to a DISCONNECT.
fn serve_well(socket: &mut TcpStream, hello: &str) {
    write_frames(socket, &[hello]);
    while let Some(frame) = read_frame(socket) {
        if frame.starts_with("HAPROXY-DISCONNECT") {
            write_frames(socket, &["AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye"]);
        }
    }
}

fn is_health_check(hello: &str) -> bool {
    hello.contains("healthcheck=bool:true")
}

/// It waits as long as by default: `args` have a shorter time where nothing comes.
fn check(address: &str, args: &[&str]) -> Run {
    let quiet: &[_] = if args.contains(&"--quiet") { &[] } else { &["--quiet", "50ms"] };
    spop(["check", address, "--json"].iter().chain(quiet).chain(args).copied())
}

/// The findings as code, level and versions.
fn findings(run: &Run) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut events = run.events("finding");
    // A matter of taste, and so in most agents below.
    events.retain(|finding| finding["code"] != "open-health-check");
    events
        .iter()
        .map(|finding| (text(&finding["code"]), text(&finding["level"]), text(&finding["haproxy"])))
        .collect()
}

fn only(run: &Run, code: i32, name: &str, level: &str) -> String {
    let found = findings(run);
    let [(found, of, versions)] = &found[..] else { panic!("{run:?}") };
    assert_eq!((run.code, found.as_str(), of.as_str()), (Some(code), name, level), "{run:?}");
    versions.clone()
}

#[test]
fn a_good_agent_is_accepted_by_all_versions() {
    let agent = Listen::start(&[]);
    let run = spop(["check", &agent.address]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    let lines: Vec<_> = run.out.lines().collect();
    assert_eq!(lines.len(), 1 + 8 + 1, "{}", run.out);
    assert!(lines[0].starts_with("HAPROXY  GREETING      CONNECTED"), "{}", lines[0]);
    for (line, version) in lines[1..9].chunks(2).zip(["2.6", "3.0", "3.2", "3.4"]) {
        assert!(
            line[0].starts_with(&format!("{version}      session  ")) && line[0].ends_with("  ok"),
            "{}",
            line[0]
        );
        assert!(
            line[1].starts_with(&format!("{version}      health check")) && line[1].ends_with("  ok"),
            "{}",
            line[1]
        );
    }
    assert!(
        lines[9].contains(": 8 of 8 greetings accepted in ") && lines[9].ends_with("; 0 wrong, 0 warnings"),
        "{}",
        lines[9]
    );
    let run = check(&agent.address, &[]);
    let greeting = &run.events("greeting")[0];
    assert_eq!(greeting["capabilities"], "fragmentation,pipelining");
    assert_eq!(
        (greeting["max_frame_size"].as_u64(), greeting["accepted"].as_bool()),
        (Some(16_380), Some(true))
    );
    assert!(greeting["hello_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(greeting["end"], "the agent answered the DISCONNECT with status 0 (normal)");
    assert_eq!(run.events("summary")[0]["accepted"], 8);
}

#[test]
fn a_hello_in_two_segments_is_found() {
    let agent = server(|socket, hello| {
        if is_health_check(hello) {
            return write_frames(socket, &[HELLO]);
        }
        let bytes = notation::parse_bytes(HELLO).unwrap();
        socket.write_all(&bytes[..20]).unwrap();
        // What is read late is read at once.
        thread::sleep(Duration::from_millis(100));
        socket.write_all(&bytes[20..]).unwrap();
        while let Some(frame) = read_frame(socket) {
            assert!(frame.starts_with("HAPROXY-DISCONNECT"), "{frame}");
            write_frames(socket, &["AGENT-DISCONNECT fin 0 0 status-code=uint32:0"]);
        }
    });
    let versions = only(&check(&agent, &[]), 1, "split-hello", "wrong");
    assert_eq!(versions, "3.1 and later, except the latest releases of 3.2 and 3.4");
}

#[test]
fn a_frame_size_above_the_offer_is_found() {
    let agent = server(|socket, _| serve_well(socket, &HELLO.replace("16380", "16384")));
    let run = check(&agent, &[]);
    let versions = only(&run, 1, "rejected", "wrong");
    assert!(
        !versions.is_empty() && run.out.contains("max-frame-size 16384 is outside 256..=16380"),
        "{run:?}"
    );
    assert_eq!(run.events("summary")[0]["accepted"], 0);
}

#[test]
fn bytes_after_a_health_check_are_found() {
    for (pause, what) in [(0, "an AGENT-DISCONNECT"), (20, "an AGENT-DISCONNECT")] {
        let agent = server(move |socket, hello| {
            if !is_health_check(hello) {
                return serve_well(socket, HELLO);
            }
            let disconnect = "AGENT-DISCONNECT fin 0 0 status-code=uint32:0";
            if pause == 0 {
                write_frames(socket, &[HELLO, disconnect]);
            } else {
                write_frames(socket, &[HELLO]);
                thread::sleep(Duration::from_millis(pause));
                write_frames(socket, &[disconnect]);
            }
        });
        let run = check(&agent, &["--quiet", "200ms"]);
        let found = findings(&run);
        let codes: Vec<_> = found.iter().map(|(code, ..)| code.as_str()).collect();
        assert!(codes.contains(&"after-health-check") && run.out.contains(what), "{run:?}");
        assert_eq!(run.code, Some(1));
    }
}

#[test]
fn an_agent_without_health_checks_is_found() {
    let agent = server(|socket, hello| {
        if !is_health_check(hello) {
            serve_well(socket, HELLO);
        }
    });
    let found = findings(&check(&agent, &[]));
    assert!(found.iter().any(|(code, ..)| code == "no-health-check"), "{found:?}");
    assert!(found.iter().any(|(code, level, _)| code == "rejected" && level == "wrong"), "{found:?}");
}

#[test]
fn an_agent_that_does_not_answer_a_disconnect_is_found() {
    let agent = server(|socket, _| {
        write_frames(socket, &[HELLO]);
        read_frame(socket);
    });
    assert_eq!(only(&check(&agent, &[]), 1, "no-disconnect", "wrong"), "2.6, 3.0");
    let agent = server(|socket, _| {
        write_frames(socket, &[HELLO]);
        read_frame(socket);
        write_frames(socket, &["AGENT-DISCONNECT fin 0 0 status-code=uint32:3"]);
        read_to_end(socket);
    });
    only(&check(&agent, &[]), 0, "disconnect-status", "warning");
    only(&check(&agent, &["--strict"]), 1, "disconnect-status", "warning");
}

#[test]
fn sizes_and_capabilities_that_lose_requests_are_warned_of() {
    let small = server(|socket, _| serve_well(socket, &HELLO.replace("16380", "4096")));
    assert_eq!(only(&check(&small, &[]), 0, "small-frames", "warning"), "3.2, 3.4");
    let plain = server(|socket, _| serve_well(socket, &HELLO.replace("fragmentation", "\"\"")));
    assert_eq!(only(&check(&plain, &[]), 0, "no-fragmentation", "warning"), "2.6, 3.0");
    let odd =
        server(|socket, _| serve_well(socket, &HELLO.replace("fragmentation", "fragmentation,teleport")));
    only(&check(&odd, &[]), 0, "unknown-capability", "warning");
    let pipelining =
        server(|socket, _| serve_well(socket, &HELLO.replace("fragmentation", "fragmentation,pipelining")));
    only(&check(&pipelining, &["--engine", "3.4"]), 0, "pipelining-3.1", "note");
}

#[test]
fn missing_items_are_judged_by_version() {
    // HAProxy up to 3.0 wants the frame size; 3.1 and later wants all three items of a health check only.
    let agent = server(|socket, _| {
        serve_well(socket, "AGENT-HELLO fin 0 0 version=string:2.0 capabilities=string:fragmentation");
    });
    let run = check(&agent, &[]);
    let accepted: Vec<_> =
        run.events("greeting").iter().map(|greeting| greeting["accepted"].as_bool().unwrap()).collect();
    assert_eq!(accepted, [false, false, false, false, true, false, true, false], "{run:?}");
    assert_eq!(run.code, Some(1));
}

#[test]
fn a_server_that_is_no_agent_is_wrong() {
    let http = server(|socket, _| drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
    let run = check(&http, &["--engine", "3.4"]);
    assert_eq!(only(&run, 1, "no-agent", "wrong"), "3.4, 3.4 health check");
    assert!(run.out.contains("this is no SPOP agent but an HTTP server"), "{}", run.out);
    let silent = server(|socket, _| read_to_end(socket));
    only(&check(&silent, &["--engine", "3.4", "--timeout", "300ms"]), 1, "no-hello", "wrong");
    let cut = server(|socket, _| drop(socket.write_all(&[0, 0, 0, 80, 101])));
    let run = check(&cut, &["--engine", "3.4"]);
    assert!(run.out.contains("closed the connection after 5 bytes of a frame"), "{}", run.out);
    assert_eq!(run.code, Some(1));
    let other = server(|socket, _| {
        write_frames(socket, &["ACK fin 1 1"]);
        read_to_end(socket);
    });
    assert_eq!(check(&other, &["--engine", "2.6"]).code, Some(1));
}

#[test]
fn a_silent_server_is_not_greeted_as_all_versions() {
    let silent = server(|socket, _| read_to_end(socket));
    let run = check(&silent, &["--timeout", "300ms"]);
    assert_eq!(run.events("greeting").len(), 2, "{run:?}");
    let expected = [("no-hello", "wrong", "2.6, 2.6 health check"), ("not-greeted", "note", "3.0, 3.2, 3.4")];
    let expected = expected.map(|(code, level, versions)| (code.into(), level.into(), versions.into()));
    assert_eq!(findings(&run), expected, "{run:?}");
    assert_eq!(run.code, Some(1));
    // Nor one that sends a part of a frame.
    let half = server(|socket, _| {
        socket.write_all(&[0, 0, 0, 99, 101]).unwrap();
        read_to_end(socket);
    });
    assert_eq!(check(&half, &["--timeout", "300ms"]).events("greeting").len(), 2);
    // One that answers health checks only is another thing.
    let address =
        server(
            |socket, hello| {
                if is_health_check(hello) { serve_well(socket, HELLO) } else { read_to_end(socket) }
            },
        );
    // On a busy machine its first answer may be late.
    let mut runs = ["300ms", PATIENT].into_iter().map(|timeout| check(&address, &["--timeout", timeout]));
    assert!(runs.any(|run| run.events("greeting").len() == 8));
}

#[test]
fn an_agent_that_never_stops_sending_does_not_keep_the_check() {
    let agent = server(|socket, _| {
        write_frames(socket, &[HELLO]);
        let ack = notation::parse_bytes("ACK fin 1 1").unwrap();
        while socket.write_all(&ack).is_ok() {}
    });
    // Two of the greetings end with a DISCONNECT, which is not answered.
    let run = check(&agent, &["--timeout", "1s"]);
    assert_eq!(run.code, Some(1));
    assert!(run.out.contains("\"after-health-check\"") && run.out.contains("\"after-hello\""), "{run:?}");
    let agent = server(|socket, hello| {
        write_frames(socket, &[HELLO]);
        if is_health_check(hello) {
            read_to_end(socket);
        }
    });
    let run = check(&agent, &["--engine", "3.4", "--quiet", PATIENT]);
    let events = run.events("finding");
    let codes: Vec<_> = events.iter().map(|finding| finding["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["closes", "open-health-check"], "{run:?}");
}

#[test]
fn an_interrupt_ends_it() {
    let silent = server(
        |socket, hello| if is_health_check(hello) { read_to_end(socket) } else { serve_well(socket, HELLO) },
    );
    let child = command(["check", &silent, "--json", "--timeout", "20s"]).spawn().unwrap();
    interrupt_after(child, "\"healthcheck\":false").expect_error(130, "spop: interrupted");
}
