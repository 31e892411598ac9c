//! Answers: at once, later, in parts, or not at all.

use super::*;

#[test]
fn requests_are_answered_at_once_or_later() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    for line in ["NOTIFY fin 1 1 now", "NOTIFY fin 2 1 later", "NOTIFY fin 3 1 fail", "NOTIFY fin 4 1 panic"]
    {
        server.say(&mut conn, line);
    }
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1 set txn score=int32:42", "ACK fin 3 1", "ACK fin 4 1"]);
    assert!(!conn.is_woken() && !server.app.deferred[0].is_cancelled());
    server.answer_first();
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), ["ACK fin 2 1 set txn score=int32:42"]);
    assert_eq!(server.totals(), Totals { notifies: 4, acks: 2, failures: 2, ..Totals::default() });
}

#[test]
fn deferred_answers_are_sent_in_the_order_in_which_they_are_given() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    for id in 1..=3 {
        server.say(&mut conn, &format!("NOTIFY fin {id} 1 later"));
    }
    server.app.deferred.swap(0, 2);
    (0..3).for_each(|_| server.answer_first());
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), [3, 2, 1].map(|id| format!("ACK fin {id} 1 {SCORE}")));
}

#[test]
fn a_peer_that_has_shut_its_side_is_answered_before_the_end() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    assert_eq!(conn.on_input_eof(server.now, &mut server.app, &[]), 0);
    server.resume(&mut conn);
    assert!(server.app.cancelled.is_empty() && !conn.interest().close && conn.interest().shut.is_none());
    server.answer_first();
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
    server.resume(&mut conn);
    assert!(conn.interest().shut.is_some() || conn.interest().close);
}

#[test]
fn a_responder_may_answer_before_its_handler_returns() {
    for mut server in [Server::new(ServerConfig::default()), Server::asynchronous()] {
        let mut conn = server.session("e");
        server.say(&mut conn, "NOTIFY fin 1 1 replied");
        server.wake(&mut conn);
        assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
    }
}

#[test]
fn an_answer_that_arrives_while_another_request_is_handled_is_sent_before_it() {
    for mut server in [Server::new(ServerConfig::default()), Server::asynchronous()] {
        let mut conn = server.session("e");
        server.say(&mut conn, "NOTIFY fin 1 1 later");
        server.app.meanwhile = Some(Box::new(|deferred| deferred.remove(0).reply(part("first"))));
        server.say(&mut conn, "NOTIFY fin 2 1 busy");
        assert_eq!(
            server.hear(&mut conn),
            ["ACK fin 1 1 set txn first=bool:true".to_owned(), format!("ACK fin 2 1 {SCORE}")]
        );
        assert!(conn.reactor().unwrap().in_flight() == 0);
    }
}

#[test]
fn an_answer_may_end_the_session_while_another_request_is_handled() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.app.meanwhile = Some(Box::new(|deferred| deferred.remove(0).reply(disconnect())));
    server.say(&mut conn, "NOTIFY fin 2 1 busy");
    assert_eq!(server.hear(&mut conn), ["AGENT-DISCONNECT fin 0 0 status-code=uint32:42 message=string:go"]);
    assert_eq!(server.totals(), Totals { notifies: 2, cancelled: 2, ..Totals::default() });
}

/// Both kinds of servers, and a connection whose peer takes answers in fragments.
fn fragmenting() -> impl Iterator<Item = (Server, Conn)> {
    [Server::new(ServerConfig::default()), Server::asynchronous()].into_iter().map(|mut server| {
        let mut conn = server.connect();
        server.greet_with(&mut conn, "fragmentation,pipelining,async", "e");
        (server, conn)
    })
}

#[test]
fn parts_from_a_responder_are_sent_in_order_before_the_last() {
    for (mut server, mut conn) in fragmenting() {
        server.say(&mut conn, "NOTIFY fin 1 1 later");
        server.app.deferred[0].send_part(long(20_000));
        server.app.deferred[0].send_part(part("a"));
        server.wake(&mut conn);
        // What fills no frame waits for more.
        let [first] = &server.hear(&mut conn)[..] else { panic!("one fragment") };
        assert!(first.starts_with("ACK - 1 1 "), "{first}");
        server.app.deferred[0].send_part(part("b"));
        server.answer_first();
        server.wake(&mut conn);
        let [last] = &server.hear(&mut conn)[..] else { panic!("one fragment") };
        assert!(
            last.starts_with("UNSET fin 1 1 ") && last.ends_with(&hex(&[part("a"), part("b"), score()])),
            "{last}"
        );
        assert_eq!(server.totals(), Totals { notifies: 1, acks: 1, ..Totals::default() });
    }
}

fn hex(actions: &[Actions]) -> String {
    let bytes = actions.iter().flat_map(Actions::as_bytes);
    bytes.fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[test]
fn parts_from_inside_a_handler_come_before_its_answer() {
    for (mut server, mut conn) in fragmenting() {
        server.say(&mut conn, "NOTIFY fin 1 1 parts");
        server.say(&mut conn, "NOTIFY fin 2 1 part-then-later");
        server.wake(&mut conn);
        server.answer_first();
        server.wake(&mut conn);
        assert_eq!(
            server.hear(&mut conn),
            [
                "ACK fin 1 1 set txn a=bool:true ; set txn b=bool:true ; set txn c=bool:true".to_owned(),
                format!("ACK fin 2 1 set txn a=bool:true ; {SCORE}")
            ]
        );
        assert_eq!(server.totals(), Totals { notifies: 2, acks: 2, ..Totals::default() });
    }
}

#[test]
fn a_part_that_the_peer_cannot_take_fails_the_request() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 parts");
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1"]);
    server.say(&mut conn, "NOTIFY fin 2 1 later");
    server.app.deferred[0].send_part(part("a"));
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), ["ACK fin 2 1"]);
    assert_eq!(server.app.deferred[0].reason(), Some(Cancelled::Answered));
    server.answer_first();
    server.wake(&mut conn);
    assert!(server.hear(&mut conn).is_empty());
    assert_eq!(server.totals(), Totals { notifies: 2, failures: 2, ..Totals::default() });
    assert_eq!(server.logged().iter().filter(|line| *line == "request_failed answer_unsendable").count(), 2);
}

#[test]
fn an_answer_in_parts_may_be_aborted() {
    for (mut server, mut conn) in fragmenting() {
        server.say(&mut conn, "NOTIFY fin 1 1 later");
        server.app.deferred[0].send_part(long(20_000));
        server.wake(&mut conn);
        server.hear(&mut conn);
        server.app.deferred.remove(0).reply(Reply::Abort);
        server.wake(&mut conn);
        assert_eq!(server.hear(&mut conn), ["UNSET fin,abort 1 1"]);
        server.say(&mut conn, "NOTIFY fin 2 1 abort");
        assert_eq!(server.hear(&mut conn), ["ACK fin,abort 2 1"]);
        assert_eq!(server.totals(), Totals { notifies: 2, acks: 2, ..Totals::default() });
    }
}

#[test]
fn an_answer_after_the_request_was_cancelled_is_dropped() {
    for mut server in [Server::new(ServerConfig::default()), Server::asynchronous()] {
        let mut conn = server.session("e");
        server.say(&mut conn, "NOTIFY fin 1 1 later");
        server.say(&mut conn, "NOTIFY fin 1 1 now");
        assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
        assert_eq!(server.app.cancelled, [Cancelled::Superseded]);
        assert_eq!(server.app.deferred[0].reason(), Some(Cancelled::Superseded));
        server.answer_first();
        server.wake(&mut conn);
        assert!(server.hear(&mut conn).is_empty());
        assert_eq!(server.totals(), Totals { notifies: 2, acks: 1, cancelled: 1, ..Totals::default() });
    }
}

#[test]
fn the_end_of_a_session_cancels_its_requests_once() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.say(&mut conn, "NOTIFY fin 2 1 later");
    server.lose(&mut conn);
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected; 2]);
    assert!(conn.is_over());
    assert_eq!(server.app.deferred[1].reason(), Some(Cancelled::Disconnected));
    server.answer_first();
    server.wake(&mut conn);
    assert_eq!(server.totals(), Totals { notifies: 2, cancelled: 2, ..Totals::default() });
}

#[test]
fn a_connection_that_is_dropped_cancels_its_requests() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.say(&mut conn, "NOTIFY fin 2 1 later");
    server.answer_first();
    drop(conn);
    assert_eq!(server.app.deferred[0].reason(), Some(Cancelled::Disconnected));
    assert_eq!(server.totals(), Totals { notifies: 2, cancelled: 2, ..Totals::default() });
}

#[test]
fn a_late_answer_is_sent_and_counted() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.wait(&mut conn, millis(501));
    server.answer_first();
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
    assert_eq!((server.totals().acks, server.agent.stats().late), (1, 1));
}

#[test]
fn a_disconnect_is_sent_behind_the_answers_before_it() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.say(&mut conn, "NOTIFY fin 2 1 now");
    server.say(&mut conn, "NOTIFY fin 3 1 disconnect");
    assert_eq!(
        server.hear(&mut conn),
        [
            format!("ACK fin 2 1 {SCORE}"),
            "AGENT-DISCONNECT fin 0 0 status-code=uint32:42 message=string:go".into()
        ]
    );
    assert_eq!(server.app.cancelled, [Cancelled::Disconnected]);
    assert_eq!(server.totals(), Totals { notifies: 3, acks: 1, cancelled: 2, ..Totals::default() });
}

#[test]
fn every_answer_from_another_thread_wakes_the_connection() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    let (woken, waker) = Woken::waker();
    conn.set_waker(&waker);
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    assert_eq!(woken.count(), 0);
    let responder = server.app.deferred.remove(0);
    std::thread::spawn(move || responder.reply(score())).join().unwrap();
    assert_eq!(woken.count(), 1);
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {SCORE}")]);
}
