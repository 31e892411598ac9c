//! Connections in virtual time, without sockets.

use std::sync::Arc;

use spop_core::{
    Actions, AgentConfig, Clock, Scope, Status, Timestamp,
    accept::Peer,
    agent::{Reply, TicketId},
    frame::{Capabilities, Frame},
    notation,
};

use crate::{Agent, Cancelled, Conn, Handler, Outcome, Request, Responder, ServerConfig};

/// A server without sockets, and its handler.
struct Server {
    agent: Arc<Agent>,
    app: App,
    now: Timestamp,
}

#[derive(Default)]
struct App {
    deferred: Vec<Responder>,
    kept: Vec<Request<'static>>,
    cancelled: Vec<(TicketId, Cancelled)>,
    cancel_panics: bool,
    called: usize,
}

impl Handler for App {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        self.called += 1;
        let name = request.messages().iter().next().unwrap().name().to_vec();
        match name.as_slice() {
            b"later" => request.defer(|responder| self.deferred.push(responder)),
            b"keep" => {
                self.kept.push(request.into_owned());
                Outcome::Later
            }
            b"later-panic" => {
                let _ = request.defer(|responder| self.deferred.push(responder));
                panic!("boom");
            }
            b"later-now" => {
                let _ = request.defer(|responder| self.deferred.push(responder));
                Actions::new().into()
            }
            b"panic" => panic!("boom"),
            b"fail" => Err::<Actions, _>("no").into(),
            b"disconnect" => Reply::Disconnect { status: Status(42), message: "go".into() }.into(),
            _ => score().into(),
        }
    }

    fn cancel(&mut self, request: TicketId, why: Cancelled) {
        self.cancelled.push((request, why));
        assert!(!self.cancel_panics, "boom");
    }
}

fn score() -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "score", 42_i32);
    actions
}

impl Server {
    fn new(config: impl Into<ServerConfig>) -> Self {
        let agent = Agent::new(config, Clock::start()).unwrap();
        Self { agent, app: App::default(), now: Timestamp::from_millis(1) }
    }

    fn connect(&mut self) -> Conn {
        self.agent.accept(self.now, Peer::unnamed(), None).unwrap()
    }

    fn say(&mut self, conn: &mut Conn, line: &str) {
        let bytes = notation::parse_bytes(line).unwrap();
        assert_eq!(conn.on_bytes(self.now, &mut self.app, &bytes), bytes.len());
    }

    /// What the connection sends, as sentences.
    fn hear(&mut self, conn: &mut Conn) -> Vec<String> {
        let bytes = conn.outgoing().to_vec();
        conn.on_sent(self.now, &mut self.app, bytes.len()).unwrap();
        let mut frames = &bytes[..];
        let mut sentences = Vec::new();
        while let Some((length, rest)) = frames.split_first_chunk::<4>() {
            let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            sentences.push(notation::print(Frame::decode(frame).unwrap()).to_string());
            frames = rest;
        }
        sentences
    }

    fn greet(&mut self, conn: &mut Conn, engine: &str) {
        self.say(
            conn,
            &format!(
                r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:"pipelining,async" engine-id=string:{engine}"#
            ),
        );
        assert!(self.hear(conn)[0].starts_with("AGENT-HELLO"));
    }

    fn wake(&mut self, conn: &mut Conn) {
        if conn.is_woken() {
            conn.on_wake(self.now, &mut self.app);
        }
    }
}

fn asynchronous() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.capabilities |= Capabilities::ASYNC;
    config
}

#[test]
fn requests_are_answered_at_once_or_later() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.connect();
    server.greet(&mut conn, "e");
    for line in ["NOTIFY fin 1 1 now", "NOTIFY fin 2 1 later", "NOTIFY fin 3 1 fail", "NOTIFY fin 4 1 panic"]
    {
        server.say(&mut conn, line);
    }
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1 set txn score=int32:42", "ACK fin 3 1", "ACK fin 4 1"]);
    let responder = server.app.deferred.pop().unwrap();
    assert!(!conn.is_woken() && !responder.is_cancelled());
    responder.reply(score());
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), ["ACK fin 2 1 set txn score=int32:42"]);
}

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
        conn.on_answer(server.now, &mut server.app, request.id(), Ok(Reply::Ack(Actions::new())));
    }
    server.wake(&mut sibling);
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1", "ACK fin 2 1", "ACK fin 3 1"]);
    assert_eq!(sibling.outgoing(), []);

    // What is left of an earlier turn is held up.
    for line in ["NOTIFY fin 4 1 keep", "NOTIFY fin 5 1 keep"] {
        server.say(&mut conn, line);
    }
    for request in std::mem::take(&mut server.app.kept) {
        conn.on_wake(server.now, &mut server.app);
        conn.on_answer(server.now, &mut server.app, request.id(), Ok(Reply::Ack(Actions::new())));
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
    assert_eq!(conn.outgoing(), []);
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
    server.app.deferred.pop().unwrap().reply(score());
    server.say(&mut conn, "NOTIFY fin 2 1 now");
    let mut heard = server.hear(&mut conn);
    heard.sort();
    assert_eq!(heard, ["ACK fin 1 1 set txn score=int32:42", "ACK fin 2 1 set txn score=int32:42"]);
}

#[test]
fn the_order_of_requests_is_that_in_which_they_become_known() {
    let mut server = Server::new(asynchronous());
    let (mut one, mut two) = (server.connect(), server.connect());
    server.greet(&mut one, "e");
    server.greet(&mut two, "e");
    // The second arrives while the handler of the first runs, which is deferred already.
    let (mut kept, mut newer) = (Vec::new(), Vec::new());
    let notify = notation::parse_bytes("NOTIFY fin 1 1 m").unwrap();
    let now = server.now;
    let mut outer = |request: Request<'_>| {
        request.defer(|responder| {
            kept.push(responder);
            let mut inner = |request: Request<'_>| request.defer(|responder| newer.push(responder));
            two.on_bytes(now, &mut inner, &notify);
        })
    };
    one.on_bytes(now, &mut outer, &notify);
    server.wake(&mut one);
    assert_eq!((kept[0].cancelled(), newer[0].cancelled()), (Some(Cancelled::Superseded), None));
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
