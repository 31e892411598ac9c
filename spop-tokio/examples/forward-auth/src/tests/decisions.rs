//! What replies of the service mean.

use std::time::{Duration, Instant};

use spop_tokio::{
    EngineConfig,
    testing::{self, TestRequest},
};

use super::{ask, message, router};
use crate::service::{Service, reply};

/// A service whose reply is the status and the headers in the cookie of the question: `401 a: b; c: d`.
async fn service() -> Service {
    Service::start(|head| {
        let cookie = head.lines().find_map(|line| line.strip_prefix("cookie: ")).unwrap();
        let (status, headers) = cookie.split_once(' ').unwrap_or((cookie, ""));
        let headers = headers.split("; ").filter(|header| !header.is_empty());
        let headers = headers.fold(String::new(), |lines, header| lines + header + "\r\n");
        reply(status.parse().unwrap(), &headers)
    })
    .await
}

#[tokio::test]
async fn the_service_sees_the_request_and_nothing_else() {
    let service = service().await;
    ask(&router(&service, &[]), "200").await;
    let [head] = service.questions().try_into().unwrap();
    let mut lines: Vec<_> = head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "GET /verify?by=agent HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", service.url.split('/').nth(2).unwrap());
    let mut expected = vec![
        "accept: */*",
        "cookie: 200",
        &host,
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: example.org",
        "x-forwarded-method: GET",
        "x-forwarded-proto: http",
        "x-forwarded-uri: /a",
        "x-original-method: GET",
        "x-original-uri: /a",
        "x-original-url: http://example.org/a",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_status_is_a_decision() {
    let service = service().await;
    let router = router(&service, &[]);
    for (said, sentence) in [
        ("200", "set txn allowed=bool:true ; set txn status=int32:200"),
        ("204", "set txn allowed=bool:true ; set txn status=int32:204"),
        ("401", "set txn allowed=bool:false ; set txn status=int32:401"),
        ("403", "set txn allowed=bool:false ; set txn status=int32:403"),
        ("404", "set txn allowed=bool:false ; set txn status=int32:404"),
        ("429", "set txn allowed=bool:false ; set txn status=int32:429"),
    ] {
        let outcome = ask(&router, said).await;
        assert_eq!((outcome.sentence().as_str(), outcome.failure()), (sentence, None), "{said}");
    }
}

#[tokio::test]
async fn headers_that_are_listed_go_on_in_the_direction_of_the_decision() {
    let service = service().await;
    let router = router(&service, &["--request-headers", "remote-user,remote-groups"]);
    let said = "200 remote-user: a; remote-groups: x; remote-groups: y; x-other: 1; www-authenticate: B; set-cookie: s=1; set-cookie: t=2";
    assert_eq!(
        ask(&router, said).await.sentence(),
        "set txn allowed=bool:true ; set txn status=int32:200 ; \
         set txn request.remote_user=string:a ; set txn request.remote_groups=string:\"x, y\" ; \
         set txn request_headers=binary:0b72656d6f74652d7573657201610d72656d6f74652d67726f75707304782c20790000 ; \
         set txn reply.set_cookie=string:s=1 ; set txn reply.set_cookie_2=string:t=2 ; \
         set txn reply_headers=binary:0a7365742d636f6f6b696503733d310a7365742d636f6f6b696503743d320000"
    );
    let said = "302 remote-user: a; location: /login; x-other: 1";
    assert_eq!(
        ask(&router, said).await.sentence(),
        "set txn allowed=bool:false ; set txn status=int32:302 ; set txn reply.location=string:/login ; \
         set txn reply_headers=binary:086c6f636174696f6e062f6c6f67696e0000"
    );
}

#[tokio::test]
async fn a_denial_that_is_too_long_for_haproxy_is_one_without_headers() {
    let service = service().await;
    let router = router(&service, &[]);
    let long = "x".repeat(9_000);
    let outcome = ask(&router, &format!("401 www-authenticate: {long}")).await;
    assert_eq!(outcome.sentence(), "set txn allowed=bool:false ; set txn status=int32:401");
    let outcome = ask(&router, &format!("200 remote-user: {long}")).await;
    assert_eq!(
        outcome.sentence(),
        "set txn allowed=bool:false ; set txn status=int32:503 ; set txn failed=bool:true"
    );
    assert!(outcome.failure().unwrap().contains("the headers of the reply take 18"), "{outcome:?}");
    // A frame may be longer, and HAProxy's receive buffer is not.
    let mut engine = EngineConfig::haproxy_3_2();
    engine.max_frame_size = 65_532;
    let request = TestRequest::of(&message(&format!("401 www-authenticate: {long}"))).engine(engine);
    let outcome = testing::call(&router, request).await;
    assert_eq!(outcome.sentence(), "set txn allowed=bool:false ; set txn status=int32:401");
}

#[tokio::test]
async fn a_connection_is_used_again_whatever_the_body_is() {
    let service = Service::start(|_| {
        let body = "x".repeat(10_000);
        (Duration::ZERO, format!("HTTP/1.1 403 -\r\ncontent-length: 10000\r\n\r\n{body}"))
    })
    .await;
    let router = router(&service, &[]);
    for _ in 0..5 {
        assert!(ask(&router, "").await.failure().is_none());
    }
    assert_eq!((service.questions().len(), service.connections()), (5, 1));
}

#[tokio::test]
async fn a_body_without_an_end_delays_nothing() {
    let service = Service::start(|_| {
        (Duration::ZERO, "HTTP/1.1 403 -\r\ncontent-length: 10000\r\n\r\nthe rest is late".into())
    })
    .await;
    let router = router(&service, &["--timeout", "5s", "--processing", "6s"]);
    let start = Instant::now();
    for _ in 0..2 {
        assert!(ask(&router, "").await.failure().is_none());
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(service.connections(), 2, "a connection is of no use in the middle of a body");
}
