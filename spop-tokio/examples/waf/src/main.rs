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

use std::process::ExitCode;

use clap::Parser as _;
use spop_tokio::Server;
use tokio::runtime::Builder;
use tracing::error;

use crate::{
    agent::Waf,
    options::{DEFAULT_ADDRESS, Options},
};

fn main() -> ExitCode {
    program::log_to_stderr();
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
    for endpoint in options.server.endpoints(DEFAULT_ADDRESS)? {
        server = server.bind(endpoint).await?;
    }
    let [published, logged, reloaded] = [waf.clone(), waf.clone(), waf.clone()];
    options.server.serve_status(server.handle(), move || published.publish_counts())?;
    server.handle().end_on_signals()?;
    let reload = move || {
        if let Err(error) = reloaded.reload() {
            error!("the rules stay as they were: {error:#}");
        }
    };
    program::on_signals(move || logged.log_counts(), reload)?;
    program::print_addresses(&server.addresses()?)?;
    server.serve().await?;
    waf.log_counts();
    Ok(())
}
