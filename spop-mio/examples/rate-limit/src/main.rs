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

use std::{collections::HashSet, io, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use program::{ServerOptions, positive_time};
use spop_mio::Server;

use crate::{
    handler::{Limits, RateLimit},
    limit::Spec,
};

/// Where it listens without the option, and without a socket of systemd.
const LISTEN: &str = "127.0.0.1:12407";

/// Limits how often clients may ask, by key: an agent for HAProxy.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Without --listen, and without sockets of systemd, it listens on 127.0.0.1:12407."
)]
struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// A limit by the name of its message. May be given several times.
    ///
    /// TOKENS/PERIOD is how fast a bucket fills: 100/s, 5/10s, 1000/1h; units ms, s, m, h, d. Behind it may be, after commas:
    ///
    /// burst=TOKENS: what a bucket holds at most; default TOKENS.
    ///
    /// keys=N: for how many keys there is memory, 33 bytes each; default 250000.
    ///
    /// full=open|closed: whether further keys replace others, or are limited; default open.
    ///
    /// ipv6=PREFIX: the bits of an IPv6 address that count; default 64.
    #[arg(long, value_name = "NAME=TOKENS/PERIOD", default_values = ["requests=20/1s,burst=40", "login=5/1m"])]
    limit: Vec<Spec>,
    /// Threads. Default: as many as there are processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// What `timeout processing` is in spoe.conf.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = positive_time)]
    processing: Duration,
}

fn main() -> ExitCode {
    let options = Options::parse();
    program::log_to_stderr();
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
    let config = options.server.config(options.processing);
    let mut server = Server::with_config(RateLimit::new(Arc::clone(&limits)), config)?;
    if let Some(workers) = options.workers {
        server = server.workers(workers.into());
    }
    for endpoint in options.server.endpoints(LISTEN)? {
        server = server.bind(endpoint)?;
    }
    let [published, logged] = [(); 2].map(|()| Arc::clone(&limits));
    options.server.serve_status(server.handle(), move || published.publish())?;
    server.handle().end_on_signals()?;
    program::on_signals(move || logged.report(), program::nothing_to_reload)?;
    program::print_addresses(&server.addresses()?)?;
    server.serve()?;
    limits.report();
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
