//! The command line.

use std::{num::NonZero, path::PathBuf, thread::available_parallelism, time::Duration};

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use program::{ServerOptions, positive_time};

/// Where the agent listens unless it is told, or systemd has opened sockets for it.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:12403";

/// A small web application firewall for HAProxy: rules with scores for requests and their responses.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "Without --listen, and without sockets of systemd, it listens on 127.0.0.1:12403."
)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    /// The rules, which are read again on SIGHUP. Without it, those that come with the program.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Whether messages are refused, or only scored and logged.
    #[arg(long, value_enum, default_value_t = Mode::Block)]
    pub(crate) mode: Mode,
    /// The score at which a message is refused.
    #[arg(long, value_name = "SCORE", default_value_t = 5, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) block_at: i32,
    /// Whether a message is refused that could not be inspected in time. In detect mode it passes.
    #[arg(long, value_enum, default_value_t = OnFailure::Block)]
    pub(crate) on_failure: OnFailure,
    /// How long a message may wait and be inspected. Shorter than HAProxy's `timeout processing`: a later answer is of no use.
    #[arg(long, value_name = "TIME", default_value = "150ms", value_parser = positive_time)]
    pub(crate) timeout: Duration,
    /// What `timeout processing` is in spoe.conf.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = positive_time)]
    pub(crate) processing: Duration,
    /// The greatest number of requests that wait or are inspected, and the same of responses. Further ones fail at once.
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_in_flight: u32,
    /// How many messages are inspected at the same time. Default: as many as there are processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) workers: Option<u32>,
    /// How long a request is kept until its response comes.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = positive_time)]
    pub(crate) keep: Duration,
    /// The memory for these requests, in MiB (2^20 bytes).
    #[arg(long, value_name = "MIB", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) keep_size: u32,
}

/// What a score has for consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Messages are scored and logged, and all pass.
    Detect,
    /// Messages with too high a score are refused.
    Block,
}

/// What becomes of a message that was not inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailure {
    /// Fails closed.
    Block,
    /// Fails open.
    Pass,
}

impl OnFailure {
    pub(crate) fn blocks(self) -> bool {
        self == Self::Block
    }
}

impl Options {
    /// Checks what options mean together.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let [timeout, processing] = [self.timeout, self.processing].map(humantime::format_duration);
        ensure!(
            self.timeout < self.processing,
            "--timeout {timeout} is not less than --processing {processing}: HAProxy would not wait for the answer"
        );
        Ok(())
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
            .map_or_else(|| available_parallelism().map_or(1, NonZero::get), |workers| workers as usize)
    }
}
