//! Messages that go to handlers by their names, with HTTP headers among their arguments.

use std::net::IpAddr;
use std::thread;

use anyhow::{Context, Result, bail};
use spop_core::frame::Message;
use spop_core::{Actions, Scope, Value, agent::Routes, frame::ArgError, wire::Headers};
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

fn who(message: &Message<'_>, actions: &mut Actions) -> Result<(), ArgError> {
    actions.set_var(Scope::Transaction, "ip", message.arg::<IpAddr>("ip")?);
    Ok(())
}

fn headers(message: &Message<'_>, actions: &mut Actions) -> Result<(), ArgError> {
    let headers: Headers<'_> = message.arg("hdrs")?;
    let value = |name: &str| Value::String(headers.get(name).unwrap_or(b"none"));
    actions.set_var(Scope::Transaction, "host", value("Host"));
    actions.set_var(Scope::Transaction, "empty", value("x-empty"));
    actions.set_var(Scope::Transaction, "none", value("x-none"));
    let twice: Vec<_> = headers.get_all("X-Twice").collect();
    actions.set_var(Scope::Transaction, "twice", Value::Binary(&twice.concat()));
    let long = headers.get("x-long").map_or(0, <[u8]>::len);
    actions.set_var(Scope::Transaction, "long", long as u64);
    Ok(())
}

/// What spop-tokio routes with: a handler for each message.
fn router() -> impl spop_tokio::Handler {
    let on = |answer: fn(&Message<'_>, &mut Actions) -> Result<(), ArgError>| {
        move |request: spop_tokio::Request| async move {
            tokio::task::yield_now().await;
            let mut actions = Actions::new();
            for message in request.messages() {
                answer(&message, &mut actions)?;
            }
            Ok::<_, ArgError>(actions)
        }
    };
    Router::new().on("who", on(who)).on("headers", on(headers))
}

/// What any adapter can route with.
fn routes() -> Routes {
    Routes::new()
        .on("who", |message, actions| Ok(who(message, actions)?))
        .on("headers", |message, actions| Ok(headers(message, actions)?))
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
            let server = spop_mio::Server::new(routes()).workers(1).bind("127.0.0.1:0")?;
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
