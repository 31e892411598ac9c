use std::{
    net::SocketAddr,
    sync::{Arc, Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use spop_core::{
    Actions, EngineConfig, Scope, Status, accept::Peer, agent::Reply, engine::EngineError, frame::Ids,
};

use super::*;
use crate::{Cancelled, FailureKind, Handler, Request, Responder, ServerConfig};

fn score(n: u32) -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Session, "score", n);
    actions
}

const SCORE: &str = "set sess score=uint32:7";

#[test]
fn a_request_has_what_it_was_made_with() {
    let deadline = Instant::now() + Duration::from_secs(5);
    let request: Request<'static> = TestRequest::new("a n=uint32:1 ; b")
        .ids(5, 6)
        .peer(SocketAddr::from(([127, 0, 0, 1], 1)))
        .source(([192, 0, 2, 1], 2))
        .destination(([192, 0, 2, 2], 3))
        .engine_id("e-1")
        .deadline(deadline)
        .into();
    assert_eq!((request.ids(), request.messages().len()), (Ids::new(5, 6), 2));
    assert_eq!(request.arg::<u32>("n"), Ok(1));
    assert_eq!(request.peer(), &Peer::Ip(([127, 0, 0, 1], 1).into()));
    assert_eq!(request.source(), Some(([192, 0, 2, 1], 2).into()));
    assert_eq!(request.destination(), Some(([192, 0, 2, 2], 3).into()));
    assert_eq!(request.engine_id(), Some(&b"e-1"[..]));
    assert_eq!(request.deadline(), Some(deadline));
    assert_eq!(request.each().count(), 2);
    let plain: Request<'static> = TestRequest::new("a").into();
    assert_eq!((plain.source(), plain.engine_id(), plain.deadline()), (None, None, None));
    let old: Request<'static> = TestRequest::new("a").engine(EngineConfig::haproxy_2_6()).into();
    assert!(!old.session().peer_is_multiplexer() && plain.session().peer_is_multiplexer());
}

#[test]
#[should_panic(expected = "column 5: expected a value")]
fn a_sentence_that_does_not_parse_panics() {
    let _ = TestRequest::new("a n=x");
}

/// Calls a handler for the first message of a request.
fn outcome<R: Into<crate::Outcome>>(handler: impl FnMut(Request<'_>) -> R) -> Outcome {
    let mut handler = handler;
    call(&mut handler, TestRequest::new("a"))
}

#[test]
fn each_answer_has_its_outcome() {
    assert_eq!(outcome(|_: Request<'_>| score(7)).sentence(), SCORE);
    let failed = outcome(|_: Request<'_>| Err::<Actions, _>("no"));
    assert_eq!((failed.failure(), failed.payload()), (Some("handler_failed: no"), Some(&[][..])));
    assert_eq!(failed.failure_kind(), Some(FailureKind::HandlerFailed));
    let panicked = outcome(|_: Request<'_>| -> Actions { panic!("boom") });
    assert_eq!(panicked.failure(), Some("handler_panicked: boom"));
    let nothing = outcome(|_: Request<'_>| crate::Outcome::Later);
    assert_eq!(nothing.failure(), Some("handler_failed: it answered nothing"));
    let dropped = outcome(|request: Request<'_>| request.defer(drop));
    assert_eq!(dropped.failure(), Some("responder_dropped: the responder was dropped"));
    let aborted = outcome(|_: Request<'_>| Reply::Abort);
    assert_eq!((aborted.failure(), aborted.failure_kind()), (Some("the handler aborted its answer"), None));
    let dropped = outcome(|_: Request<'_>| (Scope::Session, "auth-status", true));
    assert!(
        dropped.sentence().contains(", but HAProxy drops it: the name of variable \"auth-status\""),
        "{dropped:?}"
    );
    let bye = outcome(|_: Request<'_>| Reply::Disconnect { status: Status(42), message: "bye".into() });
    assert_eq!(bye.error(), Some(EngineError::Spop(Status(42))));
    assert_eq!(bye.failure(), Some("the handler disconnects: bye"));
    let parts = outcome(|request: Request<'_>| {
        request.send_part(score(1));
        score(2)
    });
    assert_eq!(parts.sentence(), "set sess score=uint32:1 ; set sess score=uint32:2");
}

#[test]
fn answers_of_other_threads_are_awaited() {
    let later = outcome(|request: Request<'_>| {
        request.defer(|responder| {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                responder.reply(score(7));
            });
        })
    });
    assert_eq!(later.sentence(), SCORE);
}

/// Keeps responders, and records why they were cancelled.
#[derive(Default)]
struct Keeps {
    kept: Vec<Responder>,
    cancelled: Vec<Cancelled>,
}

impl Handler for Keeps {
    fn handle(&mut self, request: Request<'_>) -> crate::Outcome {
        request.defer(|responder| self.kept.push(responder))
    }

    fn cancel(&mut self, _: spop_core::agent::TicketId, why: Cancelled) {
        assert_eq!(self.kept.pop().unwrap().reason(), Some(why));
        self.cancelled.push(why);
    }
}

#[test]
fn a_call_ends_at_the_deadline_and_when_it_is_cancelled() {
    let mut keeps = Keeps::default();
    let request = TestRequest::new("a").deadline(Instant::now() + Duration::from_millis(20));
    assert_eq!(call(&mut keeps, request).failure(), Some("timed_out: no answer before the deadline"));
    let (request, canceller) = TestRequest::new("a").cancellable();
    let cancels = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        canceller.cancel(Cancelled::Superseded);
    });
    let outcome = call(&mut keeps, request);
    assert_eq!(outcome.failure(), Some("cancelled: Superseded"));
    assert_eq!(outcome.error(), Some(EngineError::Interrupted));
    cancels.join().unwrap();
    assert_eq!(keeps.cancelled, [Cancelled::TimedOut, Cancelled::Superseded]);
}

#[test]
fn a_cancellation_that_is_made_late_is_cancelled() {
    let (request, canceller) = TestRequest::new("a").cancellable();
    canceller.cancel(Cancelled::Aborted);
    assert!(request.cancellation().is_cancelled());
}

#[test]
fn transcripts_run_with_the_policies_of_a_server() {
    let mut config = ServerConfig::default();
    config.agent.timeouts.message = Some(Duration::from_millis(80));
    let text = "
        > NOTIFY fin 1 1 now
        < ACK fin 1 1 set sess score=uint32:7
        > NOTIFY fin 2 1 thread
        > NOTIFY fin 3 1 panic
        < ACK fin 3 1
        > NOTIFY fin 4 1 never
        < ACK fin 2 1 set sess score=uint32:7
        * wait 80ms
        < ACK fin 4 1
        > HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:normal
        < AGENT-DISCONNECT fin 0 0 status-code=uint32:0 *
    ";
    let (never, kept) = mpsc::channel();
    replay(text, config, || {
        let (never, released) = (never.clone(), Arc::new(Barrier::new(2)));
        move |request: Request<'_>| {
            if request.message("thread").is_some() {
                let released = Arc::clone(&released);
                return request.defer(|responder| {
                    thread::spawn(move || {
                        released.wait();
                        responder.reply(score(7));
                    });
                });
            }
            assert!(request.message("panic").is_none(), "boom");
            match request.message("never") {
                Some(_) => request.defer(|responder| {
                    never.send(responder).unwrap();
                    released.wait();
                }),
                None => score(7).into(),
            }
        }
    })
    .unwrap();
    drop(never);
    assert!(kept.iter().all(|responder| responder.reason() == Some(Cancelled::TimedOut)));
}

#[test]
fn an_error_of_a_transcript_has_the_failure() {
    let fails = || |_: Request<'_>| Err::<Actions, _>("no database");
    let error =
        replay("> NOTIFY fin 1 1 a\n< ACK fin 1 1 set sess score=uint32:7", ServerConfig::default(), fails);
    let error = error.unwrap_err();
    assert_eq!((error.line, error.found.as_str()), (2, "< ACK fin 1 1"));
    assert_eq!(error.failure.as_deref(), Some("handler_failed: no database"));
}
