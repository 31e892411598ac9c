//! The handler with a service that the test plays.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser as _;
use spop_tokio::{
    MessageList, Request, Router,
    spop_core::wire::put_headers,
    testing::{self, TestRequest},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{Instant, sleep, timeout},
};

use crate::{
    counts::{Counts, Loss},
    mirror::Mirror,
    options::Options,
};

/// What ought to happen at once.
const SOON: Duration = Duration::from_secs(5);

/// A mirror with these options beside the address of the service.
fn mirror(service: SocketAddr, options: &[&str]) -> (Router<Mirror>, Arc<Counts>) {
    let upstream = format!("http://{service}");
    let args = [&["mirror", "--upstream", &upstream], options].concat();
    let mirror = Mirror::new(&Options::try_parse_from(args).unwrap()).unwrap();
    let counts = Arc::clone(mirror.counts());
    (mirror.router(), counts)
}

/// A service that answers each request with this, and tells what it gets, beginning with the number of the connection. Bodies are as long as
/// `content-length` says.
async fn service(reply: &'static str) -> (SocketAddr, UnboundedReceiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, heard) = unbounded_channel();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let told = told.clone();
            tokio::spawn(async move {
                let mut input = Vec::new();
                while stream.read_buf(&mut input).await.is_ok_and(|n| n > 0) {
                    let text = String::from_utf8_lossy(&input).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                        input.clear();
                        told.send((number, text)).unwrap();
                        stream.write_all(reply.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    (address, heard)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A message, as that of the shipped configuration. The size of the body is that of what is there, unless it is given.
fn message(method: &str, uri: &str, headers: &[(&str, &str)], body: &str, size: Option<u64>) -> Request {
    let mut list = Vec::new();
    put_headers(&mut list, headers.iter().map(|(name, value)| (name, value.as_bytes()))).unwrap();
    let mut messages = MessageList::new();
    messages
        .message("mirror")
        .arg("method", method)
        .arg("uri", uri)
        .arg("hdrs", &*list)
        .arg("body", body.as_bytes())
        .arg("size", size.unwrap_or(body.len() as u64))
        .arg("src", std::net::IpAddr::from([192, 0, 2, 1]));
    TestRequest::of(&messages).into()
}

fn get(uri: &str) -> Request {
    message("GET", uri, &[("host", "example.com")], "", None)
}

/// What the handler answers: always nothing. The failure, if it is one.
async fn ask(router: &Router<Mirror>, request: Request) -> Option<String> {
    let outcome = testing::call(router, request).await;
    let failure = outcome.failure().map(ToOwned::to_owned);
    assert!(failure.is_some() || outcome.sentence().is_empty(), "{outcome:?}");
    failure
}

async fn until(what: &str, is_true: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !is_true() {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The lines of the next copy: the first, the headers in order of their names, and the body.
async fn next(copies: &mut UnboundedReceiver<(usize, String)>) -> Vec<String> {
    let (_, text) = timeout(SOON, copies.recv()).await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().map(ToOwned::to_owned).collect();
    lines[1..].sort();
    lines.push(body.to_owned());
    lines
}

#[tokio::test]
async fn a_copy_is_the_request_and_says_what_its_body_is() {
    let (address, mut copies) = service(OK).await;
    let (router, counts) = mirror(address, &[]);
    let headers = [
        ("host", "example.com"),
        ("cookie", "a=b"),
        ("content-length", "5"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("expect", "100-continue"),
        ("x-mirror-body", "forged"),
        ("x-forwarded-for", "198.51.100.7"),
    ];
    assert_eq!(ask(&router, message("POST", "/a/b?c=d", &headers, "hello", None)).await, None);
    let copy = next(&mut copies).await;
    let id = copy.iter().find(|line| line.starts_with("x-mirror-id: ")).unwrap().clone();
    let expected = [
        "POST /a/b?c=d HTTP/1.1",
        "content-length: 5",
        "cookie: a=b",
        "host: example.com",
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-for: 198.51.100.7",
        "x-hop: 1",
        "x-mirror-body: whole",
        &id,
        "hello",
    ];
    assert_eq!(copy, expected);
    let chunked = [("host", "example.com"), ("transfer-encoding", "chunked")];
    for (headers, body, size, state) in [
        (&headers[..], "hel", Some(5), Some("cut; 3 of 5 bytes")),
        (&headers, "", Some(5), Some("cut; 0 of 5 bytes")),
        (&chunked, "hel", None, Some("unknown")),
        (&headers[..2], "", None, None),
    ] {
        assert_eq!(ask(&router, message("PUT", "/", headers, body, size)).await, None);
        let copy = next(&mut copies).await;
        let found = copy.iter().find_map(|line| line.strip_prefix("x-mirror-body: "));
        assert_eq!((found, copy.last().map(String::as_str)), (state, Some(body)), "{copy:?}");
    }
    until("all are answered", || counts.answered.get() == 5).await;
    assert_eq!(counts.cut.get(), 2);
}

#[tokio::test]
async fn options_replace_the_host_and_skip_what_is_cut() {
    let (address, mut copies) = service(OK).await;
    let (router, counts) = mirror(address, &["--host", "shadow.example", "--cut", "skip"]);
    ask(&router, message("POST", "/cut", &[("host", "example.com"), ("content-length", "9")], "x", Some(9)))
        .await;
    ask(&router, get("/whole")).await;
    let copy = next(&mut copies).await;
    assert_eq!(copy[0], "GET /whole HTTP/1.1");
    assert!(copy.contains(&"host: shadow.example".to_owned()), "{copy:?}");
    assert_eq!(counts.cut.get(), 1);
}

#[tokio::test]
async fn connections_are_used_again() {
    let (address, mut copies) = service(OK).await;
    let (router, counts) = mirror(address, &["--connections", "1"]);
    for number in 0..20 {
        ask(&router, get(&format!("/{number}"))).await;
    }
    let mut last = 0;
    for number in 0..20 {
        let (connection, text) = timeout(SOON, copies.recv()).await.unwrap().unwrap();
        assert!(text.starts_with(&format!("GET /{number} ")), "not in order: {text}");
        last = connection;
    }
    // The end of a reply and the next copy may cross.
    assert!(last < 4, "{last} connections");
    until("all are answered", || counts.answered.get() == 20).await;
}

#[tokio::test]
async fn a_share_of_the_requests_is_copied() {
    let (address, _copies) = service(OK).await;
    let (router, counts) = mirror(address, &["--sample", "25"]);
    for _ in 0..1_000 {
        ask(&router, get("/")).await;
    }
    let chosen = 1_000 - counts.not_sampled.get();
    // Six standard deviations.
    assert!((168..=332).contains(&chosen), "{chosen}");
    let (none, counts) = mirror(address, &["--sample", "0"]);
    ask(&none, get("/")).await;
    assert_eq!(counts.not_sampled.get(), 1);
}

#[tokio::test]
async fn what_an_attacker_asks_for_is_copied() {
    let (address, mut copies) = service(OK).await;
    let (router, counts) = mirror(address, &[]);
    for (uri, sent) in [
        ("/<script>", "/%3Cscript%3E"),
        ("/q?<script>", "/q?%3Cscript%3E"),
        ("/q?a=\"b\"", "/q?a=%22b%22"),
        ("/a b\x01\x7f", "/a%20b%01%7F"),
        ("/a#b", "/a%23b"),
        ("/\u{e9}<", "/%C3%A9%3C"),
        ("/%3c'${x}\\", "/%3c'${x}\\"),
        ("/`${x}\\", "/%60${x}\\"),
        ("/%%%?[]{}|", "/%%%?[]{}|"),
        ("*", "*"),
    ] {
        assert_eq!(ask(&router, message("OPTIONS", uri, &[("host", "a")], "", None)).await, None, "{uri}");
        assert_eq!(next(&mut copies).await[0], format!("OPTIONS {sent} HTTP/1.1"), "{uri}");
    }
    let mut list = MessageList::new();
    let mut headers = Vec::new();
    put_headers(&mut headers, [("host", "a")]).unwrap();
    let nothing = spop_tokio::Value::Null;
    list.message("mirror").arg("method", "OPTIONS").arg("uri", nothing).arg("hdrs", &*headers);
    assert_eq!(ask(&router, TestRequest::of(&list).into()).await, None);
    assert_eq!(next(&mut copies).await[0], "OPTIONS * HTTP/1.1");
    assert_eq!(counts.lost(Loss::Invalid), 0);
}

#[tokio::test]
async fn a_copy_that_comes_back_is_not_copied_again() {
    let (address, mut copies) = service(OK).await;
    let (router, counts) = mirror(address, &[]);
    let (other, _) = mirror(address, &[]);
    ask(&router, message("GET", "/", &[("host", "a"), ("x-mirror-id", "1")], "", None)).await;
    let copy = next(&mut copies).await;
    let headers: Vec<_> = copy.iter().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(headers.iter().filter(|(name, _)| *name == "x-mirror-id").count(), 2, "{copy:?}");
    // Through another mirror, too.
    ask(&other, message("GET", "/other", &headers, "", None)).await;
    let copy = next(&mut copies).await;
    let headers: Vec<_> = copy.iter().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(ask(&router, message("GET", "/", &headers, "", None)).await, None);
    assert_eq!(counts.lost(Loss::Loop), 1);
    assert!(copies.try_recv().is_err());
}

#[tokio::test]
async fn what_cannot_be_copied_is_counted_and_names_the_argument() {
    let (address, _copies) = service(OK).await;
    let (router, counts) = mirror(address, &[]);
    for (number, (request, error)) in (1..).zip([
        (message("CONNECT", "", &[], "", None), "argument \"uri\""),
        (get("no-slash"), "argument \"uri\": path does not start with slash"),
        (message("G T", "/", &[], "", None), "argument \"method\" of message \"mirror\""),
        (
            TestRequest::new("mirror method=string:GET uri=string:/").into(),
            "argument \"hdrs\" of message \"mirror\" is missing",
        ),
    ]) {
        let failure = ask(&router, request).await.unwrap_or_default();
        assert!(failure.contains(error), "{failure:?} has no {error:?}");
        assert_eq!(counts.lost(Loss::Invalid), number);
    }
}

#[tokio::test]
async fn a_service_that_is_slow_or_dead_loses_copies_and_delays_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It accepts, by the kernel, and says nothing.
    let (router, counts) = mirror(address, &["--timeout", "300ms", "--connections", "2"]);
    let start = Instant::now();
    for _ in 0..10 {
        ask(&router, get("/")).await;
    }
    assert!(start.elapsed() < Duration::from_millis(250), "{:?}", start.elapsed());
    // Two are sent; two more get their connections just in time, or not.
    let lost = || counts.lost(Loss::Late) + counts.lost(Loss::Waited);
    until("all are lost", || lost() == 10).await;
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
    assert!((2..=4).contains(&counts.lost(Loss::Late)), "{}", counts.lost(Loss::Late));
    drop(listener);
    ask(&router, get("/")).await;
    until("it is refused", || counts.lost(Loss::Failed) == 1).await;
    assert_eq!(counts.answered.get(), 0);
}

#[tokio::test]
async fn copies_have_a_limit_in_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (router, counts) = mirror(listener.local_addr().unwrap(), &["--memory", "1", "--timeout", "1s"]);
    let body = "x".repeat(100 << 10);
    for _ in 0..12 {
        ask(&router, message("POST", "/", &[], &body, None)).await;
    }
    // Each takes 104 KiB.
    assert_eq!(counts.lost(Loss::Memory), 3);
    until("the memory is free again", || counts.lost(Loss::Late) == 9).await;
    ask(&router, message("POST", "/", &[], &body, None)).await;
    assert_eq!(counts.lost(Loss::Memory), 3);
}

#[tokio::test]
async fn a_reply_that_does_not_end_holds_its_connection_for_a_limited_time() {
    let (address, mut copies) = service("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nx").await;
    let (router, counts) = mirror(address, &["--timeout", "300ms", "--connections", "1"]);
    ask(&router, get("/0")).await;
    next(&mut copies).await;
    sleep(Duration::from_millis(150)).await;
    ask(&router, get("/1")).await;
    assert_eq!(next(&mut copies).await[0], "GET /1 HTTP/1.1");
    until("both are answered", || counts.answered.get() == 2).await;
    sleep(Duration::from_millis(400)).await;
    assert_eq!((counts.lost(Loss::Late), counts.lost(Loss::Failed)), (0, 0));
}
