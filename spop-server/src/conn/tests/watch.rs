//! Requests that arrive in fragments, and are watched.

use super::*;

const FIRST: &str = r#"NOTIFY - 1 1 messages[..20] waf body=string:"x"*60"#;
const LAST: &str = r#"UNSET fin 1 1 messages[20..] waf body=string:"x"*60"#;

fn watched(on_watch: fn(Partial<'_>) -> Watch) -> (Server, Conn) {
    let mut config = AgentConfig::default();
    config.watch_fragments = true;
    let mut server = Server::new(config);
    server.app.on_watch = Some(on_watch);
    let mut conn = server.connect();
    server.greet_with(&mut conn, "fragmentation,pipelining", "e");
    (server, conn)
}

#[test]
fn a_request_that_watch_accepts_is_handled_when_it_is_whole() {
    let (mut server, mut conn) = watched(|arriving| {
        assert_eq!(arriving.payload().len(), 20);
        Watch::Continue
    });
    server.say(&mut conn, FIRST);
    assert_eq!((server.app.watched, server.app.called), (1, 0));
    server.say(&mut conn, LAST);
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
    assert_eq!((server.app.watched, server.app.called), (1, 1));
}

#[test]
fn a_request_that_watch_refuses_is_aborted_and_never_handled() {
    let (mut server, mut conn) = watched(|_| Watch::Refuse);
    server.say(&mut conn, FIRST);
    assert_eq!(server.hear(&mut conn), ["ACK fin,abort 1 1"]);
    server.say(&mut conn, LAST);
    assert!(server.hear(&mut conn).is_empty());
    assert_eq!((server.app.watched, server.app.called), (1, 0));
    assert_eq!(server.totals(), Totals::default());
}

#[test]
fn a_watch_that_panics_refuses_nothing() {
    let (mut server, mut conn) = watched(|_| panic!("boom"));
    server.say(&mut conn, FIRST);
    server.say(&mut conn, LAST);
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
    assert!(server.logged().contains(&"watch_panicked".to_owned()));
}

#[test]
fn without_the_option_nothing_is_watched() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, FIRST);
    server.say(&mut conn, LAST);
    assert_eq!((server.app.watched, server.app.called), (0, 1));
}
