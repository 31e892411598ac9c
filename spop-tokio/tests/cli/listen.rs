//! `spop listen`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::support::{Listen, json, read_frame, read_to_end, spop, write_frames};

const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async engine-id=string:e";

fn session(agent: &Listen) -> TcpStream {
    let mut socket = TcpStream::connect(&agent.address).unwrap();
    write_frames(&mut socket, &[HELLO]);
    assert!(read_frame(&mut socket).unwrap().starts_with("AGENT-HELLO fin 0 0"));
    socket
}

#[test]
fn every_frame_is_shown_with_its_direction() {
    let agent = Listen::start(&["--set", "txn score=int32:42"]);
    assert_eq!(spop(["send", &agent.address, "check x=string:\"a b\"", "--engine", "3.0"]).code, Some(0));
    let run = agent.signal_after("* closed: ", "INT");
    assert_eq!((run.code, run.err.as_str()), (Some(130), ""));
    // Without the time, and what is random.
    let lines: Vec<_> = run.out.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let expected = [
        "#1 * connection from 127.0.0.1:",
        "#1 > HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining,async engine-id=string:",
        "#1 * session with HAProxy up to 3.0: max-frame-size 16380, fragmentation,pipelining, engine ",
        "#1 < AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:fragmentation,pipelining",
        "#1 > NOTIFY fin 0 1 check x=string:\"a b\"",
        "#1 < ACK fin 0 1 set txn score=int32:42",
        "#1 > HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:normal",
        "#1 < AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=",
        "#1 * closed: the peer disconnected with 0 (normal): \"normal\"",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    let time = run.out.split(' ').next().unwrap();
    assert!(time.len() == 15 && time.as_bytes()[8] == b'.', "{time}");
}

#[test]
fn frames_are_objects_in_json() {
    let agent = Listen::start(&["--json", "--set", "txn score=int32:42"]);
    assert_eq!(spop(["send", &agent.address, "check"]).code, Some(0));
    let events = json(&agent.signal_after("\"closed\"", "INT").out);
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["opened", "frame", "session", "frame", "frame", "frame", "closed"]);
    let ack = &events[5];
    assert_eq!((ack["direction"].as_str(), ack["type"].as_str()), (Some("to-haproxy"), Some("ACK")));
    assert_eq!(
        (ack["connection"].as_u64(), ack["stream"].as_u64(), ack["frame"].as_u64()),
        (Some(1), Some(1), Some(1))
    );
    assert_eq!((ack["fin"].as_bool(), ack["size"].as_u64()), (Some(true), Some(22)));
    assert_eq!(ack["text"], "ACK fin 1 1 set txn score=int32:42");
    assert!(ack["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(events[6]["normal"], true);
}

#[test]
fn each_message_is_answered_as_told() {
    let agent = Listen::start(&[
        "--set",
        "txn d=int32:1",
        "--on",
        "slow",
        "delay 200ms ; set txn s=int32:2",
        "--on",
        "abort",
        "abort",
        "--on",
        "fail",
        "fail",
        "--on",
        "big",
        "size 300",
    ]);
    let mut socket = session(&agent);
    let begun = Instant::now();
    write_frames(
        &mut socket,
        &["NOTIFY fin 1 1 slow", "NOTIFY fin 2 1 other", "NOTIFY fin 3 1 abort", "NOTIFY fin 4 1 fail"],
    );
    for expected in ["ACK fin 2 1 set txn d=int32:1", "ACK fin,abort 3 1", "ACK fin 4 1"] {
        assert_eq!(read_frame(&mut socket).as_deref(), Some(expected));
    }
    assert_eq!(read_frame(&mut socket).as_deref(), Some("ACK fin 1 1 set txn s=int32:2"));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    write_frames(&mut socket, &["NOTIFY fin 5 1 big"]);
    let mut ack = [0; 300];
    socket.read_exact(&mut ack).unwrap();
    assert_eq!(ack[..4], 296_u32.to_be_bytes());
    write_frames(&mut socket, &["NOTIFY fin 6 1 other ; big ; slow"]);
    let ack = read_frame(&mut socket).unwrap();
    assert!(ack.starts_with("ACK fin 6 1 set txn d=int32:1 ; set txn s=int32:2 ; set txn padding="), "{ack}");
}

#[test]
fn sizes_and_capabilities_are_announced_as_told() {
    let agent =
        Listen::start(&["--max-frame-size", "1000", "--capabilities", "pipelining", "--size", "2000"]);
    let mut socket = TcpStream::connect(&agent.address).unwrap();
    write_frames(&mut socket, &[HELLO, "NOTIFY fin 1 1 a"]);
    assert_eq!(
        read_frame(&mut socket).as_deref(),
        Some(
            "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:1000 capabilities=string:pipelining"
        )
    );
    // It does not fit.
    assert_eq!(read_frame(&mut socket).as_deref(), Some("ACK fin 1 1"));
    drop(socket);
    let run = agent.interrupt();
    assert!(run.out.contains(": an empty answer instead"), "{}", run.out);
}

#[test]
fn what_is_no_haproxy_is_shown() {
    let mut agent = Listen::start(&[]);
    let mut socket = TcpStream::connect(&agent.address).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n").unwrap();
    read_to_end(&mut socket);
    let line = agent.wait_for("closed: ");
    assert!(line.contains("an HTTP request"), "{line}");
    drop(TcpStream::connect(&agent.address).unwrap());
    agent.wait_for("#2 * closed: the peer closed the connection");
}

#[test]
fn an_interrupt_disconnects_from_haproxy() {
    let mut agent = Listen::start(&[]);
    let mut socket = session(&agent);
    agent.wait_for("< AGENT-HELLO");
    let reader = std::thread::spawn(move || {
        let frame = read_frame(&mut socket).unwrap_or_default();
        drop(socket);
        frame
    });
    let begun = Instant::now();
    let run = agent.interrupt();
    assert_eq!(run.code, Some(130));
    assert!(begun.elapsed() < Duration::from_secs(5));
    let frame = reader.join().unwrap();
    assert!(frame.starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0"), "{frame}");
    assert!(run.out.contains("closed: drained"), "{}", run.out);
}

#[test]
fn names_that_haproxy_drops_are_warned_of() {
    let agent = Listen::start(&["--set", "txn a-b=null"]);
    let run = agent.interrupt();
    assert!(
        run.err.starts_with("spop: warning: HAProxy drops it: the name of variable \"a-b\""),
        "{}",
        run.err
    );
}

#[test]
fn long_lines_are_cut_unless_told_otherwise() {
    for (args, cut) in [(&[][..], true), (&["--cut", "0"], false)] {
        let mut agent = Listen::start(args);
        let words = (0..400).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
        assert_eq!(spop(["send", &agent.address, &format!("a x=string:\"{words}\"")]).code, Some(0));
        let line = agent.wait_for("> NOTIFY");
        assert_eq!((line.contains("more characters)"), line.contains("w399")), (cut, !cut), "{line}");
    }
}

#[test]
fn connections_together_hold_a_bounded_number_of_bytes() {
    let agent = Listen::start(&[]).without_output();
    let hello = HELLO.replace("uint32:16380", "uint32:1048576");
    // Each holds a megabyte twice: to read it, and to show it. 128 MiB are the limit.
    let part = [&1_040_000_u32.to_be_bytes()[..], &vec![3; 1_000_000]].concat();
    let mut sockets: Vec<_> = (0..120)
        .map(|_| {
            let mut socket = TcpStream::connect(&agent.address).unwrap();
            write_frames(&mut socket, &[&hello]);
            assert!(read_frame(&mut socket).unwrap().starts_with("AGENT-HELLO fin 0 0"));
            // It may be disconnected by then.
            drop(socket.write_all(&part));
            socket
        })
        .collect();
    // Which of them are disconnected depends on the moment; the others are when their frames are late.
    let is_refused = |socket: &mut TcpStream| {
        let last = read_frame(socket).unwrap_or_default();
        last.starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:13 ")
    };
    assert!(sockets.iter_mut().rev().any(is_refused));
    assert_eq!(spop(["send", &agent.address, "check"]).code, Some(0));
}
