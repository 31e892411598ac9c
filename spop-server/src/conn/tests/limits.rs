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
    let config = ServerConfig { max_unfinished_bytes: 512 * 1024, ..ServerConfig::default() };
    let mut server = Server::new(config);
    let mut first = holding(&mut server, 300_000);
    let small = holding(&mut server, 16_000);
    let held = server.agent.unfinished.now();
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
    assert_eq!(server.agent.unfinished.now(), held, "what it held is free, and it is not dropped yet");
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
    assert!(server.agent.unfinished.now() >= 300_000 / 16_384 * 16_384);
    server.wait(&mut conn, Duration::from_secs(10));
    assert_eq!(server.agent.unfinished.now(), 0);
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
    assert!(server.agent.unfinished.now() > 100_000);
    server.say_bytes(&mut conn, &frame);
    assert_eq!(server.agent.unfinished.now(), 0);
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
}
