//! The engine asks agents over everything that it can reach them by: one that others made, the `spop` crate, used the way
//! its published examples do, and the server of spop-tokio.

#![allow(clippy::unwrap_used)] // It is a test.

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use spop::{
    MAX_FRAME_SIZE_LIMIT, SpopCodec, TypedData,
    actions::VarScope,
    frame::{FramePayload, FrameType},
    frames::{Ack, AgentDisconnect, AgentHello, FrameCapabilities, HaproxyHello},
};
use spop_tokio::{
    Actions, Address, AgentConfig, Capabilities, Endpoint, Engine, EngineClient, EngineConfig, EngineError,
    MessageList, PoolConfig, Reply, Request, Scope, Server, ServerHandle, Status, Value,
    accept::{AcceptConfig, ExpectProxy, ProxyVersion},
    tls::{ClientTls, ClientTlsFiles, Tls, TlsFiles},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, UnixListener},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::Framed;

/// Serves a connection: sets what it is asked, and disconnects with 99 when it is told to.
async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin) -> anyhow::Result<()> {
    let mut socket = Framed::new(stream, SpopCodec::default());
    while let Some(frame) = socket.next().await {
        let frame = frame?;
        match frame.frame_type() {
            FrameType::HaproxyHello => {
                let hello = HaproxyHello::try_from(frame.payload()).ok().context("no HELLO")?;
                let version = hello.negotiate_version().context("no version")?;
                let size = hello.negotiate_max_frame_size(MAX_FRAME_SIZE_LIMIT).ok().context("no size")?;
                socket.codec_mut().set_max_frame_size(size);
                let capabilities = vec![FrameCapabilities::Pipelining];
                socket.send(Box::new(AgentHello { version, max_frame_size: size, capabilities })).await?;
                if hello.healthcheck.unwrap_or(false) {
                    return Ok(());
                }
            }
            FrameType::HaproxyDisconnect => {
                let bye = AgentDisconnect { status_code: 0, message: "normal".into() };
                socket.send(Box::new(bye)).await?;
                return Ok(socket.close().await?);
            }
            FrameType::Notify => {
                let FramePayload::ListOfMessages(messages) = &frame.payload() else { continue };
                let mut ack = Ack::new(frame.metadata().stream_id, frame.metadata().frame_id);
                for message in *messages {
                    if message.name == "leave" {
                        let bye = AgentDisconnect { status_code: 99, message: "as you wish".into() };
                        socket.send(Box::new(bye)).await?;
                        return Ok(socket.close().await?);
                    }
                    for (name, value) in &message.args {
                        ack = ack.set_var(VarScope::Session, name, value.clone());
                        if let TypedData::UInt32(number) = value {
                            ack = ack.set_var(VarScope::Transaction, "next", number + 1);
                        }
                    }
                }
                socket.send(Box::new(ack)).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// How an agent is reached.
#[derive(Clone, Copy, Debug)]
enum Way {
    Tcp,
    Unix,
    Tls,
    Proxy(ProxyVersion),
    TlsAfterProxy(ProxyVersion),
}

const WAYS: [Way; 7] = [
    Way::Tcp,
    Way::Unix,
    Way::Tls,
    Way::Proxy(ProxyVersion::V1),
    Way::Proxy(ProxyVersion::V2),
    Way::TlsAfterProxy(ProxyVersion::V1),
    Way::TlsAfterProxy(ProxyVersion::V2),
];

impl Way {
    fn proxy(self) -> Option<ProxyVersion> {
        if let Self::Proxy(version) | Self::TlsAfterProxy(version) = self { Some(version) } else { None }
    }

    fn tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsAfterProxy(_))
    }
}

/// Certificates of both sides; each wants to see the other's.
struct Pki(TempDir);

impl Pki {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(this.path("ca.pem"), ca.pem()).unwrap();
        for name in ["agent.example", "engine.example"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new([name.to_owned()]).unwrap();
            let pem = params.signed_by(&key, &ca).unwrap().pem() + &key.serialize_pem();
            fs::write(this.path(name), pem).unwrap();
        }
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn agent(&self) -> Tls {
        let file = self.path("agent.example");
        Tls::from_files(TlsFiles::new(&file, &file).require_clients_of(self.path("ca.pem"))).unwrap()
    }

    fn engine(&self) -> ClientTls {
        let file = self.path("engine.example");
        let files = ClientTlsFiles::new(self.path("ca.pem")).certificate(&file, &file);
        ClientTls::from_files(files).unwrap().server_name("agent.example")
    }
}

/// An agent of others, by this way.
async fn foreign(way: Way, pki: &Pki) -> Address {
    if let Way::Unix = way {
        let path = pki.path("foreign.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        return Address::Unix(path);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = TlsAcceptor::from(pki.agent().current());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let header: &[u8] = match way.proxy() {
                    None => b"",
                    Some(ProxyVersion::V1) => b"PROXY UNKNOWN\r\n",
                    Some(ProxyVersion::V2) => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
                };
                let mut begin = vec![0; header.len()];
                stream.read_exact(&mut begin).await?;
                anyhow::ensure!(begin == header, "{way:?} begins with {begin:?}");
                if way.tls() { serve(tls.accept(stream).await?).await } else { serve(stream).await }
            });
        }
    });
    Address::Tcp(address)
}

/// The server of spop-tokio does as the agent of others.
async fn echo(request: Request) -> Reply {
    let mut actions = Actions::new();
    for message in request.messages() {
        if message.name() == b"leave" {
            return Reply::Disconnect { status: Status(99), message: "as you wish".into() };
        }
        for (name, value) in message.args() {
            actions.set_var(Scope::Session, name, value);
            if let Value::Uint32(number) = value {
                actions.set_var(Scope::Transaction, "next", number + 1);
            }
        }
    }
    actions.into()
}

async fn ours(way: Way, pki: &Pki) -> (Address, ServerHandle) {
    let mut endpoint = match way {
        Way::Unix => Endpoint::from(pki.path("ours.sock")),
        _ => Endpoint::from("127.0.0.1:0"),
    };
    if way.proxy().is_some() {
        endpoint = endpoint.accept(AcceptConfig::new().with(ExpectProxy::new()).unwrap());
    }
    if way.tls() {
        endpoint = endpoint.tls(&pki.agent());
    }
    let mut config = AgentConfig::default();
    config.capabilities |= Capabilities::ASYNC;
    let server = Server::with_config(echo, config).unwrap().bind(endpoint).await.unwrap();
    let (address, handle) = (server.addresses().unwrap().remove(0), server.handle());
    tokio::spawn(server.serve());
    (address, handle)
}

/// As HAProxy 2.6 and 3.0 are, with `option async` too, and as 3.1 is.
fn configs() -> Vec<EngineConfig> {
    let mut asynchronous = EngineConfig::haproxy_2_6();
    asynchronous.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
    asynchronous.engine_id = Some("e1".into());
    let all =
        [EngineConfig::default(), EngineConfig::haproxy_2_6(), EngineConfig::haproxy_3_1(), asynchronous];
    all.map(|mut config| {
        config.timeouts.message = Some(Duration::from_secs(10));
        config
    })
    .into()
}

fn start(config: EngineConfig, way: Way, pki: &Pki, agent: Address) -> EngineClient {
    let mut pool = PoolConfig::new(config, 0);
    pool.check_every = Some(Duration::from_millis(20));
    let mut engine = Engine::with_pool(pool).agent(agent);
    if let Some(version) = way.proxy() {
        engine = engine.proxy(version);
    }
    if way.tls() {
        engine = engine.tls(&pki.engine());
    }
    engine.start().unwrap()
}

async fn ask(engine: &EngineClient, number: u32) {
    let mut list = MessageList::new();
    let mut message = list.message("echo");
    message.arg("number", number).arg("text", "t\u{e9}xt").arg("bytes", Value::Binary(&[0, 255]));
    message.arg("flag", true).arg("ip", Ipv4Addr::LOCALHOST).arg("minus", i64::MIN).arg("null", Value::Null);
    let answer = engine.notify(&list).await.unwrap();
    let var = |name| answer.var(Scope::Session, name);
    assert_eq!(answer.var(Scope::Transaction, "next"), Some(Value::Uint32(number + 1)));
    assert_eq!(var("number"), Some(Value::Uint32(number)));
    assert_eq!(var("text"), Some(Value::String("t\u{e9}xt".as_bytes())));
    assert_eq!(var("bytes"), Some(Value::Binary(&[0, 255])));
    assert_eq!(var("flag"), Some(Value::Bool(true)));
    assert_eq!(var("ip"), Some(Value::Ipv4(Ipv4Addr::LOCALHOST)));
    assert_eq!(var("minus"), Some(Value::Int64(i64::MIN)));
    assert_eq!(var("null"), None);
    assert_eq!(answer.actions().iter().count(), 8);
}

/// Many requests, one that ends its connection, more, health checks, and the end.
async fn drive(config: EngineConfig, agrees_on_async: bool, way: Way, pki: &Pki, agent: Address) {
    let tied = !agrees_on_async || !config.capabilities.contains(Capabilities::ASYNC);
    let engine = start(config, way, pki, agent);
    join_all((0..100).map(|number| ask(&engine, number))).await;
    // With async a request belongs to no connection, and its answer could still come by another.
    if tied {
        let mut leave = MessageList::new();
        leave.message("leave");
        assert_eq!(engine.notify(&leave).await.unwrap_err(), EngineError::Spop(Status(99)), "{way:?}");
        ask(&engine, 7).await;
    }
    sleep(Duration::from_millis(60)).await;
    assert!(engine.is_up(0));
    engine.drain().await;
    assert_eq!(engine.stats().connections, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_others_answers_by_every_way() {
    let pki = Pki::new();
    for way in WAYS {
        let address = foreign(way, &pki).await;
        for config in configs() {
            drive(config, false, way, &pki, address.clone()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_of_this_library_answers_by_every_way() {
    let pki = Pki::new();
    for way in WAYS {
        let (address, handle) = ours(way, &pki).await;
        for config in configs() {
            drive(config, true, way, &pki, address.clone()).await;
        }
        assert_eq!(handle.stats().rejected, 0, "{way:?}");
        handle.drain();
    }
}
