//! What the programs among the examples have in common: the log, the options of a server, its status page, and signals.

#![forbid(unsafe_code)]

#[cfg(feature = "connector")]
pub mod connector;
mod counts;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};

use clap::Args;
use signal_hook::{
    consts::{SIGHUP, SIGUSR1},
    iterator::Signals,
};
use spop_server::{
    Address, Endpoint, ServerConfig, ServerHandle,
    status::{Status, install_recorder},
};
use tracing_subscriber::EnvFilter;

pub use crate::counts::{Count, Totals};

/// The options of a server.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// Where to listen: HOST:PORT, or the path of a unix socket, which has a slash in it. May be given several times. Default: the
    /// sockets of systemd, or the address below.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
    /// Serves a status page here, and metrics for Prometheus: HOST:PORT. It has no users and no TLS. Default: none.
    #[arg(long, value_name = "ADDRESS")]
    pub status: Option<String>,
    /// A name of this machine by which the status page may be asked for, besides its addresses and `localhost`: other names get 421. May
    /// be given several times.
    #[arg(long, value_name = "NAME", requires = "status")]
    pub status_host: Vec<String>,
    /// How long a shutdown waits for what is under way. With more than 10s, raise `TimeoutStopSec` of the unit too.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
    /// How long health checks are refused before a shutdown, while everything else is served: more than `inter` times `fall` of
    /// HAProxy's `check`, where it has another agent. Leave it at 0s if the next process has the same socket.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub lame_duck: Duration,
}

impl ServerOptions {
    /// The configuration of a server with these options, for an HAProxy with this `timeout processing`.
    pub fn config(&self, processing: Duration) -> ServerConfig {
        let mut config = ServerConfig::default();
        config.agent.processing = Some(processing);
        config.agent.timeouts.drain = self.drain;
        config.lame_duck = self.lame_duck;
        config
    }

    /// Where to listen: the sockets of systemd and the addresses of the command line; without either, this address.
    ///
    /// # Errors
    /// Sockets of systemd cannot be taken over.
    pub fn endpoints(&self, default: &str) -> io::Result<Vec<Endpoint>> {
        let mut endpoints = Endpoint::from_systemd()?;
        endpoints.extend(self.listen.iter().map(Endpoint::from));
        if endpoints.is_empty() {
            endpoints.push(default.into());
        }
        Ok(endpoints)
    }

    /// Serves the status page, if there is to be one. `collect` sets the program's own metrics.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn serve_status(
        &self,
        handle: ServerHandle,
        collect: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<()> {
        let Some(address) = &self.status else { return Ok(()) };
        let status = Status::new(handle).metrics(install_recorder()?).collector(collect);
        let status = self.status_host.iter().fold(status, Status::host);
        let served = TcpListener::bind(address).and_then(|listener| status.serve(listener));
        served.map_err(|error| io::Error::new(error.kind(), format!("--status {address}: {error}")))
    }
}

/// Has the log written to stderr, as much as `RUST_LOG` says: `info` by default.
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colors = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(io::stderr).init();
}

/// From now on SIGUSR1 calls `report`, and SIGHUP `reload`, in a thread of their own. Neither ends the process any longer.
///
/// # Errors
/// The system has no handler of signals, or no thread.
pub fn on_signals(report: impl Fn() + Send + 'static, reload: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGUSR1])?;
    let handle = move || {
        for signal in signals.forever() {
            if signal == SIGHUP { reload() } else { report() }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(handle)?;
    Ok(())
}

/// SIGHUP of a program that has read no file.
pub fn nothing_to_reload() {
    tracing::info!(name: "nothing_to_reload", "nothing to reload");
}

/// Prints where the server listens. Scripts and tests wait for these lines.
///
/// # Errors
/// Standard output is closed.
pub fn print_addresses(addresses: &[Address]) -> io::Result<()> {
    let mut out = io::stdout();
    for address in addresses {
        writeln!(out, "listening on {address}")?;
    }
    out.flush()
}

/// A time that is not zero, such as `400ms`, for an option.
///
/// # Errors
/// It is zero, or no time.
pub fn positive_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it is zero".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}
