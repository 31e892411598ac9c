//! The accept stage: what a connection passes before its session.

use spop_core::accept::{AcceptConfig, AcceptHandler, ExpectProxy, Monitor, Policy, Response, SourceRules};

use super::*;

const HEADER: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 12345\r\n";
const LAST_TIME: &str = "HTTP/1.0 503\r\n\r\n";

fn entrance(handlers: impl IntoIterator<Item = AcceptHandler>) -> Arc<Entrance> {
    let config = handlers.into_iter().try_fold(AcceptConfig::new(), AcceptConfig::with).unwrap();
    Arc::new(Entrance::new(config).unwrap())
}

fn behind_a_proxy() -> Arc<Entrance> {
    entrance([ExpectProxy::new().into()])
}

fn health() -> Monitor {
    Monitor::new("GET /health ", "HTTP/1.0 200\r\n\r\n").lame_duck(LAST_TIME)
}

fn through(entrance: &Arc<Entrance>) -> (Server, Conn) {
    let mut server = Server::new(ServerConfig::default());
    let conn = server.connect_from(Peer::unnamed(), Some(entrance)).unwrap();
    (server, conn)
}

fn bytes(line: &str) -> Vec<u8> {
    notation::parse_bytes(line).unwrap()
}

/// Counted as rejected, and logged for this reason.
fn rejected(server: &mut Server, conn: &Conn, why: &str) {
    assert!(conn.is_over() && conn.interest().close && conn.deadline().is_none());
    assert_eq!((server.agent.stats().rejected, server.agent.stats().probes), (1, 0));
    assert!(server.logged().contains(&format!("not_accepted {why}")));
}

#[test]
fn no_session_begins_before_the_proxy_header() {
    let (mut server, mut conn) = through(&behind_a_proxy());
    server.say_bytes(&mut conn, &bytes(&hello("pipelining", "e")));
    rejected(&mut server, &conn, "refused");
    assert!(conn.reactor().is_none());
    assert_eq!(server.hear_bytes(&mut conn), b"");
}

#[test]
fn a_proxy_header_and_the_session_may_arrive_in_one_read() {
    let (mut server, mut conn) = through(&behind_a_proxy());
    let all = [HEADER.as_bytes(), &bytes(&hello("pipelining", "e")), &bytes("NOTIFY fin 1 1 later")].concat();
    server.say_bytes(&mut conn, &all);
    let heard = server.hear(&mut conn);
    assert!(heard.len() == 1 && heard[0].starts_with("AGENT-HELLO"));
    let request = &server.app.deferred[0];
    assert_eq!(request.source(), Some("192.0.2.7:4711".parse().unwrap()));
    assert_eq!(request.destination(), Some("192.0.2.1:12345".parse().unwrap()));
    assert_eq!((request.peer(), request.connection().id()), (&Peer::unnamed(), conn.id()));
}

#[test]
fn the_bytes_of_a_proxy_header_may_arrive_one_by_one() {
    let (mut server, mut conn) = through(&behind_a_proxy());
    let (head, last) = HEADER.split_at(HEADER.len() - 1);
    for end in 1..=head.len() {
        assert_eq!(conn.on_bytes(server.now, &mut server.app, &head.as_bytes()[..end]), 0);
        assert!(conn.interest().read && conn.reactor().is_none());
    }
    assert_eq!(conn.on_bytes(server.now, &mut server.app, HEADER.as_bytes()), head.len() + last.len());
    server.greet(&mut conn, "e");
}

#[test]
fn the_end_of_the_input_may_arrive_with_a_whole_session() {
    let (mut server, mut conn) = through(&behind_a_proxy());
    let all = [HEADER.as_bytes(), &bytes(&hello("pipelining", "e")), &bytes("NOTIFY fin 1 1 now")].concat();
    assert_eq!(conn.on_input_eof(server.now, &mut server.app, &all), all.len());
    let heard = server.hear(&mut conn);
    assert_eq!(heard[1..], [format!("ACK fin 1 1 {SCORE}")]);
    server.resume(&mut conn);
    assert!(conn.interest().shut.is_some() || conn.interest().close);
}

#[test]
fn the_end_of_the_input_within_a_proxy_header_is_an_error() {
    let (mut server, mut conn) = through(&behind_a_proxy());
    conn.on_input_eof(server.now, &mut server.app, &HEADER.as_bytes()[..9]);
    rejected(&mut server, &conn, "refused");
}

#[test]
fn a_peer_that_is_too_slow_is_rejected() {
    let (mut server, mut conn) = through(&behind_a_proxy());
    server.wait(&mut conn, millis(4999));
    assert!(!conn.is_over());
    server.wait(&mut conn, millis(1));
    rejected(&mut server, &conn, "refused");
}

#[test]
fn a_connection_that_is_lost_before_its_session_is_rejected() {
    let (mut server, mut conn) = through(&behind_a_proxy());
    server.lose(&mut conn);
    rejected(&mut server, &conn, "lost");
}

#[test]
fn a_source_that_the_rules_refuse_gets_no_session_and_is_not_read() {
    let rules = SourceRules::new(Policy::Deny).allow("192.0.2.0/24".parse().unwrap());
    let entrance = entrance([rules.into()]);
    let mut server = Server::new(ServerConfig::default());
    let peer = |text: &str| Peer::from(text.parse::<std::net::SocketAddr>().unwrap());
    let mut good = server.connect_from(peer("192.0.2.9:1"), Some(&entrance)).unwrap();
    server.greet(&mut good, "e");
    let bad = server.connect_from(peer("198.51.100.1:1"), Some(&entrance)).unwrap();
    rejected(&mut server, &bad, "refused");
    assert!(!bad.interest().read);
}

#[test]
fn a_tcp_check_that_sends_nothing_is_a_probe() {
    let (mut server, mut conn) = through(&entrance([health().into()]));
    conn.on_input_eof(server.now, &mut server.app, &[]);
    assert!(conn.is_over());
    assert_eq!((server.agent.stats().probes, server.agent.stats().rejected), (1, 0));
    assert!(server.logged().is_empty());
}

#[test]
fn a_monitor_is_answered_and_its_close_awaited() {
    let (mut server, mut conn) = through(&entrance([health().into()]));
    server.say_bytes(&mut conn, b"GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(server.hear_bytes(&mut conn), b"HTTP/1.0 200\r\n\r\n");
    assert_eq!(conn.interest().shut, Some(spop_core::link::Layer::Transport));
    conn.on_write_shut(server.now, &mut server.app, spop_core::link::Progress::Done).unwrap();
    assert!(conn.interest().read && !conn.is_over());
    server.say_bytes(&mut conn, b"more");
    assert_eq!(server.agent.stats().probes, 0);
    conn.on_input_eof(server.now, &mut server.app, &[]);
    assert!(conn.is_over());
    assert_eq!(server.agent.stats().probes, 1);
}

#[test]
fn a_monitor_that_does_not_close_is_closed() {
    let (mut server, mut conn) = through(&entrance([Monitor::for_all("up\n").into()]));
    assert_eq!(server.hear_bytes(&mut conn), b"up\n");
    conn.on_write_shut(server.now, &mut server.app, spop_core::link::Progress::Started).unwrap();
    server.wait(&mut conn, Duration::from_secs(1));
    assert!(conn.is_over());
    assert_eq!((server.agent.stats().probes, server.agent.stats().rejected), (1, 0));
}

#[test]
fn what_is_no_probe_begins_a_session() {
    let (mut server, mut conn) = through(&entrance([health().into()]));
    server.greet(&mut conn, "e");
    server.say(&mut conn, "NOTIFY fin 1 1 now");
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
}

#[test]
fn monitors_are_refused_in_the_lame_duck_stage() {
    let config = ServerConfig { lame_duck: Duration::from_secs(5), ..ServerConfig::default() };
    let entrance = entrance([health().into()]);
    let mut server = Server::new(config);
    let mut before = server.connect_from(Peer::unnamed(), Some(&entrance)).unwrap();
    server.agent.handle().drain();
    let after = server.connect_from(Peer::unnamed(), Some(&entrance)).unwrap();
    server.wake(&mut before);
    for mut conn in [before, after] {
        server.say_bytes(&mut conn, b"GET /health HTTP/1.0\r\n\r\n");
        assert_eq!(server.hear_bytes(&mut conn), LAST_TIME.as_bytes());
    }
}

#[test]
fn a_session_that_begins_in_a_later_stage_knows_the_stage() {
    let (mut server, mut conn) = through(&behind_a_proxy());
    server.agent.handle().drain();
    server.wake(&mut conn);
    server.say_bytes(&mut conn, HEADER.as_bytes());
    server.greet(&mut conn, "e");
    assert!(conn.reactor().unwrap().is_draining());
}

#[test]
fn a_stop_ends_a_connection_before_its_session() {
    let (mut server, mut conn) = through(&behind_a_proxy());
    server.agent.handle().stop();
    server.wake(&mut conn);
    assert!(conn.is_over() && conn.interest().close);
}

#[test]
fn the_function_of_a_monitor_that_panics_ends_the_connection_only() {
    let (mut server, conn) =
        through(&entrance([Monitor::for_all(Response::from_fn(|| panic!("boom"))).into()]));
    rejected(&mut server, &conn, "monitor_panicked");
}
