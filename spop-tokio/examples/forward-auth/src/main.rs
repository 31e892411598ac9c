//! Asks an HTTP service whether HAProxy shall let a request pass, as `auth_request` of nginx and `ForwardAuth` of Traefik do.
//! README.md describes it.

mod agent;
mod cache;
mod connector;
mod header_list;
mod options;
mod question;
#[cfg(test)]
mod service;
#[cfg(test)]
mod tests;
mod upstream;
mod verdict;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::TcpListener,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use spop_tokio::{
    Endpoint, Server,
    status::{Status, install_recorder},
};

use crate::options::{DEFAULT_ADDRESS, Options};

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colors = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(io::stderr).init();
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward-auth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let mut server = Server::with_config(agent::router(&options)?, agent::server_config(&options))?;
    let inherited = Endpoint::from_systemd()?;
    let nowhere = inherited.is_empty() && options.listen.is_empty();
    for endpoint in inherited {
        server = server.bind(endpoint).await?;
    }
    for address in options.listen.iter().map(String::as_str).chain(nowhere.then_some(DEFAULT_ADDRESS)) {
        server = server.bind(address).await?;
    }
    if let Some(address) = &options.status {
        let listener = TcpListener::bind(address).with_context(|| format!("--status {address}"))?;
        let status = Status::new(server.handle()).metrics(install_recorder()?);
        status.serve(listener)?;
    }
    server.handle().end_on_signals()?;
    // Scripts and tests wait for these lines.
    let mut out = io::stdout();
    for address in server.addresses()? {
        writeln!(out, "listening on {address}")?;
    }
    out.flush()?;
    Ok(server.serve().await?)
}
