//! Limits how often clients may ask, by key.
//!
//! HAProxy sends a message for each request, with a key (the address of the client, a token, an account). The message has the name of a
//! limit. The answer says whether the request exceeds it, and when to try again. See the README beside this file.

#![forbid(unsafe_code)]
// Times as numbers of nanoseconds, and parts of hashes: each is documented where it is made.
#![allow(clippy::cast_possible_truncation)]

mod counts;
mod handler;
mod key;
mod limit;
mod rate;
mod table;

use std::{
    collections::HashSet,
    io::{self, IsTerminal as _, Write as _},
    net::TcpListener,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::Parser;
use signal_hook::{consts::SIGUSR1, iterator::Signals};
use spop_mio::{
    Endpoint, Server, ServerConfig,
    status::{Status, install_recorder},
};

use crate::{
    handler::{Limits, RateLimit},
    limit::{Spec, duration},
};

/// Where it listens without the option, and without a socket of systemd.
const LISTEN: &str = "127.0.0.1:12407";

/// Limits how often clients may ask, by key: an agent for HAProxy.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where to listen: HOST:PORT, or the path of a unix socket. May be given several times. Default: the sockets of systemd, or
    /// 127.0.0.1:12407.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// A limit by the name of its message. May be given several times. Behind TOKENS/PERIOD, such as 5/10s, may be ,burst=TOKENS
    /// ,keys=N ,full=open or ,full=closed and ,ipv6=PREFIX: see the README.
    #[arg(long, value_name = "NAME=TOKENS/PERIOD", default_values = ["requests=20/1s,burst=40", "login=5/1m"])]
    limit: Vec<Spec>,
    /// Threads. Default: as many as there are processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Serves a status page here, and metrics for Prometheus: HOST:PORT, such as 127.0.0.1:9407. Default: none.
    #[arg(long, value_name = "ADDRESS")]
    status: Option<String>,
    /// How long health checks are refused before a shutdown, while everything else is served: more than `fall` times `inter` of
    /// HAProxy's `check`. Leave it at 0 if the next process has the same socket.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    lame_duck: Duration,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colors = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(io::stderr).init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rate-limit: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> io::Result<()> {
    let mut names = HashSet::new();
    if let Some(spec) = options.limit.iter().find(|spec| !names.insert(&spec.name)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("two limits have the name {}", spec.name),
        ));
    }
    let limits = Limits::new(options.limit);
    let mut config = ServerConfig::default();
    config.lame_duck = options.lame_duck;
    let mut server = Server::with_config(RateLimit::new(Arc::clone(&limits)), config)?;
    if let Some(workers) = options.workers {
        server = server.workers(workers.into());
    }
    for endpoint in endpoints(options.listen)? {
        server = server.bind(endpoint)?;
    }
    if let Some(address) = &options.status {
        let collect = Arc::clone(&limits);
        let status = Status::new(server.handle()).metrics(install_recorder()?);
        let served = TcpListener::bind(address)
            .and_then(|listener| status.collector(move || collect.publish()).serve(listener));
        served.map_err(|error| io::Error::new(error.kind(), format!("--status {address}: {error}")))?;
    }
    server.handle().end_on_signals()?;
    report_on_signal(Arc::clone(&limits))?;
    let mut out = io::stdout();
    for address in server.addresses()? {
        writeln!(out, "listening on {address}")?;
    }
    out.flush()?;
    server.serve()?;
    limits.report();
    Ok(())
}

fn endpoints(listen: Vec<String>) -> io::Result<Vec<Endpoint>> {
    let mut endpoints = Endpoint::from_systemd()?;
    endpoints.extend(listen.into_iter().map(Endpoint::from));
    if endpoints.is_empty() {
        endpoints.push(LISTEN.into());
    }
    Ok(endpoints)
}

/// SIGUSR1 logs the counts.
fn report_on_signal(limits: Arc<Limits>) -> io::Result<()> {
    let mut signals = Signals::new([SIGUSR1])?;
    let report = move || signals.forever().for_each(|_| limits.report());
    thread::Builder::new().name("signals".into()).spawn(report)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let options = Options::try_parse_from(["rate-limit"]).unwrap();
        assert_eq!(options.limit.iter().map(|spec| &*spec.name).collect::<Vec<_>>(), ["requests", "login"]);
    }

    #[test]
    fn a_name_has_one_limit() {
        let options =
            Options::try_parse_from(["rate-limit", "--limit", "a=1/s", "--limit", "a=2/s"]).unwrap();
        assert_eq!(run(options).unwrap_err().to_string(), "two limits have the name a");
    }
}
