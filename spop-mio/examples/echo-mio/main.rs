//! Echoes every argument of every message as a variable: for trying an SPOE configuration, and for tests.
//!
//! ```text
//! cargo run --release --example echo-mio -- --listen 127.0.0.1:12345 --listen /run/echo.sock
//! ```

#[path = "../../../spop-tokio/examples/echo-tokio/echo.rs"]
mod echo;
#[path = "../../../spop-tokio/examples/echo-tokio/options.rs"]
mod options;
mod sleeper;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use spop_mio::{Handler, Outcome, Partial, Reply, Request, Server, ServerConfig, Watch};

use crate::{
    echo::{End, Failure},
    options::Options,
    sleeper::Sleeper,
};

/// The handler; all that it knows is in `echo`.
#[derive(Clone)]
struct Echo {
    score: bool,
    sleeper: Sleeper,
}

impl Handler for Echo {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        if self.score {
            return echo::score(request.messages()).into();
        }
        let plan = echo::plan(request.messages());
        let reply = reply(plan.end);
        if plan.wait.is_zero() {
            return reply.into();
        }
        request.defer(|responder| self.sleeper.reply_after(plan.wait, responder, reply))
    }

    fn watch(&mut self, arriving: Partial<'_>) -> Watch {
        if echo::is_refused(arriving) { Watch::Refuse } else { Watch::Continue }
    }
}

fn reply(end: Result<End, Failure>) -> Reply {
    match end {
        Ok(End::Ack(actions)) => Reply::Ack(actions),
        Ok(End::Disconnect(status)) => Reply::Disconnect { status, message: "as you wish".into() },
        Err(failure) => Reply::failed(failure.to_string()),
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    let colors = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(io::stderr).init();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo-mio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let handler = Echo { score: options.score, sleeper: Sleeper::start()? };
    let mut config = ServerConfig::from(options.config()?);
    config.max_connections = options.max_connections;
    config.lame_duck = options.lame_duck();
    let mut server = Server::with_config(handler, config)?;
    if let Some(workers) = options.workers {
        server = server.workers(workers.into());
    }
    for address in &options.listen {
        server = server.bind(address)?;
    }
    server.handle().end_on_signals()?;
    let mut stdout = io::stdout();
    for address in server.addresses()? {
        writeln!(stdout, "listening on {address}")?;
    }
    stdout.flush()?;
    server.serve()
}
