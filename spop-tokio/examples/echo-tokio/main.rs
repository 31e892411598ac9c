//! Echoes every argument of every message as a variable: for trying an SPOE configuration, and for tests.
//!
//! ```text
//! cargo run --release -p spop-tokio --example echo-tokio -- --listen 127.0.0.1:12345 --listen /run/echo.sock
//! ```

mod echo;
mod options;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    thread,
};

use clap::Parser as _;
use spop_tokio::{Handler, Partial, Reply, Request, Server, ServerConfig, Watch};
use tokio::{
    runtime::{self, Runtime},
    time::sleep,
};

use crate::{echo::End, options::Options};

/// The handler; all that it knows is in `echo`.
struct Echo {
    score: bool,
}

impl Handler for Echo {
    type Output = Reply;

    async fn handle(&self, request: Request) -> Reply {
        if self.score {
            return echo::score(request.messages()).into();
        }
        let plan = echo::plan(request.messages());
        if !plan.wait.is_zero() {
            // Without it, the memory of its messages can be used again.
            let _held = request.message("hold").is_some().then_some(request);
            sleep(plan.wait).await;
        }
        match plan.end {
            Ok(End::Ack(actions)) => Reply::Ack(actions),
            Ok(End::Disconnect(status)) => Reply::Disconnect { status, message: "as you wish".into() },
            Err(failure) => Reply::failed(failure.to_string()),
        }
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        if echo::is_refused(arriving) { Watch::Refuse } else { Watch::Continue }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    let colors = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(io::stderr).init();
    match runtime(&options).and_then(|runtime| runtime.block_on(run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo-tokio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(options: &Options) -> io::Result<Runtime> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    match options.workers.map_or(threads, usize::from) {
        1 => runtime::Builder::new_current_thread().enable_all().build(),
        workers => runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build(),
    }
}

async fn run(options: &Options) -> io::Result<()> {
    let mut config = ServerConfig::from(options.config()?);
    config.max_connections = options.max_connections;
    config.lame_duck = options.lame_duck();
    let mut server = Server::with_config(Echo { score: options.score }, config)?;
    for address in &options.listen {
        server = server.bind(address).await?;
    }
    server.handle().end_on_signals()?;
    let mut stdout = io::stdout();
    for address in server.addresses()? {
        writeln!(stdout, "listening on {address}")?;
    }
    stdout.flush()?;
    server.serve().await
}
