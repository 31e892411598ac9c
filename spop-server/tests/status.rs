//! The status page, over real connections.
#![cfg(feature = "status")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test that panics has failed.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use spop_core::{Actions, Clock, accept::Peer, notation};
use spop_server::{
    Agent, Conn, Request, ServerConfig,
    status::{Status, install_recorder},
};

/// Tests with requests run one after the other: a recorder is the whole process's, and one of them counts.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server without sockets, and the address of its status page.
fn start(status: impl FnOnce(Status) -> Status) -> (Arc<Agent>, SocketAddr) {
    let agent = Agent::new(ServerConfig::default(), Clock::start()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    status(Status::new(agent.handle())).serve(listener).unwrap();
    (agent, address)
}

fn session(agent: &Arc<Agent>, sentences: &str) -> Conn {
    let now = agent.clock().now();
    let mut conn = agent.accept(now, Peer::Other("a <b>peer</b>".into()), None).unwrap();
    let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
         capabilities=string:pipelining engine-id=string:\"<script>\"";
    let bytes: Vec<_> =
        format!("{hello}\n{sentences}").lines().flat_map(|one| notation::parse_bytes(one).unwrap()).collect();
    let mut handler = |request: Request<'_>| match request.message("fails") {
        Some(_) => Err("no"),
        None => Ok(Actions::new()),
    };
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let used = conn.on_bytes(now, &mut handler, rest);
        rest = &rest[used..];
        let sent = conn.outgoing().len();
        conn.on_sent(now, &mut handler, sent).unwrap();
    }
    conn
}

fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // It may be closed before all is sent.
    let _ = stream.write_all(request.as_bytes());
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8(response).unwrap()
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    get_from(address, &address.to_string(), path)
}

fn get_from(address: SocketAddr, host: &str, path: &str) -> (String, String) {
    let response = exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn the_page_and_its_json_have_the_state_of_the_server() {
    let _alone = alone();
    let (agent, address) = start(|status| status);
    let conn = session(&agent, "NOTIFY fin 1 1 m\nNOTIFY fin 2 1 fails");
    let (head, json) = get(address, "/status.json");
    assert!(head.starts_with("http/1.1 200 ") && head.contains("content-type: application/json"), "{head}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let of = |pointer: &str| json.pointer(pointer).unwrap_or_else(|| panic!("{pointer}: {json:#}"));
    assert_eq!((of("/stage"), of("/requests"), of("/answered")), (&"serve".into(), &2.into(), &1.into()));
    assert_eq!((of("/failures/handler_failed"), of("/failures/timed_out")), (&1.into(), &0.into()));
    assert_eq!((of("/limits/0/limit"), of("/limits/0/used")), (&"max_connections".into(), &1.into()));
    assert_eq!(of("/connections/busiest/0/engine_id"), "<script>");
    assert_eq!((of("/connections/busiest/0/requests"), of("/connections/open")), (&2.into(), &1.into()));
    assert_eq!(of("/per_second/2/seconds"), 60);

    let (head, page) = get(address, "/");
    assert!(head.contains("content-type: text/html") && head.contains("default-src 'none'"), "{head}");
    assert!(page.contains("handler_failed") && page.contains("its causes are in the log"), "{page}");
    assert!(page.contains("&lt;script&gt;") && page.contains("a &lt;b&gt;peer"), "{page}");
    assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
    drop(conn);
    assert!(get(address, "/").1.contains("0 connections are open"));
}

#[test]
fn it_is_healthy_until_the_shutdown() {
    let (agent, address) = start(|status| status);
    assert!(get(address, "/healthy").0.starts_with("http/1.1 200 "));
    agent.handle().drain();
    let (head, body) = get(address, "/healthy");
    assert!(head.starts_with("http/1.1 503 ") && body == "shuts down\n", "{head}");
    assert!(get(address, "/").1.contains("It shuts down: drain"));
}

#[test]
fn rates_are_those_of_the_last_seconds() {
    let _alone = alone();
    let (agent, address) = start(|status| status);
    let notifies: Vec<_> = (0..50).map(|id| format!("NOTIFY fin {id} 1 m")).collect();
    // The first sample was taken when it began to serve.
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    let mut sessions = vec![session(&agent, &notifies.join("\n"))];
    loop {
        // Unless its thread was held up, and the first sample had these requests: then those of another session follow.
        if start.elapsed() > sessions.len() as u32 * Duration::from_secs(4) {
            assert!(sessions.len() < 3, "no rate");
            sessions.push(session(&agent, &notifies.join("\n")));
        }
        let json: serde_json::Value = serde_json::from_str(&get(address, "/status.json").1).unwrap();
        let rate = json.pointer("/per_second/1/requests").and_then(serde_json::Value::as_f64).unwrap();
        if rate > 0.0 {
            assert!((4.0..=51.0).contains(&rate), "{rate}");
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn metrics_are_there_with_a_recorder_only() {
    let _alone = alone();
    let (_agent, address) = start(|status| status);
    assert!(get(address, "/metrics").0.starts_with("http/1.1 404 "));
    let recorder = install_recorder().unwrap();
    // What the agent itself has counted, as of the time of the answer.
    let hits = AtomicU64::new(0);
    let collect = move || metrics::counter!("hits_total").absolute(hits.fetch_add(1, Ordering::Relaxed));
    let (agent, address) = start(|status| status.metrics(recorder).collector(collect));
    let mut conn = session(&agent, "NOTIFY fin 1 1 m");
    let (head, text) = get(address, "/metrics");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for line in [
        "hits_total 0",
        "# TYPE spop_notifies_total counter",
        "spop_notifies_total 1",
        "# TYPE spop_handler_seconds histogram",
        "spop_handler_seconds_bucket{message=\"m\",le=\"+Inf\"} 1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    assert_eq!(install_recorder().unwrap_err().kind(), ErrorKind::AlreadyExists);

    // The dashboard asks for what there is.
    agent.ready([]);
    let bye =
        notation::parse_bytes("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").unwrap();
    conn.on_bytes(agent.clock().now(), &mut |_: Request<'_>| Actions::new(), &bye);
    drop(conn);
    let text = get(address, "/metrics").1;
    assert!(text.contains("\nhits_total 1\n"), "{text}");
    let dashboard: serde_json::Value = serde_json::from_str(&get(address, "/dashboard.json").1).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let names: BTreeSet<_> = targets
        .flat_map(|target| {
            target["expr"].as_str().unwrap().split(|c: char| c != '_' && !c.is_ascii_alphanumeric())
        })
        .filter(|word| word.starts_with("spop_"))
        .collect();
    assert!(names.len() > 12, "{names:?}");
    for name in names {
        let of = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        assert!(text.lines().any(of), "{name}\n{text}");
    }
}

#[test]
fn what_is_no_request_for_it_gets_a_short_answer_or_none() {
    let (_agent, address) = start(|status| status);
    assert!(get(address, "/../etc/passwd").0.starts_with("http/1.1 404 "));
    let head = exchange(address, "HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let post = exchange(address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n");
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let long = exchange(address, &long);
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 4"), "{long}");
    let hello = exchange(address, "\0\0\0\x05\x01\0\0\0\x01\0\0");
    assert!(hello.is_empty() || hello.starts_with("HTTP/1.1 400 "), "{hello}");
}

#[test]
fn sites_that_a_browser_shows_cannot_read_it() {
    let (_agent, address) = start(|status| status.host("agent1.example").host("other"));
    let port = address.port();
    for host in ["127.0.0.1", "[::1]", "192.0.2.1", "LocalHost", "agent1.example", "Agent1.Example", "other"]
    {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            assert!(get_from(address, &host, "/status.json").0.starts_with("http/1.1 200 "), "{host}");
        }
    }
    for host in
        ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "example", "", "a b", "[::1"]
    {
        for path in ["/", "/status.json", "/metrics", "/dashboard.json"] {
            let (head, body) = get_from(address, host, path);
            assert!(head.starts_with("http/1.1 421 ") || head.starts_with("http/1.1 400 "), "{host}: {head}");
            assert!(body.len() < 100, "{body}");
        }
        assert!(!get_from(address, host, "/healthy").0.starts_with("http/1.1 421 "), "{host}");
    }
    let twice = exchange(address, "GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n");
    assert!(twice.starts_with("HTTP/1.1 421 ") || twice.starts_with("HTTP/1.1 400 "), "{twice}");
    assert!(
        exchange(address, "GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 "),
        "no browser is without it"
    );
}

#[test]
fn silent_clients_are_few_and_do_not_stay() {
    /// How long one may be silent.
    const TIME: Duration = Duration::from_secs(2);
    let ended = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        matches!(stream.read(&mut [0]), Ok(0) | Err(_))
    };
    // If this takes longer than a client may be silent, the first may have been ended for that: then it is tried again.
    for _ in 0..5 {
        let (_agent, address) = start(|status| status);
        let start = Instant::now();
        let mut silent: Vec<_> = (0..32).map(|_| TcpStream::connect(address).unwrap()).collect();
        // Those before are accepted before this one, which takes the place of the first.
        assert!(get(address, "/healthy").0.starts_with("http/1.1 200 "));
        assert!(ended(&mut silent[0]));
        silent[1].set_nonblocking(true).unwrap();
        let second = silent[1].peek(&mut [0]).map_err(|error| error.kind());
        silent[1].set_nonblocking(false).unwrap();
        if start.elapsed() >= TIME {
            continue;
        }
        assert_eq!(second, Err(ErrorKind::WouldBlock), "only one");
        assert!(silent.iter_mut().all(ended));
        let took = start.elapsed();
        // Not only when a whole connection has taken too long: that is ten seconds.
        assert!((TIME / 2..Duration::from_secs(9)).contains(&took), "{took:?}");
        return;
    }
    panic!("the first is not ended for the one that came last");
}
