//! `spop send`.

use std::{fs, io::Write as _, thread, time::Duration};

use crate::support::{
    HELLO, Listen, PATIENT, command, interrupt_after, read_frame, read_to_end, server, spop, spop_with_input,
    write_frames,
};

#[test]
fn actions_are_shown_with_the_names_of_haproxy() {
    let agent = Listen::start(&["--set", "sess ip_score=int32:77", "--unset", "txn reason"]);
    let run = spop([
        "send",
        &agent.address,
        "check-ip ip=ipv4:203.0.113.7 ; log =string:\"a b\"",
        "--prefix",
        "iprep",
    ]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    let lines: Vec<_> = run.out.lines().collect();
    let [session, request, ack, headings, set, unset] = lines[..] else { panic!("{lines:?}") };
    assert!(
        session.ends_with("SPOP 2.0, max-frame-size 16380, fragmentation; asked as HAProxy 3.4"),
        "{session}"
    );
    assert_eq!(request, "> check-ip ip=ipv4:203.0.113.7 ; log =string:\"a b\"");
    assert!(ack.starts_with("< ACK after ") && ack.ends_with(" ms, 2 actions"), "{ack}");
    assert_eq!(headings, "  ACTION  VARIABLE             VALUE");
    assert_eq!(set, "  set     sess.iprep.ip_score  int32:77");
    assert_eq!(unset, "  unset   txn.iprep.reason");
}

#[test]
fn what_haproxy_drops_is_wrong() {
    let agent = Listen::start(&[
        "--set",
        "txn a-b=int32:1",
        "--set",
        "proc total=int32:1",
        "--set",
        "txn ok=bool:true",
    ]);
    let run = spop(["send", &agent.address, "a"]);
    assert_eq!(run.code, Some(1));
    assert!(run.out.contains("dropped: the name of variable \"a-b\" has more than letters"), "{}", run.out);
    assert!(run.out.contains("dropped: scope proc takes only known names"), "{}", run.out);
    let run = spop(["send", &agent.address, "a", "--register", "total", "--json"]);
    let answer = &run.events("answer")[0];
    let dropped: Vec<_> = (0..3).map(|index| answer["actions"][index]["dropped"].is_string()).collect();
    assert_eq!(dropped, [true, false, false], "{answer}");
    assert_eq!(answer["actions"][2]["variable"], "txn.PREFIX.ok");
    assert_eq!(answer["actions"][2]["value"], true);
    assert_eq!((answer["stream"].as_u64(), answer["fragments"].as_u64()), (Some(1), Some(1)));
    let summary = &run.events("summary")[0];
    assert_eq!((summary["answered"].as_u64(), summary["dropped"].as_u64()), (Some(1), Some(1)));
}

#[test]
fn failures_have_the_numbers_of_haproxy() {
    let agent =
        Listen::start(&["--on", "bye", "disconnect 5", "--on", "silent", "ignore", "--on", "fail", "fail"]);
    let run =
        spop(["send", &agent.address, "bye", "silent", "fail", "after", "--timeout", PATIENT, "--json"]);
    assert_eq!(run.code, Some(1));
    let codes: Vec<_> =
        run.events("failure").iter().map(|failure| failure["code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [256 + 5, 1]);
    assert_eq!(run.events("answer").len(), 2, "a session begins after the failure: {}", run.out);
    let run = spop(["send", &agent.address, "bye"]);
    assert!(
        run.out.contains("HAProxy reports 261 (version value not found): see `spop explain 261`"),
        "{}",
        run.out
    );
}

#[test]
fn payloads_are_sent_in_fragments_or_fail_as_in_haproxy() {
    let agent = Listen::start(&["--set", "txn a=null"]);
    let long = "a text=string:\"x\"*40000";
    let run = spop(["send", &agent.address, long, "--engine", "3.0", "--json"]);
    assert_eq!((run.code, run.events("answer")[0]["fragments"].as_u64()), (Some(0), Some(3)));
    let run = spop(["send", &agent.address, long, "--json"]);
    assert_eq!((run.code, run.events("failure")[0]["code"].as_u64()), (Some(1), Some(3)), "{run:?}");
    let run =
        spop(["send", &agent.address, "abc def=int32:1", "--engine", "2.6", "--fragment", "4", "--json"]);
    assert_eq!((run.code, run.events("answer")[0]["fragments"].as_u64()), (Some(0), Some(3)));
}

#[test]
fn an_aborted_payload_has_no_answer_and_the_session_goes_on() {
    let mut agent = Listen::start(&[]);
    let args = [
        "send",
        &agent.address,
        "abc def=int32:1",
        "--engine",
        "2.6",
        "--fragment",
        "4",
        "--abort-after",
        "2",
    ];
    let run = spop(args.into_iter().chain(["--repeat", "2"]));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(
        run.out.matches("  aborted after 2 fragments: no answer came, as it must be\n").count(),
        2,
        "{}",
        run.out
    );
    agent.wait_for("> UNSET fin,abort 0 1");
    agent.wait_for("* NOTIFY 0/1 is dropped after 8 bytes: HAProxy has aborted it");
    agent.wait_for("> UNSET fin,abort 1 1");
}

#[test]
fn messages_come_from_standard_input() {
    let agent = Listen::start(&["--set", "txn a=null"]);
    let input = b"one\n# two\n\n  three x=int32:1  \nfour x\nfive x=string:\xff\nsix\n";
    let run = spop_with_input(["send", &agent.address, "zero", "--stdin", "--json"], input);
    let sent: Vec<_> =
        run.events("answer").iter().map(|answer| answer["messages"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sent, ["zero", "one", "three x=int32:1", "six"]);
    run.expect_error(
        1,
        "spop: line 5: column 7: expected `=` and a value, found the end of the line\n\
         spop: line 6: byte 15 is not UTF-8: write \\x and two digits in a quoted text",
    );
}

#[test]
fn repetitions_end_with_a_summary() {
    let agent = Listen::start(&["--delay", "1ms"]);
    let run = spop(["send", &agent.address, "a", "b", "--repeat", "3"]);
    let last = run.out.lines().last().unwrap();
    assert!(
        last.starts_with("6 requests: 6 answered in ") && last.ends_with("0 failed, 0 actions dropped"),
        "{last}"
    );
}

#[test]
fn an_interrupt_ends_it_with_a_summary() {
    let agent = Listen::start(&["--ignore"]);
    let child = command(["send", &agent.address, "a", "--timeout", "20s"]).spawn().unwrap();
    let run = interrupt_after(child, "> a");
    run.expect_error(130, "spop: interrupted");
    let args = ["send", &agent.address, "a", "--timeout", PATIENT, "--repeat", "1000000"];
    let child = command(args).spawn().unwrap();
    let run = interrupt_after(child, "failed after");
    assert!(
        run.code == Some(130) && run.out.lines().last().unwrap().contains(" requests: 0 answered"),
        "{run:?}"
    );
}

#[test]
fn a_server_that_is_no_agent_is_named() {
    let http = server(|socket, _| drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
    spop(["send", &http, "a"])
        .expect_error(1, &format!("spop: {http}: this is no SPOP agent but an HTTP server"));
    let closes = server(|_, _| ());
    let text = "the agent closed the connection without an AGENT-HELLO: is it an agent?";
    spop(["send", &closes, "a"]).expect_error(1, &format!("spop: {closes}: {text}"));
    let silent = server(|socket, _| read_to_end(socket));
    let text = "no AGENT-HELLO came within 100ms: is it an agent?";
    spop(["send", &silent, "a", "--timeout", "100ms"]).expect_error(1, &format!("spop: {silent}: {text}"));
    let refuses = server(|socket, _| {
        write_frames(
            socket,
            &["AGENT-DISCONNECT fin 0 0 status-code=uint32:8 message=string:\"too\\n old\""],
        );
        read_to_end(socket);
    });
    let text =
        "the agent refuses the session: AGENT-DISCONNECT with status 8 (unsupported version), \"too\\n old\"";
    spop(["send", &refuses, "a"]).expect_error(1, &format!("spop: {refuses}: {text}"));
}

#[test]
fn answers_that_no_haproxy_accepts_are_failures() {
    let long = format!("ACK fin 1 1 set txn a=string:\"x\"*{}", 16_380 - 16);
    let cases: [(&[&str], u64, &str); 6] = [
        (&["ACK - 1 1"], 266, "fragments its ACK"),
        (&["ACK fin 3 1"], 1, "no answer within"),
        (&["AGENT-DISCONNECT fin 0 0 hex:ff"], 260, "a malformed AGENT-DISCONNECT"),
        (&[&long], 1, "fills HAProxy's receive buffer"),
        (&["ACK fin 1 1 set txn a=string:\"x\"*20000"], 1, "receive buffer"),
        (&[], 257, "closed the connection without an answer"),
    ];
    for (answer, code, detail) in cases {
        let answer: Vec<String> = answer.iter().map(|&frame| frame.to_owned()).collect();
        let agent = server(move |socket, _| {
            write_frames(socket, &[HELLO]);
            read_frame(socket);
            if !answer.is_empty() {
                write_frames(socket, &answer.iter().map(String::as_str).collect::<Vec<_>>());
                read_to_end(socket);
            }
        });
        let run = spop(["send", &agent, "a", "--timeout", PATIENT, "--json"]);
        let [failure] = &run.events("failure")[..] else { panic!("{run:?}") };
        assert_eq!((run.code, failure["code"].as_u64()), (Some(1), Some(code)), "{failure}");
        assert!(failure["detail"].as_str().unwrap().contains(detail), "{failure}");
    }
}

#[test]
fn an_agent_that_never_stops_sending_is_given_up() {
    let agent = server(|socket, _| {
        write_frames(socket, &[HELLO]);
        read_frame(socket);
        write_frames(socket, &["ACK fin 7 7"; 200]);
        read_to_end(socket);
    });
    let run = spop(["send", &agent, "a"]);
    assert!(
        run.code == Some(1) && run.out.contains("the agent has sent 100 frames that are no answer"),
        "{run:?}"
    );
}

#[test]
fn a_malformed_answer_applies_up_to_the_fault() {
    let agent = server(|socket, _| {
        write_frames(socket, &[HELLO]);
        read_frame(socket);
        write_frames(socket, &["TYPE:42 fin 1 1", "ACK fin 1 1 set txn a=int32:1 ; hex:09"]);
        read_to_end(socket);
    });
    let run = spop(["send", &agent, "a"]);
    assert_eq!(run.code, Some(1));
    assert!(run.out.contains("  skipped: TYPE:42 fin 1 1\n"), "{}", run.out);
    assert!(run.out.contains("  set     txn.PREFIX.a  int32:1\n"), "{}", run.out);
    assert!(
        run.out.contains("ignores the rest, which is malformed at byte 8: the action type 9 is unknown\n"),
        "{}",
        run.out
    );
}

#[test]
fn proxy_headers_and_unix_sockets_are_addresses_as_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let mut agent = Listen::start_at(path.to_str().unwrap(), &["--proxy"]);
    for version in ["--proxy", "--proxy=v1", "--proxy=v2"] {
        let run = spop(["send", &agent.address, "a", version]);
        assert_eq!(run.code, Some(0), "{run:?}");
        agent.wait_for("* PROXY header: ");
    }
    let run = spop(["send", &format!("unix@{}", agent.address), "a"]);
    assert_eq!(run.code, Some(1), "without a header: {run:?}");
    agent.wait_for("closed before its session: ");
    drop(agent);
    thread::sleep(Duration::from_millis(1));
}

#[test]
fn tls_is_checked_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (file("agent.crt"), file("agent.key"));
    let pair = rcgen::generate_simple_self_signed(["agent.example".to_owned()]).unwrap();
    fs::write(&certificate, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();

    let mut agent = Listen::start(&["--tls-cert", &certificate, "--tls-key", &key, "--set", "txn a=null"]);
    let address = agent.address.clone();
    let send = |args: &[&str]| spop(["send", &address, "a", "--engine", "3.0"].iter().chain(args).copied());
    for args in [
        &["--tls=agent.example", "--tls-ca", &certificate][..],
        &["--tls", "--tls-insecure"],
        &["--tls=other.example", "--tls-insecure"],
    ] {
        let run = send(args);
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
    }
    let run = send(&["--tls", "--tls-ca", &certificate]);
    assert!(run.code == Some(3) && run.err.contains(": TLS failed: "), "the name is another: {run:?}");
    let run = send(&[]);
    assert!(run.code == Some(1) && run.err.contains("no SPOP agent but a TLS server: try --tls"), "{run:?}");
    agent.wait_for("* session with HAProxy up to 3.0");
    agent.wait_for("* closed: the peer disconnected with 0 (normal)");
    let run = spop(["check", &address, "--tls", "--tls-insecure"]);
    assert_eq!(run.code, Some(0), "{run:?}");

    let agent = Listen::start(&["--proxy", "--tls-cert", &certificate, "--tls-key", &key]);
    let run = spop(["send", &agent.address, "a", "--proxy", "--tls", "--tls-insecure"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let plain = Listen::start(&[]);
    let run = spop(["send", &plain.address, "a", "--tls", "--tls-insecure"]);
    assert!(run.code == Some(3) && run.err.lines().count() == 1, "{run:?}");
}
