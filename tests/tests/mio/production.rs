//! What a server has for its keepers: limits, replacement, numbers, sockets of others.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    sync::mpsc,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use spop_mio::{
    Actions, AgentConfig, Endpoint, FailureKind, Handler, Outcome, Request, Responder, Scope, Server,
    ServerConfig, Swap, spop_core::link::Phase,
};

use crate::support::{Client, Running, until, within};

fn number(number: i32) -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "number", number);
    actions
}

/// Answers with its number; streams above 100 are left to the test.
fn numbered(
    n: i32,
) -> (impl FnMut(Request<'_>) -> Outcome + Clone + Send + 'static, mpsc::Receiver<Responder>) {
    let (sender, responders) = mpsc::channel();
    let handler = move |request: Request<'_>| {
        if request.stream_id() > 100 {
            return request.defer(|responder| drop(sender.send(responder)));
        }
        number(n).into()
    };
    (handler, responders)
}

fn plain(n: i32) -> impl Handler + Clone + Send + 'static {
    move |_: Request<'_>| number(n)
}

fn connect_from(source: [u8; 4], address: SocketAddr) -> Client<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::new(socket.into())
}

#[test]
fn a_handler_is_replaced_while_requests_are_under_way() {
    within(|| {
        let (sender, responders) = mpsc::channel();
        let handler = |n: i32| {
            let sender = sender.clone();
            move |request: Request<'_>| -> Outcome {
                if request.stream_id() > 100 {
                    return request.defer(|responder| drop(sender.send((n, responder))));
                }
                number(n).into()
            }
        };
        let current = Swap::new(handler(1));
        let server = Running::with(current.clone(), AgentConfig::default(), |server| server.workers(2));
        let mut clients: Vec<_> = (0..8).map(|_| server.session()).collect();
        for client in &mut clients {
            client.send("NOTIFY fin 101 1 m");
            client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1");
        }
        current.replace(handler(2));
        for client in &mut clients {
            client.ask("NOTIFY fin 0 2 m", "ACK fin 0 2 set txn number=int32:2");
        }
        for _ in 0..8 {
            let (n, responder) = responders.recv().unwrap();
            assert_eq!(n, 1);
            responder.reply(number(n));
        }
        for client in &mut clients {
            client.expect("ACK fin 101 1 set txn number=int32:1");
        }
    });
}

#[test]
fn an_address_has_so_many_connections() {
    within(|| {
        let mut config = ServerConfig::default();
        config.max_connections_per_source = Some(2);
        let server = Running::with(plain(1), config, |server| server.workers(2));
        let first = server.session();
        let _second = server.session();
        server.connect().expect_end();
        let stats = server.handle.stats();
        assert_eq!((stats.open, stats.accepted, stats.refused), (2, 2, 1));
        // Another address is another matter.
        connect_from([127, 0, 0, 2], server.address.tcp().unwrap()).greet("pipelining,async", "e1");
        drop(first);
        until(|| server.handle.stats().open == 1);
        server.session();
    });
}

#[test]
fn requests_over_the_limit_of_all_fail_at_once() {
    within(|| {
        let (handler, responders) = numbered(1);
        let mut config = ServerConfig::default();
        config.max_in_flight = Some(3);
        let server = Running::with(handler, config, |server| server.workers(2));
        let (mut one, mut two) = (server.session(), server.session());
        one.send("NOTIFY fin 101 1 m\n NOTIFY fin 102 1 m");
        let mut kept: Vec<_> = (0..2).map(|_| responders.recv().unwrap()).collect();
        two.send("NOTIFY fin 101 1 m\n NOTIFY fin 102 1 m");
        kept.push(responders.recv().unwrap());
        two.expect("ACK fin 102 1");
        one.ask("NOTIFY fin 0 1 m", "ACK fin 0 1");
        assert_eq!(server.handle.stats().failures.of(FailureKind::Overloaded), 2);
        for responder in kept {
            responder.reply(number(1));
        }
        one.expect("ACK fin 101 1 set txn number=int32:1\n ACK fin 102 1 set txn number=int32:1");
        two.expect("ACK fin 101 1 set txn number=int32:1");
        two.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1");
        // A request that fails gives its place back as well.
        one.send("NOTIFY fin 101 1 m\n NOTIFY fin 102 1 m\n NOTIFY fin 103 1 m");
        drop((0..3).map(|_| responders.recv().unwrap()).collect::<Vec<_>>());
        one.expect("ACK fin 101 1\n ACK fin 102 1\n ACK fin 103 1");
        one.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1");
    });
}

#[test]
fn connections_can_be_seen() {
    within(|| {
        let (handler, _responders) = numbered(1);
        let server = Running::with(handler, AgentConfig::default(), |server| server.workers(3));
        let mut client = server.session();
        client.send("NOTIFY fin 101 1 m\n NOTIFY fin 102 1 m\n NOTIFY fin 0 1 m");
        client.expect("ACK fin 0 1 set txn number=int32:1");
        let silent = server.connect();
        until(|| server.handle.connections().len() == 2);
        let connections = server.handle.connections();
        let find = |client: &Client<TcpStream>| {
            let peer = client.io.local_addr().unwrap().into();
            connections.iter().find(|connection| connection.peer == peer).unwrap()
        };
        let (first, second) = (find(&client), find(&silent));
        assert_eq!(first.engine_id.as_deref(), Some("e1"));
        assert_eq!((first.phase, first.in_flight, first.outgoing), (Phase::Established, 2, 0));
        assert_eq!((second.phase, second.in_flight), (Phase::Connected, 0));
        assert!(first.age >= second.age && first.id != second.id);
        let handle = server.handle.clone();
        drop(server);
        assert!(handle.connections().is_empty());
    });
}

#[test]
fn a_stuck_worker_is_seen_and_the_others_serve() {
    within(|| {
        let (release, released) = mpsc::channel::<()>();
        let released = std::sync::Arc::new(std::sync::Mutex::new(released));
        let handler = move |request: Request<'_>| {
            if request.stream_id() == 666 {
                let _ = released.lock().unwrap().recv();
            }
            number(1)
        };
        let server = Running::with(handler, AgentConfig::default(), |server| server.workers(2));
        // Until both workers have a connection: the second of the same worker gets no answer while it is stuck.
        let mut stuck = server.session();
        stuck.send("NOTIFY fin 666 1 m");
        let mut served = 0;
        let mut waiting = Vec::new();
        while served < 3 || waiting.is_empty() {
            let mut client = server.connect();
            client.io.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            client.send(
                "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining,async
                 NOTIFY fin 1 1 m",
            );
            if client.receive().is_some() {
                client.io.set_read_timeout(None).unwrap();
                client.expect("ACK fin 1 1 set txn number=int32:1");
                served += 1;
            } else {
                waiting.push(client);
            }
        }
        let start = Instant::now();
        let connections = server.handle.connections();
        let peer = stuck.io.local_addr().unwrap().into();
        assert!(connections.iter().any(|connection| connection.peer == peer), "{connections:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        release.send(()).unwrap();
        stuck.expect("ACK fin 666 1 set txn number=int32:1");
        for client in &mut waiting {
            client.io.set_read_timeout(None).unwrap();
            assert!(client.receive().unwrap().starts_with("AGENT-HELLO"));
            client.expect("ACK fin 1 1 set txn number=int32:1");
        }
    });
}

#[test]
fn a_socket_file_has_its_permissions_and_its_name() {
    within(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let endpoint = || Endpoint::from(path.as_path()).mode(0o600);
        let server = Running::on(plain(1), endpoint());
        assert_eq!(server.address.to_string(), path.display().to_string());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        Client::new(UnixStream::connect(&path).unwrap()).greet("pipelining,async", "e1");
        assert!(Server::new(plain(1)).bind(endpoint()).is_err());
        drop(server);
        assert!(!path.exists());
    });
}

#[test]
fn a_port_is_shared_by_those_who_ask_for_it() {
    within(|| {
        let first = Endpoint::from("127.0.0.1:0").reuse_port(true).keepalive(Some(Duration::from_secs(60)));
        let first = Running::on(plain(1), first);
        let address = first.address.tcp().unwrap();
        assert!(TcpListener::bind(address).is_err());
        assert!(Server::new(plain(1)).bind(address).is_err());
        let second = Endpoint::from(address).reuse_port(true).nodelay(false);
        let second = Running::on(plain(1), second);
        assert_eq!(second.address, first.address);
        for _ in 0..8 {
            first.session().ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1");
        }
    });
}

mod systemd {
    use std::{process::Stdio, thread};

    use spop_tests::agent::activate;

    use super::*;

    /// Set for the process that gets the socket.
    const CHILD: &str = "SPOP_TEST_CHILD";

    fn child() {
        let mut server = Server::new(plain(1)).workers(2);
        for endpoint in Endpoint::from_systemd().unwrap() {
            server = server.bind(endpoint).unwrap();
        }
        assert_eq!(server.addresses().unwrap().len(), 1);
        // Its parent ends it.
        let (end, ended) = mpsc::channel();
        thread::spawn(move || end.send(server.serve()));
        let _ = ended.recv_timeout(Duration::from_secs(20));
    }

    #[test]
    fn a_socket_that_is_passed_is_served() {
        if std::env::var_os(CHILD).is_some() {
            return child();
        }
        within(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let mut child = activate(&listener)
                .unwrap()
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "production::systemd::a_socket_that_is_passed_is_served"])
                .env(CHILD, "1")
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            for _ in 0..4 {
                let mut client = Client::new(TcpStream::connect(address).unwrap());
                client.greet("pipelining,async", "e1");
                client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1");
            }
            child.kill().unwrap();
            child.wait().unwrap();
        });
    }
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::{collections::HashMap, io::Write as _, thread};

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use spop_mio::{Capabilities, OnFailure, Reply, Status};

    use super::*;
    use crate::support::{bytes, hand_out};

    #[test]
    fn a_recorder_gets_the_numbers() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let (handler, responders) = numbered(1);
        let server = Server::new(handler).workers(1).bind("127.0.0.1:0").unwrap();
        let (address, handle) = (server.addresses().unwrap()[0].tcp().unwrap(), server.handle());
        let serve = move || ::metrics::with_local_recorder(&recorder, || server.serve());
        let thread = thread::spawn(serve);
        let listener = address.to_string();
        let mut client = Client::new(TcpStream::connect(address).unwrap());
        client.greet("pipelining,async", "e1");
        client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1");
        client.ask("NOTIFY fin 0 2 m", "ACK fin 0 2 set txn number=int32:1");
        client.send("NOTIFY fin 101 1 m");
        let responder = responders.recv().unwrap();
        // What a snapshot has told begins anew.
        let mut numbers = HashMap::new();
        let mut look = || {
            for (key, _, _, value) in snapshotter.snapshot().into_vec() {
                let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
                let number = match value {
                    DebugValue::Counter(count) => count.cast_signed(),
                    DebugValue::Gauge(value) => value.into_inner() as i64,
                    DebugValue::Histogram(times) => times.len().cast_signed() as i64,
                };
                *numbers.entry((key.key().name().to_owned(), labels.join(","))).or_insert(0) += number;
            }
            numbers.clone()
        };
        let number = |numbers: &HashMap<_, _>, name: &str, labels: &str| {
            numbers.get(&(name.to_owned(), labels.to_owned())).copied()
        };
        let under_way = look();
        assert_eq!(number(&under_way, "spop_requests_in_flight", ""), Some(1));
        assert_eq!(number(&under_way, "spop_connections", &listener), Some(1));
        client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:7 message=string:bye");
        while client.receive().is_some() {}
        drop((client, responder));
        until(|| handle.stats().open == 0);
        handle.drain();
        thread.join().unwrap().unwrap();
        let end = look();
        for (name, labels, expected) in [
            ("spop_connections", &*listener, 0),
            ("spop_requests_in_flight", "", 0),
            ("spop_handler_seconds", "m", 3),
            ("spop_connections_total", &listener, 1),
            ("spop_connections_total", "none", 0),
            ("spop_notifies_total", "", 3),
            ("spop_acks_total", "", 2),
            ("spop_failures_total", "timed_out", 0),
            ("spop_cancelled_total", "", 1),
            ("spop_probes_total", &listener, 0),
        ] {
            assert_eq!(number(&end, name, labels), Some(expected), "{name} {labels}");
        }
        assert_eq!(number(&end, "spop_closed_total", "peer,7"), Some(1));
        assert!(number(&end, "spop_received_bytes_total", "").unwrap() > 100);
        assert!(number(&end, "spop_sent_bytes_total", "").unwrap() > 100);
    }

    #[test]
    fn each_request_comes_to_one_end_with_async_too() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let (handler, responders) = numbered(1);
        let mut config = AgentConfig::default();
        config.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
        let server = Server::with_config(handler, config).unwrap().workers(1).bind("127.0.0.1:0").unwrap();
        let (address, handle) = (server.addresses().unwrap()[0].tcp().unwrap(), server.handle());
        let thread =
            thread::spawn(move || ::metrics::with_local_recorder(&recorder, || server.serve().unwrap()));
        let [mut home, mut sibling] = [(); 2].map(|()| {
            let mut client = Client::new(TcpStream::connect(address).unwrap());
            client.greet("pipelining,async", "e1");
            client
        });
        home.send("NOTIFY fin 101 1 m\nNOTIFY fin 102 1 m");
        let mut waiting: Vec<_> = responders.iter().take(2).collect();
        let leave = |mut client: Client<TcpStream>, left| {
            client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye");
            while client.receive().is_some() {}
            drop(client);
            until(|| handle.connections().len() == left);
        };
        leave(home, 1);
        // One of those without a connection is superseded, the other is left when the last connection goes.
        sibling.send("NOTIFY fin 101 1 m");
        waiting.push(responders.recv().unwrap());
        leave(sibling, 0);
        until(|| waiting.iter().all(Responder::is_cancelled));
        handle.drain();
        thread.join().unwrap();
        let counted = |name: &str| {
            let found =
                snapshotter.snapshot().into_vec().into_iter().find(|(key, ..)| key.key().name() == name);
            found.map(|(.., value)| value)
        };
        assert_eq!(counted("spop_cancelled_total"), Some(DebugValue::Counter(3)));
    }

    #[test]
    fn a_session_that_a_decision_ends_is_closed_once() {
        within(|| {
            let recorder = DebuggingRecorder::new();
            let snapshotter = recorder.snapshotter();
            let (handler, responders) = hand_out();
            let mut config = ServerConfig::default();
            config.agent.on_failure =
                OnFailure::Disconnect { status: Status::RESOURCE, message: "it failed".into() };
            config.max_buffered_bytes = 64 << 10;
            // No timer gives a connection a turn before many seconds have passed.
            config.agent.timeouts.memory = None;
            config.agent.timeouts.frame = None;
            config.agent.timeouts.linger = Duration::from_secs(60);
            let server = Server::with_config(handler, config).unwrap().workers(1);
            let server = server.bind("127.0.0.1:0").unwrap();
            let (address, handle) = (server.addresses().unwrap()[0].tcp().unwrap(), server.handle());
            let thread =
                thread::spawn(move || ::metrics::with_local_recorder(&recorder, || server.serve().unwrap()));
            let session = || {
                let mut client = Client::new(TcpStream::connect(address).unwrap());
                client.send(
                    "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:1000000 \
                     capabilities=string:pipelining,async",
                );
                client.receive().unwrap();
                client
            };
            let [mut answered, mut failed, mut unfinished, stopped] = [(); 4].map(|()| session());
            answered.send("NOTIFY fin 1 1 m");
            let responder = responders.recv().unwrap();
            failed.send("NOTIFY fin 1 1 m\nNOTIFY fin 2 1 m");
            let dropped = [(); 2].map(|()| responders.recv().unwrap());
            let long = bytes(r#"NOTIFY fin 1 1 m x=string:"x"*300000"#);
            unfinished.io.write_all(&long[..70_000]).unwrap();
            let start = Instant::now();
            let ends = |mut client: Client<TcpStream>, open| {
                let disconnect = client.receive().unwrap();
                assert!(disconnect.starts_with("AGENT-DISCONNECT"), "{disconnect}");
                drop(client);
                until(|| handle.connections().len() == open);
            };
            let status = Status::RESOURCE;
            responder.reply(Reply::Disconnect { status, message: "enough".into() });
            ends(answered, 3);
            drop(dropped);
            ends(failed, 2);
            unfinished.io.write_all(&long[70_000..90_000]).unwrap();
            ends(unfinished, 1);
            assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
            handle.stop();
            thread.join().unwrap();
            drop(stopped);
            let closed = snapshotter.snapshot().into_vec().into_iter().filter_map(|(key, _, _, value)| {
                let DebugValue::Counter(count) = value else { return None };
                (key.key().name() == "spop_closed_total").then_some(count)
            });
            assert_eq!(closed.sum::<u64>(), 4);
        });
    }
}
