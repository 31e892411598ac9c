//! Copies the requests of HAProxy's clients to another HTTP service, after HAProxy has its answer. README.md describes it.

#![forbid(unsafe_code)]

mod copy;
mod counts;
mod mirror;
mod options;
mod sender;
#[cfg(test)]
mod tests;

use std::{process::ExitCode, sync::Arc};

use clap::Parser as _;
use spop_tokio::Server;

use crate::{
    mirror::Mirror,
    options::{DEFAULT_ADDRESS, Options},
};

#[tokio::main]
async fn main() -> ExitCode {
    program::log_to_stderr();
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
    for endpoint in options.server.endpoints(DEFAULT_ADDRESS)? {
        server = server.bind(endpoint).await?;
    }
    let [published, logged] = [(); 2].map(|()| Arc::clone(&counts));
    options.server.serve_status(server.handle(), move || published.publish())?;
    server.handle().end_on_signals()?;
    program::on_signals(move || logged.report(), program::nothing_to_reload)?;
    program::print_addresses(&server.addresses()?)?;
    server.serve().await?;
    counts.report();
    Ok(())
}
