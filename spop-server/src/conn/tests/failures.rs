//! Requests that have no answer of their handler.

use spop_core::agent::OnFailure;

use super::*;
use crate::{Failure, FailureKind};

/// The failures that were logged.
fn failures(server: &mut Server) -> Vec<String> {
    let lines = server.logged();
    lines.iter().filter_map(|line| line.strip_prefix("request_failed ")).map(str::to_owned).collect()
}

#[test]
fn a_handler_that_fails_or_panics_fails_its_request() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    for (id, name) in [(1, "fail"), (2, "panic"), (3, "panic-later"), (4, "nothing"), (5, "dropped")] {
        server.say(&mut conn, &format!("NOTIFY fin {id} 1 {name}"));
        server.wake(&mut conn);
        assert_eq!(server.hear(&mut conn), [format!("ACK fin {id} 1")], "{name}");
    }
    assert_eq!(
        failures(&mut server),
        ["handler_failed", "handler_panicked", "handler_panicked", "handler_failed", "responder_dropped"]
    );
    assert_eq!(server.totals(), Totals { notifies: 5, failures: 5, ..Totals::default() });
}

#[test]
fn a_handler_that_panics_with_its_responder_fails_its_request_with_async_too() {
    let mut server = Server::asynchronous();
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 panic-later");
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1"]);
    assert_eq!(server.totals(), Totals { notifies: 1, failures: 1, ..Totals::default() });
}

#[test]
fn a_thread_that_panics_with_a_responder_fails_its_request() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    let responder = server.app.deferred.remove(0);
    let thread = std::thread::spawn(move || {
        let _responder = responder;
        panic!("boom");
    });
    thread.join().unwrap_err();
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1"]);
    assert_eq!(failures(&mut server), ["handler_panicked"]);
}

#[test]
fn a_request_without_an_answer_times_out() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    assert!(server.app.deferred[0].deadline().is_some());
    server.wait(&mut conn, millis(29_999));
    assert!(server.hear(&mut conn).is_empty());
    server.wait(&mut conn, millis(1));
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1"]);
    assert_eq!(
        (failures(&mut server), &server.app.cancelled[..]),
        (vec!["timed_out".into()], &[Cancelled::TimedOut][..])
    );
    server.answer_first();
    server.wake(&mut conn);
    assert!(server.hear(&mut conn).is_empty());
    assert_eq!(server.totals(), Totals { notifies: 1, failures: 1, ..Totals::default() });
}

#[test]
fn the_oldest_request_gives_way_when_it_is_overdue() {
    let mut config = AgentConfig::default();
    config.max_waiting_frames = 2;
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.say(&mut conn, "NOTIFY fin 2 1 later");
    server.wait(&mut conn, millis(600));
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1"]);
    assert_eq!(
        (failures(&mut server), server.agent.stats().failures.of(FailureKind::Overdue)),
        (vec!["overdue".into()], 1)
    );
    assert_eq!(server.app.cancelled, [Cancelled::Overdue]);
    server.app.deferred.clear();
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), ["ACK fin 2 1"]);
    assert_eq!(server.totals(), Totals { notifies: 2, failures: 2, ..Totals::default() });
}

#[test]
fn a_request_that_haproxy_gave_up_is_cancelled() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.connect();
    // HAProxy 3.1 gets no pipelining, and its next request says that the last was given up.
    let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining";
    server.say(&mut conn, hello);
    server.hear(&mut conn);
    server.say(&mut conn, "NOTIFY fin 1 1 later");
    server.say(&mut conn, "NOTIFY fin 3 1 now");
    assert_eq!(server.hear(&mut conn).last(), Some(&format!("ACK fin 3 1 {SCORE}")));
    assert_eq!((&server.app.cancelled[..], server.agent.stats().abandoned), (&[Cancelled::Abandoned][..], 1));
    assert_eq!(server.totals(), Totals { notifies: 2, acks: 1, cancelled: 1, ..Totals::default() });
}

#[test]
fn an_answer_that_cannot_be_sent_fails_its_request() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    server.say(&mut conn, "NOTIFY fin 1 1 long");
    server.say(&mut conn, "NOTIFY fin 2 1 later");
    server.app.deferred.remove(0).reply(long(20_000));
    server.wake(&mut conn);
    assert_eq!(server.hear(&mut conn), ["ACK fin 1 1", "ACK fin 2 1"]);
    assert_eq!(failures(&mut server), ["answer_unsendable"; 2]);
    assert_eq!(server.totals(), Totals { notifies: 2, failures: 2, ..Totals::default() });
}

#[test]
fn requests_beyond_the_limit_of_all_connections_are_not_handled() {
    let config = ServerConfig { max_in_flight: Some(2), ..ServerConfig::default() };
    let mut server = Server::new(config);
    let (mut one, mut other) = (server.session("e"), server.session("e"));
    server.say(&mut one, "NOTIFY fin 1 1 later");
    server.say(&mut other, "NOTIFY fin 2 1 later");
    server.say(&mut other, "NOTIFY fin 3 1 now");
    assert_eq!((server.hear(&mut other), server.app.called), (vec!["ACK fin 3 1".to_owned()], 2));
    assert_eq!(
        (failures(&mut server), server.agent.stats().failures.of(FailureKind::Overloaded)),
        (vec!["overloaded".into()], 1)
    );
    // The session has ended, and the work goes on.
    server.lose(&mut one);
    server.say(&mut other, "NOTIFY fin 4 1 now");
    assert_eq!(server.hear(&mut other), ["ACK fin 4 1"]);
    drop(server.app.deferred.remove(0));
    server.say(&mut other, "NOTIFY fin 5 1 now");
    server.say(&mut other, "NOTIFY fin 6 1 panic");
    server.say(&mut other, "NOTIFY fin 7 1 now");
    assert_eq!(
        server.hear(&mut other),
        [format!("ACK fin 5 1 {SCORE}"), "ACK fin 6 1".into(), format!("ACK fin 7 1 {SCORE}")]
    );
    assert_eq!(server.agent.stats().failures.of(FailureKind::Overloaded), 2);
}

#[test]
fn a_guard_counts_a_request_as_in_progress_for_as_long_as_it_lives() {
    let config = ServerConfig { max_in_flight: Some(1), ..ServerConfig::default() };
    let agent = Agent::new(config, Clock::start()).unwrap();
    let now = Timestamp::from_millis(1);
    let mut conn = agent.accept(now, Peer::unnamed(), None).unwrap();
    let kept = Mutex::new(None);
    let mut guard = None;
    let mut handler = |request: Request<'_>| {
        let mut request = request.into_owned();
        guard = Some(request.take_guard());
        *kept.lock().unwrap() = Some(request.id());
        Outcome::Later
    };
    for line in [hello("pipelining", "e").as_str(), "NOTIFY fin 1 1 a"] {
        conn.on_bytes(now, &mut handler, &notation::parse_bytes(line).unwrap());
    }
    let request = kept.lock().unwrap().take().unwrap();
    conn.on_answer(now, &mut handler, request, score().into());
    assert_eq!(agent.in_flight.now(), 1, "the answer was given, and the task has not ended");
    drop(guard);
    assert_eq!(agent.in_flight.now(), 0);
    assert_eq!(conn.reactor().unwrap().in_flight(), 0);
}

#[test]
fn on_failure_chooses_the_actions() {
    let mut config = AgentConfig::default();
    config.on_failure = OnFailure::Answer(part("failed"));
    config.max_waiting_frames = 3;
    let config = ServerConfig { max_in_flight: Some(1), ..ServerConfig::from(config) };
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    for line in ["NOTIFY fin 1 1 fail", "NOTIFY fin 2 1 panic", "NOTIFY fin 3 1 later", "NOTIFY fin 4 1 now"]
    {
        server.say(&mut conn, line);
    }
    server.app.deferred.clear();
    server.wake(&mut conn);
    assert_eq!(
        server.hear(&mut conn),
        [1, 2, 4, 3].map(|id| format!("ACK fin {id} 1 set txn failed=bool:true"))
    );
    assert_eq!(server.totals(), Totals { notifies: 4, failures: 4, ..Totals::default() });
}

#[test]
fn on_failure_may_disconnect() {
    for name in ["fail", "panic", "long", "dropped"] {
        let mut config = AgentConfig::default();
        config.on_failure = OnFailure::Disconnect { status: Status(7), message: "failed".into() };
        let mut server = Server::new(config);
        let mut conn = server.session("e");
        server.say(&mut conn, "NOTIFY fin 1 1 later");
        server.say(&mut conn, &format!("NOTIFY fin 2 1 {name}"));
        server.wake(&mut conn);
        assert_eq!(
            server.hear(&mut conn),
            ["AGENT-DISCONNECT fin 0 0 status-code=uint32:7 message=string:failed"],
            "{name}"
        );
        assert_eq!(server.app.cancelled, [Cancelled::Disconnected]);
        assert_eq!(server.totals(), Totals { notifies: 2, failures: 1, cancelled: 1, ..Totals::default() });
    }
}

#[test]
fn a_failure_may_have_an_answer_of_its_own() {
    let mut config = AgentConfig::default();
    config.on_failure = OnFailure::Answer(part("failed"));
    for (kind, answer, acked) in [
        (FailureKind::HandlerFailed, part("own"), "own"),
        (FailureKind::Overloaded, part("own"), "own"),
        // Longer than HAProxy accepts.
        (FailureKind::HandlerFailed, long(20_000), "failed"),
    ] {
        let mut server = Server::new(config.clone());
        let mut conn = server.session("e");
        let mut handler = |_: Request<'_>| {
            let mut failure = Failure::new(kind, "on purpose");
            failure.answer = Some(answer.clone().into());
            Err::<(), _>(failure)
        };
        conn.on_bytes(server.now, &mut handler, &notation::parse_bytes("NOTIFY fin 1 1 m").unwrap());
        assert_eq!(server.hear(&mut conn), [format!("ACK fin 1 1 set txn {acked}=bool:true")]);
        assert_eq!(failures(&mut server), [kind.as_str()]);
        let totals = Totals { notifies: 1, failures: 1, ..Totals::default() };
        assert_eq!(server.totals(), totals);
    }
}
