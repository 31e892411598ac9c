//! `spop decode`.

mod broken;
mod real;
mod recorder;

use std::{fs, io::Write as _};

use self::recorder::{Agent, Connection, Haproxy, is_by, pcap};
use crate::support::{Run, command, finish, interrupt, spop_with_input};

const HELLO: &str = "> HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:1000 \
                     capabilities=string:pipelining engine-id=string:e";
const ACCEPTED: &str = "< AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:1000 \
                        capabilities=string:fragmentation,pipelining";
const ACCEPTED_BARE: &str =
    "< AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:1000 capabilities=string:\"\"";

/// A connection with an established session.
fn session() -> Connection {
    let mut connection = Connection::open(40_000);
    connection.frames(&[HELLO, ACCEPTED]);
    connection
}

fn decode(packets: &[Vec<u8>], args: &[&str]) -> Run {
    spop_with_input(["decode"].into_iter().chain(args.iter().copied()), &pcap(packets))
}

/// The lines without time and number of the connection.
fn lines(run: &Run) -> Vec<&str> {
    run.out.lines().filter_map(|line| line.split_once(" #1 ")).map(|(_, line)| line).collect()
}

/// The lines of frames.
fn frames(run: &Run) -> Vec<&str> {
    lines(run).into_iter().filter(|line| line.starts_with(['<', '>'])).collect()
}

#[test]
fn a_connection_is_shown_with_its_times() {
    let mut connection = session();
    connection.frames(&["> NOTIFY fin 5 1 check ip=ipv4:1.2.3.4", "< ACK fin 5 1 set txn a=int32:1"]).close();
    let run = decode(&connection.packets, &[]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    let expected = format!(
        "22:13:20.002000 #1 * connection from 10.0.0.1:40000 to 10.0.0.2:12345\n\
         22:13:20.002000 #1 {HELLO}\n\
         22:13:20.003000 #1 {ACCEPTED}\n\
         22:13:20.003000 #1 * session: max-frame-size 1000, fragmentation,pipelining, engine e\n\
         22:13:20.004000 #1 > NOTIFY fin 5 1 check ip=ipv4:1.2.3.4\n\
         22:13:20.005000 #1 < ACK fin 5 1 set txn a=int32:1\n\
         22:13:20.007000 #1 * closed: by HAProxy, then by the agent\n\
         SPOP connections: 1, others skipped: 0, frames: 4, violations: 0\n"
    );
    assert_eq!(run.out, expected);
    let json = decode(&connection.packets, &["--json"]);
    let ack = json.events("frame").remove(3);
    assert_eq!((ack["type"].as_str(), ack["latency_ms"].as_f64()), (Some("ACK"), Some(1.0)));
    let accepted = spop_core::notation::parse_bytes(&ACCEPTED[2..]).unwrap().len() as u64;
    assert_eq!(ack["offset"].as_u64(), Some(accepted));
    assert_eq!(json.events("opened")[0]["agent"], "10.0.0.2:12345");
    assert_eq!(json.events("end")[0]["frames"], 4);
}

#[test]
fn segments_may_come_in_any_order_and_again() {
    let mut connection = session();
    let stream: Vec<u8> = (1..=40)
        .flat_map(|id| {
            spop_core::notation::parse_bytes(&format!("NOTIFY fin {id} 1 check x=string:abc")).unwrap()
        })
        .collect();
    for part in stream.chunks(37) {
        connection.send(Haproxy, part);
    }
    let in_order = decode(&connection.packets, &[]);
    assert_eq!((in_order.code, frames(&in_order).len()), (Some(0), 42), "{in_order:?}");
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..5 {
        let mut packets = connection.packets.clone();
        let mut later = packets.split_off(4);
        later.extend((0..9).map(|_| later[random.usize(..later.len())].clone()).collect::<Vec<_>>());
        random.shuffle(&mut later);
        packets.extend(later);
        let mixed = decode(&packets, &[]);
        assert_eq!((mixed.code, frames(&mixed)), (Some(0), frames(&in_order)));
        let lines = lines(&mixed);
        for text in ["bytes precede those before them", "bytes are sent or captured again"] {
            assert!(lines.iter().any(|line| line.contains(text)), "{lines:?}");
        }
        assert!(!mixed.out.contains("are missing"));
    }
}

#[test]
fn what_was_not_captured_is_named_and_skipped() {
    let mut connection = session();
    for id in 1..=5 {
        connection.frame(Haproxy, &format!("NOTIFY fin {id} 1 check x=string:abc"));
    }
    connection.ack(Agent).frame(Agent, "ACK fin 3 1");
    let mut packets = connection.packets.clone();
    packets.drain(5..7);
    let run = decode(&packets, &[]);
    assert_eq!(run.code, Some(0), "what answers a lost request is no violation: {run:?}");
    let found = frames(&run).iter().filter(|line| line.contains("NOTIFY")).count();
    assert_eq!(found, 3, "{run:?}");
    assert!(run.out.contains("bytes are missing in the capture") && run.out.contains(", gaps: 1"), "{run:?}");
}

#[test]
fn fragments_are_joined() {
    let mut connection = session();
    let message = spop_core::notation::parse("NOTIFY fin 7 1 check body=string:\"x\"*900").unwrap().payload;
    let part = |bytes: &[u8]| {
        let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("hex:{}", digits.concat())
    };
    connection
        .frame(Haproxy, &format!("NOTIFY - 7 1 {}", part(&message[..400])))
        .frame(Haproxy, &format!("UNSET - 7 1 {}", part(&message[400..500])))
        .frame(Haproxy, &format!("UNSET fin 7 1 {}", part(&message[500..])))
        .frame(Agent, "ACK fin 7 1");
    let run = decode(&connection.packets, &["--filter", "message=check"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let lines = lines(&run);
    assert!(
        lines.iter().any(|line| line.starts_with("* joined from 3 fragments: NOTIFY fin 7 1 check body="))
    );
    assert!(lines.contains(&"< ACK fin 7 1"), "{lines:?}");
    let stats = decode(&connection.packets, &["--json", "--stats"]).events("stats").remove(0);
    let message = &stats["messages"][0];
    assert_eq!((message["name"].as_str(), message["answered"].as_u64()), (Some("check"), Some(1)));
    assert_eq!(stats["latency_ms"]["max"].as_f64(), Some(1.0), "since the last fragment");
}

#[test]
fn violations_have_their_offsets_and_reasons() {
    const BARE: &[&str] = &[HELLO, ACCEPTED_BARE];
    const FULL: &[&str] = &[HELLO, ACCEPTED];
    let long = format!("> NOTIFY fin 1 1 check x=string:\"{}\"", "y".repeat(1_000));
    let cases: [(&[&str], &[&str], &str); 17] = [
        (&[], &[&HELLO.replace("0 0", "0 1")], "HAPROXY-HELLO 0/1: its ids are 0/1, not 0/0"),
        (&[], &["> HAPROXY-HELLO fin 0 0"], "\"supported-versions\" is missing (status 5 "),
        (&[HELLO], &["> NOTIFY fin 1 1 a"], "NOTIFY 1/1: before the HELLO of its sender"),
        (FULL, &[HELLO], "HAPROXY-HELLO 0/0: a second HELLO"),
        (FULL, &["< NOTIFY fin 1 1 a"], "NOTIFY 1/1: a type that only the other side sends"),
        (FULL, &[&long], "bytes, longer than max-frame-size 1000, as agreed"),
        (FULL, &["< ACK fin 9 1"], "ACK 9/1: it answers no request"),
        (
            FULL,
            &["> NOTIFY fin 1 1 a", "< ACK fin 1 1", "< ACK fin 1 1"],
            "ACK 1/1: it answers a second time",
        ),
        (
            BARE,
            &["> NOTIFY fin 1 1 a", "> NOTIFY fin 2 1 a", "< ACK fin 2 1", "< ACK fin 1 1"],
            "ACK 1/1: out of order, without pipelining",
        ),
        (
            BARE,
            &["> NOTIFY - 1 1"],
            "NOTIFY 1/1: a fragment, and its receiver has not announced fragmentation",
        ),
        (FULL, &["> NOTIFY fin 1 1 a", "< ACK - 1 1"], "ACK 1/1: a fragment, and its receiver has not"),
        (FULL, &["> UNSET fin 1 1"], "UNSET 1/1: it continues no payload"),
        (FULL, &["> NOTIFY - 1 1", "< ACK fin 1 1"], "it answers before the last fragment of the request"),
        (FULL, &["> NOTIFY fin 1 1 hex:0561"], "NOTIFY 1/1: the data ends in the middle of a "),
        (FULL, &["> NOTIFY fin 1 1 a", "< ACK fin 1 1 hex:07"], "ACK 1/1: the action type 7 is unknown"),
        (FULL, &["> HAPROXY-DISCONNECT fin 0 0"], "\"status-code\" is missing or not a UINT32"),
        (
            FULL,
            &["> HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0", "> NOTIFY fin 1 1 a"],
            "NOTIFY 1/1: after its HAPROXY-DISCONNECT",
        ),
    ];
    for (before, then, reason) in cases {
        let mut connection = Connection::open(40_000);
        connection.frames(before).frames(then);
        let run = decode(&connection.packets, &[]);
        assert_eq!(run.code, Some(1), "{then:?}: {run:?}");
        let found: Vec<_> = lines(&run).into_iter().filter(|line| line.starts_with('!')).collect();
        assert!(found.len() == 1 && found[0].contains(reason), "{then:?}: {found:?}");
        // The place is that of the frame, within it, or its end.
        let objects = decode(&connection.packets, &["--json"]);
        let violation = &objects.events("violation")[0];
        let frame = objects.events("frame").into_iter().next_back().unwrap();
        let (at, begin) = (violation["offset"].as_u64().unwrap(), frame["offset"].as_u64().unwrap());
        assert_eq!(violation["direction"], frame["direction"]);
        assert!((begin..=begin + frame["size"].as_u64().unwrap()).contains(&at), "{objects:?}");
    }
}

#[test]
fn violations_of_the_stream_have_their_offsets_and_reasons() {
    let hello = spop_core::notation::parse_bytes(&ACCEPTED[2..]).unwrap();
    let violation = |connection: &Connection| {
        let run = decode(&connection.packets, &[]);
        assert_eq!(run.code, Some(1), "{run:?}");
        lines(&run).into_iter().find(|line| line.starts_with('!')).unwrap_or_default().to_owned()
    };
    let mut split = Connection::open(40_000);
    split.frames(&[HELLO]).send(Agent, &hello[..30]).send(Agent, &hello[30..]);
    assert!(violation(&split).starts_with("! < byte 0: AGENT-HELLO 0/0: it comes in more than one segment"));
    let at = hello.len();
    for is_reset in [false, true] {
        let mut connection = session();
        connection.frame(Haproxy, "NOTIFY fin 1 1 a").send(Agent, &[0, 0, 0, 9, 103]);
        if is_reset {
            connection.reset(Agent)
        } else {
            connection.fin(Agent)
        };
        let expected = format!("! < byte {}: the connection is closed after 5 bytes of a frame", at + 5);
        assert_eq!(violation(&connection), expected);
    }
    let mut after = session();
    after.fin(Agent).send(Agent, b"abc");
    assert!(violation(&after).contains("bytes after the end of the stream"));
    let mut long = session();
    long.send(Agent, b"HTTP/1.1 200 OK\r\n");
    let expected = format!("! < byte {at}: a frame of 1213486160 bytes: no frame is as long");
    assert!(violation(&long).starts_with(&expected));
    let mut short = session();
    short.send(Agent, &[0; 4_000]);
    let run = decode(&short.packets, &[]);
    assert_eq!(lines(&run).iter().filter(|line| line.starts_with('!')).count(), 1, "{run:?}");
    let mut health = Connection::open(40_000);
    let check = "> HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:1000 \
                 capabilities=string:\"\" healthcheck=bool:true";
    health.frames(&[check, ACCEPTED, "< AGENT-DISCONNECT fin 0 0 status-code=uint32:0"]);
    assert!(violation(&health).contains("after the AGENT-HELLO of a health check"));
}

#[test]
fn other_connections_are_counted_and_ports_are_decoded_from_the_middle() {
    let mut packets = session().close().packets.clone();
    packets.extend(Connection::open(40_001).send(Haproxy, b"GET / HTTP/1.1\r\n").packets.clone());
    packets
        .extend(Connection::open(40_002).send(Haproxy, b"\x16\x03\x01\x02\0\x01\0\x01\xfc").packets.clone());
    let mut third = session();
    third.frames(&["> NOTIFY fin 1 1 a", "< ACK fin 1 1"]);
    let run = decode(&packets, &[]);
    let last = run.out.lines().last().unwrap();
    assert_eq!(last, "SPOP connections: 1, others skipped: 2 (1 with TLS), frames: 2, violations: 0");
    // Its begin is missing.
    third.packets.drain(..4);
    let run = decode(&third.packets, &[]);
    assert!(run.code == Some(1) && run.err.contains("--port PORT decodes"), "{run:?}");
    let run = decode(&third.packets, &["--port", "12345"]);
    assert_eq!((run.code, frames(&run)), (Some(0), vec!["> NOTIFY fin 1 1 a", "< ACK fin 1 1"]), "{run:?}");
    let run = decode(&packets, &["--port", "80"]);
    assert_eq!(run.code, Some(1), "{run:?}");
}

#[test]
fn one_direction_may_be_missing() {
    let mut connection = session();
    connection.frames(&["> NOTIFY fin 1 1 a", "< ACK fin 1 1", "> NOTIFY fin 2 1 a", "< ACK fin 2 1"]);
    for (by, expected) in [
        (Haproxy, [HELLO, "> NOTIFY fin 1 1 a", "> NOTIFY fin 2 1 a"]),
        (Agent, [ACCEPTED, "< ACK fin 1 1", "< ACK fin 2 1"]),
    ] {
        let packets: Vec<_> = connection.packets.iter().filter(|packet| is_by(by, packet)).cloned().collect();
        let run = decode(&packets, &[]);
        assert_eq!((run.code, frames(&run)), (Some(0), expected.to_vec()), "{run:?}");
        assert!(run.out.contains("* no packet of the other direction was captured"), "{run:?}");
    }
}

#[test]
fn statistics_are_about_what_the_filter_leaves() {
    let mut connection = session();
    for id in 1..=10 {
        let name = if id % 2 == 0 { "even" } else { "odd" };
        connection.frame(Haproxy, &format!("NOTIFY fin {id} 1 {name}"));
        connection.frame(Agent, &format!("ACK fin {id} 1"));
    }
    let run = decode(&connection.packets, &["--stats", "--filter", "message=even"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!run.out.contains("odd") && run.out.contains("\neven     5        5         1.0"), "{}", run.out);
    let run = decode(&connection.packets, &["--filter", "type=ACK stream=3,4"]);
    assert_eq!(frames(&run), ["< ACK fin 3 1", "< ACK fin 4 1"]);
    let run = decode(&connection.packets, &["--filter", "type=PING"]);
    assert!(run.code == Some(2) && run.err.contains("no type of a frame"), "{run:?}");
}

#[test]
fn one_direction_can_be_raw_bytes() {
    let bytes: Vec<u8> = [HELLO, "> NOTIFY fin 1 1 a", "> NOTIFY fin 2 1 b"]
        .iter()
        .flat_map(|line| spop_core::notation::parse_bytes(&line[2..]).unwrap())
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("requests.bin");
    fs::write(&path, &bytes).unwrap();
    let run = crate::support::spop(["decode", path.to_str().unwrap()]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let expected =
        format!("#1 {HELLO}\n#1 > NOTIFY fin 1 1 a\n#1 > NOTIFY fin 2 1 b\nframes: 3, violations: 0\n");
    assert_eq!(run.out, expected);
    let run = spop_with_input(["decode", "-"], &bytes[..bytes.len() - 2]);
    assert!(run.code == Some(0) && run.out.contains("the capture ends after"), "{run:?}");
    let answers = spop_core::notation::parse_bytes("ACK fin 2 1").unwrap();
    assert_eq!(spop_with_input(["decode"], &answers).out, "#1 < ACK fin 2 1\nframes: 1, violations: 0\n");
}

#[test]
fn packets_are_shown_while_they_arrive() {
    let mut child = command(["decode"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&pcap(&session().packets)).unwrap();
    stdin.flush().unwrap();
    let run = crate::support::interrupt_after(child, "< AGENT-HELLO");
    drop(stdin);
    assert_eq!((run.code, run.err.as_str()), (Some(130), "spop: interrupted\n"), "{run:?}");
    assert!(run.out.ends_with("frames: 2, violations: 0\n"), "{run:?}");
    // Before anything has come.
    let child = command(["decode"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    interrupt(&child);
    assert_eq!(finish(child).code, Some(130));
}
