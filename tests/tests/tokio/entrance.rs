//! What connections pass before their sessions.

use std::time::Duration;

use crate::support::{Client, Running, log::Log, logged, until, within};
use spop_tokio::{
    Actions, AgentConfig, Endpoint, Request, Scope, Server,
    accept::{AcceptConfig, Monitor, Policy, SourceRules},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

async fn whence(request: Request) -> Actions {
    let mut actions = Actions::new();
    if let Some(source) = request.source() {
        actions.set_var(Scope::Transaction, "source", source.to_string().as_str());
    }
    if let Some(destination) = request.destination() {
        actions.set_var(Scope::Transaction, "destination", destination.to_string().as_str());
    }
    actions
}

async fn serve(config: AcceptConfig) -> Running {
    Running::on(whence, AgentConfig::default(), Endpoint::from("127.0.0.1:0").accept(config)).await
}

async fn expect_end(client: &mut Client<TcpStream>) {
    assert!(matches!(client.io.read(&mut [0]).await, Ok(0) | Err(_)), "the connection goes on");
}

#[tokio::test]
async fn a_forbidden_source_is_closed_and_named() {
    within(async {
        let log = Log::start();
        let rules = SourceRules::new(Policy::Allow).deny("127.0.0.0/8".parse().unwrap());
        let server = serve(AcceptConfig::new().with(rules).unwrap()).await;
        expect_end(&mut server.connect().await).await;
        let line = logged(&log).await;
        assert!(line.contains("127.0.0.1 is denied by the rule for 127.0.0.0/8"), "{line}");
        assert_eq!(server.handle.stats().rejected, 1);
    })
    .await;
}

#[tokio::test]
async fn a_probe_is_answered_and_a_session_goes_on() {
    within(async {
        let config = AcceptConfig::new().with(Monitor::new("ping\n", "pong\n")).unwrap();
        let server = serve(config).await;
        let mut probe = server.connect().await;
        probe.io.set_nodelay(true).unwrap();
        probe.io.write_all(b"pi").await.unwrap();
        until("it is accepted", || server.handle.stats().open == 1).await;
        probe.io.write_all(b"ng\n").await.unwrap();
        let mut answer = String::new();
        probe.io.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "pong\n");
        drop(probe);
        // Its first frame was in the hands of the monitor.
        let mut client = server.session().await;
        let source = client.io.local_addr().unwrap();
        client.ask("NOTIFY fin 0 1 m", &format!("ACK fin 0 1 set txn source=string:{source}")).await;
        until("it is counted", || server.handle.stats().probes == 1).await;
        assert_eq!(server.handle.stats().rejected, 0);
    })
    .await;
}

#[tokio::test]
async fn who_sends_nothing_is_closed_in_time() {
    within(async {
        let log = Log::start();
        let mut config = AcceptConfig::new().with(Monitor::new("ping\n", "pong\n")).unwrap();
        config.timeout = Duration::from_millis(50);
        let server = serve(config).await;
        expect_end(&mut server.connect().await).await;
        let line = logged(&log).await;
        assert!(line.contains("neither a probe nor a session from 127.0.0.1 within 50ms"), "{line}");
    })
    .await;
}

#[tokio::test]
async fn a_stop_ends_those_that_have_no_session_yet() {
    within(async {
        let config = AcceptConfig::new().with(Monitor::new("ping\n", "pong\n")).unwrap();
        let server = serve(config).await;
        let mut client = server.connect().await;
        until("it is accepted", || server.handle.stats().open == 1).await;
        server.handle.stop();
        expect_end(&mut client).await;
        server.task.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn listeners_have_entrances_of_their_own() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let rules = SourceRules::new(Policy::Deny);
        let closed = Endpoint::from("127.0.0.1:0").accept(AcceptConfig::new().with(rules.clone()).unwrap());
        let unix = Endpoint::from(path.as_path()).accept(AcceptConfig::new().with(rules).unwrap());
        let server = Server::new(whence).bind(closed).await.unwrap().bind(unix).await.unwrap();
        let address = server.addresses().unwrap()[0].tcp().unwrap();
        tokio::spawn(server.serve());
        expect_end(&mut Client::new(TcpStream::connect(address).await.unwrap())).await;
        let mut client = Client::new(UnixStream::connect(&path).await.unwrap());
        client.greet().await;
        client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1").await;
    })
    .await;
}

mod proxy {
    use spop_tokio::accept::{Addresses, ExpectProxy, ProxyVersion, encode_proxy_header};

    use super::*;

    fn header(version: ProxyVersion) -> Vec<u8> {
        let [source, destination] = ["203.0.113.9:4711", "192.0.2.1:443"]
            .map(|address| address.parse::<std::net::SocketAddr>().unwrap().into());
        let mut header = Vec::new();
        encode_proxy_header(version, Some(&Addresses { source, destination }), &mut header);
        header
    }

    #[tokio::test]
    async fn the_handler_learns_whom_a_proxy_announces() {
        within(async {
            let server = serve(AcceptConfig::new().with(ExpectProxy::new()).unwrap()).await;
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                for piece in [1, 7, 1_000] {
                    let mut client = server.connect().await;
                    client.io.set_nodelay(true).unwrap();
                    for bytes in header(version).chunks(piece) {
                        client.io.write_all(bytes).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    client.greet().await;
                    client
                        .ask(
                            "NOTIFY fin 0 1 m",
                            "ACK fin 0 1 set txn source=string:203.0.113.9:4711 ; set txn destination=string:192.0.2.1:443",
                        )
                        .await;
                }
            }
        })
        .await;
    }

    #[tokio::test]
    async fn rules_after_the_header_judge_whom_it_announces() {
        within(async {
            let log = Log::start();
            let rules = SourceRules::new(Policy::Allow).deny("203.0.113.0/24".parse().unwrap());
            let config = AcceptConfig::new().with(ExpectProxy::new()).unwrap().with(rules).unwrap();
            let server = serve(config).await;
            let mut client = server.connect().await;
            client.io.write_all(&header(ProxyVersion::V2)).await.unwrap();
            expect_end(&mut client).await;
            let line = logged(&log).await;
            let expected = "203.0.113.9, announced by 127.0.0.1, is denied by the rule for 203.0.113.0/24";
            assert!(line.contains(expected), "{line}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_missing_header_is_named() {
        within(async {
            let log = Log::start();
            let server = serve(AcceptConfig::new().with(ExpectProxy::new()).unwrap()).await;
            let mut client = server.connect().await;
            client
                .send("HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380")
                .await;
            expect_end(&mut client).await;
            let line = logged(&log).await;
            assert!(
                line.contains("127.0.0.1 began with SPOP, and this listener expects a PROXY header"),
                "{line}"
            );
        })
        .await;
    }
}
