//! The examples that drive `Conn` on other event loops, in this process and as programs.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // It is a test.

#[path = "examples/peer.rs"]
mod peer;
mod support;

use std::{
    fs,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use spop_core::{
    Actions, Clock, Scope,
    accept::{AcceptConfig, Monitor},
    frame::Capabilities,
};
use spop_server::{Agent, Entrance, Outcome, Request, Responder, ServerConfig, ServerHandle};

use self::{
    peer::Peer,
    support::{SOON, soon},
};

#[allow(dead_code)] // Its `main`.
#[path = "../examples/foreign-poll.rs"]
mod foreign_poll;
#[path = "../examples/io-uring/driver.rs"]
mod io_uring;
#[allow(dead_code)] // Its `main`.
#[path = "../examples/thread-per-connection.rs"]
mod threads;

/// Requests that the thread of the test answers.
type Later = mpsc::Sender<(Responder, Actions)>;

/// Echoes each argument; the message `later` when the test answers it.
fn echo(request: Request<'_>, later: &Later) -> Outcome {
    let mut actions = Actions::new();
    for message in request.messages() {
        for (name, value) in message.args() {
            actions.set_var(Scope::Transaction, [message.name(), b".", name].concat(), value);
        }
    }
    if request.message("later").is_none() {
        return actions.into();
    }
    // The test may be over.
    request.defer(|responder| drop(later.send((responder, actions))))
}

/// A server in this process.
struct Server {
    name: &'static str,
    address: String,
    handle: ServerHandle,
    later: mpsc::Receiver<(Responder, Actions)>,
    end: mpsc::Sender<io::Result<()>>,
    ended: mpsc::Receiver<io::Result<()>>,
}

impl Server {
    /// The next request that is to be answered by the test.
    fn request(&self) -> (Responder, Actions) {
        self.later.recv_timeout(SOON).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn expect_end(&self) {
        let ended = self.ended.recv_timeout(SOON).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        ended.unwrap();
        // For who asks again.
        let _ = self.end.send(Ok(()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// Plays a scenario with each of the examples.
fn with_each(config: &ServerConfig, accept: &AcceptConfig, scenario: impl Fn(&Server)) {
    for name in ["foreign-poll", "io-uring", "thread-per-connection"] {
        let agent = Agent::new(config.clone(), Clock::start()).unwrap();
        let entrance = Arc::new(Entrance::new(accept.clone()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, handle) = (listener.local_addr().unwrap().to_string(), agent.handle());
        let (end, ended) = mpsc::channel();
        let (at_end, (sender, later)) = (end.clone(), mpsc::channel());
        thread::spawn(move || {
            let mut echo = |request: Request<'_>| echo(request, &sender);
            let (agent, entrance) = (&agent, Some(&entrance));
            let result = match name {
                "foreign-poll" => foreign_poll::serve(listener, agent, entrance, &mut echo),
                "io-uring" => io_uring::serve(listener, agent, entrance, &mut echo),
                _ => threads::serve(listener, agent, entrance, &echo),
            };
            // The test may be over.
            let _ = at_end.send(result);
        });
        println!("-- {name}");
        let server = Server { name, address, handle, later, end, ended };
        scenario(&server);
        server.handle.stop();
        server.expect_end();
    }
}

fn with_each_default(scenario: impl Fn(&Server)) {
    with_each(&ServerConfig::default(), &AcceptConfig::new(), scenario);
}

#[test]
fn frames_arrive_in_pieces_together_and_as_fragments() {
    with_each_default(|server| {
        let mut peer = Peer::session(&server.address, "");
        let frame = peer::bytes("NOTIFY fin 1 1 m a=int32:1");
        for piece in [&frame[..9], &frame[9..]] {
            peer.stream.write_all(piece).unwrap();
        }
        peer.expect("ACK fin 1 1 set txn m.a=int32:1");
        for byte in peer::bytes("NOTIFY fin 2 1 m a=int32:2") {
            peer.stream.write_all(&[byte]).unwrap();
        }
        peer.expect("ACK fin 2 1 set txn m.a=int32:2");
        peer.send((3..1_000).map(|id| format!("NOTIFY fin {id} 1 m a=int32:{id}")));
        (3..1_000).for_each(|id| peer.expect(&format!("ACK fin {id} 1 set txn m.a=int32:{id}")));
        peer.send(["NOTIFY - 5 1 messages[..2] one a=int32:1", "NOTIFY fin 9 1 two a=int32:2"]);
        peer.expect("ACK fin 9 1 set txn two.a=int32:2");
        peer.send(["UNSET fin 5 1 messages[2..] one a=int32:1"]);
        peer.expect("ACK fin 5 1 set txn one.a=int32:1");
    });
}

#[test]
fn long_frames_keep_their_order_whatever_the_sizes_of_the_pieces() {
    with_each_default(|server| {
        let mut peer = Peer::session(&server.address, "");
        let mut sender = Peer { stream: peer.stream.try_clone().unwrap() };
        thread::scope(|scope| {
            scope.spawn(|| {
                let lines = (1..=200).map(|id| format!(r#"NOTIFY fin {id} 1 m a=string:"x"*15000"#));
                let all: Vec<u8> = lines.flat_map(|line| peer::bytes(&line)).collect();
                for piece in all.chunks(37_003) {
                    sender.stream.write_all(piece).unwrap();
                }
            });
            (1..=200).for_each(|id| peer.expect(&format!(r#"ACK fin {id} 1 set txn m.a=string:"x"*15000"#)));
        });
    });
}

#[test]
fn an_answer_of_another_thread_wakes_the_loop() {
    with_each_default(|server| {
        let mut peer = Peer::session(&server.address, "");
        peer.send(["NOTIFY fin 1 1 later a=int32:1", "NOTIFY fin 2 1 m a=int32:2"]);
        peer.expect("ACK fin 2 1 set txn m.a=int32:2");
        let (responder, answer) = server.request();
        responder.reply(answer);
        peer.expect("ACK fin 1 1 set txn later.a=int32:1");
        let mut peers: Vec<_> = (0..50).map(|_| Peer::session(&server.address, "")).collect();
        for peer in &mut peers {
            peer.send(["NOTIFY fin 1 1 later a=int32:1"]);
        }
        let requests: Vec<_> = peers.iter().map(|_| server.request()).collect();
        for (responder, answer) in requests {
            responder.reply(answer);
        }
        for peer in &mut peers {
            peer.expect("ACK fin 1 1 set txn later.a=int32:1");
        }
    });
}

#[test]
fn an_answer_takes_another_connection_if_its_own_has_ended() {
    let mut config = ServerConfig::default();
    config.agent.capabilities |= Capabilities::ASYNC;
    with_each(&config, &AcceptConfig::new(), |server| {
        let (mut first, mut second) =
            (Peer::session(&server.address, "engine"), Peer::session(&server.address, "engine"));
        first.send(["NOTIFY fin 1 1 later a=int32:1"]);
        let (responder, answer) = server.request();
        first.disconnect();
        responder.reply(answer);
        second.expect("ACK fin 1 1 set txn later.a=int32:1");
        server.handle.drain();
        second.expect_disconnect();
        drop((first, second));
        server.expect_end();
    });
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from() {
    with_each_default(|server| {
        let mut peer = Peer::session(&server.address, "");
        let (count, rest) = fill(&mut peer);
        let expected = |id| format!(r#"ACK fin {id} 1 set txn m.a=string:"x"*8000"#);
        (1..count / 2).for_each(|id| peer.expect(&expected(id)));
        peer.stream.write_all(&rest).unwrap();
        peer.shut();
        (count / 2..=count).for_each(|id| peer.expect(&expected(id)));
        peer.expect_eof();
    });
}

/// Sends requests of 8 KB, and reads no answer, until no more can be sent. Returns how many, and the rest of the last.
fn fill(peer: &mut Peer) -> (usize, Vec<u8>) {
    /// Far more than what sockets hold on both sides.
    const MOST: usize = 64 << 20;
    let (mut count, mut rest, mut sent) = (0, Vec::new(), 0);
    peer.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    loop {
        if rest.is_empty() {
            count += 1;
            rest = peer::bytes(&format!(r#"NOTIFY fin {count} 1 m a=string:"x"*8000"#));
        }
        match peer.stream.write(&rest) {
            Ok(n) => sent += rest.drain(..n).len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
        assert!(sent < MOST, "it reads on");
    }
    peer.stream.set_write_timeout(None).unwrap();
    (count, rest)
}

#[test]
fn a_peer_that_shuts_its_side_gets_its_answers() {
    with_each_default(|server| {
        for count in [0, 1, 1_000] {
            let mut peer = Peer::session(&server.address, "");
            peer.send((1..=count).map(|id| format!("NOTIFY fin {id} 1 m a=int32:{id}")));
            peer.stream.write_all(&[0, 0, 0]).unwrap();
            peer.shut();
            (1..=count).for_each(|id| peer.expect(&format!("ACK fin {id} 1 set txn m.a=int32:{id}")));
            peer.expect_eof();
        }
    });
}

#[test]
fn a_shutdown_has_its_stages() {
    let mut config = ServerConfig::default();
    // Longer than those before its end need to be served, on a machine that is busy.
    config.lame_duck = Duration::from_secs(4);
    with_each(&config, &AcceptConfig::new(), |server| {
        let (mut busy, mut idle) = (Peer::session(&server.address, ""), Peer::session(&server.address, ""));
        busy.send(["NOTIFY - 5 1 messages[..2] m a=int32:5"]);
        server.handle.drain();
        Peer::session(&server.address, "").ask();
        idle.ask();
        idle.expect_disconnect();
        busy.ask();
        busy.send(["UNSET fin 5 1 messages[2..] m a=int32:5"]);
        busy.expect("ACK fin 5 1 set txn m.a=int32:5");
        busy.expect_disconnect();
        assert!(Peer::connect(&server.address).is_err(), "{} listens in the drain", server.name);
        for mut peer in [busy, idle] {
            peer.shut();
            peer.expect_eof();
        }
        server.expect_end();
    });
}

#[test]
fn a_stop_waits_for_nothing() {
    with_each_default(|server| {
        let (mut busy, mut unknown) =
            (Peer::session(&server.address, ""), Peer::connect(&server.address).unwrap());
        busy.send(["NOTIFY fin 1 1 later"]);
        let _unanswered = server.request();
        server.handle.stop();
        server.expect_end();
        busy.expect_disconnect();
        unknown.expect_some_end();
    });
}

#[test]
fn limits_timeouts_and_the_accept_stage_apply() {
    let mut config = ServerConfig::default();
    config.max_connections = 2;
    // Longer than a session takes to begin, on a machine that is busy.
    let time = Duration::from_secs(4);
    config.agent.timeouts.hello = Some(time);
    let health = Monitor::new("GET /health ", "HTTP/1.0 200 OK\r\n\r\n");
    let mut accept = AcceptConfig::new().with(health).unwrap();
    accept.timeout = time;
    with_each(&config, &accept, |server| {
        let mut monitor = Peer::connect(&server.address).unwrap();
        monitor.stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        monitor.stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HTTP/1.0 200 OK\r\n\r\n");
        drop(monitor);
        assert!(soon(|| server.handle.stats().open == 0));
        let mut peer = Peer::session(&server.address, "");
        let mut silent = Peer::connect(&server.address).unwrap();
        assert!(soon(|| server.handle.stats().open == 2));
        let mut refused = Peer::connect(&server.address).unwrap();
        refused.expect_some_end();
        silent.expect_some_end();
        peer.ask();
        let stats = server.handle.stats();
        assert_eq!((stats.refused, stats.probes), (1, 1));
    });
}

#[test]
fn a_hundred_connections_at_once_are_served_and_forgotten() {
    with_each_default(|server| {
        for _ in 0..3 {
            let mut peers: Vec<_> = (0..100).map(|_| Peer::session(&server.address, "")).collect();
            for _ in 0..5 {
                for peer in &mut peers {
                    peer.send(["NOTIFY fin 1 1 m a=int32:1"]);
                }
                for peer in &mut peers {
                    peer.expect("ACK fin 1 1 set txn m.a=int32:1");
                }
            }
        }
        assert!(soon(|| server.handle.stats().open == 0));
    });
}

#[test]
fn the_programs_sleep_when_idle_and_drain_on_sigterm() {
    let programs = ["foreign-poll", "io-uring", "thread-per-connection"].map(|name| {
        let (child, address) = spawn(name);
        let (mut peer, mut unread) = (Peer::session(&address, ""), Peer::session(&address, ""));
        fill(&mut unread);
        peer.ask();
        (name, child, peer, unread)
    });
    // The timer for the memory of an idle connection goes off after a second.
    thread::sleep(Duration::from_millis(1_500));
    // How often the kernel wakes the threads of each in a second: the least of several, if the machine is busy.
    let mut least = [u64::MAX; 3];
    for _ in 0..3 {
        let before = programs.each_ref().map(|(_, child, ..)| switches(child.id()));
        thread::sleep(Duration::from_secs(1));
        for (((_, child, ..), before), least) in programs.iter().zip(before).zip(&mut least) {
            *least = (*least).min(switches(child.id()) - before);
        }
        if least.iter().all(|woken| *woken <= 3) {
            break;
        }
    }
    for ((name, mut child, mut peer, unread), woken) in programs.into_iter().zip(least) {
        assert!(woken <= 3, "{name} woke {woken} times in a second");
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        peer.expect_disconnect();
        drop((peer, unread));
        let mut ended = None;
        assert!(
            soon(|| {
                ended = child.try_wait().unwrap();
                ended.is_some()
            }),
            "{name} does not end"
        );
        assert!(ended.is_some_and(|status| status.success()), "{name} ended with {ended:?}");
    }
}

/// Starts the program of an example, which cargo has built with the tests.
fn spawn(name: &str) -> (Child, String) {
    let path: PathBuf =
        std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples").join(name);
    let mut child = Command::new(path).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().strip_prefix("listening on ").unwrap().to_owned())
}

/// How often the threads of a process have waited and gone on.
fn switches(id: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let of = |status: String| -> u64 {
        let value = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        value.trim().parse().unwrap()
    };
    tasks.map(|task| of(fs::read_to_string(task.unwrap().path().join("status")).unwrap())).sum()
}
