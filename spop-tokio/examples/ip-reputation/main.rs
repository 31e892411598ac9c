//! The example of the SPOE specification (section 2.5) made real: HAProxy asks for the reputation of each client address,
//! and rejects those with a bad one.
//!
//! From the root of the repository:
//!
//! ```text
//! cargo run --release -p spop-tokio --example ip-reputation
//! ```
//!
//! It begins with a demonstration that needs no HAProxy: an engine asks the agent about some addresses over a socket. The
//! agent stays up, and with HAProxy installed it can be tried by hand:
//!
//! ```text
//! haproxy -f spop-tokio/examples/ip-reputation/haproxy.cfg
//! curl --interface 127.0.0.2 http://127.0.0.1:10080/
//! curl --interface 127.0.0.3 http://127.0.0.1:10080/
//! ```
//!
//! The second is rejected. Its log is on stderr: `RUST_LOG=debug` shows each connection, `RUST_LOG=off` nothing. SIGHUP reads the file of
//! networks again, and SIGUSR1 logs counts.

mod demo;
mod networks;

use std::{
    fs,
    io::{self, IsTerminal as _, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use spop_tokio::{Actions, Address, ArgError, Request, Router, Scope, Server, Stats, Swap};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::networks::{Networks, Score};

/// Tells HAProxy the reputation of addresses.
#[derive(Debug, Parser)]
struct Options {
    /// Where to listen: HOST:PORT, or the path of a unix socket. May be given several times.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:12345")]
    listen: Vec<String>,
    /// A file of lines NETWORK SCORE. Without it, the one that comes with the example.
    #[arg(long, value_name = "FILE")]
    networks: Option<PathBuf>,
    /// The score of addresses that are in no network of the file.
    #[arg(long, value_name = "SCORE", default_value_t = 50, value_parser = clap::value_parser!(u8).range(..=100))]
    default_score: Score,
    /// Serves without the demonstration.
    #[arg(long)]
    no_demo: bool,
}

struct Reputation {
    networks: Networks,
    default_score: Score,
}

async fn score(reputation: &Reputation, request: Request) -> Result<Actions, ArgError> {
    let address: IpAddr = request.arg("ip")?;
    let score = reputation.networks.score(address).unwrap_or(reputation.default_score);
    Ok(Actions::new().set(Scope::Session, "ip_score", i32::from(score)))
}

fn router(reputation: Reputation) -> Router<Reputation> {
    Router::with_state(reputation).on("get-ip-reputation", score)
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colors = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(io::stderr).init();
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ip-reputation: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> io::Result<()> {
    let default_score = options.default_score;
    let (networks, source) = read(options.networks.as_deref())?;
    let count = networks.len();
    let current = Swap::new(router(Reputation { networks, default_score }));
    let mut server = Server::new(current.clone());
    for address in options.listen {
        server = server.bind(address).await?;
    }
    let handle = server.handle();
    handle.end_on_signals()?;
    let (mut hangup, mut user) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);

    let mut out = io::stdout();
    let addresses = server.addresses()?;
    for address in &addresses {
        writeln!(out, "listening on {address}")?;
    }
    writeln!(out, "serving {count} networks of {source}; any other address has score {default_score}")?;

    let mut serving = tokio::spawn(server.serve());
    // An error of standard output, such as a closed pipe, does not end the agent.
    if let Err(error) = introduce(addresses.into_iter().next().filter(|_| !options.no_demo), &mut out).await {
        eprintln!("ip-reputation: {error}; it serves on");
    }
    loop {
        tokio::select! {
            served = &mut serving => {
                log_counts(&handle.stats());
                return served?;
            }
            _ = user.recv() => log_counts(&handle.stats()),
            _ = hangup.recv() => match (&options.networks, read(options.networks.as_deref())) {
                (None, _) => info!("nothing to reload"),
                (Some(_), Ok((networks, _))) => {
                    let count = networks.len();
                    current.replace(router(Reputation { networks, default_score }));
                    info!(networks = count, "networks were read again");
                }
                (Some(_), Err(error)) => error!("the networks stay as they were: {error}"),
            },
        }
    }
}

fn log_counts(stats: &Stats) {
    info!(requests = stats.requests, answered = stats.answered, failed = stats.failures.total(), "counts");
}

/// The demonstration, unless there is no agent for it, and what else can be tried.
async fn introduce(agent: Option<Address>, out: &mut impl Write) -> io::Result<()> {
    if let Some(agent) = agent {
        // As long as spoe-ip-reputation.conf lets HAProxy wait.
        demo::run(agent, Duration::from_millis(500), out).await?;
    }
    writeln!(out, "try it: haproxy -f spop-tokio/examples/ip-reputation/haproxy.cfg")?;
    writeln!(out, "        curl --interface 127.0.0.2 http://127.0.0.1:10080/")?;
    writeln!(out, "        curl --interface 127.0.0.3 http://127.0.0.1:10080/   (is rejected)")?;
    out.flush()
}

/// The networks, and where they come from.
fn read(file: Option<&Path>) -> io::Result<(Networks, String)> {
    let (text, source) = match file {
        Some(path) => {
            let source = path.display().to_string();
            let text =
                fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{source}: {error}")))?;
            (text, source)
        }
        None => (include_bytes!("networks.txt").to_vec(), "the built-in networks.txt".to_owned()),
    };
    let networks = Networks::parse(&text).map_err(|line| io::Error::other(format!("{source}: {line}")))?;
    Ok((networks, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("networks");
        let error = || read(Some(&path)).map(|_| ()).unwrap_err().to_string();
        let name = path.display();
        assert!(error().starts_with(&format!("{name}: No such file")));
        fs::write(&path, b"10.0.0.0/8 5\n\xff 6\n").unwrap();
        assert_eq!(error(), format!("{name}: line 2: it is not UTF-8"));
        fs::write(&path, "10.0.0.0/8 5\n10.0.0.1").unwrap();
        assert_eq!(error(), format!("{name}: line 2: expected NETWORK SCORE, found \"10.0.0.1\""));
        fs::write(&path, "10.0.0.0/8 5").unwrap();
        assert_eq!(read(Some(&path)).unwrap().0.len(), 1);
    }
}
