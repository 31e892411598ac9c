//! What tests of handlers are written with: calls, pairs and transcripts, by the paused clock of tokio.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)] // A test that panics has failed.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use spop_tokio::{
    Actions, AgentConfig, Cancelled, EngineConfig, FailureKind, MessageList, Reply, Request, Route, Router,
    Scope, ServerConfig,
    testing::{Conditions, Cuts, LIMIT, Pair, Sample, TestRequest, VarRules, call, replay},
};
use tokio::time::{Instant, sleep};

fn score(n: u32) -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Session, "score", n);
    actions
}

const SCORE: &str = "set sess score=uint32:7";

/// Waits for the time in the argument `ms`.
async fn slow(request: Request) -> Result<Actions, Box<dyn std::error::Error + Send + Sync>> {
    sleep(Duration::from_millis(request.arg("ms")?)).await;
    Ok(score(7))
}

fn router() -> impl spop_tokio::Handler {
    Router::new()
        .on("slow", slow)
        .on("panics", |_: Request| async { panic!("boom") as Actions })
        .on("parts", |request: Request| async move {
            request.send_part(score(1));
            score(2)
        })
        .on("long", |_: Request| async {
            let mut actions = Actions::new();
            actions.set_var(Scope::Session, "long", "x".repeat(20_000).as_str());
            actions
        })
        .on("aborts", |_: Request| async { Reply::Abort })
}

fn messages(sentence: &str) -> MessageList {
    sentence.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_has_the_outcome_of_the_handler() {
    let router = router();
    let start = Instant::now();
    let outcome = call(&router, TestRequest::new("slow ms=uint32:5000")).await;
    assert_eq!((outcome.sentence().as_str(), outcome.failure()), (SCORE, None));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(outcome.vars(&VarRules::new("p")).get("sess.p.score"), Some(&Sample::Int(7)));

    for (sentence, kind, failure) in [
        ("slow", Some(FailureKind::HandlerFailed), "handler_failed: argument \"ms\" of message \"slow\""),
        ("panics", Some(FailureKind::HandlerPanicked), "handler_panicked: message \"panics\": boom"),
        ("aborts", None, "the handler aborted"),
        ("slow ms=uint32:10001", Some(FailureKind::TimedOut), "timed_out: no answer within 10s"),
    ] {
        let outcome = call(&router, TestRequest::new(sentence)).await;
        assert!(outcome.failure().unwrap().starts_with(failure), "{sentence}: {outcome:?}");
        assert_eq!(outcome.failure_kind(), kind, "{sentence}");
    }
    let outcome = call(&router, TestRequest::new("parts ; slow ms=uint32:1")).await;
    assert_eq!(outcome.sentence(), format!("set sess score=uint32:1 ; set sess score=uint32:2 ; {SCORE}"));
    assert!(start.elapsed() > LIMIT);
}

/// Records that it was dropped.
struct Drops(Arc<AtomicBool>);

impl Drop for Drops {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_and_when_it_is_cancelled() {
    let (start, dropped) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler: Route = Route::new({
        let (dropped, seen) = (Arc::clone(&dropped), Arc::clone(&seen));
        move |request: Request| {
            let drops = Drops(Arc::clone(&dropped));
            seen.lock().unwrap().push(request.cancellation());
            async move {
                let _drops = drops;
                sleep(Duration::from_secs(5)).await;
                score(7)
            }
        }
    });
    let at = start + Duration::from_millis(80);
    let outcome = call(&handler, TestRequest::new("a").deadline(at)).await;
    assert_eq!(outcome.failure(), Some("timed_out: no answer before the deadline"));
    assert_eq!((Instant::now(), dropped.swap(false, Ordering::Relaxed)), (at, true));

    let (request, canceller) = TestRequest::new("a").cancellable();
    let cancels = async {
        sleep(Duration::from_millis(20)).await;
        canceller.cancel(Cancelled::Superseded);
    };
    let (outcome, ()) = tokio::join!(call(&handler, request), cancels);
    assert_eq!(outcome.failure(), Some("cancelled: Superseded"));
    assert_eq!((start.elapsed(), dropped.load(Ordering::Relaxed)), (Duration::from_millis(100), true));
    let reasons: Vec<_> = seen.lock().unwrap().iter().map(|seen| seen.reason().unwrap()).collect();
    assert_eq!(reasons, [Cancelled::TimedOut, Cancelled::Superseded]);
}

fn config() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.timeouts.message = Some(Duration::from_millis(80));
    config
}

#[tokio::test(start_paused = true)]
async fn a_pair_has_the_outcomes_that_haproxy_gets() {
    for engine in [EngineConfig::haproxy_2_6(), EngineConfig::haproxy_3_2()] {
        for cuts in [Cuts::Whole, Cuts::Each, Cuts::Random, Cuts::Lengths(vec![5, 20])] {
            let mut pair = Pair::new(engine.clone(), config(), router()).with_cuts(cuts);
            let mut times = Vec::new();
            for (sentence, kind, wanted) in [
                ("slow ms=uint32:79", None, SCORE),
                ("slow ms=uint32:81", Some(FailureKind::TimedOut), "timed_out: no answer in time"),
                ("panics", Some(FailureKind::HandlerPanicked), "handler_panicked: message \"panics\": boom"),
                ("long", Some(FailureKind::AnswerUnsendable), "answer_unsendable: "),
                ("slow ms=uint32:1", None, SCORE),
            ] {
                let start = Instant::now();
                let outcome = pair.ask(&messages(sentence)).await.unwrap();
                assert!(outcome.sentence().starts_with(wanted), "{sentence}: {outcome:?}");
                assert_eq!(outcome.failure_kind(), kind, "{sentence}");
                times.push(start.elapsed().as_millis());
            }
            assert_eq!(times, [79, 80, 0, 0, 1]);
            pair.handle().drain();
            assert!(pair.run_to_end().await.unwrap().reason.is_normal());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn latency_and_the_timeout_of_haproxy_count() {
    let mut conditions = Conditions::default();
    conditions.latency = Duration::from_millis(10);
    let mut engine = EngineConfig::haproxy_2_6();
    engine.timeouts.message = Some(Duration::from_millis(50));
    let mut pair = Pair::with(conditions, engine, AgentConfig::default(), router());
    assert!(pair.run_handshake().await);
    let start = Instant::now();
    let outcome = pair.ask(&messages("slow ms=uint32:20")).await.unwrap();
    assert_eq!((outcome.sentence().as_str(), outcome.took()), (SCORE, Some(Duration::from_millis(40))));
    let outcome = pair.ask(&messages("slow ms=uint32:40")).await.unwrap();
    assert_eq!(outcome.error().map(spop_core::engine::EngineError::code), Some(1));
    assert_eq!(start.elapsed(), Duration::from_millis(90));
    // Its late answer is not that of the next, which is answered.
    assert_eq!(pair.ask(&messages("slow ms=uint32:1")).await.unwrap().sentence(), SCORE);
}

#[tokio::test(start_paused = true)]
async fn requests_are_in_flight_together_and_end_with_the_connection() {
    let mut pair = Pair::new(EngineConfig::haproxy_2_6(), AgentConfig::default(), router());
    pair.run_handshake().await;
    let ids: Vec<_> =
        [30, 10, 20].map(|ms| pair.notify(&messages(&format!("slow ms=uint32:{ms}"))).unwrap()).into();
    let start = Instant::now();
    let ended: Vec<_> = pair.run_until_settled().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!((ended, start.elapsed()), (vec![ids[1], ids[2], ids[0]], Duration::from_millis(30)));

    pair.notify(&messages("slow ms=uint32:30")).unwrap();
    pair.run_for(Duration::from_millis(10)).await;
    pair.lose();
    let outcomes = pair.run_until_settled().await;
    assert_eq!(outcomes.len(), 1);
    assert!(outcomes[0].1.error().is_some());
    assert!(pair.ask(&messages("slow ms=uint32:1")).await.is_err(), "there is no session");
}

/// As HAProxy 3.1 does.
#[tokio::test(start_paused = true)]
async fn a_profile_may_reject_a_hello_in_two_segments() {
    let mut pair = Pair::new(EngineConfig::haproxy_3_1(), config(), router()).with_cuts(Cuts::Each);
    assert!(!pair.run_handshake().await);
    assert!(pair.session().is_none() && pair.engine_ended().is_some());
}

/// A server that is made when the clock has been paused for a while has the time of that clock.
#[tokio::test(start_paused = true)]
async fn the_clock_of_a_server_is_that_of_tokio() {
    std::thread::sleep(Duration::from_millis(30));
    let mut pair = Pair::new(EngineConfig::haproxy_3_2(), config(), router());
    pair.run_handshake().await;
    let start = Instant::now();
    pair.ask(&messages("slow ms=uint32:100")).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(80));
}

#[tokio::test(start_paused = true)]
async fn transcripts_run_with_the_policies_of_a_server() {
    let text = "
        ## In the order in which they are ready.
        > NOTIFY fin 1 1 slow ms=uint32:50
        > NOTIFY fin 2 1 slow ms=uint32:20
        * wait 19ms
        < ACK fin 2 1 set sess score=uint32:7
        < ACK fin 1 1 set sess score=uint32:7
        ## A timeout.
        > NOTIFY fin 3 1 slow ms=uint32:500
        * wait 79ms
        < ACK fin 3 1
        > NOTIFY fin 4 1 panics
        < ACK fin 4 1
        > HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:normal
        < AGENT-DISCONNECT fin 0 0 status-code=uint32:0 *
    ";
    let start = std::time::Instant::now();
    replay(text, config(), router).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "the time of a transcript is virtual");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_transcript_has_the_line_and_the_failure() {
    for (text, expected, found, failure) in [
        (
            "> NOTIFY fin 1 1 panics\n< ACK fin 1 1 set sess score=uint32:7",
            "< ACK fin 1 1 set sess score=uint32:7",
            "< ACK fin 1 1",
            Some("handler_panicked: message \"panics\": boom"),
        ),
        (
            "> NOTIFY fin 1 1 slow ms=uint32:5\n* wait 6ms\n< ACK fin 1 2",
            "< ACK fin 1 2",
            "< ACK fin 1 1 set sess score=uint32:7",
            None,
        ),
        (
            "> NOTIFY fin 1 1 slow ms=uint32:0\n* wait 6ms",
            "nothing before this wait",
            "< ACK fin 1 1 set sess score=uint32:7",
            None,
        ),
        ("* close\n< ACK fin 1 1", "< ACK fin 1 1", "nothing", None),
    ] {
        let error = replay(text, ServerConfig::default(), router).await.unwrap_err();
        assert_eq!((error.expected.as_str(), error.found.as_str()), (expected, found), "{text}");
        assert_eq!(error.failure.as_deref(), failure, "{text}");
    }
}
