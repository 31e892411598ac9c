//! The stages of a shutdown.

use super::*;
use crate::Stage;

const HEALTHCHECK: &str = r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:"" healthcheck=bool:true"#;

fn lame_duck() -> Server {
    let config = ServerConfig { lame_duck: Duration::from_secs(5), ..ServerConfig::default() };
    Server::new(config)
}

/// The reply to a health check of HAProxy.
fn health(server: &mut Server) -> String {
    let mut conn = server.connect();
    server.say(&mut conn, HEALTHCHECK);
    server.hear(&mut conn).remove(0)
}

#[test]
fn a_shutdown_has_a_lame_duck_stage_and_a_drain_at_its_deadline() {
    let mut server = lame_duck();
    assert!(health(&mut server).starts_with("AGENT-HELLO"));
    let mut conn = server.session("e");
    assert_eq!(
        (server.agent.poll_shutdown(server.now), server.agent.shutdown_deadline()),
        (Stage::Serve, None)
    );
    server.agent.handle().drain();
    assert_eq!(server.agent.poll_shutdown(server.now), Stage::LameDuck);
    let deadline = server.agent.shutdown_deadline().unwrap();
    assert_eq!(deadline, server.now + Duration::from_secs(5));
    server.wake(&mut conn);
    assert!(health(&mut server).starts_with("AGENT-DISCONNECT"), "health checks are refused");
    server.say(&mut conn, "NOTIFY fin 1 1 now");
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")], "and requests are served");
    let _late = server.session("e");
    server.now = server.now + millis(4999);
    assert_eq!(server.agent.poll_shutdown(server.now), Stage::LameDuck);
    assert!(!conn.is_woken());
    server.now = deadline;
    assert_eq!(
        (server.agent.poll_shutdown(server.now), server.agent.shutdown_deadline()),
        (Stage::Drain, None)
    );
    assert!(conn.is_woken());
    server.wake(&mut conn);
    assert!(conn.reactor().unwrap().is_draining());
}

#[test]
fn a_second_drain_ends_the_lame_duck_stage() {
    let mut server = lame_duck();
    let mut conn = server.session("e");
    let handle = server.agent.handle();
    handle.drain();
    server.wake(&mut conn);
    assert!(!conn.reactor().unwrap().is_draining());
    handle.drain();
    assert_eq!(server.agent.poll_shutdown(server.now), Stage::Drain);
    server.wake(&mut conn);
    assert!(conn.reactor().unwrap().is_draining());
    handle.drain();
    assert_eq!(server.agent.poll_shutdown(server.now), Stage::Drain);
}

#[test]
fn without_a_lame_duck_stage_a_drain_begins_at_once() {
    let mut server = Server::new(ServerConfig::default());
    server.agent.handle().drain();
    assert_eq!(server.agent.poll_shutdown(server.now), Stage::Drain);
    assert!(health(&mut server).starts_with("AGENT-DISCONNECT"));
}

#[test]
fn each_connection_ends_at_its_best_moment() {
    let mut server = Server::new(ServerConfig::default());
    let (mut idle, mut busy) = (server.session("e"), server.session("e"));
    server.say(&mut busy, "NOTIFY fin 1 1 later");
    server.agent.handle().drain();
    server.wake(&mut idle);
    server.wake(&mut busy);
    // Idle for 100 ms: nothing is in transit.
    let begin = server.now;
    server.wait(&mut idle, millis(100));
    assert_eq!(server.hear(&mut idle).len(), 1);
    assert!(idle.closed().is_some());
    // New requests are served until the last answer, which leaves together with the DISCONNECT.
    server.now = begin + millis(200);
    server.say(&mut busy, "NOTIFY fin 2 1 now");
    assert!(server.hear(&mut busy).is_empty(), "answers are held, to leave with the DISCONNECT");
    server.wait(&mut busy, millis(16));
    assert_eq!(server.hear(&mut busy), [format!("ACK fin 2 1 {SCORE}")], "but not for long");
    server.answer_first();
    server.wake(&mut busy);
    assert!(server.hear(&mut busy).is_empty());
    server.wait(&mut busy, millis(6));
    let heard = server.hear(&mut busy);
    assert_eq!((heard.len(), &heard[0]), (2, &format!("ACK fin 1 1 {SCORE}")));
    assert!(heard[1].starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0 "));
    assert!(!busy.is_over(), "the peer closes first");
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 2, ..Totals::default() });
}

#[test]
fn a_drain_does_not_wait_for_ever() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.agent.handle().drain();
    server.wake(&mut conn);
    server.wait(&mut conn, Duration::from_secs(10));
    assert!(server.hear(&mut conn)[0].starts_with("AGENT-DISCONNECT"));
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected]);
}

#[test]
fn a_stop_sends_what_is_queued_and_closes() {
    let mut server = Server::new(ServerConfig::default());
    let (mut conn, mut idle) = (server.session("e"), server.session("e"));
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.say(&mut conn, "NOTIFY fin 2 1 now");
    server.agent.handle().stop();
    for conn in [&mut conn, &mut idle] {
        server.wake(conn);
        assert!(conn.is_stopping());
        let interest = conn.interest();
        assert!(interest.write && !interest.read && !interest.close && interest.shut.is_none());
    }
    let heard = server.hear(&mut conn);
    assert_eq!((heard.len(), &heard[0]), (2, &format!("ACK fin 2 1 {SCORE}")));
    assert!(conn.interest().close && conn.is_over());
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected]);
    server.answer_first();
    server.wake(&mut conn);
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 1, cancelled: 1, ..Totals::default() });
}

#[test]
fn a_connection_that_is_accepted_after_a_stop_is_over() {
    let mut server = Server::new(ServerConfig::default());
    server.agent.handle().stop();
    let conn = server.connect();
    assert!(conn.is_over() && conn.interest().close);
}

#[test]
fn each_stage_wakes_connections_and_subscribers_once() {
    let mut server = lame_duck();
    let mut conn = server.session("e");
    let (woken, waker) = Woken::waker();
    let (subscriber, of_subscriber) = Woken::waker();
    conn.set_waker(&waker);
    let subscription = server.agent.subscribe(&of_subscriber);
    let gone = server.agent.subscribe(&of_subscriber);
    drop(gone);
    let handle = server.agent.handle();
    for stages in 1..=3 {
        match stages {
            3 => handle.stop(),
            _ => handle.drain(),
        }
        assert_eq!((woken.count(), subscriber.count()), (stages, stages));
        server.wake(&mut conn);
        assert!(!conn.is_woken());
    }
    handle.drain();
    handle.stop();
    drop(subscription);
    assert_eq!((woken.count(), subscriber.count()), (3, 3));
}

#[test]
fn a_handle_shows_connections_and_counters() {
    let mut server = Server::new(ServerConfig::default());
    let listener = crate::Endpoint::from("127.0.0.1:0").listen(false).unwrap();
    let address = listener.address().unwrap();
    let peer = Peer::Ip("192.0.2.7:4711".parse().unwrap());
    let mut one = server.connect_from(peer, Some(&listener.entrance)).unwrap();
    server.greet(&mut one, "\"one\\n\"");
    let fresh = server.connect();
    server.say(&mut one, "NOTIFY fin 1 1 later");
    server.say(&mut one, "NOTIFY fin 2 1 now");
    server.say(&mut one, "NOTIFY fin 3 1 fail");
    server.now = server.now + millis(30);
    one.on_timeout(server.now, &mut server.app);
    server.say(&mut one, "NOTIFY fin 4 1 now");
    server.now = server.now + millis(3_040);
    one.on_timeout(server.now, &mut server.app);
    let mut infos = server.agent.open_connections(server.now);
    infos.sort_by_key(|info| info.id);
    let [info, other] = &infos[..] else { panic!("two connections") };
    assert_eq!((info.id, info.engine_id.as_deref(), info.in_flight), (one.id().0, Some("one\\n"), 1));
    assert_eq!(
        (info.phase, info.age, info.outgoing),
        (spop_core::link::Phase::Established, millis(3_000), one.outgoing().len())
    );
    assert_eq!(
        (info.requests, info.idle, info.listener.as_ref(), info.tls),
        (4, millis(3_000), Some(&address), false)
    );
    assert_eq!(info.source, Some("192.0.2.7:4711".parse().unwrap()));
    assert_eq!(
        (other.requests, other.idle, other.listener.as_ref(), other.source),
        (0, millis(3_000), None, None)
    );
    assert_eq!((other.id, other.engine_id.as_deref(), other.outgoing), (fresh.id().0, None, 0));
    let handle = server.agent.handle();
    assert_eq!(handle.connections().len(), 2);
    assert_eq!((handle.stats().accepted, handle.stats().open), (2, 2));
    let requests = |stats: crate::Stats| (stats.requests, stats.answered, stats.failures.total());
    assert_eq!(requests(handle.stats()), (4, 2, 1));
    drop(one);
    assert_eq!((handle.connections().len(), handle.stats().open), (1, 1));
    assert_eq!(requests(handle.stats()), (4, 2, 1), "the counts of a connection outlive it");
    assert_eq!(handle.stats().failures.of(FailureKind::HandlerFailed), 1);
}

#[test]
fn a_server_ends_with_its_last_connection_and_the_last_work_in_the_background() {
    let config = ServerConfig { max_background: 2, ..ServerConfig::default() };
    let server = Server::new(config);
    let (subscriber, waker) = Woken::waker();
    let _subscription = server.agent.subscribe(&waker);
    let without_listener = server.agent.connection(server.now, Peer::unnamed());
    let background = |conn: &Conn| conn.connection.shutdown.enter_background();
    let work = [background(&without_listener), background(&without_listener)];
    assert!(work.iter().all(Option::is_some) && background(&without_listener).is_none());
    let stats = server.agent.stats();
    assert_eq!((stats.background, stats.background_refused), (2, 1));
    assert!(!server.agent.has_ended(server.now), "it serves");
    server.agent.handle().drain();
    assert_eq!(server.agent.poll_shutdown(server.now), Stage::Drain);
    assert!(!server.agent.has_ended(server.now));
    assert_eq!(subscriber.count(), 1);
    drop(without_listener);
    assert_eq!(subscriber.count(), 2);
    assert!(!server.agent.has_ended(server.now), "work goes on");
    let [one, other] = work;
    drop(one);
    assert_eq!(subscriber.count(), 2);
    drop(other);
    assert_eq!((subscriber.count(), server.agent.has_ended(server.now)), (3, true));
    assert_eq!(server.agent.stats().background, 0);
}

#[test]
fn a_server_does_not_wait_for_ever_for_what_is_left() {
    let mut server = Server::new(ServerConfig::default());
    let conn = server.session("e");
    let work = conn.connection.shutdown.enter_background();
    server.agent.handle().drain();
    assert_eq!(server.agent.end_deadline(), None, "the drain begins when a thread has noticed");
    server.agent.poll_shutdown(server.now);
    let before = server.now + millis(10_999);
    let deadline = before + millis(1);
    assert_eq!(server.agent.end_deadline(), Some(deadline));
    drop(conn);
    assert!(!server.agent.has_ended(before) && server.agent.has_ended(deadline));
    // A stop waits for connections only, which end at once.
    let conn = server.session("e");
    server.now = server.now + millis(500);
    server.agent.handle().stop();
    server.agent.poll_shutdown(server.now);
    let before = server.now + millis(999);
    let deadline = before + millis(1);
    assert_eq!(server.agent.end_deadline(), Some(deadline));
    assert!(!server.agent.has_ended(before) && server.agent.has_ended(deadline));
    drop(conn);
    assert!(server.agent.has_ended(server.now));
    drop(work);
}

#[test]
fn a_thread_waits_for_the_end_through_the_lame_duck_stage() {
    let config = ServerConfig { lame_duck: millis(50), ..ServerConfig::default() };
    let agent = Agent::new(config, Clock::start()).unwrap();
    let work = agent.connection(agent.clock().now(), Peer::unnamed()).connection.shutdown.enter_background();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| agent.wait_until_ended());
        agent.handle().drain();
        let start = std::time::Instant::now();
        while agent.stage() != Stage::Drain {
            assert!(start.elapsed() < Duration::from_secs(10), "the lame duck stage does not end");
            std::thread::sleep(millis(1));
        }
        std::thread::sleep(millis(50));
        assert!(!waits.is_finished());
        drop(work);
        waits.join().unwrap();
    });
}
