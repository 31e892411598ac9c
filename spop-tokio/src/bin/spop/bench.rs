//! `spop bench`: how much an agent can take, and how fast it answers.

mod channel;
mod compare;
mod connection;
mod cpu;
mod live;
mod plan;
mod report;
mod run;
mod shared;
mod source;
mod stats;
mod supply;
mod template;
mod timer;
mod worker;

use std::{num::NonZero, path::PathBuf, thread, time::Duration};

use clap::Args;

use self::{
    compare::Agent,
    live::Live,
    plan::{Rate, Schedule},
    run::{End, Settings},
    supply::Load,
    template::Template,
};
use crate::{
    address::{self, Address, ConnectOptions, Connector},
    conversation::Conversation,
    exit::{self, Exit, Failure},
    haproxy::Version,
    output::{Output, Paint},
    time,
};

const EXAMPLES: &str = "
Load:
  With --rate, requests are due at even intervals whether the agent answers or not, and a latency is
  counted from when its request was due: an agent that stalls is not spared the requests that it
  should have got meanwhile (no coordinated omission). Without, each connection sends the next
  request when one is answered (closed loop), which finds the highest rate.
  --ramp raises the rate from 0, or begins on one connection after another. A rate FROM..TO changes
  in the time of --ramp, or in that of the run.
  A request fails if it is not answered within --timeout; so does one for which no connection was
  free for so long. Failed requests have no part in the latencies.

  spop bench 127.0.0.1:12345 'check-ip ip=ipv4:{random}' --connections 32
  spop bench 127.0.0.1:12345 'check-ip ip=ipv4:{random}' --rate 5000 --ramp 5s --time 1m
  spop bench 127.0.0.1:12345 --capture conn-1.in.bin --compare 127.0.0.1:12346
";

const JSON: &str = r#"
JSON, one object per run, and with --compare one per metric:
  {"event":"run","address":"…","seconds":10.0,"sent":50000,"answered":50000,"per_second":5000.0,
   "failed":0,"never_sent":0,"unfinished":0,"malformed":0,"mean_ms":0.2,
   "percentiles":[{"percentile":50.0,"ms":0.2}],"histogram":[{"up_to_ms":0.2,"count":25000}],
   "errors":[{"code":258,"name":"…","meaning":"…","count":1}],
   "sessions_ended":[{"reason":"…","count":1}],"agent_cpu_ms":null,"bench_cpu_ms":400.0,
   "interrupted":false,"gone":null}
  {"event":"ratio","metric":"rate","rounds":5,"first":5000.0,"second":6000.0,"ratio":1.2,
   "lowest":1.1,"highest":1.3}
"#;

/// Puts an agent under load, and measures how fast it answers
///
/// Requests are numbered from 0; several messages take turns, on each thread. It ends with ^C as well, and reports what was measured until then.
#[derive(Args, Debug)]
#[command(
    after_help = exit::HELP,
    after_long_help = format!("{}\n{EXAMPLES}\n{}\n{JSON}\n{}", address::HELP, template::HELP, exit::HELP)
)]
pub(crate) struct Options {
    /// The agent: HOST:PORT, or the path of a unix socket
    #[arg(value_parser = Address::parse)]
    address: Address,
    /// Messages in the notation, such as 'check-ip ip=ipv4:{random}'; each argument is one NOTIFY
    #[arg(value_name = "MESSAGE", value_parser = Template::parse, required_unless_present_any = ["messages_from", "capture"])]
    messages: Vec<Template>,
    /// Reads messages from a file as well, one NOTIFY a line; blank lines and those with # are skipped
    #[arg(long, value_name = "FILE")]
    messages_from: Option<PathBuf>,
    /// Sends the NOTIFYs of a recording: the bytes that HAProxy has sent on a connection
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Requests per second, or FROM..TO; without, each connection sends the next request when one is answered
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// How long requests are sent; 10s unless their number is given
    #[arg(long, value_name = "TIME", value_parser = time::timeout)]
    time: Option<Duration>,
    /// How many requests are sent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// The time in which the rate, or the number of connections in use, rises
    #[arg(long, value_name = "TIME", value_parser = time::duration)]
    ramp: Option<Duration>,
    /// The number of connections
    #[arg(long, short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// The most requests in flight on a connection; more than 1 needs an agent that announces pipelining
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    in_flight: u32,
    /// The number of threads; by default one for each processor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    threads: Option<u32>,
    /// The version of HAProxy to behave like
    #[arg(long, value_name = "VERSION", default_value = "3.4")]
    engine: Version,
    /// How long to wait for each answer: `timeout processing`
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time::timeout)]
    timeout: Duration,
    /// The longest frame that this side announces: HAProxy's `tune.bufsize` - 4
    #[arg(long, value_name = "BYTES", default_value_t = 16_380, value_parser = clap::value_parser!(u32).range(256..=1 << 20))]
    max_frame_size: u32,
    /// The process of the agent: its processor time is measured
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Measures this agent as well, in turns with the first, and prints ratios; --time and --requests are those of a turn
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    compare: Option<Address>,
    /// The process of the other agent
    #[arg(long, value_name = "PID", requires = "compare")]
    compare_pid: Option<u32>,
    /// How often each of the agents has its turn
    #[arg(long, value_name = "N", default_value_t = 5, requires = "compare", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Makes the random values the same in each run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Shows nothing on the terminal until the end
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    connect: ConnectOptions,
}

pub(crate) async fn run(options: Options, output: Output) -> Result<Exit, Failure> {
    let settings = options.settings()?;
    let agent = |address: &Address, pid| {
        Ok::<_, Failure>(Agent { connector: Connector::new(address.clone(), &options.connect)?, pid })
    };
    let first = agent(&options.address, options.pid)?;
    let second = options.compare.as_ref().map(|address| agent(address, options.compare_pid)).transpose()?;
    // One for all parts: it may be pressed between them.
    let mut interrupt = exit::Interrupt::listen()?;
    for agent in [Some(&first), second.as_ref()].into_iter().flatten() {
        if let Some(pid) = agent.pid {
            cpu::of(pid)?;
        }
        exit::interruptible_by(&mut interrupt, greet(&agent.connector, &settings, output)).await?;
    }
    describe(&settings, output)?;
    let mut live = Live::new(options.quiet, settings.load.time);
    if let Some(second) = second {
        return compare::run(
            &[first, second],
            options.rounds as usize,
            &settings,
            &mut interrupt,
            &mut live,
            output,
        )
        .await;
    }
    let address = first.connector.address().to_string();
    live.begin(address.clone());
    let outcome = run::run(&first.connector, first.pid, &settings, &mut interrupt, &mut live).await?;
    live.clear();
    report::object(output, &address, &outcome)?;
    report::text(output, &outcome, &settings)?;
    match outcome.end {
        End::Done => Ok(Exit::unless(outcome.stats.is_bad())),
        End::Interrupted => Err(Failure::interrupted()),
        End::Gone(reason) => Err(gone(&reason)),
    }
}

/// The agent has gone in the middle of a run.
fn gone(reason: &str) -> Failure {
    Failure::io(format_args!("the agent has gone: {reason}"))
}

/// Tries the handshake on a connection of its own, so that what is no agent is told in one line.
async fn greet(connector: &Connector, settings: &Settings, output: Output) -> Result<(), Failure> {
    let address = connector.address();
    let mut conversation = Conversation::open(connector).await?;
    let session = conversation
        .greet(&settings.config(), settings.timeout)
        .await
        .map_err(|error| Failure::wrong(format_args!("{address}: {error}")))?;
    let capabilities = session.peer_capabilities.to_string();
    let capabilities = if capabilities.is_empty() { "no capabilities".into() } else { capabilities };
    let line = format!(
        "{address}: SPOP {}, max-frame-size {}, {capabilities}; asked as HAProxy {}",
        session.version, session.max_frame_size, settings.version
    );
    output.line(output.paint(Paint::Dim, line))?;
    if settings.in_flight > 1 && !session.capabilities.allow_overlap() {
        exit::warn(format_args!(
            "warning: {address} offers HAProxy {} no pipelining: one request in flight on each connection",
            settings.version
        ));
    }
    if settings.version.is_old() {
        conversation.disconnect(spop_core::Status::NORMAL, settings.timeout).await;
    }
    Ok(())
}

fn describe(settings: &Settings, output: Output) -> Result<(), Failure> {
    let Settings { connections, in_flight, threads, .. } = settings;
    output.line(output.paint(
        Paint::Dim,
        format_args!("{connections} connections, at most {in_flight} in flight on each, {threads} threads"),
    ))
}

impl Options {
    fn settings(&self) -> Result<Settings, Failure> {
        let mut templates = self.messages.clone();
        if let Some(path) = &self.messages_from {
            templates.extend(source::lines(path)?);
        }
        if let Some(path) = &self.capture {
            templates.extend(source::capture(path)?);
        }
        let time = self.time.or(if self.requests.is_none() { Some(Duration::from_secs(10)) } else { None });
        if let Some(Rate { from: Some(_), .. }) = self.rate
            && self.ramp.or(time).is_none()
        {
            return Err(Failure::usage("a rate that changes needs --time or --ramp"));
        }
        let schedule = self.rate.map(|rate| Schedule::new(rate, self.ramp, time));
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let connections = self.connections as usize;
        let threads = self.threads.map_or(processors, |threads| threads as usize).min(connections);
        let load = Load { schedule, time, requests: self.requests, ramp: self.ramp.unwrap_or_default() };
        let settings = Settings {
            version: self.engine,
            max_frame_size: self.max_frame_size,
            connections,
            in_flight: self.in_flight as usize,
            threads,
            load,
            timeout: self.timeout,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
            templates,
        };
        settings.config().checked().map_err(Failure::usage)?;
        Ok(settings)
    }
}
