//! What a server has for its keepers: limits, replacement, numbers, sockets of others.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use crate::support::{Client, Running, until, within};
use spop_tokio::{
    Actions, AgentConfig, Deferred, Endpoint, FailureKind, Handler, Request, Responder, Scope, Server,
    ServerConfig, Swap, spop_core::link::Phase,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, UnixStream},
    sync::Semaphore,
};

/// Answers with its number; streams above 100 when the gate lets them pass.
struct Numbered {
    number: i32,
    gate: Arc<Semaphore>,
}

impl Handler for Numbered {
    type Output = Actions;

    async fn handle(&self, request: Request) -> Actions {
        if request.stream_id() > 100 {
            self.gate.acquire().await.unwrap().forget();
        }
        let mut actions = Actions::new();
        actions.set_var(Scope::Transaction, "number", self.number);
        actions
    }
}

fn numbered(number: i32) -> (Numbered, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    (Numbered { number, gate: Arc::clone(&gate) }, gate)
}

#[tokio::test]
async fn a_handler_is_replaced_while_requests_are_under_way() {
    within(async {
        let (first, gate) = numbered(1);
        let handler = Swap::new(first);
        let server = Running::start(handler.clone()).await;
        let mut client = server.session().await;
        client.send("NOTIFY fin 101 1 m").await;
        client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1").await;
        handler.replace(numbered(2).0);
        client.ask("NOTIFY fin 0 2 m", "ACK fin 0 2 set txn number=int32:2").await;
        gate.add_permits(1);
        client.expect("ACK fin 101 1 set txn number=int32:1").await;
        // Nobody needs the first any more.
        until("the first is dropped", || Arc::strong_count(&gate) == 1).await;
    })
    .await;
}

#[tokio::test]
async fn answers_come_from_other_threads() {
    within(async {
        let (jobs, work) = mpsc::channel::<(Request, Responder)>();
        thread::spawn(move || {
            for (request, responder) in work {
                match request.stream_id() {
                    1 => drop(responder),
                    _ => responder.reply(Actions::new()),
                }
            }
        });
        let handler = Deferred::new(move |request, responder| jobs.send((request, responder)).unwrap());
        let server = Running::start(handler).await;
        let mut client = server.session().await;
        for id in 0..5 {
            client.ask(&format!("NOTIFY fin {id} 1 m"), &format!("ACK fin {id} 1")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_responder_learns_that_nobody_waits() {
    within(async {
        let (responders, mut kept) = tokio::sync::mpsc::unbounded_channel();
        let handler = Deferred::new(move |_, responder: Responder| responders.send(responder).unwrap());
        let server = Running::start(handler).await;
        let mut client = server.session().await;
        client.send("NOTIFY fin 0 1 m").await;
        let mut responder = kept.recv().await.unwrap();
        assert!(!responder.is_cancelled());
        client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").await;
        responder.cancelled().await;
        assert!(responder.is_cancelled());
        responder.reply(Actions::new());
    })
    .await;
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    within(async {
        let mut config = ServerConfig::default();
        config.max_connections_per_source = Some(2);
        let server = Running::with(numbered(1).0, config).await;
        let first = server.session().await;
        let _second = server.session().await;
        let mut third = server.connect().await;
        assert!(matches!(third.io.read(&mut [0]).await, Ok(0) | Err(_)));
        assert_eq!(server.handle.stats().refused, 1);
        // Another address is another matter.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let elsewhere = socket.connect(server.address.tcp().unwrap()).await.unwrap();
        Client::new(elsewhere).greet().await;
        drop(first);
        until("one is gone", || server.handle.stats().open == 1).await;
        server.session().await;
    })
    .await;
}

#[tokio::test]
async fn requests_over_the_limit_of_all_fail_at_once() {
    within(async {
        let (handler, gate) = numbered(1);
        let mut config = ServerConfig::default();
        config.max_in_flight = Some(3);
        let server = Running::with(handler, config).await;
        let (mut one, mut two) = (server.session().await, server.session().await);
        one.send("NOTIFY fin 101 1 m\n NOTIFY fin 102 1 m").await;
        two.send("NOTIFY fin 101 1 m\n NOTIFY fin 102 1 m").await;
        two.expect("ACK fin 102 1").await;
        one.ask("NOTIFY fin 0 1 m", "ACK fin 0 1").await;
        assert_eq!(server.handle.stats().failures.of(FailureKind::Overloaded), 2);
        gate.add_permits(3);
        one.expect("ACK fin 101 1 set txn number=int32:1\n ACK fin 102 1 set txn number=int32:1").await;
        two.expect("ACK fin 101 1 set txn number=int32:1").await;
        two.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1").await;
    })
    .await;
}

#[tokio::test]
async fn connections_can_be_seen() {
    within(async {
        let server = Running::start(numbered(1).0).await;
        let mut client = server.session().await;
        client.send("NOTIFY fin 101 1 m\n NOTIFY fin 102 1 m\n NOTIFY fin 0 1 m").await;
        client.expect("ACK fin 0 1 set txn number=int32:1").await;
        let _silent = server.connect().await;
        let mut connections = Vec::new();
        until("both are there", || {
            connections = server.handle.connections();
            connections.sort_by_key(|connection| connection.id);
            matches!(&connections[..], [first, _] if first.in_flight == 2)
        })
        .await;
        let [first, second] = &connections[..] else { panic!("{connections:?}") };
        assert_eq!(first.engine_id.as_deref(), Some("e1"));
        assert_eq!(first.peer, spop_tokio::Peer::Ip(client.io.local_addr().unwrap()));
        assert_eq!(first.phase, Phase::Established);
        assert_eq!(second.phase, Phase::Connected);
        assert_eq!((first.outgoing, second.in_flight), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_socket_file_has_its_permissions_and_its_name() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let endpoint = || Endpoint::from(path.as_path()).mode(0o600);
        let server = Server::new(numbered(1).0).bind(endpoint()).await.unwrap();
        assert_eq!(server.addresses().unwrap()[0].to_string(), path.display().to_string());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let handle = server.handle();
        let task = tokio::spawn(server.serve());
        Client::new(UnixStream::connect(&path).await.unwrap()).greet().await;
        assert!(Server::new(numbered(1).0).bind(endpoint()).await.is_err());
        handle.stop();
        task.await.unwrap().unwrap();
        assert!(!path.exists());
    })
    .await;
}

#[tokio::test]
async fn a_socket_file_is_taken_over_and_nobody_is_turned_away() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let (handler, gate) = numbered(1);
        let old = Running::on(handler, AgentConfig::default(), Endpoint::from(path.as_path())).await;
        let mut kept = Client::new(UnixStream::connect(&path).await.unwrap());
        kept.greet().await;
        kept.send("NOTIFY fin 101 1 m").await;

        let answers = Arc::new(Mutex::new(Vec::new()));
        let (visited, sees) = (path.clone(), Arc::clone(&answers));
        let visitor = tokio::spawn(async move {
            loop {
                let mut client = Client::new(UnixStream::connect(&visited).await.unwrap());
                client.greet().await;
                client.send("NOTIFY fin 0 1 m").await;
                let answer = client.receive().await.unwrap();
                sees.lock().unwrap().push(answer);
            }
        });
        let answered_by = async |number| {
            let seen = || answers.lock().unwrap().last().is_some_and(|last: &String| last.ends_with(number));
            until("it is answered by this one", || seen() || visitor.is_finished()).await;
        };
        answered_by("int32:1").await;
        let endpoint = || Endpoint::from(path.as_path()).take_over(true);
        let new = Running::on(numbered(2).0, AgentConfig::default(), endpoint()).await;
        answered_by("int32:2").await;
        old.handle.drain();
        gate.add_permits(1);
        kept.expect("ACK fin 101 1 set txn number=int32:1").await;
        old.task.await.unwrap();
        let before = answers.lock().unwrap().len();
        let more = || answers.lock().unwrap().len() >= before + 3;
        until("three more are answered", || more() || visitor.is_finished()).await;
        assert!(!visitor.is_finished(), "it was turned away");
        visitor.abort();
        assert!(answers.lock().unwrap().is_sorted_by_key(|answer| answer.ends_with("int32:2")));
        new.handle.stop();
        new.task.await.unwrap();
        assert!(!path.exists());

        std::fs::write(&path, "no socket").unwrap();
        assert!(Server::new(numbered(1).0).bind(endpoint()).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"no socket");
    })
    .await;
}

#[tokio::test]
async fn a_port_is_shared_by_those_who_ask_for_it() {
    within(async {
        let first = Endpoint::from("127.0.0.1:0").reuse_port(true).keepalive(Some(Duration::from_secs(60)));
        let first = Running::on(numbered(1).0, AgentConfig::default(), first).await;
        let address = first.address.tcp().unwrap();
        assert!(TcpListener::bind(address).await.is_err());
        let second = Endpoint::from(address).reuse_port(true).nodelay(false);
        let second = Running::on(numbered(1).0, AgentConfig::default(), second).await;
        assert_eq!(second.address, first.address);
        for _ in 0..8 {
            first.session().await.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1").await;
        }
    })
    .await;
}

mod systemd {
    use std::{net::TcpStream, process::Stdio};

    use spop_tests::agent::activate;

    use super::*;

    /// Set for the process that gets the socket.
    const CHILD: &str = "SPOP_TEST_CHILD";

    async fn child() {
        let mut server = Server::new(numbered(1).0);
        for endpoint in Endpoint::from_systemd().unwrap() {
            server = server.bind(endpoint).await.unwrap();
        }
        assert_eq!(server.addresses().unwrap().len(), 1);
        // Its parent ends it.
        let _ = tokio::time::timeout(Duration::from_secs(20), server.serve()).await;
    }

    #[tokio::test]
    async fn a_socket_that_is_passed_is_served() {
        if std::env::var_os(CHILD).is_some() {
            return child().await;
        }
        within(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let mut child = activate(&listener)
                .unwrap()
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "production::systemd::a_socket_that_is_passed_is_served"])
                .env(CHILD, "1")
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut client = Client::new(tokio::net::TcpStream::from_std(stream).unwrap());
            client.greet().await;
            client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1").await;
            child.kill().unwrap();
            child.wait().unwrap();
        })
        .await;
    }
}

mod tower {
    use std::{
        future::Future,
        pin::Pin,
        task::{Context, Poll},
    };

    use spop_tokio::TowerHandler;
    use tower_service::Service;

    use super::*;

    /// Fails on stream 1, and is never ready for more than one request of a clone.
    #[derive(Clone)]
    struct Picky {
        ready: bool,
    }

    impl Service<Request> for Picky {
        type Response = Actions;
        type Error = String;
        type Future = Pin<Box<dyn Future<Output = Result<Actions, String>> + Send>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
            if !std::mem::replace(&mut self.ready, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request) -> Self::Future {
            assert!(self.ready, "called before it was ready");
            let id = request.stream_id();
            Box::pin(async move { if id == 1 { Err("no".to_owned()) } else { Ok(Actions::new()) } })
        }
    }

    #[tokio::test]
    async fn a_service_is_a_handler() {
        within(async {
            let server = Running::start(TowerHandler::new(Picky { ready: false })).await;
            let mut client = server.session().await;
            for id in 0..3 {
                client.ask(&format!("NOTIFY fin {id} 1 m"), &format!("ACK fin {id} 1")).await;
            }
        })
        .await;
    }
}

#[cfg(feature = "metrics")]
mod metrics {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use spop_tokio::Capabilities;
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn a_recorder_gets_the_numbers() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let run = within(async {
            let server = Running::start(numbered(1).0).await;
            let mut client = server.session().await;
            client.ask("NOTIFY fin 0 3 \"b\\n\" ; m", "ACK fin 0 3 set txn number=int32:1").await;
            let long = "n".repeat(65);
            client.ask(&format!("NOTIFY fin 0 4 {long}"), "ACK fin 0 4 set txn number=int32:1").await;
            client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1").await;
            client.ask("NOTIFY fin 0 2 m", "ACK fin 0 2 set txn number=int32:1").await;
            client
                .send(
                    "NOTIFY fin 101 1 m\n HAPROXY-DISCONNECT fin 0 0 status-code=uint32:7 message=string:bye",
                )
                .await;
            while client.receive().await.is_some() {}
            drop(client);
            until("all are gone", || server.handle.stats().open == 0).await;
            server.address
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = ::metrics::with_local_recorder(&recorder, || runtime.block_on(run));
        let mut numbers = std::collections::HashMap::new();
        for (key, _, about, value) in snapshotter.snapshot().into_vec() {
            assert!(about.is_some(), "{key:?} is not described");
            let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
            numbers.insert((key.key().name().to_owned(), labels.join(",")), value);
        }
        let labelled = |name: &str, labels: &str| numbers.get(&(name.to_owned(), labels.to_owned()));
        let number = |name: &str| labelled(name, "");
        let listener = address.to_string();
        assert_eq!(number("spop_notifies_total"), Some(&DebugValue::Counter(5)));
        assert_eq!(number("spop_acks_total"), Some(&DebugValue::Counter(4)));
        assert_eq!(number("spop_cancelled_total"), Some(&DebugValue::Counter(1)));
        assert_eq!(labelled("spop_connections_total", &listener), Some(&DebugValue::Counter(1)));
        assert_eq!(labelled("spop_connections", &listener), Some(&DebugValue::Gauge(0.0.into())));
        assert_eq!(number("spop_requests_in_flight"), Some(&DebugValue::Gauge(0.0.into())));
        let handled = |message: &str| match labelled("spop_handler_seconds", message) {
            Some(DebugValue::Histogram(times)) => times.len(),
            _ => 0,
        };
        assert_eq!((handled("m"), handled("b\\n"), handled(&"n".repeat(30))), (3, 1, 1));
        assert_eq!(labelled("spop_failures_total", "handler_failed"), Some(&DebugValue::Counter(0)));
        assert!(matches!(number("spop_received_bytes_total"), Some(DebugValue::Counter(100..))));
        assert_eq!(labelled("spop_closed_total", "peer,7"), Some(&DebugValue::Counter(1)));
    }

    #[test]
    fn each_request_comes_to_one_end_with_async_too() {
        async fn leave(mut client: Client<TcpStream>) {
            client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").await;
            while client.receive().await.is_some() {}
        }
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let run = within(async {
            let mut config = AgentConfig::default();
            config.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
            let server = Running::with(numbered(1).0, config).await;
            let [mut home, mut sibling] = [server.connect().await, server.connect().await];
            home.greet_as("e1", "pipelining,async").await;
            sibling.greet_as("e1", "pipelining,async").await;
            home.send("NOTIFY fin 101 1 m\nNOTIFY fin 102 1 m").await;
            sibling.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn number=int32:1").await;
            leave(home).await;
            // One of those without a connection is superseded, the other is left when the last connection goes.
            sibling.send("NOTIFY fin 101 1 m").await;
            leave(sibling).await;
            until("all are gone", || server.handle.stats().open == 0).await;
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        ::metrics::with_local_recorder(&recorder, || runtime.block_on(run));
        let counted = snapshotter.snapshot().into_vec().into_iter();
        let mut counted = counted.filter(|(key, ..)| key.key().name() == "spop_cancelled_total");
        assert_eq!(counted.next().map(|(.., value)| value), Some(DebugValue::Counter(3)));
    }
}
