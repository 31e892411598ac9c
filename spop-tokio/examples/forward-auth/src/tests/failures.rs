//! When the service does not decide.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::{ask, router, router_to};
use crate::service::{Service, reply};

const DENIED: &str = "set txn allowed=bool:false ; set txn status=int32:503 ; set txn failed=bool:true";
const ALLOWED: &str = "set txn allowed=bool:true ; set txn status=int32:503 ; set txn failed=bool:true";

#[tokio::test]
async fn a_reply_that_decides_nothing_has_the_answer_of_the_policy() {
    for (status, why) in [(500, "500"), (503, "503"), (302, "302"), (304, "304")] {
        let service = Service::start(move |_| reply(status, "remote-user: a\r\n")).await;
        for (policy, sentence) in [("deny", DENIED), ("allow", ALLOWED)] {
            let outcome = ask(&router(&service, &["--on-failure", policy]), "").await;
            assert_eq!(outcome.sentence(), sentence);
            let failure = outcome.failure().unwrap();
            assert!(failure.starts_with("handler_failed") && failure.contains(why), "{failure}");
            assert!(failure.contains("GET /a of 127.0.0.1"), "{failure}");
        }
    }
}

#[tokio::test]
async fn a_service_that_is_down_or_talks_nonsense_is_a_failure() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outcome = ask(&router_to(&format!("http://{unused}/"), &[]), "").await;
    assert_eq!(outcome.sentence(), DENIED);
    assert!(outcome.failure().unwrap().contains("onnection refused"), "{outcome:?}");
    for nonsense in [
        "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 -\r\nx: {}\r\n\r\n", "x".repeat(300_000)),
    ] {
        let service = Service::start(move |_| (Duration::ZERO, nonsense.clone())).await;
        let outcome = ask(&router(&service, &[]), "").await;
        assert_eq!(outcome.sentence(), DENIED);
        assert!(outcome.failure().unwrap().contains("no reply of http://127.0.0.1"), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_service_that_is_slow_costs_its_timeout() {
    let service = Service::start(|_| (Duration::from_secs(5), String::new())).await;
    let router = router(&service, &["--timeout", "50ms"]);
    let start = Instant::now();
    let outcome = ask(&router, "").await;
    assert_eq!(outcome.sentence(), DENIED);
    assert_eq!(outcome.failure(), Some("timed_out: message \"check-request\": no answer within 50ms"));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn more_questions_than_the_limit_fail_at_once() {
    let service = Service::start(|_| (Duration::from_millis(100), reply(200, "").1)).await;
    let router = router(&service, &["--max-in-flight", "2"]);
    let (one, two, three) = tokio::join!(ask(&router, "1"), ask(&router, "2"), ask(&router, "3"));
    assert_eq!((one.failure(), two.failure()), (None, None));
    assert!(three.failure().unwrap().starts_with("overloaded"), "{three:?}");
    assert_eq!(three.sentence(), DENIED);
    assert_eq!(service.questions().len(), 2);
}

#[tokio::test]
async fn a_request_that_cannot_be_asked_about_is_denied_even_if_failures_are_allowed() {
    let service = Service::start(|_| reply(200, "")).await;
    let router = router(&service, &["--on-failure", "allow"]);
    let outcome = ask(&router, "a\x01").await;
    assert_eq!(outcome.sentence(), "set txn allowed=bool:false ; set txn status=int32:400");
    assert!(service.questions().is_empty());
}
