//! The command line of the echo agents.

use std::{io, time::Duration};

use clap::Parser;
use spop_core::{AgentConfig, agent::PipeliningPolicy, config::ConfigError, frame::Capabilities};

/// Answers HAProxy with what it says, to try out an SPOE configuration.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Options {
    /// Where to listen: HOST:PORT, the path of a unix socket, or HAProxy's unix@PATH, abns@NAME, *:PORT. May be given several
    /// times.
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub(crate) listen: Vec<String>,
    /// The longest frame. The library's default, 1 MiB, unless given.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_frame_size: Option<u32>,
    /// A comma-separated list of fragmentation, pipelining and async, offered to every peer; may be empty. Unless given,
    /// fragmentation, and pipelining to all but HAProxy 3.1 and later.
    #[arg(long, value_name = "LIST", value_parser = capabilities)]
    pub(crate) capabilities: Option<Capabilities>,
    /// NOTIFYs that may wait for their answers, on each connection. The library's default, 256, unless given.
    #[arg(long, value_name = "N")]
    pub(crate) max_in_flight: Option<usize>,
    /// What HAProxy's `timeout processing` is; 0 if it is not known.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub(crate) processing: u64,
    /// The longest payload in fragments.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub(crate) max_payload: usize,
    /// Connections at once; more are closed as they come.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) max_connections: usize,
    /// Threads. As many as there are processors unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// How long the handshake may take.
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    pub(crate) hello_timeout: u64,
    /// How long a connection may be idle.
    #[arg(long, value_name = "MS", default_value_t = 600_000)]
    pub(crate) idle_timeout: u64,
    /// How long a frame may take to arrive.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub(crate) frame_timeout: u64,
    /// How long health checks and monitors are refused before a drain, while everything else is served.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) lame_duck: u64,
    /// How long a drain may take.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub(crate) drain_timeout: u64,
    /// For measuring: reads every argument, then answers with one `set-var txn score int32 42`.
    #[arg(long)]
    pub(crate) score: bool,
}

impl Options {
    /// The first stage of a shutdown.
    pub(crate) const fn lame_duck(&self) -> Duration {
        Duration::from_millis(self.lame_duck)
    }

    /// What the options say about the protocol.
    ///
    /// # Errors
    /// Names the option whose value the library refuses.
    pub(crate) fn config(&self) -> io::Result<AgentConfig> {
        let config = self.unchecked();
        match config.clone().checked() {
            Ok(_) => Ok(config),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, in_options(&error))),
        }
    }

    fn unchecked(&self) -> AgentConfig {
        let mut config = AgentConfig::default();
        config.max_frame_size = self.max_frame_size.unwrap_or(config.max_frame_size);
        if let Some(capabilities) = self.capabilities {
            config.capabilities = capabilities;
            config.pipelining = PipeliningPolicy::Always;
        }
        config.limits.max_in_flight = self.max_in_flight.unwrap_or(config.limits.max_in_flight);
        config.processing = (self.processing > 0).then(|| Duration::from_millis(self.processing));
        config.limits.max_payload = self.max_payload;
        // No option of its own: large enough for the others.
        let largest = self.max_payload.max(config.max_frame_size as usize);
        config.limits.max_payload_bytes = config.limits.max_payload_bytes.max(largest);
        config.timeouts.hello = Some(Duration::from_millis(self.hello_timeout));
        config.timeouts.idle = Some(Duration::from_millis(self.idle_timeout));
        config.timeouts.frame = Some(Duration::from_millis(self.frame_timeout));
        config.timeouts.drain = Duration::from_millis(self.drain_timeout);
        // The message `abort`.
        config.watch_fragments = true;
        config
    }
}

/// What is wrong, in terms of the command line.
fn in_options(error: &ConfigError) -> String {
    let option = match &*error.field {
        "max_frame_size" => "--max-frame-size",
        "limits.max_in_flight" => "--max-in-flight",
        "limits.max_payload" => "--max-payload",
        "timeouts.hello" => "--hello-timeout",
        "timeouts.idle" => "--idle-timeout",
        "timeouts.frame" => "--frame-timeout",
        _ => return error.to_string(),
    };
    // What follows a semicolon is for those who write code.
    let bound = error.bound.split(';').next().unwrap_or_default();
    format!("{option} is {}, and must be {bound}", error.value)
}

fn capabilities(list: &str) -> Result<Capabilities, String> {
    let mut set = Capabilities::NONE;
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let capability = Capabilities::by_name(name.as_bytes());
        set |= capability.ok_or_else(|| format!("there is no capability {name:?}"))?;
    }
    Ok(set)
}
