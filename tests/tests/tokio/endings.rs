//! How connections and servers end.

use std::{
    future::{pending, poll_fn},
    os::unix::net::UnixListener as StdUnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Client, Running, log::Log, until, within};
use spop_core::config::ConfigError;
use spop_tokio::{
    Actions, Address, AgentConfig, CloseReason, Endpoint, Peer, Request, Scope, Server, ServerConfig,
    Service,
    accept::{AcceptConfig, Monitor},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::{TcpStream, UnixStream},
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};

/// How a drained connection ends; the words are the core's.
const GOODBYE: &str = "AGENT-DISCONNECT fin 0 0 status-code=uint32:0 ";

/// Answers stream 0 only.
async fn wait(request: Request) -> Actions {
    if request.stream_id() != 0 {
        pending::<()>().await;
    }
    Actions::new()
}

#[tokio::test]
async fn a_stop_ends_the_drain() {
    within(async {
        let server = Running::start(wait).await;
        let (mut client, mut idle) = (server.session().await, server.session().await);
        client.send("NOTIFY fin 1 1 m\n NOTIFY fin 0 1 m").await;
        client.expect("ACK fin 0 1").await;
        server.handle.drain();
        assert!(idle.receive().await.unwrap().starts_with(GOODBYE));
        drop(idle);
        assert!(!server.task.is_finished());
        server.handle.stop();
        client
            .expect(r#"AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=string:"the agent is shutting down""#)
            .await;
        server.task.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn serve_until_drains_when_its_future_is_ready() {
    within(async {
        let server = Server::new(wait).bind("127.0.0.1:0").await.unwrap();
        server.serve_until(tokio::task::yield_now()).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_connections_of_a_service() {
    let handler = async |_: Request| {
        sleep(Duration::from_millis(800)).await;
        Actions::new()
    };
    let server = Server::new(handler).bind("127.0.0.1:0").await.unwrap();
    let (service, handle) = (server.service(), server.handle());
    let (stream, end) = duplex(1 << 16);
    tokio::spawn(service.serve_connection(end, Peer::unnamed()));
    let mut client = Client::new(stream);
    client.greet().await;
    client.send("NOTIFY fin 1 1 m").await;
    sleep(Duration::from_millis(1)).await;
    let serving = tokio::spawn(server.serve());
    handle.drain();
    client.expect("ACK fin 1 1").await;
    assert!(client.receive().await.unwrap().starts_with(GOODBYE));
    assert!(!serving.is_finished());
    drop(client);
    serving.await.unwrap().unwrap();
    assert_eq!(handle.stats().open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_and_a_stop_have_an_end_whatever_came_before() {
    let mut config = ServerConfig::default();
    config.lame_duck = Duration::from_secs(5);
    // The second drain is in the lame duck stage; the stop is shortly before the end of the drain.
    for (second, stop, end) in [(1_000, None, 12_000), (5_000, Some(15_500), 16_500)] {
        let server = Server::with_config(wait, config.clone()).unwrap();
        let (handle, service) = (server.handle(), server.service());
        let (_near, far) = duplex(64);
        let never_polled = service.serve_connection(far, Peer::unnamed());
        let (serving, start) = (tokio::spawn(server.serve()), Instant::now());
        let at = async |millis| sleep_until(start + Duration::from_millis(millis)).await;
        tokio::task::yield_now().await;
        handle.drain();
        at(second).await;
        handle.drain();
        if let Some(stop) = stop {
            at(stop).await;
            handle.stop();
        }
        at(end - 10).await;
        assert!(!serving.is_finished());
        at(end + 10).await;
        assert!(serving.is_finished(), "{second}");
        drop(never_polled);
    }
}

#[tokio::test]
async fn answers_that_leave_slowly_leave_whole_also_after_the_time_of_the_drain() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let mut config = AgentConfig::default();
        config.timeouts.drain = Duration::ZERO;
        // As long as this one reads, however slowly.
        config.timeouts.linger = Duration::from_secs(10);
        let handler = async |_: Request| Actions::new().set(Scope::Session, "a", &*"x".repeat(15_000));
        let server = Running::on(handler, config, Endpoint::from(&*folder.path().join("a.sock"))).await;
        let mut client = Client::new(UnixStream::connect(folder.path().join("a.sock")).await.unwrap());
        client.greet().await;
        for id in 0..40 {
            client.send(&format!("NOTIFY fin {id} 1 m")).await;
        }
        until("all are asked", || server.handle.connections().first().is_some_and(|one| one.requests == 40))
            .await;
        server.handle.drain();
        let (mut total, mut buffer) = (0, vec![0; 100_000]);
        while total <= 40 * 15_000 {
            sleep(Duration::from_millis(300)).await;
            match client.io.read(&mut buffer).await {
                Ok(0) | Err(_) => panic!("it ends after {total} bytes"),
                Ok(read) => total += read,
            }
        }
    })
    .await;
}

/// What a handler does after its answer, when the gate lets it.
fn in_background(gate: &Arc<Semaphore>, done: &Arc<AtomicUsize>) -> impl spop_tokio::Handler + use<> {
    let (gate, done) = (Arc::clone(gate), Arc::clone(done));
    move |request: Request| {
        if let Some(background) = request.background() {
            let (gate, done) = (Arc::clone(&gate), Arc::clone(&done));
            tokio::spawn(async move {
                gate.acquire().await.unwrap().forget();
                done.fetch_add(1, Ordering::Relaxed);
                drop(background);
            });
        }
        std::future::ready(Actions::new())
    }
}

#[tokio::test]
async fn a_drain_waits_for_work_in_the_background() {
    within(async {
        let (gate, done) = (Arc::new(Semaphore::new(0)), Arc::default());
        let server = Running::start(in_background(&gate, &done)).await;
        let mut client = server.session().await;
        client.ask("NOTIFY fin 1 1 m", "ACK fin 1 1").await;
        client.ask("NOTIFY fin 2 1 m", "ACK fin 2 1").await;
        assert_eq!((server.handle.stats().background, done.load(Ordering::Relaxed)), (2, 0));
        drop(client);
        server.handle.drain();
        until("its connection is gone", || server.handle.stats().open == 0).await;
        sleep(Duration::from_millis(100)).await;
        assert!(!server.task.is_finished());
        gate.add_permits(2);
        server.task.await.unwrap();
        assert_eq!((server.handle.stats().background, done.load(Ordering::Relaxed)), (0, 2));
    })
    .await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever_for_the_background() {
    within(async {
        let (done, mut config) = (Arc::default(), AgentConfig::default());
        config.timeouts.drain = Duration::from_millis(100);
        let closed = Arc::new(Semaphore::new(0));
        let server = Running::with(in_background(&closed, &done), config).await;
        let mut client = server.session().await;
        client.ask("NOTIFY fin 1 1 m", "ACK fin 1 1").await;
        drop(client);
        server.handle.drain();
        server.task.await.unwrap();
        assert_eq!(server.handle.stats().background, 1);
    })
    .await;
}

#[tokio::test]
async fn a_run_is_told_at_level_info() {
    within(async {
        let log = Log::with("info");
        let server = Running::start(wait).await;
        let mut client = server.session().await;
        client.send("NOTIFY fin 1 1 m\n NOTIFY fin 0 1 m").await;
        client.expect("ACK fin 0 1").await;
        server.handle.drain();
        server.handle.stop();
        while client.receive().await.is_some() {}
        server.task.await.unwrap();
        let lines = log.take();
        let [listening, draining, stopping, ended] = &lines[..] else { panic!("{lines:?}") };
        let expected = format!(" listening listener={} tls=false proxy=false", server.address);
        assert!(listening.ends_with(&expected), "{listening}");
        assert!(draining.ends_with(" draining connections=1 requests=1"), "{draining}");
        assert!(stopping.ends_with(" stopping connections=1 requests=1"), "{stopping}");
        assert!(ended.contains(" ended took=") && ended.ends_with(" cut=1 lost=1 background=0"), "{ended}");
    })
    .await;
}

#[tokio::test]
async fn connections_above_the_limit_are_closed() {
    within(async {
        let mut config = ServerConfig::default();
        config.max_connections = 1;
        let server = Running::with(wait, config).await;
        let first = server.session().await;
        let mut second = server.connect().await;
        assert!(matches!(second.io.read(&mut [0]).await, Ok(0) | Err(_)));
        assert_eq!(server.handle.stats().refused, 1);
        drop(first);
        until("it is gone", || server.handle.stats().open == 0).await;
        server.session().await;
        assert_eq!(server.handle.stats().accepted, 2);
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told_and_left() {
    within(async {
        let server = Running::start(wait).await;
        let cases: [(&[u8], u32); 4] = [
            (b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n", 3),
            (b"\xff\xff\xff\xff", 3),
            (b"\x00\x00\x00\x02ab", 4),
            // A NOTIFY before the handshake.
            (b"\x00\x00\x00\x07\x03\x00\x00\x00\x01\x01\x01", 4),
        ];
        for (bytes, status) in cases {
            let mut client = server.connect().await;
            client.io.write_all(bytes).await.unwrap();
            let last = client.receive().await.unwrap();
            let expected = format!("AGENT-DISCONNECT fin 0 0 status-code=uint32:{status} ");
            assert!(last.starts_with(&expected), "{last}");
            assert_eq!(client.receive().await, None);
        }
        let mut client = server.session().await;
        client.send("NOTIFY fin 0 1 m\n NOTIFY fin 0 2 hex:05").await;
        client.expect("ACK fin 0 1").await;
        assert!(client.receive().await.unwrap().starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:4"));
        server.session().await.ask("NOTIFY fin 0 1 m", "ACK fin 0 1").await;
    })
    .await;
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    within(async {
        let server = Running::start(wait).await;
        let mut client = server.session().await;
        let frame = spop_core::notation::parse_bytes(r#"NOTIFY fin 0 1 m a=string:"b"*20"#).unwrap();
        for byte in &frame {
            client.io.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.expect("ACK fin 0 1").await;
    })
    .await;
}

#[tokio::test]
async fn long_frames_arrive_in_any_pieces() {
    within(async {
        let server = Running::start(wait).await;
        let mut client = server.session().await;
        let frames: Vec<u8> = (1..40)
            .map(|id| format!("NOTIFY fin 0 {id} m a=string:\"b\"*{}", id * 400))
            .flat_map(|line| spop_core::notation::parse_bytes(&line).unwrap())
            .collect();
        for (index, piece) in frames.chunks(5_000).enumerate() {
            client.io.write_all(piece).await.unwrap();
            if index % 4 == 0 {
                tokio::task::yield_now().await;
            }
        }
        for id in 1..40 {
            client.expect(&format!("ACK fin 0 {id}")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn unix_sockets_are_served_and_cleaned_up() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        // Left behind by a process that died.
        drop(StdUnixListener::bind(&path).unwrap());
        let server = Server::new(wait).bind(path.as_path()).await.unwrap().bind("127.0.0.1:0").await.unwrap();
        let addresses = server.addresses().unwrap();
        assert_eq!(addresses[0], Address::Unix(path.clone()));
        let handle = server.handle();
        let task = tokio::spawn(server.serve());

        let mut client = Client::new(UnixStream::connect(&path).await.unwrap());
        client.greet().await;
        client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1").await;
        Client::new(TcpStream::connect(addresses[1].tcp().unwrap()).await.unwrap()).greet().await;

        let busy = Server::new(wait).bind(path.as_path()).await.unwrap_err();
        assert!(busy.to_string().contains("agent.sock"), "{busy}");
        handle.drain();
        assert!(client.receive().await.unwrap().starts_with(GOODBYE));
        drop(client);
        task.await.unwrap().unwrap();
        assert!(!path.exists());
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_no_socket_stays() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "keep me").unwrap();
        assert!(Server::new(wait).bind(path.as_path()).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"keep me");
    })
    .await;
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_by_name() {
    let mut config = AgentConfig::default();
    config.max_frame_size = 100;
    let server = Server::with_config(wait, config.clone()).unwrap_err();
    let service = Service::new(wait, config).unwrap_err();
    for error in [server, service] {
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "`max_frame_size` is 100, and must be at least 256");
        let inside = error.get_ref().and_then(|inside| inside.downcast_ref::<ConfigError>());
        assert_eq!(inside.map(|error| &*error.field), Some("max_frame_size"));
    }
    let mut accept = AcceptConfig::new().with(Monitor::new("ping\n", "pong\n")).unwrap();
    accept.timeout = Duration::ZERO;
    let endpoint = Endpoint::from("127.0.0.1:0").accept(accept);
    let error = Server::new(wait).bind(endpoint).await.unwrap_err();
    assert!(error.to_string().contains("`timeout` is zero, and must be longer"), "{error}");
}

#[tokio::test]
async fn any_stream_can_be_served_by_hand() {
    within(async {
        // A pipe so narrow that every write is cut, on both sides.
        let (near, far) = duplex(7);
        let service = Service::new(wait, AgentConfig::default()).unwrap();
        let connection = tokio::spawn(service.serve_connection(far, Peer::Other("a pipe".into())));
        let mut client = Client::new(near);
        client.greet().await;
        for id in 1..20 {
            client.ask(&format!("NOTIFY fin 0 {id} m a=ipv4:192.0.2.1"), &format!("ACK fin 0 {id}")).await;
        }
        client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:2 message=string:idle").await;
        assert!(client.receive().await.unwrap().starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:2"));
        assert_eq!(client.receive().await, None);
        drop(client);
        let closed = connection.await.unwrap().unwrap();
        assert!(matches!(closed.reason, CloseReason::PeerDisconnect { .. }), "{closed}");
    })
    .await;
}

#[tokio::test]
async fn a_connection_at_its_limit_is_left_alone_until_there_is_something_to_do() {
    within(async {
        let (near, far) = duplex(1024);
        let mut config = AgentConfig::default();
        config.limits.max_in_flight = 1;
        config.timeouts.memory = Some(Duration::from_millis(100));
        let service = Service::new(
            async |_: Request| {
                // Until the timer for the memory of an idle connection has gone off.
                sleep(Duration::from_millis(300)).await;
                Actions::new()
            },
            config,
        )
        .unwrap();
        let mut connection = Box::pin(service.serve_connection(far, Peer::Other("a pipe".into())));
        let polls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&polls);
        let connection = tokio::spawn(poll_fn(move |cx| {
            count.fetch_add(1, Ordering::Relaxed);
            connection.as_mut().poll(cx)
        }));
        let mut client = Client::new(near);
        client.greet().await;
        client.send("NOTIFY fin 1 1 m\n NOTIFY fin 2 1 m\n NOTIFY fin 3 1 m").await;
        client.expect("ACK fin 1 1").await;
        let polls = polls.load(Ordering::Relaxed);
        assert!(polls < 50, "{polls} polls for one answer");
        connection.abort();
    })
    .await;
}
