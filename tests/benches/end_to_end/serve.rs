//! The agents that are measured, each a process of its own: this program, called with `serve`.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use spop_core::{Clock, agent::PipeliningPolicy, frame::Capabilities};
use spop_server::{Request, ServerConfig};
use spop_tokio::Router;
use tokio::runtime::Builder;

use super::{floor, foreign, question, uring};

/// More than any table opens.
const CONNECTIONS: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Agent {
    /// A bare epoll loop.
    Floor,
    /// `spop-mio`.
    Mio,
    /// `spop-mio` that announces pipelining to HAProxy 3.1 and later as well, as `Floor` and `Spop` do.
    MioPipelined,
    /// `spop-mio` with a router of the core of five routes.
    MioRouter,
    /// `spop-tokio` as `#[tokio::main]` runs it: on threads that share their tasks, one for each processor it may use.
    Tokio,
    /// As `Tokio`, with pipelining as `MioPipelined`.
    TokioPipelined,
    /// `spop-tokio` on a runtime of one thread: `#[tokio::main(flavor = "current_thread")]`.
    TokioOne,
    /// As `Tokio`, with a router of five routes and state.
    TokioRouter,
    /// As `TokioRouter`, with functions that are not async.
    TokioRouterSync,
    /// The `spop` crate on tokio, as `#[tokio::main]` runs it.
    Spop,
    /// An example of `spop-server` on `io_uring`.
    Uring,
}

impl Agent {
    /// Those of the table: the routers are compared with `Mio` and `Tokio` alone.
    pub const ALL: [Self; 6] = [Self::Floor, Self::Mio, Self::Tokio, Self::TokioOne, Self::Spop, Self::Uring];

    /// Those that HAProxy asks. It uses pipelining where an agent announces it, as the first and the last do.
    pub const OF_HAPROXY: [Self; 6] =
        [Self::Floor, Self::Mio, Self::Tokio, Self::MioPipelined, Self::TokioPipelined, Self::Spop];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Mio => "mio",
            Self::MioPipelined => "mio-pipelined",
            Self::MioRouter => "mio-router",
            Self::Tokio => "tokio",
            Self::TokioPipelined => "tokio-pipelined",
            Self::TokioOne => "tokio-one",
            Self::TokioRouter => "tokio-router",
            Self::TokioRouterSync => "tokio-router-sync",
            Self::Spop => "spop",
            Self::Uring => "uring",
        }
    }

    /// Whether it can have several.
    pub const fn has_workers(self) -> bool {
        !matches!(self, Self::Floor | Self::TokioOne | Self::Uring)
    }
}

/// Serves until stdin ends, which it does when the process that measures has ended, however that came about.
pub fn serve(agent: Agent, workers: usize) -> Result<()> {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let mut config = config();
    if matches!(agent, Agent::MioPipelined | Agent::TokioPipelined) {
        config.agent.pipelining = PipeliningPolicy::Always;
    }
    match agent {
        Agent::Floor => floor::serve(listen()?),
        Agent::Mio | Agent::MioPipelined => {
            serve_mio(workers, config, |request: Request<'_>| question::answer(request.messages().iter()))
        }
        Agent::MioRouter => serve_mio(workers, config, question::router(|| ())),
        Agent::Tokio | Agent::TokioPipelined | Agent::TokioOne => {
            let runtime = match agent {
                Agent::TokioOne => Builder::new_current_thread().enable_all().build()?,
                _ => Builder::new_multi_thread().worker_threads(workers).enable_all().build()?,
            };
            let answer = async |request: spop_tokio::Request| question::answer(request.messages().iter());
            runtime.block_on(serve_tokio(config, answer))
        }
        Agent::TokioRouter | Agent::TokioRouterSync => {
            let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
            let router = question::ROUTES.into_iter().fold(Router::with_state(State), |router, name| {
                if agent == Agent::TokioRouter {
                    router.on(name, route)
                } else {
                    router.on(name, route_at_once)
                }
            });
            runtime.block_on(serve_tokio(config, router))
        }
        Agent::Uring => {
            let mut answer = |request: Request<'_>| question::answer(request.messages().iter());
            Ok(uring::serve(listen()?, &spop_server::Agent::new(config, Clock::start())?, None, &mut answer)?)
        }
        Agent::Spop => {
            let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
            let listener = listen()?;
            runtime.block_on(foreign::serve(listener))
        }
    }
}

/// The state of a router.
struct State;

async fn route(_: &State, request: spop_tokio::Request) -> spop_core::Actions {
    question::answer(request.messages().iter())
}

#[allow(clippy::needless_pass_by_value)] // A route takes its request.
fn route_at_once(_: &State, request: spop_tokio::Request) -> spop_core::Actions {
    question::answer(request.messages().iter())
}

fn serve_mio(
    workers: usize,
    config: ServerConfig,
    answer: impl spop_mio::Handler + Clone + Send + 'static,
) -> Result<()> {
    let server = spop_mio::Server::with_config(answer, config)?.workers(workers);
    let server = server.bind("127.0.0.1:0")?;
    announce(server.addresses()?.first())?;
    Ok(server.serve()?)
}

async fn serve_tokio(config: ServerConfig, answer: impl spop_tokio::Handler) -> Result<()> {
    let server = spop_tokio::Server::with_config(answer, config)?;
    let server = server.bind("127.0.0.1:0").await?;
    announce(server.addresses()?.first())?;
    server.serve().await?;
    bail!("the server has ended")
}

fn config() -> ServerConfig {
    let mut config = ServerConfig::default();
    config.max_connections = CONNECTIONS;
    // In effect for an engine that announces it.
    config.agent.capabilities |= Capabilities::ASYNC;
    config
}

fn listen() -> Result<TcpListener> {
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0)))?;
    // That of std has a backlog of 128.
    rustix::net::listen(&listener, 4096)?;
    let listener = TcpListener::from(listener);
    announce(Some(&listener.local_addr()?))?;
    Ok(listener)
}

fn announce(address: Option<&impl std::fmt::Display>) -> Result<()> {
    let address = address.ok_or_else(|| anyhow!("no address"))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on {address}")?;
    Ok(stdout.flush()?)
}
