//! Agents inside the test, for what the echo agents have no options for: of `spop-tokio` where the echo agent is
//! `echo-tokio`, of `spop-mio` where it is `echo-mio`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use spop_core::frame::Messages;
use spop_server::Stats;
use spop_tests::haproxy::Config;
use spop_tests::stage::Stage;
use spop_tests::wait::{PATIENCE, until};
use spop_tokio::accept::AcceptConfig;
use spop_tokio::tls::{Tls, TlsFiles};
use spop_tokio::{Actions, Scope};
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What its listener asks of connections before their sessions.
#[derive(Default)]
pub(super) struct Entrance {
    pub(super) accept: AcceptConfig,
    pub(super) tls: Option<Files>,
}

/// A certificate and its key in one file, and the authority of the certificates that clients must have.
pub(super) struct Files {
    pub(super) agent: PathBuf,
    pub(super) clients: PathBuf,
}

/// A running agent. It answers the message `echo` with its argument `v`, and says what it knows of the connection.
pub(super) struct Agent {
    pub(super) address: String,
    tls: Option<Tls>,
    inside: Inside,
}

enum Inside {
    Tokio { handle: spop_tokio::ServerHandle, handler: spop_tokio::Swap<OnTokio>, _runtime: Runtime },
    Mio { handle: spop_mio::ServerHandle, handler: spop_mio::Swap<OnMio> },
}

impl Agent {
    pub(super) fn start(stage: &Stage, entrance: Entrance) -> Result<Self> {
        let Entrance { accept, tls } = entrance;
        let files =
            tls.map(|Files { agent, clients }| TlsFiles::new(&agent, &agent).require_clients_of(clients));
        let tls = files.map(Tls::from_files).transpose()?;
        let (address, inside) = match stage.agent_name() {
            "echo-tokio" => Inside::tokio(accept, tls.as_ref())?,
            "echo-mio" => Inside::mio(accept, tls.as_ref())?,
            other => bail!("what is {other}?"),
        };
        Ok(Self { address, tls, inside })
    }

    pub(super) fn stats(&self) -> Stats {
        match &self.inside {
            Inside::Tokio { handle, .. } | Inside::Mio { handle, .. } => handle.stats(),
        }
    }

    /// Reads the certificate anew.
    pub(super) fn reload(&self) -> Result<()> {
        Ok(self.tls.as_ref().context("it has no TLS")?.reload()?)
    }

    /// Puts another handler in place of the one that is there.
    pub(super) fn replace(&self, number: u64) {
        match &self.inside {
            Inside::Tokio { handler, .. } => handler.replace(OnTokio(number)),
            Inside::Mio { handler, .. } => handler.replace(OnMio(number)),
        }
    }
}

impl Inside {
    fn tokio(accept: AcceptConfig, tls: Option<&Tls>) -> Result<(String, Self)> {
        let mut endpoint = spop_tokio::Endpoint::from("127.0.0.1:0").accept(accept);
        if let Some(tls) = tls {
            endpoint = endpoint.tls(tls);
        }
        let handler = spop_tokio::Swap::new(OnTokio(0));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = runtime.block_on(spop_tokio::Server::new(handler.clone()).bind(endpoint))?;
        let address = server.addresses()?.first().context("no address")?.to_string();
        let handle = server.handle();
        runtime.spawn(server.serve());
        Ok((address, Self::Tokio { handle, handler, _runtime: runtime }))
    }

    fn mio(accept: AcceptConfig, tls: Option<&Tls>) -> Result<(String, Self)> {
        let mut endpoint = spop_mio::Endpoint::from("127.0.0.1:0").accept(accept);
        if let Some(tls) = tls {
            endpoint = endpoint.tls(tls);
        }
        let handler = spop_mio::Swap::new(OnMio(0));
        let server = spop_mio::Server::new(handler.clone()).workers(1).bind(endpoint)?;
        let address = server.addresses()?.first().context("no address")?.to_string();
        let handle = server.handle();
        thread::spawn(move || server.serve());
        Ok((address, Self::Mio { handle, handler }))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        match &self.inside {
            Inside::Tokio { handle, .. } | Inside::Mio { handle, .. } => handle.stop(),
        }
    }
}

/// Asks the agent for all that it tells.
pub(super) fn config(agent: &Agent) -> Config {
    Config::new(&agent.address)
        .message("echo", "v=url_param(v)")
        .show("echo.v")
        .show("echo.source")
        .show("echo.certificates")
        .show("echo.handler")
}

// ---- handlers ----

/// What both answer.
fn answer(
    messages: Messages<'_>,
    source: Option<SocketAddr>,
    certificates: Option<usize>,
    number: u64,
) -> Actions {
    let mut actions = Actions::new();
    if let Some(value) = messages.get("echo").and_then(|message| message.get("v")) {
        actions.set_var(Scope::Transaction, "echo.v", value);
    }
    if let Some(source) = source {
        actions.set_var(Scope::Transaction, "echo.source", source.ip());
    }
    actions.set_var(Scope::Transaction, "echo.certificates", certificates.unwrap_or(0) as u64);
    actions.set_var(Scope::Transaction, "echo.handler", number);
    actions
}

struct OnTokio(u64);

impl spop_tokio::Handler for OnTokio {
    type Output = Actions;

    async fn handle(&self, request: spop_tokio::Request) -> Actions {
        let certificates = request.tls().map(|tls| tls.certificates.len());
        answer(request.messages(), request.source(), certificates, self.0)
    }
}

#[derive(Clone)]
struct OnMio(u64);

impl spop_mio::Handler for OnMio {
    fn handle(&mut self, request: spop_mio::Request<'_>) -> spop_mio::Outcome {
        let certificates = request.tls().map(|tls| tls.certificates.len());
        answer(request.messages(), request.source(), certificates, self.0).into()
    }
}

// ---- the log ----

/// The warnings of all agents inside this process. Each has its own HAProxy, which connects from an address of its own.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// To be called before the agent is started.
    pub(super) fn start() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            tracing_subscriber::fmt()
                .with_writer(log.clone())
                .with_max_level(LevelFilter::WARN)
                .with_ansi(false)
                .without_time()
                .init();
            log
        })
        .clone()
    }

    /// What was said of connections from this address, as soon as anything was.
    pub(super) fn lines_about(&self, source: Ipv4Addr) -> Result<Vec<String>> {
        let source = source.to_string();
        let named = |line: &str| {
            let mut rest = line.split(&source).skip(1);
            // Not as the front of a longer one.
            rest.any(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
        };
        until("the agent logs", PATIENCE, || {
            let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().filter(|line| named(line)).map(ToOwned::to_owned).collect();
            Ok((!lines.is_empty()).then_some(lines))
        })
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
