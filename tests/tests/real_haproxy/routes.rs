//! Messages that go to handlers by their names, with HTTP headers among their arguments.

use std::net::IpAddr;
use std::thread;

use anyhow::{Context, Result, bail};
use spop_core::frame::Message;
use spop_core::{Actions, Scope, Value, agent, frame::ArgError, wire::Headers};
use spop_tests::haproxy::Config;
use spop_tests::http::Request;
use spop_tests::stage::{Stage, Verdict, everywhere};
use spop_tokio::Router;
use tokio::runtime::{Builder, Runtime};

/// Ends an agent inside the test.
enum Agent {
    Tokio(spop_tokio::ServerHandle, #[allow(dead_code)] Runtime),
    Mio(spop_mio::ServerHandle),
}

impl Drop for Agent {
    fn drop(&mut self) {
        match self {
            Self::Tokio(handle, _) | Self::Mio(handle) => handle.stop(),
        }
    }
}

fn who(message: &Message<'_>) -> Result<Actions, ArgError> {
    Ok((Scope::Transaction, "ip", message.arg::<IpAddr>("ip")?).into())
}

fn headers(message: &Message<'_>) -> Result<Actions, ArgError> {
    let headers: Headers<'_> = message.arg("hdrs")?;
    let value = |name: &str| Value::String(headers.get(name).unwrap_or(b"none"));
    let twice: Vec<_> = headers.get_all("X-Twice").collect();
    let long = headers.get("x-long").map_or(0, <[u8]>::len);
    Ok(Actions::new()
        .set(Scope::Transaction, "host", value("Host"))
        .set(Scope::Transaction, "empty", value("x-empty"))
        .set(Scope::Transaction, "none", value("x-none"))
        .set(Scope::Transaction, "twice", Value::Binary(&twice.concat()))
        .set(Scope::Transaction, "long", long as u64))
}

/// What spop-tokio routes with: a handler for each message.
fn router() -> impl spop_tokio::Handler {
    let on = |answer: fn(&Message<'_>) -> Result<Actions, ArgError>| {
        move |request: spop_tokio::Request| async move {
            tokio::task::yield_now().await;
            request.messages().iter().map(|message| answer(&message)).collect::<Result<Actions, _>>()
        }
    };
    Router::new().on("who", on(who)).on("headers", on(headers))
}

/// What any adapter can route with.
fn sync_router() -> agent::Router {
    agent::Router::new().on("who", |message| Ok(who(message)?)).on("headers", |message| Ok(headers(message)?))
}

fn start(stage: &Stage) -> Result<(String, Agent)> {
    Ok(match stage.agent_name() {
        "echo-tokio" => {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let server = runtime.block_on(spop_tokio::Server::new(router()).bind("127.0.0.1:0"))?;
            let address = server.addresses()?.first().context("no address")?.to_string();
            let handle = server.handle();
            runtime.spawn(server.serve());
            (address, Agent::Tokio(handle, runtime))
        }
        "echo-mio" => {
            let server = spop_mio::Server::new(sync_router()).workers(1).bind("127.0.0.1:0")?;
            let address = server.addresses()?.first().context("no address")?.to_string();
            let handle = server.handle();
            thread::spawn(move || server.serve());
            (address, Agent::Mio(handle))
        }
        other => bail!("what is {other}?"),
    })
}

#[test]
fn each_message_is_answered_by_its_name_and_headers_are_read() -> Verdict {
    everywhere(|stage| {
        let (address, _agent) = start(stage)?;
        let config = Config::new(&address)
            .message("who", "ip=src")
            .message("stranger", "ip=src")
            .message("headers", "hdrs=req.hdrs_bin");
        let shown = ["ip", "host", "empty", "none", "twice,hex", "long"];
        let config = shown.into_iter().fold(config, Config::show);
        let haproxy = stage.haproxy(&config)?;
        let request = Request::get("/")
            .source(stage.host())
            .header("X-Empty", "")
            .header("X-Twice", "a")
            .header("X-Long", "y".repeat(3_000))
            .header("x-twice", [b'b', 0xff]);
        let ip = stage.host().to_string();
        haproxy.send(&request)?.expect(&[
            ("ip", ip.as_str()),
            ("host", "test"),
            ("empty", ""),
            ("none", "none"),
            ("twice", "6162FF"),
            ("long", "3000"),
        ])
    })
}
