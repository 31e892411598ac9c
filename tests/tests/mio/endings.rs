//! How connections and servers end, and what they survive.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use spop_core::config::ConfigError;
use spop_mio::{Actions, Address, AgentConfig, Request, Server, ServerConfig};

use crate::support::{Client, Running, bytes, echo::Echo, hand_out, log::Log, until, within};

fn empty(_: Request<'_>) -> Actions {
    Actions::new()
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_name() {
    let mut config = AgentConfig::default();
    config.limits.max_in_flight = 0;
    let error = Server::with_config(empty, config).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "`limits.max_in_flight` is 0, and must be at least 1");
    let inside = error.get_ref().and_then(|inside| inside.downcast_ref::<ConfigError>());
    assert_eq!(inside.map(|error| &*error.field), Some("limits.max_in_flight"));
    let error = Server::new(empty).workers(0).serve().unwrap_err();
    assert_eq!(error.to_string(), "`workers` is 0, and must be at least 1");
}

#[test]
fn a_run_is_told_at_level_info() {
    within(|| {
        let log = Log::with("info");
        let (handler, responders) = hand_out();
        // Each worker has a listener of its own for the address.
        let server = Running::with(handler, AgentConfig::default(), |server| server.workers(2));
        let (mut client, address) = (server.session(), server.address.clone());
        client.send("NOTIFY fin 1 1 m");
        let responder = responders.recv().unwrap();
        until(|| server.handle.connections().iter().any(|one| one.in_flight == 1));
        server.handle.drain();
        server.handle.stop();
        while client.receive().is_some() {}
        server.join();
        drop(responder);
        let lines = log.take();
        let [listening, draining, stopping, ended] = &lines[..] else { panic!("{lines:?}") };
        let expected = format!(" listening listener={address} tls=false proxy=false");
        assert!(listening.ends_with(&expected), "{listening}");
        assert!(draining.ends_with(" draining connections=1 requests=1"), "{draining}");
        assert!(stopping.ends_with(" stopping connections=1 requests=1"), "{stopping}");
        assert!(ended.contains(" ended took=") && ended.ends_with(" cut=1 lost=1 background=0"), "{ended}");
    });
}

#[test]
fn a_health_check_is_answered_and_closed() {
    within(|| {
        let server = Running::start(empty);
        let mut client = server.connect();
        client.send(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
             capabilities=string:\"\" healthcheck=bool:true",
        );
        assert!(client.receive().unwrap().starts_with("AGENT-HELLO"));
        assert_eq!(client.receive(), None);
    });
}

#[test]
fn a_disconnect_is_answered() {
    within(|| {
        let server = Running::start(empty);
        let mut client = server.session();
        client.send("NOTIFY fin 1 1 m\nHAPROXY-DISCONNECT fin 0 0 status-code=uint32:2 message=string:idle");
        client.expect("ACK fin 1 1\nAGENT-DISCONNECT fin 0 0 status-code=uint32:2 message=string:goodbye");
        assert_eq!(client.receive(), None);
    });
}

#[test]
fn bad_input_ends_its_own_connection_only() {
    within(|| {
        let server = Running::start(empty);
        let mut good = server.session();
        let requests: [&[u8]; 5] =
            [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100], &[0, 0, 0, 1, 3], &[0; 4], &bytes("ACK fin 1 1")];
        for request in requests {
            let mut bad = server.connect();
            bad.io.write_all(request).unwrap();
            let end = bad.receive().unwrap();
            assert!(end.starts_with("AGENT-DISCONNECT"), "{end}");
            assert_eq!(bad.receive(), None);
        }
        let mut bad = server.session();
        bad.send("NOTIFY fin 1 1 m");
        bad.io.write_all(&[0, 0, 0, 9, 3, 0, 0, 0, 1, 2, 1, 9, 9]).unwrap();
        bad.expect("ACK fin 1 1");
        let end = bad.receive().unwrap();
        assert!(end.starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:4"), "{end}");
        good.ask("NOTIFY fin 1 1 m", "ACK fin 1 1");
    });
}

#[test]
fn a_reset_is_survived() {
    within(|| {
        let server = Running::start(empty);
        for _ in 0..20 {
            let mut client = server.session();
            client.send("NOTIFY fin 1 1 m\nNOTIFY fin 2 1 m\nNOTIFY fin 3 1 m");
            // Answers that nobody has read make the kernel reset the connection.
            drop(client);
        }
        until(|| server.handle.stats().open == 0);
        server.session().ask("NOTIFY fin 1 1 m", "ACK fin 1 1");
    });
}

#[test]
fn a_peer_that_never_reads_is_not_buffered_for() {
    within(|| {
        let text = vec![b'x'; 10_000];
        let handler = move |_: Request<'_>| {
            let mut actions = Actions::new();
            actions.set_var(spop_mio::Scope::Session, "text", spop_mio::Value::String(&text));
            actions
        };
        let mut config = AgentConfig::default();
        config.timeouts.write = Some(Duration::from_millis(300));
        let server = Running::with(handler, config, |server| server.workers(1));
        let mut client = server.session();
        client.io.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let many = (0..1000).flat_map(|id| bytes(&format!("NOTIFY fin {id} 1 m"))).collect::<Vec<u8>>();
        // At some point nobody takes more, and some time after that the server gives up.
        while client.io.write_all(&many).is_ok() {}
        until(|| server.handle.stats().open == 0);
    });
}

#[test]
fn a_slow_reader_gets_everything() {
    within(|| {
        let text = vec![b'x'; 10_000];
        let handler = move |_: Request<'_>| {
            let mut actions = Actions::new();
            actions.set_var(spop_mio::Scope::Session, "text", spop_mio::Value::String(&text));
            actions
        };
        let server = Running::with(handler, AgentConfig::default(), |server| server.workers(1));
        let mut client = server.session();
        let mut writer = client.io.try_clone().unwrap();
        let sending = thread::spawn(move || {
            for id in 0..2000 {
                writer.write_all(&bytes(&format!("NOTIFY fin {id} 1 m"))).unwrap();
            }
        });
        until(|| server.handle.connections().iter().any(|connection| connection.outgoing > 0));
        for id in 0..2000 {
            assert!(client.receive().unwrap().starts_with(&format!("ACK fin {id} 1 ")));
        }
        sending.join().unwrap();
    });
}

#[test]
fn too_many_connections_are_closed_and_counted() {
    within(|| {
        let mut config = ServerConfig::default();
        config.max_connections = 3;
        let server = Running::with(empty, config, |server| server.workers(2));
        let mut kept: Vec<_> = (0..3).map(|_| server.session()).collect();
        for _ in 0..5 {
            let mut one = server.connect();
            assert_eq!(one.io.read(&mut [0; 1]).unwrap_or(0), 0);
        }
        let stats = server.handle.stats();
        assert_eq!((stats.open, stats.accepted, stats.refused), (3, 3, 5));
        drop(kept.pop());
        until(|| server.handle.stats().open == 2);
        server.session().ask("NOTIFY fin 1 1 m", "ACK fin 1 1");
        kept[0].ask("NOTIFY fin 1 1 m", "ACK fin 1 1");
    });
}

#[test]
fn a_drain_serves_until_nothing_is_owed() {
    within(|| {
        let (handler, responders) = hand_out();
        let server = Running::with(handler, AgentConfig::default(), |server| server.workers(2));
        let mut idle = server.session();
        let mut busy = server.session();
        busy.send("NOTIFY fin 1 1 m");
        let first = responders.recv().unwrap();
        server.handle.drain();
        assert!(idle.receive().unwrap().starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0"));
        assert_eq!(idle.receive(), None);
        // Nobody is let in any more, and who has work under way is served on.
        until(|| TcpStream::connect(server.address.tcp().unwrap()).is_err());
        busy.send("NOTIFY fin 2 1 m");
        let second = responders.recv().unwrap();
        first.reply(Actions::new());
        busy.expect("ACK fin 1 1");
        second.reply(Actions::new());
        busy.expect("ACK fin 2 1");
        assert!(busy.receive().unwrap().starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0"));
        assert_eq!(busy.receive(), None);
        drop((idle, busy));
        server.join();
    });
}

#[test]
fn a_drain_serves_those_that_were_not_accepted_yet() {
    within(|| {
        let (reached, handled) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let handler = move |request: Request<'_>| {
            if request.message("blocks").is_some() {
                reached.send(()).unwrap();
                released.lock().unwrap().recv().unwrap();
            }
            Actions::new()
        };
        let server = Running::start(handler);
        let mut busy = server.session();
        busy.send("NOTIFY fin 1 1 blocks");
        handled.recv().unwrap();
        let mut waiting: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for client in &mut waiting {
            client.send(
                "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining
                 NOTIFY fin 1 1 m",
            );
        }
        server.handle.drain();
        release.send(()).unwrap();
        busy.expect("ACK fin 1 1");
        for client in &mut waiting {
            assert!(client.receive().unwrap().starts_with("AGENT-HELLO"));
            client.expect("ACK fin 1 1");
            assert!(client.receive().unwrap().starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0"));
        }
        drop((busy, waiting));
        server.join();
    });
}

#[test]
fn a_drain_waits_for_work_in_the_background() {
    within(|| {
        let (keep, kept) = mpsc::channel();
        let handler = move |request: Request<'_>| {
            keep.send(request.background().unwrap()).unwrap();
            Actions::new()
        };
        let server = Running::with(handler, AgentConfig::default(), |server| server.workers(2));
        let mut client = server.session();
        client.ask("NOTIFY fin 1 1 m", "ACK fin 1 1");
        let background = kept.recv().unwrap();
        drop(client);
        let handle = server.handle.clone();
        handle.drain();
        until(|| handle.stats().open == 0);
        thread::sleep(Duration::from_millis(100));
        assert!(!server.is_finished());
        drop(background);
        server.join();
    });
}

#[test]
fn a_drain_has_an_end() {
    within(|| {
        let (handler, responders) = hand_out();
        let mut config = AgentConfig::default();
        config.timeouts.drain = Duration::from_millis(200);
        let server = Running::with(handler, config, |server| server.workers(1));
        let mut client = server.session();
        client.send("NOTIFY fin 1 1 m");
        let responder = responders.recv().unwrap();
        let start = Instant::now();
        server.handle.drain();
        let end = client.receive().unwrap();
        assert!(end.starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0"), "{end}");
        assert!(start.elapsed() >= Duration::from_millis(190));
        until(|| responder.is_cancelled());
        drop(client);
        server.join();
    });
}

#[test]
fn a_stop_is_at_once() {
    within(|| {
        let (handler, responders) = hand_out();
        let mut config = AgentConfig::default();
        // Whatever it could wait for takes far longer than a busy machine.
        config.timeouts.drain = Duration::from_secs(60);
        config.timeouts.linger = Duration::from_secs(60);
        let server = Running::with(handler, config, |server| server.workers(3));
        let mut clients: Vec<_> = (0..20).map(|_| server.session()).collect();
        for client in &mut clients {
            client.send("NOTIFY fin 1 1 m");
        }
        let kept: Vec<_> = responders.iter().take(20).collect();
        server.handle.drain();
        until(|| TcpStream::connect(server.address.tcp().unwrap()).is_err());
        let start = Instant::now();
        server.handle.stop();
        server.join();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        for client in &mut clients {
            let end = client.receive().unwrap();
            assert!(end.starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0"), "{end}");
        }
        for responder in kept {
            assert!(responder.is_cancelled());
            responder.reply(Actions::new());
        }
    });
}

#[test]
fn unix_sockets_are_served_replaced_and_removed() {
    within(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        // A process that died has left this.
        drop(UnixListener::bind(&path).unwrap());
        let server = Server::new(empty).workers(3).bind(path.as_path()).unwrap();
        assert_eq!(server.addresses().unwrap(), [Address::Unix(path.clone())]);
        // It is not replaced while somebody serves it.
        assert!(Server::new(empty).bind(path.as_path()).is_err());
        let handle = server.handle();
        let thread = thread::spawn(move || server.serve());
        let mut clients: Vec<_> = (0..9)
            .map(|_| {
                let mut client = Client::new(UnixStream::connect(&path).unwrap());
                client.greet("pipelining,async", "e");
                client
            })
            .collect();
        for round in 1..5 {
            for client in &mut clients {
                client.ask(&format!("NOTIFY fin {round} 1 m"), &format!("ACK fin {round} 1"));
            }
        }
        handle.drain();
        drop(clients);
        thread.join().unwrap().unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn what_is_no_socket_or_is_served_is_left_alone() {
    within(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(Server::new(empty).bind(path.as_path()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"data");

        let server = Running::start(empty);
        let address = server.address.to_string();
        let error = Server::new(empty).bind(address.as_str()).unwrap_err().to_string();
        assert!(error.contains(&address), "{error}");
        assert!(Server::new(empty).bind("no-such-host.invalid:1").is_err());
    });
}

#[test]
fn a_listener_that_is_open_already_is_shared_by_all_workers() {
    within(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(empty).workers(2).bind(listener).unwrap();
        let handle = server.handle();
        let thread = thread::spawn(move || server.serve());
        for _ in 0..4 {
            let mut client = Client::new(TcpStream::connect(address).unwrap());
            client.greet("pipelining,async", "e");
            client.ask("NOTIFY fin 1 1 m", "ACK fin 1 1");
        }
        handle.stop();
        thread.join().unwrap().unwrap();
    });
}

#[test]
fn two_thousand_idle_connections_do_not_slow_down_one_that_works() {
    within(|| {
        let [server, other] =
            [(); 2].map(|()| Running::with(empty, AgentConfig::default(), |server| server.workers(2)));
        let idle: Vec<_> = (0..2000).map(|_| server.session()).collect();
        until(|| server.handle.stats().open == 2000);
        let (mut busy, mut alone) = (server.session(), other.session());
        // By turns, so that both have the same machine; and the best of each, without what held it up.
        let [mut beside, mut by_itself] = [Duration::MAX; 2];
        for _ in 0..20 {
            for (client, best) in [(&mut busy, &mut beside), (&mut alone, &mut by_itself)] {
                let start = Instant::now();
                for id in 0..50 {
                    client.ask(&format!("NOTIFY fin {id} 1 m"), &format!("ACK fin {id} 1"));
                }
                *best = (*best).min(start.elapsed());
            }
        }
        assert!(beside < by_itself * 4, "{beside:?} instead of {by_itself:?}");
        drop(idle);
        until(|| server.handle.stats().open == 1);
    });
}

#[test]
fn a_server_without_file_descriptors_waits_for_some() {
    within(|| {
        let (echo, address) = Echo::start("ulimit -n 24;", "--workers 1");
        let mut clients: Vec<_> =
            (0..40).map(|_| Client::new(TcpStream::connect(&address).unwrap())).collect();
        clients[0].greet("pipelining,async", "e");
        until(|| std::fs::read_dir(format!("/proc/{}/fd", echo.0.id())).unwrap().count() >= 24);
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", echo.0.id())).unwrap();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        // How much of the processor it uses meanwhile.
        let before = ticks();
        thread::sleep(Duration::from_millis(500));
        assert!(ticks() - before < 10, "it spins");
        clients[0].ask("NOTIFY fin 1 1 m x=int32:1", "ACK fin 1 1 set txn m.x=int32:1");
        // Those in front leave, and those behind are let in.
        let mut last = clients.pop().unwrap();
        drop(clients);
        last.greet("pipelining,async", "e");
    });
}

#[test]
fn the_echo_agent_sleeps_without_holding_others_up_and_ends_on_signals() {
    within(|| {
        let (mut echo, address) = Echo::start("", "--workers 1 --score --hello-timeout 4000");
        let mut client = Client::new(TcpStream::connect(&address).unwrap());
        client.greet("pipelining,async", "e");
        client.ask("NOTIFY fin 1 1 sleep ms=int32:60000", "ACK fin 1 1 set txn score=int32:42");
        echo.signal("-TERM");
        assert!(client.receive().unwrap().starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0"));
        drop(client);
        assert!(echo.0.wait().unwrap().success());

        let (mut echo, address) = Echo::start("", "--workers 1");
        let mut client = Client::new(TcpStream::connect(&address).unwrap());
        client.greet("pipelining,async", "e");
        client.send("NOTIFY fin 1 1 sleep ms=int32:200\nNOTIFY fin 2 1 m x=int32:2\nNOTIFY fin 3 1 fail");
        client.expect("ACK fin 2 1 set txn m.x=int32:2\nACK fin 3 1\nACK fin 1 1");
        client.send("NOTIFY fin 1 1 sleep ms=int32:60000");
        client.ask("NOTIFY fin 2 1 m x=int32:2", "ACK fin 2 1 set txn m.x=int32:2");
        echo.signal("-INT");
        until(|| TcpStream::connect(&address).is_err());
        assert!(echo.0.try_wait().unwrap().is_none(), "it does not wait for what it owes");
        echo.signal("-TERM");
        assert!(echo.0.wait().unwrap().success());
    });
}
