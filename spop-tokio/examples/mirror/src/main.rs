//! Copies the requests of HAProxy's clients to another HTTP service, after HAProxy has its answer. README.md describes it.

#![forbid(unsafe_code)]

#[path = "../../forward-auth/src/connector.rs"]
mod connector;
mod copy;
mod counts;
mod mirror;
mod options;
mod sender;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::TcpListener,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Parser as _;
use spop_tokio::{
    Endpoint, Server,
    status::{Status, install_recorder},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    mirror::Mirror,
    options::{DEFAULT_ADDRESS, Options},
};

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colors = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(io::stderr).init();
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mirror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let mirror = Mirror::new(&options)?;
    let counts = Arc::clone(mirror.counts());
    let mut server = Server::with_config(mirror.router(), options.server_config())?;
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
        let collect = Arc::clone(&counts);
        let status =
            Status::new(server.handle()).metrics(install_recorder()?).collector(move || collect.publish());
        status.serve(listener)?;
    }
    server.handle().end_on_signals()?;
    let mut report = signal(SignalKind::user_defined1())?;
    // Scripts and tests wait for these lines.
    let mut out = io::stdout();
    for address in server.addresses()? {
        writeln!(out, "listening on {address}")?;
    }
    out.flush()?;
    let mut serving = tokio::spawn(server.serve());
    loop {
        tokio::select! {
            served = &mut serving => {
                counts.report();
                return Ok(served??);
            }
            _ = report.recv() => counts.report(),
        }
    }
}
