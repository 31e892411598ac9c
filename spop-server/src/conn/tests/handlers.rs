//! Handlers that answer later, and answers that coincide.

use spop_core::notation;

use super::*;
use crate::{Cancelled, Request, ServerConfig};

#[test]
fn answers_that_are_ready_together_stay_on_their_connection() {
    let mut server = Server::new(asynchronous());
    let (mut conn, mut sibling) = (server.connect(), server.connect());
    server.greet(&mut conn, "e");
    server.greet(&mut sibling, "e");
    for line in ["NOTIFY fin 1 1 keep", "NOTIFY fin 2 1 keep", "NOTIFY fin 3 1 keep"] {
        server.say(&mut conn, line);
    }
    conn.on_wake(server.now, &mut server.app);
    for request in std::mem::take(&mut server.app.kept) {
        conn.on_answer(server.now, &mut server.app, request.id(), ().into());
    }
    server.wake(&mut sibling);
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1", "ACK fin 2 1", "ACK fin 3 1"]);
    assert!(sibling.outgoing().is_empty());

    // What is left of an earlier turn is held up.
    for line in ["NOTIFY fin 4 1 keep", "NOTIFY fin 5 1 keep"] {
        server.say(&mut conn, line);
    }
    for request in std::mem::take(&mut server.app.kept) {
        conn.on_wake(server.now, &mut server.app);
        conn.on_answer(server.now, &mut server.app, request.id(), ().into());
    }
    server.wake(&mut sibling);
    assert_eq!(server.hear(&mut conn), ["ACK fin 4 1"]);
    assert_eq!(server.hear(&mut sibling), ["ACK fin 5 1"]);
}

#[test]
fn a_responder_answers_whatever_became_of_the_handler() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.connect();
    server.greet(&mut conn, "e");
    for line in ["NOTIFY fin 1 1 later-panic", "NOTIFY fin 2 1 later-now"] {
        server.say(&mut conn, line);
    }
    assert!(conn.outgoing().is_empty());
    for responder in std::mem::take(&mut server.app.deferred) {
        responder.reply(score());
    }
    server.wake(&mut conn);
    let score = "set txn score=int32:42";
    assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 {score}"), format!("ACK fin 2 1 {score}")]);
}

#[test]
fn an_answer_at_once_is_not_lost_to_messages_that_came_meanwhile() {
    let mut server = Server::new(asynchronous());
    let mut conn = server.connect();
    server.greet(&mut conn, "e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.answer_first();
    server.say(&mut conn, "NOTIFY fin 2 1 now");
    let mut heard = server.hear(&mut conn);
    heard.sort();
    assert_eq!(heard, ["ACK fin 1 1 set txn score=int32:42", "ACK fin 2 1 set txn score=int32:42"]);
}

#[test]
fn the_order_of_requests_is_that_in_which_they_arrive() {
    let mut server = Server::new(asynchronous());
    let (mut one, mut two) = (server.connect(), server.connect());
    server.greet(&mut one, "e");
    server.greet(&mut two, "e");
    // The second arrives while the handler of the first runs, which is deferred already.
    let (mut kept, mut newer) = (Vec::new(), Vec::new());
    let notify = notation::parse_bytes("NOTIFY fin 1 1 m").unwrap();
    let (now, later) = (server.now, server.now + Duration::from_millis(1));
    let mut outer = |request: Request<'_>| {
        request.defer(|responder| {
            kept.push(responder);
            let mut inner = |request: Request<'_>| request.defer(|responder| newer.push(responder));
            two.on_bytes(later, &mut inner, &notify);
        })
    };
    one.on_bytes(now, &mut outer, &notify);
    assert_eq!((kept[0].reason(), newer[0].reason()), (Some(Cancelled::Superseded), None));
}

#[test]
fn a_handler_that_panics_in_a_callback_ends_nothing() {
    let mut server = Server::new(ServerConfig::default());
    server.app.cancel_panics = true;
    let mut conn = server.connect();
    server.greet(&mut conn, "e");
    for line in ["NOTIFY fin 1 1 later", "NOTIFY fin 2 1 now", "NOTIFY fin 1 1 now"] {
        server.say(&mut conn, line);
    }
    assert_eq!(server.app.cancelled.len(), 1);
    assert_eq!(server.hear(&mut conn).len(), 2);
}

#[test]
fn a_cancellation_that_is_made_after_the_end_says_so() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 keep");
    let live = server.app.kept[0].cancellation();
    server.wake(&mut conn);
    assert!(!live.is_cancelled());
    server.say(&mut conn, "NOTIFY fin 1 1 now");
    let late = server.app.kept[0].cancellation();
    server.wake(&mut conn);
    assert!(live.is_cancelled() && late.is_cancelled());
    server.hear(&mut conn);
}

#[test]
fn a_connection_whose_answered_request_is_kept_can_be_woken() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 keep");
    let id = server.app.kept[0].id();
    conn.on_answer(server.now, &mut server.app, id, ().into());
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1"]);
    assert!(conn.wants_waker(), "its cancellation can be asked for");
    server.app.kept.clear();
    assert!(!conn.wants_waker());
}
