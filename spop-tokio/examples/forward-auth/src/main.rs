//! Asks an HTTP service whether HAProxy shall let a request pass, as `auth_request` of nginx and `ForwardAuth` of Traefik do.
//! README.md describes it.

mod agent;
mod cache;
mod counts;
mod header_list;
mod options;
mod question;
#[cfg(test)]
mod service;
#[cfg(test)]
mod tests;
mod upstream;
mod verdict;

use std::{process::ExitCode, sync::Arc};

use clap::Parser as _;
use spop_tokio::Server;

use crate::{
    counts::{Counts, Report},
    options::{DEFAULT_ADDRESS, Options},
};

#[tokio::main]
async fn main() -> ExitCode {
    program::log_to_stderr();
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward-auth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let counts = Arc::<Counts>::default();
    let router = agent::router(&options, &counts)?;
    let mut server = Server::with_config(router, agent::server_config(&options))?;
    for endpoint in options.server.endpoints(DEFAULT_ADDRESS)? {
        server = server.bind(endpoint).await?;
    }
    let report = Report { counts, server: server.handle(), on_failure: options.on_failure };
    let [published, logged] = [report.clone(), report.clone()];
    options.server.serve_status(server.handle(), move || published.publish())?;
    server.handle().end_on_signals()?;
    program::on_signals(move || logged.log(), program::nothing_to_reload)?;
    program::print_addresses(&server.addresses()?)?;
    server.serve().await?;
    report.log();
    Ok(())
}
