//! TLS, with real handshakes.

use std::{fs, path::Path, sync::Arc, time::Duration};

use crate::support::{
    Client, Running,
    log::Log,
    logged,
    pki::{Ca, Leaf, Setting, ca, leaf},
    until, within,
};
use spop_tokio::{
    Actions, AgentConfig, Endpoint, Request, Scope,
    accept::{AcceptConfig, AcceptHandler, Monitor},
    tls::{Tls, TlsFiles},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{PrivateKeyDer, ServerName},
    },
};

async fn serve(files: TlsFiles) -> (Running, Tls) {
    let tls = Tls::from_files(files).unwrap();
    let endpoint = Endpoint::from("127.0.0.1:0").tls(&tls);
    (Running::on(whom, AgentConfig::default(), endpoint).await, tls)
}

fn trusting(servers: &Ca, identity: Option<&Leaf>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(servers.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => config.with_no_client_auth(),
        Some(Leaf { certificate, key }) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            config.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    })
}

async fn connect(
    server: &Running,
    config: Arc<ClientConfig>,
) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let socket = TcpStream::connect(server.address.tcp().unwrap()).await?;
    let name = ServerName::try_from("agent.example").unwrap();
    Ok(Client::new(TlsConnector::from(config).connect(name, socket).await?))
}

async fn session(server: &Running, config: Arc<ClientConfig>) -> Client<TlsStream<TcpStream>> {
    let mut client = connect(server, config).await.unwrap();
    client.greet().await;
    client
}

/// How many certificates the client has shown, and the name it asked for.
async fn whom(request: Request) -> Actions {
    let mut actions = Actions::new();
    if let Some(tls) = request.tls() {
        actions.set_var(Scope::Transaction, "certificates", tls.certificates.len() as u64);
        actions.set_var(Scope::Transaction, "name", tls.server_name.as_deref().unwrap_or_default());
    }
    actions
}

const ANSWER_0: &str = "ACK fin 0 1 set txn certificates=uint64:0 ; set txn name=string:agent.example";
const ANSWER_1: &str = "ACK fin 0 1 set txn certificates=uint64:1 ; set txn name=string:agent.example";

/// With TLS 1.3 a client learns from its first read that it was refused.
async fn expect_refused(server: &Running, config: Arc<ClientConfig>) {
    if let Ok(mut client) = connect(server, config).await {
        assert!(client.io.read(&mut [0]).await.is_err());
    }
}

#[tokio::test]
async fn sessions_run_inside_tls() {
    within(async {
        let setting = Setting::new();
        let (server, _) = serve(setting.files()).await;
        let mut client = session(&server, trusting(&setting.servers, None)).await;
        client.ask("NOTIFY fin 0 1 m", ANSWER_0).await;
        // More than a record, and more than one read.
        let long: Vec<_> = (2..40).map(|id| format!("NOTIFY fin {id} 1 m a=string:\"b\"*15000")).collect();
        client.send(&long.join("\n")).await;
        for _ in 2..40 {
            assert!(client.receive().await.unwrap().starts_with("ACK fin"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_closed_session_says_so_in_every_layer() {
    within(async {
        let setting = Setting::new();
        let (server, _) = serve(setting.files()).await;
        let mut client = session(&server, trusting(&setting.servers, None)).await;
        client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").await;
        assert!(client.receive().await.unwrap().starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0"));
        // Without a close_notify, rustls calls the end of the socket an error.
        assert_eq!(client.io.read(&mut [0]).await.unwrap(), 0);
        client.io.shutdown().await.unwrap();
        until("it is gone", || server.handle.stats().open == 0).await;
    })
    .await;
}

#[tokio::test]
async fn clients_are_asked_for_certificates() {
    within(async {
        let log = Log::start();
        let setting = Setting::new();
        let (known, foreign) = (leaf(&setting.clients, "haproxy"), leaf(&ca("others"), "haproxy"));

        let files = setting.files().ask_clients_of(setting.path("clients.pem"));
        let (server, _) = serve(files).await;
        session(&server, trusting(&setting.servers, None)).await.ask("NOTIFY fin 0 1 m", ANSWER_0).await;
        session(&server, trusting(&setting.servers, Some(&known)))
            .await
            .ask("NOTIFY fin 0 1 m", ANSWER_1)
            .await;
        expect_refused(&server, trusting(&setting.servers, Some(&foreign))).await;
        let line = logged(&log).await;
        assert!(line.contains("TLS with 127.0.0.1:") && line.contains("invalid peer certificate"), "{line}");

        let files = setting.files().require_clients_of(setting.path("clients.pem"));
        let (server, _) = serve(files).await;
        session(&server, trusting(&setting.servers, Some(&known)))
            .await
            .ask("NOTIFY fin 0 1 m", ANSWER_1)
            .await;
        expect_refused(&server, trusting(&setting.servers, None)).await;
        let line = logged(&log).await;
        assert!(line.contains("peer sent no certificates"), "{line}");
        assert_eq!(server.handle.stats().rejected, 1);

        // The client is the one that refuses here.
        expect_refused(&server, trusting(&ca("others"), Some(&known))).await;
        let line = logged(&log).await;
        assert!(line.contains("received fatal alert"), "{line}");
    })
    .await;
}

#[tokio::test]
async fn plain_text_and_silence_end_with_a_line() {
    within(async {
        let log = Log::start();
        let setting = Setting::new();
        let (server, _) = serve(setting.files()).await;
        let spop = spop_core::notation::parse_bytes("HAPROXY-HELLO fin 0 0").unwrap();
        for (bytes, error) in [
            (&spop[..], "failed: plain SPOP on a TLS listener: add `ssl` to HAProxy's server line"),
            (b"GET / HTTP/1.1\r\n\r\n", "failed: received corrupt message"),
        ] {
            let mut client = server.connect().await;
            client.io.write_all(bytes).await.unwrap();
            assert!(!matches!(client.io.read_to_end(&mut Vec::new()).await, Ok(100..)));
            let line = logged(&log).await;
            assert!(line.contains("TLS with 127.0.0.1:") && line.contains(error), "{line}");
        }

        let mut config = AcceptConfig::new();
        config.timeout = Duration::from_millis(50);
        let tls = Tls::from_files(setting.files()).unwrap();
        let endpoint = Endpoint::from("127.0.0.1:0").accept(config).tls(&tls);
        let server = Running::on(whom, AgentConfig::default(), endpoint).await;
        let mut client = server.connect().await;
        assert_eq!(client.io.read(&mut [0]).await.unwrap(), 0);
        let line = logged(&log).await;
        assert!(line.contains("TLS with 127.0.0.1 was not done within 50ms"), "{line}");
    })
    .await;
}

#[tokio::test]
async fn a_rotation_under_load_loses_nothing() {
    within(async {
        let setting = Setting::new();
        let gate = Arc::new(Semaphore::new(0));
        let open_gate = Arc::clone(&gate);
        // Stream 1 waits.
        let handler = move |request: Request| {
            let gate = Arc::clone(&gate);
            async move {
                if request.stream_id() == 1 {
                    gate.acquire().await.unwrap().forget();
                }
                whom(request).await
            }
        };
        let tls = Tls::from_files(setting.files()).unwrap();
        let endpoint = Endpoint::from("127.0.0.1:0").tls(&tls);
        let server = Running::on(handler, AgentConfig::default(), endpoint).await;
        let mut open = Vec::new();
        for _ in 0..5 {
            let mut client = session(&server, trusting(&setting.servers, None)).await;
            client.send("NOTIFY fin 1 1 m").await;
            open.push(client);
        }
        let mut shown = Vec::new();
        for _ in 0..10 {
            let renewed = setting.renew();
            tls.reload().unwrap();
            let mut client = session(&server, trusting(&setting.servers, None)).await;
            client.send("NOTIFY fin 1 1 m").await;
            let certificates = client.io.get_ref().1.peer_certificates().unwrap().to_vec();
            assert_eq!(certificates, std::slice::from_ref(&renewed));
            shown.push(renewed);
            open.push(client);
        }
        shown.dedup();
        assert_eq!(shown.len(), 10);
        open_gate.add_permits(open.len());
        for client in &mut open {
            assert!(client.receive().await.unwrap().starts_with("ACK fin 1 1"));
            client.ask("NOTIFY fin 0 1 m", ANSWER_0).await;
        }
        let stats = server.handle.stats();
        assert_eq!((stats.open, stats.rejected), (15, 0));
    })
    .await;
}

#[tokio::test]
async fn a_probe_inside_tls_may_end_without_a_word() {
    within(async {
        let setting = Setting::new();
        let config = AcceptConfig::new()
            .with(AcceptHandler::Tls)
            .unwrap()
            .with(Monitor::new("ping\n", "pong\n"))
            .unwrap();
        let tls = Tls::from_files(setting.files()).unwrap();
        let endpoint = Endpoint::from("127.0.0.1:0").accept(config).tls(&tls);
        let server = Running::on(whom, AgentConfig::default(), endpoint).await;
        let mut client = connect(&server, trusting(&setting.servers, None)).await.unwrap();
        client.io.write_all(b"ping\n").await.unwrap();
        let mut answer = [0; 5];
        client.io.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong\n");
        drop(client);
        until("it is counted", || server.handle.stats().probes + server.handle.stats().rejected > 0).await;
        assert_eq!((server.handle.stats().probes, server.handle.stats().rejected), (1, 0));
    })
    .await;
}

#[test]
fn files_that_are_unusable_are_named() {
    let setting = Setting::new();
    let unusable = |files: TlsFiles| Tls::from_files(files).unwrap_err().to_string();
    let key = setting.path("agent.pem");
    let error = unusable(TlsFiles::new(setting.path("none.pem"), &key));
    assert!(error.contains("none.pem: "), "{error}");
    fs::write(setting.path("empty.pem"), "nothing").unwrap();
    let error = unusable(TlsFiles::new(setting.path("empty.pem"), &key));
    assert!(error.contains("empty.pem: it has no certificate"), "{error}");
    let error = unusable(TlsFiles::new(&key, setting.path("clients.pem")));
    assert!(error.contains("clients.pem: "), "{error}");
    let other = leaf(&setting.servers, "agent.example");
    fs::write(setting.path("other.pem"), other.key.serialize_pem()).unwrap();
    let error = unusable(TlsFiles::new(&key, setting.path("other.pem")));
    assert!(error.contains("agent.pem: "), "{error}");
    // What fails changes nothing.
    let tls = Tls::from_files(setting.files()).unwrap();
    fs::remove_file(&key).unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("agent.pem: ") && !Path::new(&key).exists(), "{error}");
}
