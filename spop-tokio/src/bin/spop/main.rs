//! `spop`: the protocol between HAProxy and its agents, from the command line.
//!
//! Each command is a module with its options (clap's `Args`) and an async function `run`, which gets them and the [`Output`],
//! and returns an [`Exit`] or a [`Failure`]. A new one is added to [`Command`]. What they share: addresses and transports
//! ([`address`], [`accept`]), frames in a stream ([`frames`]), a connection at the level of frames ([`conversation`]), AGENT-HELLOs
//! as they were sent ([`hello`]), the versions of HAProxy ([`haproxy`]), the notation ([`text`]), output as text or JSON
//! ([`output`]), frames and events in it ([`shown`]), what passes between HAProxy and an agent ([`watch`]), and exit statuses
//! ([`exit`]).

#![forbid(unsafe_code)]

mod accept;
mod address;
mod bench;
mod check;
mod conform;
mod conversation;
mod decode;
mod exit;
mod explain;
mod frames;
mod generate;
mod haproxy;
mod hello;
mod input;
mod insecure;
mod listen;
mod output;
mod relay;
mod send;
mod shown;
mod text;
mod time;
mod variables;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime;

use crate::{
    exit::{Exit, Failure},
    output::{Output, OutputOptions},
};

/// Tools for SPOP, the protocol that HAProxy speaks to its agents (SPOE)
#[derive(Debug, Parser)]
#[command(name = "spop", version, after_help = exit::HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    output: OutputOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Options),
    Conform(Box<conform::Options>),
    Send(send::Options),
    Bench(Box<bench::Options>),
    Listen(listen::Options),
    Relay(Box<relay::Options>),
    Decode(decode::Options),
    Explain(explain::Options),
    Completions(generate::Completions),
    Man(generate::Man),
}

impl Command {
    async fn run(self, output: Output) -> Result<Exit, Failure> {
        match self {
            Self::Check(options) => check::run(options, output).await,
            Self::Conform(options) => conform::run(*options, output).await,
            Self::Send(options) => send::run(options, output).await,
            Self::Bench(options) => bench::run(*options, output).await,
            Self::Listen(options) => listen::run(options, output).await,
            Self::Relay(options) => relay::run(*options, output).await,
            Self::Decode(options) => decode::run(options, output).await,
            Self::Explain(options) => explain::run(options, output).await,
            Self::Completions(options) => generate::completions(&options),
            Self::Man(options) => generate::man(&options),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::from(cli.output);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(cli.command.run(output));
            // A name that is being looked up does not delay the end.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::io_of("the runtime", &error)),
    };
    result
        .unwrap_or_else(|failure| {
            failure.show();
            failure.exit
        })
        .into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
