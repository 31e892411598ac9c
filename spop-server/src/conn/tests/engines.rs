//! Answers that take another connection of their engine.

use spop_core::hub::FULL;

use super::*;

/// Three connections of one engine, and one of another.
fn engine() -> (Server, [Conn; 3], Conn) {
    let mut server = Server::asynchronous();
    let conns = [(); 3].map(|()| server.session("e"));
    let other = server.session("other");
    (server, conns, other)
}

/// The peer of a connection does not read: an answer stays queued.
pub(super) fn stall(server: &mut Server, conn: &mut Conn) {
    server.say(conn, "NOTIFY fin 99 1 now");
    assert!(conn.interest().write);
}

/// What each connection sends, once all were woken.
pub(super) fn hear_all<const N: usize>(server: &mut Server, conns: [&mut Conn; N]) -> [Vec<String>; N] {
    conns.map(|conn| {
        server.wake(conn);
        server.hear(conn)
    })
}

/// An answer is queued for the peer that does not read.
pub(super) fn stalled() -> String {
    ack(99)
}

pub(super) fn ack(id: u64) -> String {
    format!("ACK fin {id} 1 {SCORE}")
}

/// The answer to a request that failed.
pub(super) fn failed(id: u64) -> String {
    format!("ACK fin {id} 1")
}

#[test]
fn a_connection_that_was_full_sends_answers_of_siblings_again() {
    let mut config = asynchronous();
    config.limits.max_outgoing = 10;
    let mut server = Server::new(config);
    let [mut home, mut sibling] = [(); 2].map(|()| server.session("e"));
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.say(&mut home, "NOTIFY fin 2 1 later");
    stall(&mut server, &mut home);
    stall(&mut server, &mut sibling);
    server.answer_first();
    server.wake(&mut home);
    assert_eq!(server.hear(&mut sibling), [stalled()]);
    server.answer_first();
    assert_eq!(hear_all(&mut server, [&mut home, &mut sibling]), [vec![stalled(), ack(1)], vec![ack(2)]]);
}

#[test]
fn siblings_see_that_a_connection_is_full() {
    let mut server = Server::asynchronous();
    let conn = server.session("e");
    for backlog in [None, Some(FULL), Some(0), Some(70_000)] {
        conn.connection.set_backlog(backlog);
        assert_eq!(conn.connection.backlog(), backlog);
    }
    // That of a peer that has shut its write side.
    conn.connection.set_backlog(Some(usize::MAX / 2));
    assert!(conn.connection.backlog().is_some_and(|bytes| bytes > 1 << 30 && bytes < FULL));
}

#[test]
fn an_answer_takes_its_own_connection_if_the_peer_reads() {
    let (mut server, [mut home, mut one, mut two], mut other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.answer_first();
    let heard = hear_all(&mut server, [&mut one, &mut two, &mut other, &mut home]);
    assert_eq!(heard, [vec![], vec![], vec![], vec![ack(1)]]);
}

#[test]
fn an_answer_whose_peer_does_not_read_takes_a_sibling() {
    let (mut server, [mut home, mut one, mut two], mut other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    stall(&mut server, &mut home);
    server.answer_first();
    let heard = hear_all(&mut server, [&mut home, &mut one, &mut two, &mut other]);
    assert_eq!(heard, [vec![stalled()], vec![ack(1)], vec![], vec![]]);
    assert_eq!(home.reactor().unwrap().in_flight(), 0);
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 2, ..Totals::default() });
}

#[test]
fn an_answer_at_once_takes_a_sibling_too() {
    let (mut server, [mut home, mut one, mut two], mut other) = engine();
    stall(&mut server, &mut home);
    server.say(&mut home, "NOTIFY fin 1 1 now");
    server.say(&mut home, "NOTIFY fin 2 1 fail");
    let heard = hear_all(&mut server, [&mut home, &mut one, &mut two, &mut other]);
    assert_eq!(heard, [vec![stalled()], vec![ack(1), failed(2)], vec![], vec![]]);
    assert_eq!(home.reactor().unwrap().in_flight(), 0);
    assert_eq!(server.totals(), Totals { notifies: 3, acks: 2, failures: 1, ..Totals::default() });
}

#[test]
fn a_sibling_whose_peer_does_not_read_is_not_chosen() {
    let (mut server, [mut home, mut one, mut two], _other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    stall(&mut server, &mut home);
    stall(&mut server, &mut one);
    server.answer_first();
    let heard = hear_all(&mut server, [&mut home, &mut one, &mut two]);
    assert_eq!(heard, [vec![stalled()], vec![stalled()], vec![ack(1)]]);
    // It reads again.
    stall(&mut server, &mut home);
    server.say(&mut home, "NOTIFY fin 2 1 now");
    let heard = hear_all(&mut server, [&mut home, &mut one, &mut two]);
    assert_eq!(heard, [vec![stalled()], vec![ack(2)], vec![]]);
}

#[test]
fn connections_of_another_engine_carry_no_answer() {
    let (mut server, [mut home, one, two], mut other) = engine();
    drop((one, two));
    server.say(&mut home, "NOTIFY fin 1 1 later");
    stall(&mut server, &mut home);
    server.answer_first();
    let heard = hear_all(&mut server, [&mut other, &mut home]);
    assert_eq!(heard, [vec![], vec![stalled(), ack(1)]]);
}

#[test]
fn a_sibling_that_closes_before_it_sends_passes_the_answer_on() {
    let (mut server, [mut home, mut one, mut two], _other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    stall(&mut server, &mut home);
    server.answer_first();
    server.wake(&mut home);
    server.lose(&mut one);
    let heard = hear_all(&mut server, [&mut home, &mut one, &mut two]);
    assert_eq!(heard, [vec![stalled()], vec![], vec![ack(1)]]);
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 2, ..Totals::default() });
}

#[test]
fn a_sibling_that_is_dropped_before_it_sends_passes_the_answer_on() {
    let (mut server, [mut home, one, mut two], _other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    stall(&mut server, &mut home);
    server.answer_first();
    server.wake(&mut home);
    drop(one);
    let heard = hear_all(&mut server, [&mut home, &mut two]);
    assert_eq!(heard, [vec![stalled()], vec![ack(1)]]);
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 2, ..Totals::default() });
}

#[test]
fn a_sibling_that_is_disconnected_by_an_earlier_answer_passes_the_next_on() {
    let (mut server, [mut home, mut one, mut two], _other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.say(&mut one, "NOTIFY fin 2 1 later");
    stall(&mut server, &mut home);
    server.app.deferred.remove(1).reply(disconnect());
    server.answer_first();
    server.wake(&mut home);
    let [one, two] = hear_all(&mut server, [&mut one, &mut two]);
    assert!(one[0].starts_with("AGENT-DISCONNECT") && one.len() == 1, "{one:?}");
    assert_eq!(two, [ack(1)]);
}

#[test]
fn a_sibling_whose_queue_is_full_passes_the_answer_on() {
    let mut config = asynchronous();
    config.limits.max_outgoing = 10;
    let mut server = Server::new(config);
    let [mut home, mut one, mut two] = [(); 3].map(|()| server.session("e"));
    for stream in 1..=3 {
        server.say(&mut home, &format!("NOTIFY fin {stream} 1 later"));
    }
    stall(&mut server, &mut home);
    (0..3).for_each(|_| server.answer_first());
    // One takes the first, and has no space for the others; two takes the second. The third is dropped.
    server.wake(&mut home);
    server.wake(&mut one);
    let heard = hear_all(&mut server, [&mut two, &mut one, &mut home]);
    assert_eq!(heard, [vec![ack(2)], vec![ack(1)], vec![stalled()]]);
    assert_eq!(server.totals(), Totals { notifies: 4, acks: 3, cancelled: 1, ..Totals::default() });
}

#[test]
fn an_answer_returns_to_its_own_connection_if_no_sibling_is_left() {
    let (mut server, [mut home, mut one, two], _other) = engine();
    drop(two);
    server.say(&mut home, "NOTIFY fin 1 1 later");
    stall(&mut server, &mut home);
    server.answer_first();
    server.wake(&mut home);
    server.lose(&mut one);
    let heard = hear_all(&mut server, [&mut home, &mut one]);
    assert_eq!(heard, [vec![stalled(), ack(1)], vec![]]);
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 2, ..Totals::default() });
}

#[test]
fn an_answer_that_no_connection_can_send_is_not_an_ack() {
    let (mut server, [mut home, mut one, two], _other) = engine();
    drop(two);
    server.say(&mut home, "NOTIFY fin 1 1 later");
    stall(&mut server, &mut home);
    server.answer_first();
    server.wake(&mut home);
    server.lose(&mut home);
    server.lose(&mut one);
    assert!(home.is_over() && one.is_over());
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 1, cancelled: 1, ..Totals::default() });
}

#[test]
fn an_answer_that_a_sibling_cannot_send_fails_once() {
    let (mut server, [mut home, mut one, mut two], _other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    stall(&mut server, &mut home);
    server.app.deferred.remove(0).reply(long(20_000));
    let heard = hear_all(&mut server, [&mut home, &mut one, &mut two]);
    assert_eq!(heard, [vec![stalled()], vec![failed(1)], vec![]]);
    assert!(server.logged().contains(&"request_failed answer_unsendable".to_owned()));
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 1, failures: 1, ..Totals::default() });
}

#[test]
fn a_newer_request_with_the_same_identifiers_supersedes_the_older_on_another_connection() {
    let (mut server, [mut home, mut one, _two], mut other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.say(&mut other, "NOTIFY fin 1 1 later");
    server.say(&mut one, "NOTIFY fin 1 1 later");
    server.wake(&mut other);
    server.wake(&mut home);
    assert_eq!(server.app.cancelled, [Cancelled::Superseded]);
    let why: Vec<_> = server.app.deferred.iter().map(Responder::reason).collect();
    assert_eq!(why, [Some(Cancelled::Superseded), None, None]);
    assert_eq!(home.reactor().unwrap().in_flight(), 0);
    (0..3).for_each(|_| server.answer_first());
    let heard = hear_all(&mut server, [&mut home, &mut one, &mut other]);
    assert_eq!(heard, [vec![], vec![ack(1)], vec![ack(1)]]);
    assert_eq!(server.totals(), Totals { notifies: 3, acks: 2, cancelled: 1, ..Totals::default() });
}

#[test]
fn an_answer_that_crosses_a_newer_request_is_dropped_and_not_an_ack() {
    let (mut server, [mut home, mut one, _two], _other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.answer_first();
    server.say(&mut one, "NOTIFY fin 1 1 later");
    assert_eq!(hear_all(&mut server, [&mut home, &mut one]), [vec![], vec![]] as [Vec<String>; 2]);
    assert_eq!(home.reactor().unwrap().in_flight(), 0);
    assert_eq!(server.totals(), Totals { notifies: 2, cancelled: 1, ..Totals::default() });
    server.answer_first();
    assert_eq!(hear_all(&mut server, [&mut home, &mut one]), [vec![], vec![ack(1)]]);
}

#[test]
fn a_request_that_timed_out_is_not_answered_by_a_sibling() {
    let (mut server, [mut home, mut one, mut two], _other) = engine();
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.wait(&mut home, Duration::from_secs(30));
    assert_eq!(server.hear(&mut home), ["ACK fin 1 1"]);
    stall(&mut server, &mut home);
    server.answer_first();
    assert_eq!(hear_all(&mut server, [&mut home, &mut one, &mut two]), [vec![stalled()], vec![], vec![]]);
    assert_eq!(server.agent.engines.waiting(), 0);
}

#[test]
fn a_disconnect_is_for_the_connection_of_the_request_whatever_its_peer_reads() {
    for name in ["later", "disconnect"] {
        let (mut server, [mut home, mut one, mut two], _other) = engine();
        stall(&mut server, &mut home);
        server.say(&mut home, &format!("NOTIFY fin 1 1 {name}"));
        server.app.deferred.drain(..).for_each(|responder| responder.reply(disconnect()));
        let heard = hear_all(&mut server, [&mut one, &mut two, &mut home]);
        let goodbye = "AGENT-DISCONNECT fin 0 0 status-code=uint32:42 message=string:go".to_owned();
        assert_eq!(heard, [vec![], vec![], vec![stalled(), goodbye]], "{name}");
        assert_eq!(server.totals(), Totals { notifies: 2, acks: 1, cancelled: 1, ..Totals::default() });
        assert_eq!(server.agent.engines.waiting(), 0);
    }
}

#[test]
fn parts_bind_an_answer_to_its_connection() {
    let mut server = Server::asynchronous();
    let mut home = server.connect();
    server.greet_with(&mut home, "fragmentation,pipelining,async", "e");
    let mut one = server.session("e");
    stall(&mut server, &mut home);
    server.say(&mut home, "NOTIFY fin 1 1 part-then-later");
    server.wake(&mut home);
    server.answer_first();
    let heard = hear_all(&mut server, [&mut one, &mut home]);
    assert_eq!(heard, [vec![], vec![stalled(), format!("ACK fin 1 1 set txn a=bool:true ; {SCORE}")]]);
    assert_eq!(server.agent.engines.waiting(), 0);
}
