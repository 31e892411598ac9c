//! Which replies are used again.

use std::{sync::Arc, time::Duration};

use clap::Parser as _;
use spop_tokio::testing::{self, TestRequest};
use tokio::time::sleep;

use super::{ask, message_with, router};
use program::Count;

use crate::{
    agent,
    counts::Counts,
    options::Options,
    service::{Service, reply},
};

/// How often the service is asked when a client asks twice.
async fn asked(status: u16, headers: &'static str, args: &[&str]) -> usize {
    let service = Service::start(move |_| reply(status, headers)).await;
    let router = router(&service, args);
    let first = ask(&router, "a").await;
    assert_eq!(ask(&router, "a").await.sentence(), first.sentence());
    service.questions().len()
}

#[tokio::test]
async fn only_replies_of_a_status_with_a_lifetime_are_used_again() {
    for (status, args, times) in [
        (200, [].as_slice(), 2),
        (200, &["--cache", "2xx=1m"], 1),
        (204, &["--cache", "2xx=1m"], 1),
        (401, &["--cache", "2xx=1m"], 2),
        (403, &["--cache", "4xx=1m,401=1ms"], 1),
        // What is no decision has no lifetime.
        (500, &["--cache", "2xx=1m,3xx=1m,4xx=1m"], 2),
        (302, &["--cache", "2xx=1m,3xx=1m,4xx=1m"], 2),
    ] {
        assert_eq!(asked(status, "", args).await, times, "{status} {args:?}");
    }
}

#[tokio::test]
async fn a_reply_for_one_client_or_one_moment_is_not_used_again() {
    const CACHE: [&str; 2] = ["--cache", "2xx=1m,3xx=1m"];
    const KEY: [&str; 4] = ["--cache", "2xx=1m", "--cache-key", "cookie,authorization"];
    for (headers, args, times) in [
        ("remote-user: a\r\n", CACHE.as_slice(), 1),
        ("cache-control: public, max-age=60\r\n", &CACHE, 1),
        ("set-cookie: s=1\r\n", &CACHE, 2),
        ("cache-control: no-store\r\n", &CACHE, 2),
        ("cache-control: public\r\ncache-control: max-age=5, Private\r\n", &CACHE, 2),
        ("cache-control: no-cache=\"x\"\r\n", &CACHE, 2),
        ("cache-control: max-age=0\r\n", &CACHE, 2),
        ("cache-control: max-age=soon\r\n", &CACHE, 2),
        ("vary: accept\r\n", &CACHE, 1),
        ("vary: cookie, x-never-sent\r\n", &KEY, 1),
        ("vary: cookie, accept\r\n", &KEY, 2),
        // This question has none, but another may.
        ("vary: x-requested-with\r\n", &KEY, 2),
        ("vary: x-forwarded-prefix\r\n", &KEY, 2),
        ("vary: *\r\n", &CACHE, 2),
    ] {
        assert_eq!(asked(200, headers, args).await, times, "{headers:?} {args:?}");
    }
}

#[tokio::test]
async fn a_reply_is_used_for_equal_questions_until_it_is_too_old() {
    let service = Service::start(|_| reply(200, "")).await;
    let cached = router(&service, &["--cache", "200=100ms"]);
    for cookie in ["a", "b", "a", "b", "a"] {
        ask(&cached, cookie).await;
    }
    assert_eq!(service.questions().len(), 2);
    sleep(Duration::from_millis(150)).await;
    ask(&cached, "a").await;
    assert_eq!(service.questions().len(), 3);
    // A reply that depends on less.
    let args = ["--cache", "200=1m", "--cache-key", "x-forwarded-uri", "--forward-headers", "x-other"];
    let cached = router(&service, &args);
    for other in ["1", "2", "3"] {
        testing::call(&cached, TestRequest::of(&message_with("a", other))).await;
    }
    assert_eq!(service.questions().len(), 4);
}

#[tokio::test]
async fn a_shorter_lifetime_of_the_service_counts() {
    let service = Service::start(|_| reply(200, "cache-control: max-age=1\r\n")).await;
    let router = router(&service, &["--cache", "200=1h"]);
    for _ in 0..2 {
        ask(&router, "a").await;
    }
    assert_eq!(service.questions().len(), 1);
    sleep(Duration::from_millis(1_100)).await;
    ask(&router, "a").await;
    assert_eq!(service.questions().len(), 2);
}

#[tokio::test]
async fn equal_questions_at_the_same_time_share_a_reply_that_is_not_private() {
    for (status, headers, times) in [(200, "", 1), (503, "", 1), (200, "set-cookie: s=1\r\n", 4)] {
        let service = Service::start(move |_| (Duration::from_millis(50), reply(status, headers).1)).await;
        let router = router(&service, &["--cache", "2xx=1m"]);
        let four = tokio::join!(ask(&router, "a"), ask(&router, "a"), ask(&router, "a"), ask(&router, "a"));
        let sentence = four.0.sentence();
        assert!([four.1, four.2, four.3].iter().all(|outcome| outcome.sentence() == sentence));
        assert_eq!(service.questions().len(), times, "{status} {headers:?}");
    }
}

#[tokio::test]
async fn the_memory_for_replies_is_limited() {
    let service = Service::start(|_| reply(200, "")).await;
    let router = router(&service, &["--cache", "200=1h", "--cache-size", "1"]);
    // Each takes 4 KiB: four times the limit.
    let cookie = |n: usize| format!("{n:04096}");
    for n in 0..1_000 {
        assert!(ask(&router, &cookie(n)).await.failure().is_none());
    }
    let before = service.questions().len();
    for n in 0..1_000 {
        ask(&router, &cookie(n)).await;
    }
    let kept = 2_000 - service.questions().len();
    assert_eq!(before, 1_000);
    assert!(kept <= 256, "{kept} replies were kept");
}

#[tokio::test]
async fn questions_and_decisions_are_counted_each() {
    let status = |head: &str| if head.contains("cookie: a\r\n") { 200 } else { 403 };
    let service = Service::start(move |head| reply(status(head), "")).await;
    let options =
        Options::try_parse_from(["forward-auth", "--upstream", &service.url, "--cache", "2xx=1m"]).unwrap();
    let counts = Arc::<Counts>::default();
    let router = agent::router(&options, &counts).unwrap();
    for cookie in ["a", "b", "a", "b", "a", "a\x01"] {
        ask(&router, cookie).await;
    }
    let Counts { asked, cached, allowed, denied } = &*counts;
    // The last one is denied unasked.
    assert_eq!([asked, cached, allowed, denied].map(Count::get), [3, 2, 3, 3]);
}
