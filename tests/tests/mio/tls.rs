//! TLS, with real handshakes.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use spop_core::Clock;
use spop_mio::{
    Actions, Endpoint, Peer, Request, Scope, ServerConfig,
    accept::{AcceptConfig, Monitor},
    tls::{
        Tls, TlsFiles,
        rustls::{
            ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
            crypto::ring,
            pki_types::{PrivateKeyDer, ServerName},
            version::{TLS12, TLS13},
        },
    },
};
use spop_server::{Agent, Driver, Entrance, ReadBuffer, Stream, Turn};

use crate::support::{
    Client, Running, bytes, hand_out,
    log::Log,
    logged,
    pki::{Ca, Leaf, Setting, ca, leaf},
    until, within,
};

type Secured = Client<StreamOwned<ClientConnection, TcpStream>>;

impl Setting {
    fn client(&self, identity: Option<&Leaf>) -> Arc<ClientConfig> {
        trusting(&self.servers, identity, &[&TLS12, &TLS13])
    }
}

fn serve(files: TlsFiles, config: AcceptConfig) -> (Running, Tls) {
    let tls = Tls::from_files(files).unwrap();
    (Running::on(whom, Endpoint::from("127.0.0.1:0").accept(config).tls(&tls)), tls)
}

fn trusting(
    servers: &Ca,
    identity: Option<&Leaf>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(servers.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
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

fn connect(server: &Running, config: Arc<ClientConfig>) -> io::Result<Secured> {
    let mut socket = server.connect().io;
    let name = ServerName::try_from("agent.example").unwrap();
    let mut session = ClientConnection::new(config, name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(Client::new(StreamOwned::new(session, socket)))
}

fn session(server: &Running, config: Arc<ClientConfig>) -> Secured {
    let mut client = connect(server, config).unwrap();
    client.greet("pipelining,async", "e1");
    client
}

/// How many certificates the client has shown, and the name it asked for.
fn whom(request: Request<'_>) -> Actions {
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
fn expect_refused(server: &Running, config: Arc<ClientConfig>) {
    if let Ok(mut client) = connect(server, config) {
        assert!(client.io.read(&mut [0]).is_err());
    }
}

#[test]
fn sessions_run_inside_tls() {
    within(|| {
        let setting = Setting::new();
        let (server, _) = serve(setting.files(), AcceptConfig::new());
        for version in [&TLS12, &TLS13] {
            let mut client = session(&server, trusting(&setting.servers, None, &[version]));
            client.ask("NOTIFY fin 0 1 m", ANSWER_0);
            // More than a record, and more than one read.
            let long: Vec<_> =
                (2..40).map(|id| format!("NOTIFY fin {id} 1 m a=string:\"b\"*15000")).collect();
            client.send(&long.join("\n"));
            for _ in 2..40 {
                assert!(client.receive().unwrap().starts_with("ACK fin"));
            }
        }
    });
}

#[test]
fn records_that_arrive_byte_by_byte_are_put_together() {
    within(|| {
        let setting = Setting::new();
        let (server, _) = serve(setting.files(), AcceptConfig::new());
        let mut client = session(&server, setting.client(None));
        let StreamOwned { conn, sock } = &mut client.io;
        conn.writer().write_all(&bytes("NOTIFY fin 0 1 m\nNOTIFY fin 0 2 m")).unwrap();
        let mut records = Vec::new();
        conn.write_tls(&mut records).unwrap();
        for byte in records {
            sock.write_all(&[byte]).unwrap();
        }
        client.expect(ANSWER_0);
        assert!(client.receive().unwrap().starts_with("ACK fin 0 2"));
    });
}

#[test]
fn a_closed_session_says_so_in_every_layer() {
    within(|| {
        let setting = Setting::new();
        let tls = Tls::from_files(setting.files()).unwrap();
        let mut config = ServerConfig::default();
        // Nothing ends because it took too long.
        config.agent.timeouts.linger = Duration::from_secs(60);
        let server = spop_mio::Server::with_config(whom, config).unwrap().workers(1);
        let server = Running::serve(server.bind(Endpoint::from("127.0.0.1:0").tls(&tls)).unwrap());
        let mut client = session(&server, setting.client(None));
        client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye");
        assert!(client.receive().unwrap().starts_with("AGENT-DISCONNECT fin 0 0 status-code=uint32:0"));
        // It waits for this side to close first.
        client.io.sock.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let waits = client.io.read(&mut [0]).unwrap_err();
        assert!(matches!(waits.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waits}");
        client.io.sock.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(server.handle.stats().open, 1);
        client.io.conn.send_close_notify();
        client.io.flush().unwrap();
        // Without a close_notify, rustls calls the end of the socket an error.
        assert_eq!(client.io.read(&mut [0]).unwrap(), 0);
        assert_eq!(client.io.sock.read(&mut [0]).unwrap(), 0);
        until(|| server.handle.stats().open == 0);
    });
}

#[test]
fn a_slow_reader_gets_everything_and_the_end_as_well() {
    within(|| {
        let setting = Setting::new();
        let text = vec![b'x'; 12_000];
        let handler = move |_: Request<'_>| {
            let mut actions = Actions::new();
            actions.set_var(Scope::Session, "text", spop_mio::Value::String(&text));
            actions
        };
        let tls = Tls::from_files(setting.files()).unwrap();
        let server = spop_mio::Server::new(handler).workers(1);
        let server = Running::serve(server.bind(Endpoint::from("127.0.0.1:0").tls(&tls)).unwrap());
        let mut client = session(&server, setting.client(None));
        let mut requests: Vec<_> = (0..1000).map(|id| format!("NOTIFY fin {id} 1 m")).collect();
        requests.push("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye".to_owned());
        client.send(&requests.join("\n"));
        // The socket takes no more, and records wait.
        until(|| server.handle.connections().iter().any(|connection| connection.outgoing > 0));
        for id in 0..1000 {
            assert!(client.receive().unwrap().starts_with(&format!("ACK fin {id} 1 ")));
        }
        assert!(client.receive().unwrap().starts_with("AGENT-DISCONNECT"));
        assert_eq!(client.io.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_connection_of_ones_own_runs_inside_tls() {
    within(|| {
        let setting = Setting::new();
        let tls = Tls::from_files(setting.files()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            // Streams that block do as well: a thread for each.
            let mut stream = listener.accept().unwrap().0;
            let entrance = Arc::new(Entrance::with_tls(AcceptConfig::new(), tls).unwrap());
            let agent = Agent::new(ServerConfig::default(), Clock::start()).unwrap();
            let conn = agent.accept(agent.clock().now(), Peer::unnamed(), Some(&entrance)).unwrap();
            let (mut driver, mut buffer) = (Driver::new(conn), ReadBuffer::new());
            let mut handler = |_: Request<'_>| Actions::new();
            loop {
                driver.ready(true, true);
                let now = agent.clock().now();
                if driver.turn(now, Some(&mut stream), &mut buffer, &mut handler) == Turn::Over {
                    break;
                }
            }
        });
        let socket = TcpStream::connect(address).unwrap();
        let name = ServerName::try_from("agent.example").unwrap();
        let session = ClientConnection::new(setting.client(None), name).unwrap();
        let mut client = Client::new(StreamOwned::new(session, socket));
        client.greet("pipelining,async", "e1");
        client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1");
        client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye");
        assert!(client.receive().unwrap().starts_with("AGENT-DISCONNECT"));
        client.io.conn.send_close_notify();
        client.io.flush().unwrap();
        assert_eq!(client.io.read(&mut [0]).unwrap(), 0);
        drop(client);
        serving.join().unwrap();
    });
}

#[test]
fn two_hundred_handshakes_at_once_are_all_done() {
    within(|| {
        let setting = Setting::new();
        let mut accept = AcceptConfig::new();
        accept.timeout = Duration::from_secs(20);
        let (server, _) = serve(setting.files(), accept);
        let mut client = session(&server, setting.client(None));
        // Each has sent the beginning of its handshake when the others have.
        let storm: Vec<_> = (0..200)
            .map(|_| {
                let mut socket = server.connect().io;
                let name = ServerName::try_from("agent.example").unwrap();
                let mut session = ClientConnection::new(setting.client(None), name).unwrap();
                session.write_tls(&mut socket).unwrap();
                (session, socket)
            })
            .collect();
        client.ask("NOTIFY fin 0 1 m", ANSWER_0);
        for (mut session, mut socket) in storm {
            while session.is_handshaking() {
                session.complete_io(&mut socket).unwrap();
            }
        }
        until(|| server.handle.stats().open == 1);
        assert_eq!(server.handle.stats().accepted, 201);
    });
}

#[test]
fn a_probe_inside_tls_is_answered() {
    within(|| {
        let setting = Setting::new();
        let config = AcceptConfig::new()
            .with(spop_mio::accept::AcceptHandler::Tls)
            .unwrap()
            .with(Monitor::new("ping\n", "pong\n"))
            .unwrap();
        let (server, _) = serve(setting.files(), config);
        let mut client = connect(&server, setting.client(None)).unwrap();
        client.io.write_all(b"ping\n").unwrap();
        let mut answer = String::new();
        client.io.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "pong\n");
        drop(client);
        until(|| server.handle.stats().probes == 1);
        session(&server, setting.client(None)).ask("NOTIFY fin 0 1 m", ANSWER_0);
    });
}

#[test]
fn a_proxy_header_comes_before_tls() {
    use spop_mio::accept::{Addresses, ExpectProxy, ProxyVersion, encode_proxy_header};

    within(|| {
        let setting = Setting::new();
        let config = AcceptConfig::new().with(ExpectProxy::new()).unwrap();
        let tls = Tls::from_files(setting.files()).unwrap();
        let source = |request: Request<'_>| {
            let mut actions = Actions::new();
            let source = request.source().unwrap().to_string();
            actions.set_var(Scope::Transaction, "source", source.as_str());
            actions
        };
        let server = Running::on(source, Endpoint::from("127.0.0.1:0").accept(config).tls(&tls));
        let [source, destination] = ["203.0.113.9:4711", "192.0.2.1:443"]
            .map(|address| address.parse::<std::net::SocketAddr>().unwrap().into());
        let mut first = Vec::new();
        encode_proxy_header(ProxyVersion::V2, Some(&Addresses { source, destination }), &mut first);
        let mut socket = server.connect().io;
        let name = ServerName::try_from("agent.example").unwrap();
        let mut tls = ClientConnection::new(setting.client(None), name).unwrap();
        // In one segment with the beginning of the handshake.
        tls.write_tls(&mut first).unwrap();
        socket.write_all(&first).unwrap();
        let mut client = Client::new(StreamOwned::new(tls, socket));
        client.greet("pipelining,async", "e1");
        client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn source=string:203.0.113.9:4711");
    });
}

/// A client in memory: it answers within the calls of the server, as a fast one seems to.
struct Immediate {
    client: ClientConnection,
    sends: Vec<u8>,
    /// To be sent with the end of the handshake.
    last: Vec<u8>,
    received: Vec<u8>,
}

impl io::Read for Immediate {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.sends.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = self.sends.as_slice().read(space)?;
        self.sends.drain(..n);
        Ok(n)
    }
}

impl io::Write for Immediate {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len();
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes)?;
            self.client.process_new_packets().unwrap();
        }
        if !self.client.is_handshaking() {
            self.client.writer().write_all(&std::mem::take(&mut self.last))?;
        }
        while self.client.wants_write() {
            self.client.write_tls(&mut self.sends)?;
        }
        // Until there is no more.
        let _ = self.client.reader().read_to_end(&mut self.received);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Immediate {
    fn short_read_is_all(&self) -> bool {
        true
    }

    fn shut_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_read() {
    use spop_mio::accept::{ExpectProxy, ProxyVersion, encode_proxy_header};

    let setting = Setting::new();
    let tls = Tls::from_files(setting.files()).unwrap();
    let config = AcceptConfig::new().with(ExpectProxy::new()).unwrap();
    let entrance = Arc::new(Entrance::with_tls(config, tls).unwrap());
    let agent = Agent::new(ServerConfig::default(), Clock::start()).unwrap();
    for version in [&TLS12, &TLS13] {
        let name = ServerName::try_from("agent.example").unwrap();
        let mut client = ClientConnection::new(trusting(&setting.servers, None, &[version]), name).unwrap();
        let mut sends = Vec::new();
        encode_proxy_header(ProxyVersion::V2, None, &mut sends);
        client.write_tls(&mut sends).unwrap();
        let last = bytes(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining",
        );
        let mut stream = Immediate { client, sends, last, received: Vec::new() };
        let now = agent.clock().now();
        let conn = agent.accept(now, Peer::unnamed(), Some(&entrance)).unwrap();
        let (mut driver, mut buffer) = (Driver::new(conn), ReadBuffer::new());
        let mut handler = |_: Request<'_>| Actions::new();
        assert_eq!(driver.turn(now, Some(&mut stream), &mut buffer, &mut handler), Turn::Wait);
        assert!(stream.received.len() > 4, "{version:?}: no AGENT-HELLO");
    }
}

#[test]
fn clients_are_asked_for_certificates() {
    within(|| {
        let log = Log::start();
        let setting = Setting::new();
        let (known, foreign) = (leaf(&setting.clients, "haproxy"), leaf(&ca("others"), "haproxy"));

        let files = setting.files().ask_clients_of(setting.path("clients.pem"));
        let (server, _) = serve(files, AcceptConfig::new());
        session(&server, setting.client(None)).ask("NOTIFY fin 0 1 m", ANSWER_0);
        session(&server, setting.client(Some(&known))).ask("NOTIFY fin 0 1 m", ANSWER_1);
        expect_refused(&server, setting.client(Some(&foreign)));
        let line = logged(&log);
        assert!(line.contains("TLS with 127.0.0.1:") && line.contains("invalid peer certificate"), "{line}");

        let files = setting.files().require_clients_of(setting.path("clients.pem"));
        let (server, _) = serve(files, AcceptConfig::new());
        session(&server, setting.client(Some(&known))).ask("NOTIFY fin 0 1 m", ANSWER_1);
        expect_refused(&server, setting.client(None));
        let line = logged(&log);
        assert!(line.contains("peer sent no certificates"), "{line}");
        assert_eq!(server.handle.stats().rejected, 1);

        // The client is the one that refuses here.
        expect_refused(&server, trusting(&ca("others"), Some(&known), &[&TLS13]));
        let line = logged(&log);
        assert!(line.contains("received fatal alert"), "{line}");
    });
}

#[test]
fn plain_text_and_silence_end_with_a_line() {
    within(|| {
        let log = Log::start();
        let setting = Setting::new();
        let (server, _) = serve(setting.files(), AcceptConfig::new());
        for (bytes, error) in [
            (
                bytes("HAPROXY-HELLO fin 0 0"),
                "failed: plain SPOP on a TLS listener: add `ssl` to HAProxy's server line",
            ),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "failed: received corrupt message"),
        ] {
            let mut client = server.connect();
            client.io.write_all(&bytes).unwrap();
            assert!(!matches!(client.io.read_to_end(&mut Vec::new()), Ok(100..)));
            let line = logged(&log);
            assert!(line.contains("TLS with 127.0.0.1:") && line.contains(error), "{line}");
        }

        let mut config = AcceptConfig::new();
        config.timeout = Duration::from_millis(50);
        let (server, _) = serve(setting.files(), config);
        let mut client = server.connect();
        assert_eq!(client.io.read(&mut [0]).unwrap(), 0);
        let line = logged(&log);
        assert!(line.contains("TLS with 127.0.0.1 was not done within 50ms"), "{line}");
    });
}

#[test]
fn a_rotation_under_load_loses_nothing() {
    within(|| {
        let setting = Setting::new();
        let tls = Tls::from_files(setting.files()).unwrap();
        let (handler, responders) = hand_out();
        let server = Running::on(handler, Endpoint::from("127.0.0.1:0").tls(&tls));
        let mut open = Vec::new();
        for _ in 0..5 {
            let mut client = session(&server, setting.client(None));
            client.send("NOTIFY fin 1 1 m");
            open.push(client);
        }
        let mut shown = Vec::new();
        for _ in 0..10 {
            let renewed = setting.renew();
            tls.reload().unwrap();
            let mut client = session(&server, setting.client(None));
            client.send("NOTIFY fin 1 1 m");
            assert_eq!(client.io.conn.peer_certificates().unwrap(), std::slice::from_ref(&renewed));
            shown.push(renewed);
            open.push(client);
        }
        shown.dedup();
        assert_eq!(shown.len(), 10);
        responders.iter().take(open.len()).for_each(|responder| responder.reply(Actions::new()));
        for client in &mut open {
            client.expect("ACK fin 1 1");
            client.send("NOTIFY fin 0 1 m");
            responders.recv().unwrap().reply(Actions::new());
            client.expect("ACK fin 0 1");
        }
        let stats = server.handle.stats();
        assert_eq!((stats.open, stats.rejected), (15, 0));
    });
}

#[test]
fn a_list_that_asks_for_tls_needs_a_certificate() {
    let config = AcceptConfig::new().with(spop_mio::accept::AcceptHandler::Tls).unwrap();
    let endpoint = Endpoint::from("127.0.0.1:0").accept(config);
    let error = spop_mio::Server::new(whom).bind(endpoint).unwrap_err().to_string();
    assert!(error.contains("it asks for TLS, and has no certificate"), "{error}");
}
