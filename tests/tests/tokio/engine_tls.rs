//! An engine that talks TLS with its agents.

use std::{
    fs,
    pin::pin,
    time::{Duration, Instant},
};

use crate::support::{
    Client, Running,
    log::Log,
    pki::{Setting, ca, leaf},
    until, within,
};
use futures_util::FutureExt as _;
use spop_tokio::{
    Actions, AgentConfig, Endpoint, Engine, EngineClient, EngineConfig, EngineError, MessageList, PoolConfig,
    Request, Scope, Value,
    tls::{ClientTls, ClientTlsFiles, Tls, TlsFiles},
};
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_rustls::TlsAcceptor;

/// How many certificates the client has shown, and the name it asked for.
async fn whom(request: Request) -> Actions {
    let mut actions = Actions::new();
    let tls = request.tls().unwrap();
    actions.set_var(Scope::Transaction, "certificates", tls.certificates.len() as u64);
    actions.set_var(Scope::Transaction, "name", tls.server_name.as_deref().unwrap_or_default());
    actions
}

async fn serve(files: TlsFiles) -> Running {
    let endpoint = Endpoint::from("127.0.0.1:0").tls(&Tls::from_files(files).unwrap());
    Running::on(whom, AgentConfig::default(), endpoint).await
}

fn client(setting: &Setting) -> ClientTlsFiles {
    ClientTlsFiles::new(setting.path("servers.pem"))
}

fn tls(files: ClientTlsFiles) -> ClientTls {
    ClientTls::from_files(files).unwrap().server_name("agent.example")
}

fn start(server: &Running, tls: &ClientTls) -> EngineClient {
    start_with(Duration::from_secs(10), server, tls)
}

fn start_with(processing: Duration, server: &Running, tls: &ClientTls) -> EngineClient {
    let mut config = EngineConfig::default();
    config.timeouts.message = Some(processing);
    Engine::new(config).agent(server.address.clone()).tls(tls).start().unwrap()
}

async fn answer(engine: &EngineClient) -> Result<(u64, String), EngineError> {
    let mut list = MessageList::new();
    list.message("m");
    let answer = engine.notify(&list).await?;
    let Some(Value::Uint64(certificates)) = answer.var(Scope::Transaction, "certificates") else { panic!() };
    let name = answer.var(Scope::Transaction, "name").unwrap();
    Ok((certificates, name.as_str().unwrap().to_owned()))
}

/// What the engine says of an agent with which it cannot talk.
async fn refused(server: &Running, tls: &ClientTls) -> String {
    let log = Log::start();
    let engine = start_with(Duration::from_millis(500), server, tls);
    let start = Instant::now();
    loop {
        assert_eq!(answer(&engine).await, Err(EngineError::Timeout));
        let lines = log.take();
        let lines = lines.iter().filter(|line| line.contains("agent unreachable"));
        if let Some(line) = lines.min() {
            engine.stop();
            return line.clone();
        }
        // The handshake may take longer than a request.
        assert!(start.elapsed() < Duration::from_secs(10), "not a word");
    }
}

#[tokio::test]
async fn an_engine_talks_tls_and_shows_its_certificate() {
    within(async {
        let setting = Setting::new();
        let server = serve(setting.files()).await;
        let engine = start(&server, &tls(client(&setting)));
        assert_eq!(answer(&engine).await, Ok((0, "agent.example".into())));
        // More than a record each way, and more than one read.
        let mut list = MessageList::new();
        list.message("m").arg("long", "x".repeat(100_000).as_str());
        engine.notify(&list).await.unwrap();
        engine.drain().await;
        until("it is gone", || server.handle.stats().open == 0).await;

        let server = serve(setting.files().require_clients_of(setting.path("clients.pem"))).await;
        let known = leaf(&setting.clients, "engine");
        let pem = known.certificate.pem() + &known.key.serialize_pem();
        fs::write(setting.path("engine.pem"), pem).unwrap();
        let file = setting.path("engine.pem");
        let engine = start(&server, &tls(client(&setting).certificate(&file, &file)));
        assert_eq!(answer(&engine).await, Ok((1, "agent.example".into())));
        engine.drain().await;

        let engine = start_with(Duration::from_millis(500), &server, &tls(client(&setting)));
        assert!(answer(&engine).await.is_err(), "it has no certificate to show");
    })
    .await;
}

#[tokio::test]
async fn the_name_is_that_of_the_host_unless_said_otherwise() {
    within(async {
        let setting = Setting::new();
        let local = leaf(&setting.servers, "localhost");
        let pem = local.certificate.pem() + &local.key.serialize_pem();
        fs::write(setting.path("agent.pem"), pem).unwrap();
        let server = serve(setting.files()).await;
        let tls = ClientTls::from_files(client(&setting)).unwrap();
        let port = server.address.tcp().unwrap().port();
        let engine = Engine::new(EngineConfig::default()).agent(format!("localhost:{port}")).tls(&tls);
        assert_eq!(answer(&engine.start().unwrap()).await, Ok((0, "localhost".into())));

        let line = refused(&server, &tls).await;
        assert!(line.contains("not valid for name"), "by its address: {line}");
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_cannot_prove_who_it_is_gets_nothing() {
    within(async {
        let setting = Setting::new();
        let server = serve(setting.files()).await;
        fs::write(setting.path("servers.pem"), ca("others").pem()).unwrap();
        let line = refused(&server, &tls(client(&setting))).await;
        assert!(line.contains("invalid peer certificate"), "{line}");

        let plain = Running::start(async |_: Request| Actions::new()).await;
        let line = refused(&plain, &tls(client(&setting))).await;
        assert!(line.contains("received corrupt message"), "{line}");
    })
    .await;
}

#[tokio::test]
async fn health_checks_see_a_certificate_that_is_not_trusted_and_a_reload() {
    within(async {
        let setting = Setting::new();
        let server = serve(setting.files()).await;
        let right = fs::read(setting.path("servers.pem")).unwrap();
        fs::write(setting.path("servers.pem"), ca("others").pem()).unwrap();
        let tls = tls(client(&setting));
        let mut pool = PoolConfig::new(EngineConfig::default(), 0);
        pool.check_every = Some(Duration::from_millis(20));
        let engine = Engine::with_pool(pool).agent(server.address.clone()).tls(&tls).start().unwrap();
        until("it is down", || !engine.is_up(0)).await;
        fs::write(setting.path("servers.pem"), right).unwrap();
        tls.reload().unwrap();
        until("it is up", || engine.is_up(0)).await;
        assert_eq!(answer(&engine).await, Ok((0, "agent.example".into())));
        engine.drain().await;
    })
    .await;
}

#[tokio::test]
async fn an_engine_ends_its_sessions_in_every_layer() {
    within(async {
        let setting = Setting::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = EngineConfig::default();
        // Nothing ends because it took too long.
        config.timeouts.linger = Duration::from_secs(60);
        let engine = Engine::new(config).agent(listener.local_addr().unwrap());
        let engine = engine.tls(&tls(client(&setting))).start().unwrap();
        let agent = async {
            let acceptor = TlsAcceptor::from(Tls::from_files(setting.files()).unwrap().current());
            let socket = listener.accept().await.unwrap().0;
            let mut agent = Client::new(acceptor.accept(socket).await.unwrap());
            assert!(agent.receive().await.unwrap().starts_with("HAPROXY-HELLO"));
            let hello = "version=string:2.0 max-frame-size=uint32:16380 capabilities=string:\"\"";
            agent.send(&format!("AGENT-HELLO fin 0 0 {hello}")).await;
            let notify = agent.receive().await.unwrap();
            agent.send(&notify.replace("NOTIFY", "ACK").replace(" m", "")).await;
            assert!(agent.receive().await.unwrap().starts_with("HAPROXY-DISCONNECT"));
            agent.send("AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").await;
            // Without a close_notify, rustls calls the end of the socket an error.
            assert_eq!(agent.io.read(&mut [0]).await.unwrap(), 0);
            let (mut socket, _) = agent.io.into_inner();
            assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
        };
        let asks = async {
            let mut list = MessageList::new();
            list.message("m");
            engine.notify(&list).await.unwrap();
            engine.drain().await;
        };
        tokio::join!(agent, asks);
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_given_up() {
    within(async {
        let setting = Setting::new();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let log = Log::start();
        let engine = Engine::new(EngineConfig::default())
            .agent(silent.local_addr().unwrap())
            .tls(&tls(client(&setting)))
            .connect_timeout(Duration::from_millis(50))
            .start()
            .unwrap();
        let mut list = MessageList::new();
        list.message("m");
        let mut asked = pin!(engine.notify(&list));
        assert!(asked.as_mut().now_or_never().is_none());
        let so = |line: &String| line.contains("no session could begin within 50ms");
        until("it is logged", || log.take().iter().any(so)).await;
        assert!(!matches!(asked.now_or_never(), Some(Ok(_))));
    })
    .await;
}

#[test]
fn files_that_are_unusable_are_named() {
    let setting = Setting::new();
    let unusable = |files: ClientTlsFiles| ClientTls::from_files(files).unwrap_err().to_string();
    let error = unusable(ClientTlsFiles::new(setting.path("none.pem")));
    assert!(error.contains("none.pem: "), "{error}");
    let error =
        unusable(client(&setting).certificate(setting.path("agent.pem"), setting.path("clients.pem")));
    assert!(error.contains("clients.pem: "), "{error}");
    let error = tls(client(&setting)).server_name("not a name").name_of(None).unwrap_err().to_string();
    assert!(error.contains("\"not a name\""), "{error}");
    let error = ClientTls::from_files(client(&setting)).unwrap().name_of(None).unwrap_err().to_string();
    assert_eq!(error, "TLS needs the name that the certificate has");
}
