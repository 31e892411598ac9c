//! Requests whose connection is gone, and which siblings can still answer.

use super::{
    engines::{ack, failed, hear_all, stall},
    *,
};

/// A connection with an unanswered request, which is lost, and its sibling.
fn orphan() -> (Server, Conn, Conn) {
    orphan_of(asynchronous())
}

fn orphan_of(config: impl Into<ServerConfig>) -> (Server, Conn, Conn) {
    let mut server = Server::new(config);
    let (mut home, sibling) = (server.session("e"), server.session("e"));
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.lose(&mut home);
    assert!(home.interest().close && !home.is_over(), "it waits for the answer");
    (server, home, sibling)
}

#[test]
fn an_orphan_is_answered_by_a_sibling() {
    let (mut server, mut home, mut sibling) = orphan();
    assert!(server.app.cancelled.is_empty() && !server.app.deferred[0].is_cancelled());
    server.answer_first();
    assert_eq!(hear_all(&mut server, [&mut home, &mut sibling]), [vec![], vec![ack(1)]]);
    assert!(home.is_over());
    assert_eq!(server.totals(), Totals { notifies: 1, acks: 1, ..Totals::default() });
}

#[test]
fn an_answer_that_was_under_way_when_its_connection_was_lost_is_sent_by_a_sibling() {
    let mut server = Server::asynchronous();
    let (mut home, mut sibling) = (server.session("e"), server.session("e"));
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.answer_first();
    server.lose(&mut home);
    assert_eq!(hear_all(&mut server, [&mut home, &mut sibling]), [vec![], vec![ack(1)]]);
    assert!(home.is_over());
}

#[test]
fn an_orphan_fails_if_its_responder_is_dropped() {
    let (mut server, mut home, mut sibling) = orphan();
    server.app.deferred.clear();
    assert_eq!(hear_all(&mut server, [&mut home, &mut sibling]), [vec![], vec![failed(1)]]);
    assert!(home.is_over());
    assert_eq!(server.totals(), Totals { notifies: 1, failures: 1, ..Totals::default() });
}

#[test]
fn orphans_are_cancelled_once_when_the_last_connection_is_gone() {
    let (mut server, mut home, mut sibling) = orphan();
    server.say(&mut sibling, "NOTIFY fin 2 1 later");
    server.lose(&mut sibling);
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected]);
    assert!(sibling.is_over() && !home.is_over());
    server.wake(&mut home);
    assert!(home.is_over() && home.deadline().is_none());
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected; 2]);
    assert!(server.app.deferred.iter().all(|it| it.reason() == Some(Cancelled::Disconnected)));
    assert!(server.app.deferred[0].cancellation().is_cancelled(), "asked later");
    (0..2).for_each(|_| server.answer_first());
    server.wake(&mut home);
    server.wake(&mut sibling);
    assert_eq!(server.totals(), Totals { notifies: 2, cancelled: 2, ..Totals::default() });
}

#[test]
fn an_orphan_that_is_not_answered_in_time_fails_through_a_sibling() {
    let (mut server, mut home, mut sibling) = orphan();
    server.wait(&mut home, millis(29_999));
    assert!(!home.is_over());
    server.wait(&mut home, millis(1));
    assert!(home.is_over());
    assert_eq!(server.app.cancelled, [Cancelled::TimedOut]);
    assert_eq!(server.app.deferred[0].reason(), Some(Cancelled::TimedOut));
    assert_eq!(hear_all(&mut server, [&mut home, &mut sibling]), [vec![], vec![failed(1)]]);
    assert_eq!(server.totals(), Totals { notifies: 1, failures: 1, ..Totals::default() });
    assert!(server.logged().contains(&"request_failed timed_out".to_owned()));
}

#[test]
fn requests_beyond_the_limit_of_orphans_are_cancelled_and_counted_as_lost() {
    let mut config = asynchronous();
    config.limits.max_in_flight = 2_000;
    let mut server = Server::new(config);
    let (mut home, _sibling) = (server.session("e"), server.session("e"));
    for stream in 1..=1_030 {
        server.say(&mut home, &format!("NOTIFY fin {stream} 1 later"));
    }
    server.lose(&mut home);
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected; 6]);
    assert_eq!(home.closed().map(|closed| closed.lost.messages), Some(6));
    let cancelled = server.app.deferred.iter().filter(|it| it.is_cancelled());
    assert_eq!((cancelled.count(), server.agent.engines.waiting()), (6, 1_024));
}

#[test]
fn a_connection_that_still_closes_has_no_past_deadline_after_its_orphans_timed_out() {
    let mut config = asynchronous();
    config.timeouts.message = Some(millis(300));
    config.timeouts.linger = Duration::from_secs(1);
    let mut server = Server::new(config);
    let (mut home, mut sibling) = (server.session("e"), server.session("e"));
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.say(&mut home, "NOTIFY fin 2 1 disconnect");
    assert_eq!(server.hear(&mut home).len(), 1);
    assert!(!home.interest().close, "it awaits the close of its peer");
    server.wait(&mut home, millis(301));
    assert_eq!(hear_all(&mut server, [&mut sibling]), [vec![failed(1)]]);
    assert!(home.deadline().is_some_and(|at| at > server.now));
}

#[test]
fn orphans_keep_their_place_under_the_limit_of_connections() {
    let config = ServerConfig { max_connections: 2, ..ServerConfig::from(asynchronous()) };
    let (mut server, mut home, mut sibling) = orphan_of(config);
    assert!(server.connect_from(Peer::unnamed(), None).is_none());
    server.answer_first();
    hear_all(&mut server, [&mut home, &mut sibling]);
    assert!(home.is_over());
    drop(home);
    assert!(server.connect_from(Peer::unnamed(), None).is_some());
    assert_eq!(server.agent.stats().refused, 1);
}

#[test]
fn a_disconnect_of_an_orphan_is_a_failure() {
    let (mut server, mut home, mut sibling) = orphan();
    server.app.deferred.remove(0).reply(disconnect());
    assert_eq!(hear_all(&mut server, [&mut home, &mut sibling]), [vec![], vec![failed(1)]]);
    assert_eq!(server.totals(), Totals { notifies: 1, failures: 1, ..Totals::default() });
    assert!(server.logged().contains(&"request_failed already_disconnected".to_owned()));
}

#[test]
fn a_newer_request_supersedes_an_orphan() {
    let (mut server, mut home, mut sibling) = orphan();
    server.say(&mut sibling, "NOTIFY fin 1 1 later");
    server.wake(&mut home);
    assert_eq!(server.app.cancelled, [Cancelled::Superseded]);
    assert!(home.is_over());
    server.answer_first();
    server.answer_first();
    assert_eq!(hear_all(&mut server, [&mut home, &mut sibling]), [vec![], vec![ack(1)]]);
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 1, cancelled: 1, ..Totals::default() });
}

#[test]
fn an_orphan_is_not_answered_in_part() {
    let (mut server, mut home, mut sibling) = orphan();
    server.app.deferred[0].send_part(part("a"));
    server.wake(&mut home);
    assert!(home.is_over(), "parts are for the connection of the request");
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected]);
    assert_eq!(server.app.deferred[0].reason(), Some(Cancelled::Disconnected));
    server.answer_first();
    assert_eq!(hear_all(&mut server, [&mut home, &mut sibling]), [vec![], vec![]] as [Vec<String>; 2]);
    assert_eq!(server.agent.engines.waiting(), 0);
    assert_eq!(server.totals(), Totals { notifies: 1, cancelled: 1, ..Totals::default() });
}

#[test]
fn a_connection_that_is_dropped_loses_no_answer_that_a_sibling_can_send() {
    let mut server = Server::asynchronous();
    let (mut home, mut one, mut two) = (server.session("e"), server.session("e"), server.session("e"));
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.say(&mut home, "NOTIFY fin 2 1 later");
    server.say(&mut home, "NOTIFY fin 3 1 later");
    server.say(&mut one, "NOTIFY fin 4 1 later");
    stall(&mut server, &mut one);
    // An answer of its own, and one that it was to send for a sibling.
    server.answer_first();
    server.app.deferred.remove(2).reply(score());
    server.wake(&mut one);
    server.app.deferred.remove(1).reply(Reply::failed("no"));
    drop(home);
    let [one, two] = hear_all(&mut server, [&mut one, &mut two]);
    assert_eq!((one.len(), two), (1, vec![ack(1), ack(4), failed(3)]));
    assert_eq!(server.app.deferred[0].reason(), Some(Cancelled::Disconnected));
    assert_eq!(server.totals(), Totals { notifies: 5, acks: 3, failures: 1, cancelled: 1 });
}

#[test]
fn the_requests_of_a_connection_that_is_dropped_are_forgotten() {
    let (mut server, home, mut sibling) = orphan();
    server.say(&mut sibling, "NOTIFY fin 2 1 later");
    assert_eq!(server.agent.engines.waiting(), 2);
    drop(home);
    assert_eq!(server.agent.engines.waiting(), 1);
    let mut home = server.session("e");
    server.say(&mut home, "NOTIFY fin 3 1 later");
    drop(home);
    assert_eq!(server.agent.engines.waiting(), 1);
}

#[test]
fn a_server_that_stops_cancels_orphans() {
    let (mut server, mut home, mut sibling) = orphan();
    server.agent.handle().stop();
    server.wake(&mut home);
    assert!(home.is_over());
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected]);
    server.wake(&mut sibling);
    assert_eq!(server.totals(), Totals { notifies: 1, cancelled: 1, ..Totals::default() });
}

/// Two draining connections of one engine, and one of another; the request of the first, which is lost, is unanswered.
fn draining_orphan(config: AgentConfig) -> (Server, Conn, Conn) {
    let mut server = Server::new(config);
    let (mut home, mut sibling) = (server.session("e"), server.session("e"));
    let mut other = server.session("other");
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.agent.handle().drain();
    for conn in [&mut home, &mut sibling, &mut other] {
        server.wake(conn);
    }
    server.lose(&mut home);
    let begin = server.now;
    server.wait(&mut other, millis(100));
    assert!(other.closed().is_some(), "its engine has no orphan");
    server.now = begin;
    (server, home, sibling)
}

#[test]
fn a_sibling_that_drains_waits_for_an_orphan() {
    let (mut server, mut home, mut sibling) = draining_orphan(asynchronous());
    server.wait(&mut sibling, Duration::from_secs(1));
    assert!(sibling.closed().is_none() && server.hear(&mut sibling).is_empty());
    server.answer_first();
    server.wake(&mut home);
    server.wake(&mut sibling);
    assert!(home.is_over());
    assert_eq!(server.hear(&mut sibling), [ack(1)]);
    server.wait(&mut sibling, millis(100));
    assert!(server.hear(&mut sibling)[0].starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0 "));
    assert_eq!(server.totals(), Totals { notifies: 1, acks: 1, ..Totals::default() });
}

#[test]
fn a_drain_ends_although_an_orphan_is_unanswered() {
    let (mut server, mut home, mut sibling) = draining_orphan(asynchronous());
    server.wait(&mut sibling, millis(9_999));
    assert!(sibling.closed().is_none());
    server.wait(&mut sibling, millis(1));
    assert!(server.hear(&mut sibling)[0].starts_with("AGENT-DISCONNECT"));
    server.wake(&mut home);
    assert!(home.is_over());
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected]);
    assert_eq!(server.totals(), Totals { notifies: 1, cancelled: 1, ..Totals::default() });
}

#[test]
fn a_drain_waits_for_an_orphan_until_it_times_out() {
    let mut config = asynchronous();
    config.timeouts.message = Some(millis(500));
    let (mut server, mut home, mut sibling) = draining_orphan(config);
    server.wait(&mut sibling, millis(400));
    server.wait(&mut home, millis(100));
    assert!(home.is_over());
    server.wake(&mut sibling);
    assert_eq!(server.hear(&mut sibling), [failed(1)]);
    server.wait(&mut sibling, millis(100));
    assert!(server.hear(&mut sibling)[0].starts_with("AGENT-DISCONNECT"));
    assert_eq!(server.app.cancelled, [Cancelled::TimedOut]);
}

#[test]
fn an_answer_in_parts_whose_connection_is_lost_keeps_no_sibling_waiting() {
    let mut server = Server::asynchronous();
    let mut home = server.connect();
    server.greet_with(&mut home, "fragmentation,pipelining,async", "e");
    let mut sibling = server.session("e");
    server.say(&mut home, "NOTIFY fin 1 1 part-then-later");
    server.lose(&mut home);
    server.app.deferred.remove(0).reply(score());
    server.wake(&mut home);
    assert!(home.is_over());
    assert_eq!(server.agent.engines.waiting(), 0);
    server.agent.handle().drain();
    server.wake(&mut sibling);
    server.wait(&mut sibling, millis(100));
    assert!(sibling.closed().is_some());
}

#[test]
fn a_drain_that_waits_for_an_orphan_answers_others_at_once() {
    let (mut server, _home, mut sibling) = draining_orphan(asynchronous());
    server.wait(&mut sibling, millis(100));
    server.say(&mut sibling, "NOTIFY fin 2 1 now");
    assert_eq!(server.hear(&mut sibling), [ack(2)]);
    server.say(&mut sibling, "NOTIFY fin 3 1 now");
    assert_eq!(server.hear(&mut sibling), [ack(3)]);
}

#[test]
fn an_idle_connection_that_waited_for_an_orphan_ends_as_an_idle_one() {
    let mut config = asynchronous();
    config.timeouts.idle = Some(Duration::from_secs(1));
    config.timeouts.drain = Duration::from_secs(2);
    let mut server = Server::new(config);
    let (mut home, mut sibling) = (server.session("e"), server.session("e"));
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.lose(&mut home);
    server.wait(&mut sibling, millis(2_900));
    assert!(sibling.closed().is_none());
    server.wait(&mut sibling, millis(200));
    assert_eq!(
        sibling.closed().map(|closed| closed.reason.clone()),
        Some(spop_core::CloseReason::Timeout(spop_core::Timer::Idle))
    );
}
