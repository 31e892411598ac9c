//! The agents that are measured, each a process of its own: this program, called with `serve`.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use spop_core::{Clock, frame::Capabilities};
use spop_server::{Request, ServerConfig};
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
    /// `spop-tokio` as `#[tokio::main]` runs it: on threads that share their tasks, one for each processor it may use.
    Tokio,
    /// `spop-tokio` on a runtime of one thread: `#[tokio::main(flavor = "current_thread")]`.
    TokioOne,
    /// The `spop` crate on tokio, as `#[tokio::main]` runs it.
    Spop,
    /// An example of `spop-server` on `io_uring`.
    Uring,
}

impl Agent {
    pub const ALL: [Self; 6] = [Self::Floor, Self::Mio, Self::Tokio, Self::TokioOne, Self::Spop, Self::Uring];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Mio => "mio",
            Self::Tokio => "tokio",
            Self::TokioOne => "tokio-one",
            Self::Spop => "spop",
            Self::Uring => "uring",
        }
    }

    /// Whether it can have several.
    pub const fn has_workers(self) -> bool {
        matches!(self, Self::Mio | Self::Tokio | Self::Spop)
    }
}

/// Serves until stdin ends, which it does when the process that measures has ended, however that came about.
pub fn serve(agent: Agent, workers: usize) -> Result<()> {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    match agent {
        Agent::Floor => floor::serve(listen()?),
        Agent::Mio => {
            let answer = |request: Request<'_>| question::answer(request.messages().iter());
            let server = spop_mio::Server::with_config(answer, config())?.workers(workers);
            let server = server.bind("127.0.0.1:0")?;
            announce(server.addresses()?.first())?;
            Ok(server.serve()?)
        }
        Agent::Tokio | Agent::TokioOne => {
            let runtime = match agent {
                Agent::Tokio => Builder::new_multi_thread().worker_threads(workers).enable_all().build()?,
                _ => Builder::new_current_thread().enable_all().build()?,
            };
            runtime.block_on(async {
                let answer = async |request: spop_tokio::Request| question::answer(request.messages().iter());
                let server = spop_tokio::Server::with_config(answer, config())?;
                let server = server.bind("127.0.0.1:0").await?;
                announce(server.addresses()?.first())?;
                server.serve().await?;
                bail!("the server has ended")
            })
        }
        Agent::Uring => {
            let mut answer = |request: Request<'_>| question::answer(request.messages().iter());
            Ok(uring::serve(
                listen()?,
                &spop_server::Agent::new(config(), Clock::start())?,
                None,
                &mut answer,
            )?)
        }
        Agent::Spop => {
            let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
            let listener = listen()?;
            runtime.block_on(foreign::serve(listener))
        }
    }
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
