//! What connections pass before their sessions.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use spop_mio::{
    Actions, Endpoint, Request, Scope, Server,
    accept::{AcceptConfig, Monitor, Policy, SourceRules},
};

use crate::support::{Client, Running, log::Log, logged, until, within};

fn whence(request: Request<'_>) -> Actions {
    let mut actions = Actions::new();
    if let Some(source) = request.source() {
        actions.set_var(Scope::Transaction, "source", source.to_string().as_str());
    }
    if let Some(destination) = request.destination() {
        actions.set_var(Scope::Transaction, "destination", destination.to_string().as_str());
    }
    actions
}

fn serve(config: AcceptConfig) -> Running {
    Running::on(whence, Endpoint::from("127.0.0.1:0").accept(config))
}

fn pings() -> AcceptConfig {
    AcceptConfig::new().with(Monitor::new("ping\n", "pong\n")).unwrap()
}

#[test]
fn a_forbidden_source_is_closed_and_named() {
    within(|| {
        let log = Log::start();
        let rules = SourceRules::new(Policy::Allow).deny("127.0.0.0/8".parse().unwrap());
        let server = serve(AcceptConfig::new().with(rules).unwrap());
        server.connect().expect_end();
        let line = logged(&log);
        assert!(line.contains("127.0.0.1 is denied by the rule for 127.0.0.0/8"), "{line}");
        assert_eq!(server.handle.stats().rejected, 1);
        until(|| server.handle.stats().open == 0);
    });
}

#[test]
fn a_probe_is_answered_and_a_session_goes_on() {
    within(|| {
        let server = serve(pings());
        let mut probe = server.connect();
        probe.io.write_all(b"pi").unwrap();
        until(|| server.handle.stats().open == 1);
        probe.io.write_all(b"ng\n").unwrap();
        let mut answer = String::new();
        probe.io.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "pong\n");
        drop(probe);
        // Its first frame was in the hands of the monitor.
        let mut client = server.session();
        let source = client.io.local_addr().unwrap();
        client.ask("NOTIFY fin 0 1 m", &format!("ACK fin 0 1 set txn source=string:{source}"));
        until(|| server.handle.stats().probes == 1);
        let stats = server.handle.stats();
        assert_eq!((stats.rejected, stats.open, stats.accepted), (0, 1, 2));
    });
}

#[test]
fn who_sends_nothing_is_closed_in_time() {
    within(|| {
        let log = Log::start();
        let mut config = pings();
        config.timeout = Duration::from_millis(100);
        let server = serve(config);
        let start = Instant::now();
        let mut silent = server.connect();
        silent.expect_end();
        assert!(start.elapsed() >= Duration::from_millis(90));
        let line = logged(&log);
        assert!(line.contains("neither a probe nor a session from 127.0.0.1 within 100ms"), "{line}");
    });
}

#[test]
fn a_probe_that_stays_is_closed_in_time() {
    within(|| {
        let mut config = pings();
        config.linger = Duration::from_millis(100);
        let server = serve(config);
        let mut probe = server.connect();
        probe.io.write_all(b"ping\n").unwrap();
        probe.io.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(probe.io.read(&mut [0]).unwrap(), 0);
        // It goes on sending, and is not listened to for ever.
        until(|| probe.io.write_all(&[0; 1000]).is_err());
        until(|| server.handle.stats().probes == 1 && server.handle.stats().open == 0);
    });
}

#[test]
fn who_comes_and_goes_is_no_event() {
    within(|| {
        let log = Log::start();
        let server = serve(pings());
        for _ in 0..10 {
            drop(server.connect());
        }
        let client = server.connect();
        client.io.shutdown(Shutdown::Write).unwrap();
        until(|| server.handle.stats().probes == 11);
        assert!(log.take().is_empty());
    });
}

#[test]
fn those_who_wait_hold_nobody_up() {
    within(|| {
        let mut config = pings();
        // None of them has had its time before the last is there.
        config.timeout = Duration::from_secs(60);
        let server = serve(config);
        let _silent: Vec<_> = (0..300).map(|_| server.connect()).collect();
        until(|| server.handle.stats().open == 300);
        let mut client = server.session();
        let source = client.io.local_addr().unwrap();
        for id in 0..100 {
            client.ask(
                &format!("NOTIFY fin {id} 1 m"),
                &format!("ACK fin {id} 1 set txn source=string:{source}"),
            );
        }
    });
}

#[test]
fn a_stop_ends_those_that_have_no_session_yet() {
    within(|| {
        let server = serve(pings());
        let mut client = server.connect();
        until(|| server.handle.stats().open == 1);
        server.handle.stop();
        client.expect_end();
        server.join();
    });
}

#[test]
fn in_a_drain_a_monitor_that_has_come_gets_no_answer() {
    within(|| {
        let server = serve(pings());
        let mut client = server.connect();
        client.io.write_all(b"pi").unwrap();
        until(|| server.handle.stats().open == 1);
        server.handle.drain();
        until(|| TcpStream::connect(server.address.tcp().unwrap()).is_err());
        client.io.write_all(b"ng\n").unwrap();
        let mut answer = String::new();
        client.io.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "", "a monitor would believe that all is well");
        drop(client);
        server.join();
    });
}

#[test]
fn listeners_have_entrances_of_their_own() {
    within(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let rules = SourceRules::new(Policy::Deny);
        let closed = Endpoint::from("127.0.0.1:0").accept(AcceptConfig::new().with(rules.clone()).unwrap());
        let unix = Endpoint::from(path.as_path()).accept(AcceptConfig::new().with(rules).unwrap());
        // With two workers those of the unix socket go round before they enter.
        let server = Server::new(whence).workers(2).bind(closed).unwrap().bind(unix).unwrap();
        let address = server.addresses().unwrap()[0].tcp().unwrap();
        let _server = Running::serve(server);
        Client::new(TcpStream::connect(address).unwrap()).expect_end();
        for _ in 0..4 {
            let mut client = Client::new(UnixStream::connect(&path).unwrap());
            client.greet("pipelining,async", "e1");
            client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1");
        }
    });
}

mod proxy {
    use spop_mio::accept::{Addresses, ExpectProxy, ProxyVersion, encode_proxy_header};

    use super::*;
    use crate::support::bytes;

    fn header(version: ProxyVersion) -> Vec<u8> {
        let [source, destination] = ["203.0.113.9:4711", "192.0.2.1:443"]
            .map(|address| address.parse::<std::net::SocketAddr>().unwrap().into());
        let mut header = Vec::new();
        encode_proxy_header(version, Some(&Addresses { source, destination }), &mut header);
        header
    }

    const ANSWER: &str =
        "ACK fin 0 1 set txn source=string:203.0.113.9:4711 ; set txn destination=string:192.0.2.1:443";

    #[test]
    fn the_handler_learns_whom_a_proxy_announces() {
        within(|| {
            let server = serve(AcceptConfig::new().with(ExpectProxy::new()).unwrap());
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                for piece in [1, 7, 1_000] {
                    let mut client = server.connect();
                    for bytes in header(version).chunks(piece) {
                        client.io.write_all(bytes).unwrap();
                        thread::yield_now();
                    }
                    client.greet("pipelining,async", "e1");
                    client.ask("NOTIFY fin 0 1 m", ANSWER);
                }
            }
        });
    }

    #[test]
    fn a_session_that_comes_with_its_header_is_not_kept_waiting() {
        within(|| {
            let server = serve(AcceptConfig::new().with(ExpectProxy::new()).unwrap());
            let mut client = server.connect();
            let mut all = header(ProxyVersion::V2);
            all.extend(bytes(
                "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining,async
                 NOTIFY fin 0 1 m
                 HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye",
            ));
            client.io.write_all(&all).unwrap();
            client.io.shutdown(Shutdown::Write).unwrap();
            assert!(client.receive().unwrap().starts_with("AGENT-HELLO"));
            client.expect(ANSWER);
            assert!(client.receive().unwrap().starts_with("AGENT-DISCONNECT"));
            assert_eq!(client.receive(), None);
        });
    }

    #[test]
    fn rules_after_the_header_judge_whom_it_announces() {
        within(|| {
            let log = Log::start();
            let rules = SourceRules::new(Policy::Allow).deny("203.0.113.0/24".parse().unwrap());
            let config = AcceptConfig::new().with(ExpectProxy::new()).unwrap().with(rules).unwrap();
            let server = serve(config);
            let mut client = server.connect();
            client.io.write_all(&header(ProxyVersion::V2)).unwrap();
            client.expect_end();
            let line = logged(&log);
            let expected = "203.0.113.9, announced by 127.0.0.1, is denied by the rule for 203.0.113.0/24";
            assert!(line.contains(expected), "{line}");
        });
    }

    #[test]
    fn a_missing_header_is_named() {
        within(|| {
            let log = Log::start();
            let server = serve(AcceptConfig::new().with(ExpectProxy::new()).unwrap());
            let mut client = server.connect();
            client.send("HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380");
            client.expect_end();
            let line = logged(&log);
            assert!(
                line.contains("127.0.0.1 began with SPOP, and this listener expects a PROXY header"),
                "{line}"
            );
        });
    }
}
