//! `spop listen`: an agent that shows what HAProxy sends, and answers what it is told.

mod connection;
mod rules;
mod trace;

use std::{sync::Arc, time::Duration};

use clap::{ArgAction, Args};
use spop_core::{AgentConfig, agent::PipeliningPolicy, frame::Capabilities};
use spop_server::{BufferedTotal, ServerConfig};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use self::{
    rules::{Rule, Rules},
    trace::Trace,
};
use crate::{
    accept::{AcceptOptions, Listener},
    address::{self, Address},
    exit::{self, Exit, Failure},
    output::Output,
    text, time,
};

/// Connections at once. HAProxy opens hundreds where something is wrong.
const CONNECTIONS: usize = 1_000;

/// How long connections may take to end.
const DRAIN: Duration = Duration::from_secs(1);

const RULES: &str = r#"
Answers:
  Without --on, every message gets the same answer: --set, --unset, --delay, --fail and so on.
  --on MESSAGE ANSWER gives a message its own. An ANSWER has parts, separated by semicolons:
    set SCOPE NAME=TYPE:VALUE     an action, in the notation; SCOPE is proc, sess, txn, req or res
    unset SCOPE NAME
    delay TIME, size BYTES, fail, abort, ignore, disconnect STATUS     as the options
  The answers to several messages of one NOTIFY are joined: all actions, the longest delay, and of
  fail, abort, ignore and disconnect the first.

  spop listen 127.0.0.1:12345 --set 'txn score=int32:42' \
      --on check-body 'delay 300ms ; set txn bad=bool:true' --on check-user 'disconnect 42'

Each line has the time (UTC), the number of the connection, and:
  >  a frame from HAProxy     <  a frame to HAProxy     *  what happens to the connection

JSON, one object per frame or event:
  {"event":"listening","time":"…","address":"127.0.0.1:12345"}
  {"event":"frame","time":"2026-01-02T03:04:05.000006Z","connection":1,"direction":"from-haproxy",
   "type":"NOTIFY","stream":1,"frame":1,"fin":true,"abort":false,"size":31,"text":"NOTIFY fin …"}
  {"event":"opened","time":"…","connection":1,"peer":"127.0.0.1:40000"}
  {"event":"session","time":"…","connection":1,"max_frame_size":16380,"capabilities":"pipelining",
   "peer_capabilities":"pipelining,async"}
  {"event":"note","time":"…","connection":1,"text":"…"}
  {"event":"closed","time":"…","connection":1,"reason":"…","normal":true}
  direction is "from-haproxy" or "to-haproxy"; size includes the length prefix.
"#;

/// Runs an agent that shows what HAProxy sends, and answers what it is told
///
/// For trying an SPOE configuration before its agent exists. It ends with ^C, or with SIGTERM and exit status 0.
#[derive(Args, Debug)]
#[command(after_help = exit::HELP, after_long_help = format!("{}\n{RULES}\n{}", address::HELP, exit::HELP))]
pub(crate) struct Options {
    /// Where to listen: HOST:PORT, *:PORT, or the path of a unix socket
    #[arg(value_parser = Address::parse)]
    address: Address,
    /// Sets a variable in each answer: 'SCOPE NAME=TYPE:VALUE'
    #[arg(long, value_name = "VARIABLE", value_parser = set)]
    set: Vec<Rule>,
    /// Unsets a variable in each answer: 'SCOPE NAME'
    #[arg(long, value_name = "VARIABLE", value_parser = unset)]
    unset: Vec<Rule>,
    /// Answers a message in its own way; see --help
    #[arg(long, value_names = ["MESSAGE", "ANSWER"], num_args = 2, action = ArgAction::Append)]
    on: Vec<String>,
    /// Waits before it answers
    #[arg(long, value_name = "TIME", value_parser = time::duration)]
    delay: Option<Duration>,
    /// Fills each ACK up to this size with a variable `txn.padding`
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    size: Option<u32>,
    /// Answers without actions, as an agent whose handler fails
    #[arg(long, group = "end")]
    fail: bool,
    /// Answers with ABORT
    #[arg(long, group = "end")]
    abort: bool,
    /// Does not answer
    #[arg(long, group = "end")]
    ignore: bool,
    /// Disconnects with this status instead of an answer
    #[arg(long, value_name = "STATUS", group = "end")]
    disconnect: Option<u32>,
    /// The longest frame that is announced; by default what HAProxy offers
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(256..=1 << 20))]
    max_frame_size: Option<u32>,
    /// The capabilities that are announced, of fragmentation, pipelining and async; may be empty. By default fragmentation,
    /// and pipelining up to HAProxy 3.0
    #[arg(long, value_name = "LIST", value_parser = capabilities)]
    capabilities: Option<Capabilities>,
    /// Cuts lines after so many characters; 0 shows all
    #[arg(long, value_name = "CHARACTERS", default_value_t = 1_000)]
    cut: usize,
    #[command(flatten)]
    accept: AcceptOptions,
}

pub(crate) async fn run(options: Options, output: Output) -> Result<Exit, Failure> {
    let rules = Arc::new(options.rules()?);
    for name in rules.dropped_names() {
        exit::warn(format_args!("warning: HAProxy drops it: {name}"));
    }
    let config = options.config();
    let config = Arc::new(config.checked().map_err(Failure::usage)?);
    let listener = Listener::bind(&options.address, &options.accept)?;
    let mut trace = Trace::new(output, options.cut);
    trace.listening(&listener.address())?;

    let signals = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    let (mut interrupt, mut terminate) = signals.map_err(|error| Failure::io_of("signals", &error))?;
    let (stop, stopping) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let buffered = Arc::new(BufferedTotal::new(ServerConfig::default().max_buffered_bytes));
    let mut connections = JoinSet::new();
    let exit = loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                // A connection ends the command only where the output has gone.
                ended.map_err(Failure::io)??;
                continue;
            }
            _ = interrupt.recv() => break Exit::Interrupted,
            _ = terminate.recv() => break Exit::Fine,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                trace.problem(format_args!("a connection was not accepted: {}", exit::reason(&error)))?;
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            trace.problem(format_args!("{CONNECTIONS} connections are open: another one is closed"))?;
            continue;
        };
        let trace = trace.connection();
        let serving = connection::Serving {
            config: Arc::clone(&config),
            rules: Arc::clone(&rules),
            stopping: stopping.clone(),
            buffered: Arc::clone(&buffered),
            trace,
        };
        let entrance = listener.entrance();
        connections.spawn(async move {
            let _slot = slot;
            serving.run(socket.boxed(), peer, entrance).await
        });
    };
    // An error means that no connection is open.
    let _ = stop.send(true);
    let drained = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        connections.abort_all();
    }
    Ok(exit)
}

impl Options {
    fn rules(&self) -> Result<Rules, Failure> {
        let mut default = Rule::default();
        for part in self.set.iter().chain(&self.unset) {
            default.join(part);
        }
        let options = [
            self.delay.map(|delay| Rule { delay, ..Rule::default() }),
            self.size.map(|size| Rule { size: Some(size as usize), ..Rule::default() }),
            self.fail.then(|| Rule::ending(rules::End::Fail)),
            self.abort.then(|| Rule::ending(rules::End::Abort)),
            self.ignore.then(|| Rule::ending(rules::End::Ignore)),
            self.disconnect.map(|status| Rule::ending(rules::End::Disconnect(status))),
        ];
        for option in options.iter().flatten() {
            default.join(option);
        }
        let mut rules = Rules::new(default);
        for pair in self.on.chunks_exact(2) {
            if let [message, answer] = pair {
                let rule = answer
                    .parse()
                    .map_err(|error| Failure::usage(format_args!("--on {message}: {error}")))?;
                rules.on(message, &rule);
            }
        }
        Ok(rules)
    }

    fn config(&self) -> AgentConfig {
        let mut config = AgentConfig::default();
        config.max_frame_size = self.max_frame_size.unwrap_or(config.max_frame_size);
        if let Some(capabilities) = self.capabilities {
            config.capabilities = capabilities;
            config.pipelining = PipeliningPolicy::Always;
        }
        // A NOTIFY that is not to be answered waits until HAProxy gives it up.
        config.processing = None;
        config.timeouts.message = None;
        config.timeouts.drain = DRAIN / 2;
        config.timeouts.linger = DRAIN / 2;
        config
    }
}

fn set(text: &str) -> Result<Rule, String> {
    text::actions(&format!("set {text}")).map(Rule::from)
}

fn unset(text: &str) -> Result<Rule, String> {
    text::actions(&format!("unset {text}")).map(Rule::from)
}

fn capabilities(list: &str) -> Result<Capabilities, String> {
    let mut set = Capabilities::NONE;
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let capability = Capabilities::by_name(name.as_bytes());
        set |= capability.ok_or_else(|| format!("there is no capability {name:?}"))?;
    }
    Ok(set)
}
