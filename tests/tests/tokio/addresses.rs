//! Servers and engines take the same addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::support::{Running, within};
use spop_tokio::{
    Actions, AgentConfig, Endpoint, Engine, EngineConfig, IntoEndpoint, MessageList, ParsedAddress, Request,
    Scope, Server, Value,
};

async fn answer(_: Request) -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "n", 7_i32);
    actions
}

/// Asks the agent at this address.
async fn ask(address: &str) -> Result<(), String> {
    ask_for(Duration::from_secs(10), address).await
}

/// Asks the agent at this address, and gives up after this time.
async fn ask_for(time: Duration, address: &str) -> Result<(), String> {
    let mut config = EngineConfig::default();
    config.timeouts.message = Some(time);
    let engine = Engine::new(config).agent(address).start().unwrap();
    let mut list = MessageList::new();
    list.message("ask");
    let answer = engine.notify(&list).await.map_err(|error| error.to_string())?;
    assert_eq!(answer.var(Scope::Transaction, "n"), Some(Value::Int32(7)));
    engine.drain().await;
    Ok(())
}

async fn serve(address: &str) -> Running {
    Running::on(answer, AgentConfig::default(), Endpoint::from(address)).await
}

#[tokio::test]
async fn tcp_in_every_spelling() {
    within(async {
        let server = serve("*:0").await;
        let port = server.address.tcp().unwrap().port();
        for host in ["127.0.0.1", "ipv4@127.0.0.1", "tcp@127.0.0.1", "ipv4@localhost", "*", "", "0.0.0.0"] {
            ask(&format!("{host}:{port}")).await.unwrap();
        }
        // As the server says.
        ask(&server.address.to_string()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_a_program_has_is_an_endpoint() {
    async fn on(endpoint: impl IntoEndpoint) -> Running {
        let running = Running::of(Server::new(answer).bind(endpoint).await.unwrap());
        ask(&running.address.to_string()).await.unwrap();
        running
    }
    within(async {
        let localhost = IpAddr::from([127, 0, 0, 1]);
        on(("localhost", 0)).await;
        on((String::from("127.0.0.1"), 0)).await;
        on((localhost, 0)).await;
        on(SocketAddr::new(localhost, 0)).await;
        let all = on(("", 0)).await;
        assert!(all.address.tcp().unwrap().ip().is_unspecified());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(on(listener).await.address.tcp(), Some(address));
        on(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).await;

        let folder = tempfile::tempdir().unwrap();
        on(folder.path().join("1").as_path()).await;
        on(folder.path().join("2")).await;
        let path = folder.path().join("3");
        let server = on(tokio::net::UnixListener::bind(&path).unwrap()).await;
        assert_eq!(server.address.to_string(), path.display().to_string());
        server.handle.stop();
        server.task.await.unwrap();
        assert!(path.exists(), "the file is its maker's");
        on(std::os::unix::net::UnixListener::bind(folder.path().join("4")).unwrap()).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_no_address_is_an_error_of_start() {
    let error = Engine::new(EngineConfig::default()).agent("fd@3").start().unwrap_err().to_string();
    assert!(
        error.starts_with("the agent's address fd@3 cannot be used: the prefix fd@ is not supported"),
        "{error}"
    );
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_an_error_of_start() {
    let none = Engine::new(EngineConfig::default()).start().unwrap_err();
    assert_eq!(none.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(none.to_string(), "`agents` is 0, and must be at least 1");
    let mut config = EngineConfig::default();
    config.max_frame_size = 100;
    let error = Engine::new(config).agent("127.0.0.1:1").start().unwrap_err();
    assert_eq!(error.to_string(), "`engine.max_frame_size` is 100, and must be at least 256");
    let engine = Engine::new(EngineConfig::default()).agent("127.0.0.1:1").connect_timeout(Duration::ZERO);
    let error = engine.start().unwrap_err();
    assert_eq!(error.to_string(), "`timeout` is zero, and must be longer");
}

#[tokio::test]
async fn unix_sockets_by_prefix() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent@1.sock").display().to_string();
        let server = serve(&format!("unix@{path}")).await;
        assert_eq!(server.address.to_string(), path);
        ask(&path).await.unwrap();
        ask(&format!("unix@{path}")).await.unwrap();
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn abstract_sockets() {
    within(async {
        let name = format!("spop-tokio-{}", std::process::id());
        let (padded, exact) = (format!("abns@{name}"), format!("abnsz@{name}"));
        let server = serve(&padded).await;
        assert_eq!(server.address.to_string(), padded);
        ask(&padded).await.unwrap();
        assert!(ask_for(Duration::from_secs(1), &exact).await.is_err(), "it is another name");

        let shorter = serve(&exact).await;
        assert_eq!(shorter.address.to_string(), exact);
        ask(&exact).await.unwrap();
        // As the server says.
        let parsed = padded.parse::<ParsedAddress>().unwrap();
        assert_eq!(spop_tokio::Target::from(server.address.clone()), parsed.into());
        assert!(!std::path::Path::new(&name).exists());

        // The end of the server is the end of the name.
        server.handle.stop();
        server.task.await.unwrap();
        serve(&padded).await;
    })
    .await;
}
