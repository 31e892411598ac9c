//! A small web application firewall for HAProxy: rules with scores for requests and their responses. README.md describes it.

mod agent;
mod counts;
mod findings;
mod message;
mod options;
mod rules;
mod store;
#[cfg(test)]
mod tests;

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
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};
use tracing::error;

use crate::{
    agent::Waf,
    options::{DEFAULT_ADDRESS, Options},
};

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colors = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(io::stderr).init();
    let options = Options::parse();
    // As many threads inspect as there are workers: each keeps memory for the patterns.
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(options.workers()).build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let waf = Waf::new(options.clone())?;
    let mut server = Server::with_config(waf.handler(), agent::server_config(&options))?;
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
        let collect = waf.clone();
        let status = Status::new(server.handle())
            .metrics(install_recorder()?)
            .collector(move || collect.publish_counts());
        status.serve(listener)?;
    }
    server.handle().end_on_signals()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    // Scripts and tests wait for these lines.
    let mut out = io::stdout();
    for address in server.addresses()? {
        writeln!(out, "listening on {address}")?;
    }
    out.flush()?;
    // Rules are read on this thread, which serves no connection.
    let mut serving = tokio::spawn(server.serve());
    loop {
        tokio::select! {
            served = &mut serving => {
                waf.log_counts();
                return Ok(served??);
            }
            _ = user.recv() => waf.log_counts(),
            _ = hangup.recv() => {
                if let Err(error) = waf.reload() {
                    error!("the rules stay as they were: {error:#}");
                }
            }
        }
    }
}
