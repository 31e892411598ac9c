//! Limits over all connections.

use super::*;

fn peer(text: &str) -> Peer {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

#[test]
fn connections_beyond_the_limit_are_refused_until_one_is_dropped() {
    let config = ServerConfig { max_connections: 2, ..ServerConfig::default() };
    let mut server = Server::new(config);
    let (mut one, other) = (server.session("e"), server.connect());
    assert!(server.connect_from(Peer::unnamed(), None).is_none());
    // A connection that is over counts until its transport is closed.
    server.lose(&mut one);
    assert!(server.connect_from(Peer::unnamed(), None).is_none());
    drop(one);
    let _one = server.connect();
    let stats = server.agent.stats();
    assert_eq!((stats.accepted, stats.open, stats.refused), (3, 2, 2));
    assert_eq!(server.logged().iter().filter(|line| *line == "not_accepted connection_refused").count(), 2);
    drop(other);
}

/// A peer that connects again and again, and leaves a request each time.
#[test]
fn a_connection_counts_until_its_last_request_is_dropped() {
    let config = ServerConfig { max_connections: 1, ..ServerConfig::default() };
    let mut server = Server::new(config);
    let mut one = server.session("e");
    server.say(&mut one, "NOTIFY fin 1 1 keep");
    server.lose(&mut one);
    drop(one);
    assert!(server.connect_from(Peer::unnamed(), None).is_none());
    assert_eq!((server.app.kept.len(), server.agent.stats().open), (1, 0));
    server.app.kept.clear();
    let mut one = server.session("e");
    server.say(&mut one, "NOTIFY fin 1 1 now");
    server.lose(&mut one);
    drop(one);
    assert_eq!(server.agent.stats().open, 0);
}

#[test]
fn connections_of_one_source_are_limited() {
    let config = ServerConfig { max_connections_per_source: Some(1), ..ServerConfig::default() };
    let mut server = Server::new(config);
    let first = server.connect_from(peer("192.0.2.1:1"), None);
    assert!(first.is_some());
    assert!(server.connect_from(peer("[::ffff:192.0.2.1]:2"), None).is_none());
    let second = server.connect_from(peer("192.0.2.2:1"), None);
    assert!(second.is_some());
    assert_eq!((server.agent.stats().open, server.agent.stats().refused), (2, 1));
    drop(first);
    assert!(server.connect_from(peer("192.0.2.1:3"), None).is_some());
}

#[test]
fn a_connection_that_came_in_another_way_is_in_no_limit() {
    let config = ServerConfig { max_connections: 1, ..ServerConfig::default() };
    let mut server = Server::new(config);
    let _listed = server.connect();
    let mut conn = server.agent.connection(server.now, Peer::unnamed());
    server.greet(&mut conn, "e");
    assert_eq!((server.agent.stats().accepted, server.agent.open_connections(server.now).len()), (1, 2));
}

/// A connection that holds this many bytes of a request that is not whole.
fn holding(server: &mut Server, bytes: usize) -> Conn {
    let mut conn = server.connect();
    server.greet_with(&mut conn, "fragmentation,pipelining", "e");
    let frame = 16_000;
    for sent in (0..bytes).step_by(frame) {
        let kind = if sent == 0 { "NOTIFY" } else { "UNSET" };
        server.say(&mut conn, &format!(r#"{kind} - 1 1 raw:"x"*{frame}"#));
    }
    conn
}

#[test]
fn the_connection_that_exceeds_the_unfinished_bytes_of_all_is_disconnected_and_freed_at_once() {
    let config = ServerConfig { max_buffered_bytes: 512 * 1024, ..ServerConfig::default() };
    let mut server = Server::new(config);
    let mut first = holding(&mut server, 300_000);
    let small = holding(&mut server, 16_000);
    let held = server.agent.buffered.now();
    let mut second = server.connect();
    server.greet_with(&mut second, "fragmentation,pipelining", "e");
    server.say(&mut second, r#"NOTIFY - 1 1 raw:"x"*16000"#);
    let mut heard = Vec::new();
    while heard.is_empty() {
        server.say(&mut second, r#"UNSET - 1 1 raw:"x"*16000"#);
        heard = server.hear(&mut second);
    }
    let goodbye = heard.last().unwrap();
    assert!(goodbye.starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:13 "), "{heard:?}");
    assert_eq!(server.agent.buffered.now(), held, "what it held is free, and it is not dropped yet");
    assert!(!first.interest().close && !small.interest().close);
    assert!(server.logged().contains(&"connection_failed".to_owned()));
    // There is space for the first.
    server.say(&mut first, r#"UNSET fin 1 1 raw:"x"*16000"#);
    assert!(first.reactor().unwrap().unfinished_bytes() < 16_384);
}

#[test]
fn a_payload_that_timed_out_is_not_counted_any_more() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = holding(&mut server, 300_000);
    assert!(server.agent.buffered.now() >= 300_000 / 16_384 * 16_384);
    server.wait(&mut conn, Duration::from_secs(10));
    assert_eq!(server.agent.buffered.now(), 0);
    assert_eq!(server.hear(&mut conn), ["ACK fin,abort 1 1"]);
}

#[test]
fn a_frame_that_has_arrived_in_part_counts() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.connect();
    server.say(&mut conn, &hello("pipelining", "e").replace("16380", "1000000"));
    server.hear(&mut conn);
    let frame = notation::parse_bytes(r#"NOTIFY fin 1 1 now a=string:"x"*200000"#).unwrap();
    assert_eq!(conn.on_bytes(server.now, &mut server.app, &frame[..150_000]), 0);
    assert!(server.agent.buffered.now() > 100_000);
    server.say_bytes(&mut conn, &frame);
    assert_eq!(server.agent.buffered.now(), 0);
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
}

#[test]
fn answers_that_are_not_read_count_and_are_freed_with_their_connection() {
    let config = ServerConfig { max_buffered_bytes: 512 * 1024, ..ServerConfig::default() };
    let mut server = Server::new(config);
    let mut reads = server.session("e");
    let mut deaf = server.session("e");
    let mut stream = 0;
    while !deaf.interest().close {
        stream += 1;
        assert!(stream < 100, "{} bytes are queued", deaf.outgoing().len());
        server.say(&mut deaf, &format!("NOTIFY fin {stream} 1 large"));
        server.say(&mut reads, &format!("NOTIFY fin {stream} 1 large"));
        assert!(server.hear_bytes(&mut reads).len() > 15_000);
    }
    assert!((500_000..600_000).contains(&(stream * 15_000)), "closed at the answer {stream}");
    assert_eq!(server.agent.buffered.now(), 0, "what it held is free, and it is not dropped yet");
    assert!(server.logged().contains(&"connection_failed".to_owned()));
    assert!(!reads.interest().close);
}

#[test]
fn input_that_waits_for_a_limit_counts() {
    let mut config = AgentConfig::default();
    config.limits.max_in_flight = 1;
    config.processing = None;
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    let mut waits = notation::parse_bytes("NOTIFY fin 2 1 later").unwrap();
    waits = waits.repeat(40_000 / waits.len());
    assert_eq!(conn.on_bytes(server.now, &mut server.app, &waits), 0);
    assert_eq!(server.agent.buffered.now(), 32 * 1024);
    server.lose(&mut conn);
    assert_eq!(conn.on_bytes(server.now, &mut server.app, &waits), waits.len());
    assert_eq!(server.agent.buffered.now(), 0);
}

#[test]
fn requests_that_were_superseded_count_until_they_are_dropped() {
    let mut config = AgentConfig::default();
    config.limits.max_in_flight = 4;
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    let mut other = server.session("f");
    for _ in 0..400 {
        server.say(&mut conn, "NOTIFY fin 1 1 later");
        server.hear(&mut conn);
        assert!(conn.reactor().unwrap().in_flight() <= 1);
    }
    assert!(server.app.deferred.len() <= 2 * 4 + 256, "{} are kept", server.app.deferred.len());
    assert!(server.agent.stats().failures.of(FailureKind::Overloaded) > 130);
    server.say(&mut other, "NOTIFY fin 1 1 now");
    assert_eq!(server.hear(&mut other), [format!("ACK fin 1 1 {SCORE}")]);
    server.app.deferred.clear();
    server.wake(&mut conn);
    server.hear(&mut conn);
    server.say(&mut conn, "NOTIFY fin 2 1 now");
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 2 1 {SCORE}")]);
}

#[test]
fn a_request_counts_from_the_end_of_its_call_until_it_is_dropped() {
    let agent = Agent::new(ServerConfig::default(), Clock::start()).unwrap();
    let now = Timestamp::from_millis(1);
    let mut conn = agent.accept(now, Peer::unnamed(), None).unwrap();
    let mut other = agent.accept(now, Peer::unnamed(), None).unwrap();
    let mut kept = Vec::new();
    let mut say = |line: &str| {
        let mut handler = |request: Request<'_>| {
            let request = request.into_owned();
            let name = request.messages().iter().next().unwrap().name().to_owned();
            match &*name {
                b"keep" => kept.push(request),
                b"drop" => drop(request),
                b"elsewhere" => std::thread::spawn(move || drop(request)).join().unwrap(),
                _ => {
                    // A call within the call, of a request with the same number.
                    let mut request = Some(request);
                    let mut inner = |_: Request<'_>| {
                        request = None;
                        Outcome::Later
                    };
                    for line in [hello("pipelining", "f").as_str(), "NOTIFY fin 1 1 a"] {
                        other.on_bytes(now, &mut inner, &notation::parse_bytes(line).unwrap());
                    }
                }
            }
            Outcome::Later
        };
        conn.on_bytes(now, &mut handler, &notation::parse_bytes(line).unwrap());
        let kept = kept.first().map(Request::connection);
        kept.map_or((0, 0), |connection| {
            (connection.held.load(Ordering::Relaxed), connection.requests.bytes())
        })
    };
    say(&hello("pipelining", "e"));
    let (held, bytes) = say("NOTIFY fin 1 1 keep");
    assert!(held == 1 && (1024..1100).contains(&bytes), "{held} with {bytes} bytes");
    for (stream, name) in ["drop", "elsewhere", "nested"].into_iter().enumerate() {
        assert_eq!(say(&format!("NOTIFY fin {} 1 {name}", stream + 2)), (held, bytes), "{name}");
    }
    assert_eq!(say("NOTIFY fin 5 1 keep"), (2, 2 * bytes));
    let last = kept.pop().unwrap();
    kept.clear();
    assert_eq!(last.connection().requests.bytes(), bytes);
}

#[test]
fn a_request_counts_under_the_limit_of_all_until_it_is_dropped() {
    let config = ServerConfig { max_in_flight: Some(1), ..ServerConfig::default() };
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 keep");
    drop(server.app.kept[0].take_guard());
    server.lose(&mut conn);
    drop(conn);
    assert_eq!(server.agent.in_flight.now(), 1, "its call has ended, and the request is kept");
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 now");
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1"]);
    server.app.kept.clear();
    server.say(&mut conn, "NOTIFY fin 2 1 now");
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 2 1 {SCORE}")]);
}

#[test]
fn requests_that_are_kept_and_handlers_that_run_are_one_count() {
    let config = ServerConfig { max_in_flight: Some(2), ..ServerConfig::default() };
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 keep");
    server.say(&mut conn, "NOTIFY fin 2 1 keep");
    drop(server.app.kept[0].take_guard());
    let guard = server.app.kept[1].take_guard();
    drop(server.app.kept.pop());
    server.say(&mut conn, "NOTIFY fin 3 1 now");
    assert_eq!(server.hear(&mut conn), ["ACK fin 3 1"], "one is kept, and the handler of another runs");
    drop(guard);
    server.say(&mut conn, "NOTIFY fin 4 1 now");
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 4 1 {SCORE}")]);
    server.app.kept.clear();
    server.lose(&mut conn);
}

#[test]
fn payloads_that_handlers_keep_are_limited_over_all_connections() {
    let config = ServerConfig { max_request_bytes: 200_000, ..ServerConfig::default() };
    let mut server = Server::new(config);
    let mut greedy = server.session("e");
    let mut modest = server.session("f");
    for stream in 0..40 {
        server.say(&mut greedy, &format!(r#"NOTIFY fin {stream} 1 keep a=string:"x"*15000"#));
    }
    let kept = server.app.kept.len();
    assert!((13..=15).contains(&kept), "{kept} are kept");
    assert_eq!(server.agent.stats().failures.of(FailureKind::Overloaded), 40 - kept as u64);
    server.say(&mut modest, "NOTIFY fin 1 1 now");
    assert_eq!(server.hear(&mut modest), [format!("ACK fin 1 1 {SCORE}")]);
    server.app.kept.clear();
    assert_eq!(server.agent.requests.now(), 0);
    server.hear(&mut greedy);
    server.lose(&mut greedy);
}

#[test]
fn a_request_that_exceeds_a_limit_of_the_session_is_logged_at_a_bounded_rate() {
    let mut config = AgentConfig::default();
    config.limits.max_messages = 2;
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    for _ in 0..20 {
        server.say(&mut conn, "NOTIFY fin 1 1 now ; now ; now");
        assert_eq!(server.hear(&mut conn), ["ACK fin,abort 1 1"]);
    }
    let logged = server.logged();
    assert_eq!(logged.iter().filter(|line| *line == "request_refused").count(), 10, "{logged:?}");
    server.say(&mut conn, "NOTIFY fin 2 1 now ; now");
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 2 1 {SCORE}")]);
}

#[test]
fn a_long_request_counts_before_it_is_kept() {
    let config = ServerConfig { max_request_bytes: 200_000, ..ServerConfig::default() };
    let mut server = Server::new(config);
    let mut conns: Vec<_> = (0..20)
        .map(|_| {
            let mut conn = server.connect();
            server.say(&mut conn, &hello("pipelining", "e").replace("16380", "1000000"));
            server.hear(&mut conn);
            server.say(&mut conn, r#"NOTIFY fin 1 1 keep a=string:"x"*90000"#);
            conn
        })
        .collect();
    assert_eq!((server.app.kept.len(), server.agent.stats().failures.of(FailureKind::Overloaded)), (2, 18));
    server.app.kept.clear();
    for conn in &mut conns {
        server.lose(conn);
    }
}

#[test]
fn parts_of_a_request_are_one_request() {
    let mut config = AgentConfig::default();
    config.limits.max_in_flight = 20;
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    let mut parts = Vec::new();
    for stream in 0..20 {
        server.say(&mut conn, &format!("NOTIFY fin {stream} 1 keep ; keep ; keep"));
        parts.extend(server.app.kept[stream].each());
    }
    assert_eq!(
        (server.app.kept.len(), parts.len(), server.agent.stats().failures.of(FailureKind::Overloaded)),
        (20, 60, 0)
    );
    let held = || parts[0].connection().held.load(Ordering::Relaxed);
    assert_eq!(held(), 20);
    server.app.kept.clear();
    assert_eq!(held(), 0);
    assert!(server.agent.in_flight.now() == 0 && parts.iter().all(|part| part.messages().len() == 1));
    server.lose(&mut conn);
}

#[test]
fn a_disconnect_for_memory_is_logged_whatever_else_went_wrong() {
    let config = ServerConfig { max_buffered_bytes: 100_000, ..ServerConfig::default() };
    let mut server = Server::new(config);
    for _ in 0..20 {
        let mut conn = server.connect();
        server.say_bytes(&mut conn, &[0xff; 8]);
    }
    server.logged();
    let conn = holding(&mut server, 300_000);
    assert!(conn.closed().is_some());
    assert!(server.logged().contains(&"connection_failed".to_owned()));
    assert_eq!(server.agent.stats().out_of_memory, 1);
}
