//! `spop relay`: stands between HAProxy and an agent, shows what passes, and injects faults.

mod connection;
mod descriptors;
mod faults;
mod pump;
mod record;
mod tap;
mod watcher;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::sleep,
};

use self::{
    connection::Relaying,
    faults::{Fault, Faults},
    record::Recorder,
    tap::{Counters, Ends, Taps},
    watcher::Watcher,
};
use crate::{
    accept::{AcceptOptions, Listener},
    address::{self, Address, ConnectOptions, Connector},
    exit::{self, Exit, Failure},
    output::{Output, Paint},
    shown::Shown,
    time::Utc,
    watch::{Filter, Printer},
};

/// The port in the made-up addresses of unix sockets.
const UNIX_PORT: u16 = 12_345;

/// The same error of `accept` is shown so often.
const NOT_ACCEPTED: Duration = Duration::from_secs(10);

/// How long the end waits for an output that takes nothing.
const OUTPUT_STALLED: Duration = Duration::from_secs(5);

const HELP: &str = r#"
Examples:
  spop relay 127.0.0.1:12346 127.0.0.1:12345       # HAProxy's server line has port 12346
  spop relay *:12346 /run/agent.sock --record agent.pcap --filter 'message=check-ip'
  spop relay 127.0.0.1:12346 127.0.0.1:12345 --delay '300ms type=ACK'       # a slow agent
  spop relay 127.0.0.1:12346 127.0.0.1:12345 --drop 'type=ACK share=1%'     # lost answers
  spop relay 127.0.0.1:12346 127.0.0.1:12345 --close 'type=ACK after=100 byte=9 times=1'
                                             # an agent that dies once, in the middle of a frame

Each line has the time (UTC), the number of the connection, and:
  >  a frame from HAProxy       <  a frame to HAProxy
  *  what happens to the connection, and payloads that were joined from fragments
  !  a violation, with the direction and the byte of its stream
  ~  a fault that was injected
Lines and recordings are what HAProxy sends and receives, when it does: an answer that is delayed is
shown late, and one that is dropped is shown as a fault alone. What a fault makes illegal is a
violation as well. Bytes pass at once and unchanged, also while nothing more can be shown. A
connection that one side has shut is closed a minute later, if the other side has not shut it; so is
one of which a side has taken nothing for a minute, although there was something for it. Where the
agent cannot be reached, HAProxy's connection is closed after a second.
SIGTERM ends it with status 1 if there were violations, and with status 3 if its output or its
recording has failed: it relays nevertheless, and says so on standard error.

Faults: --delay 'TIME CONDITIONS', --drop, --close and --reset 'CONDITIONS'. All can be given
several times: delays add up; of the others one strikes a frame. A TIME without a unit is in
milliseconds. A frame must meet all conditions:
  to=haproxy     or to=agent; without it, what the agent sends to HAProxy
  type=TYPE,…    frames of these types: ACK, NOTIFY, AGENT-HELLO, …
  after=N        not the first N of them on a connection
  every=N        only each Nth
  share=P%       this share of them, at random; --seed repeats it
  times=N        N times at most, on all connections together
  byte=N         --close and --reset: after so many bytes of the frame; without it, before it
What is behind a delayed frame waits as well.

Recordings are captures for `spop decode FILE` and Wireshark, with headers of TCP and IP. A unix
socket has no port: its Nth connection is shown and recorded as from 192.0.2.1, port N, to
192.0.2.2:12345.

Filters are those of `spop decode`: connection=N, type=TYPE, stream=ID, message=NAME. The counts of
the last lines, and the exit status, are of everything; --stats is of what a filter shows.

JSON, one object per frame or event: those of `spop decode`, and:
  {"event":"listening","time":"…","address":"127.0.0.1:12346","target":"…","seed":7}
  {"event":"refused","time":"…","peer":"…","reason":"…"}
  {"event":"fault","time":"…","connection":1,"direction":"to-haproxy","fault":"drop","type":"ACK",
   "stream":1,"frame":1,"text":"…"}
  {"event":"end","connections":1,"refused":0,"frames":8,"requests":3,"answered":3,"unanswered":0,
   "latency_ms":{"p50":…,"p90":…,"p99":…,"max":…},"violations":0,"lost":0,"unwatched":0,
   "faults":{"delay":0,"drop":0,"close":0,"reset":0}}
  "fault" is delay, drop, close or reset. "unwatched" are bytes that passed and were not shown.
"#;

/// Relays between HAProxy and an agent: shows what passes, records it, injects faults
///
/// HAProxy connects to LISTEN, and each connection is passed on to the agent at TARGET. Frames of both directions are shown as they
/// pass, and what is illegal in them; at the end, counts and latencies. It ends with ^C, or with SIGTERM.
#[derive(Args, Debug)]
#[command(after_help = exit::HELP, after_long_help = format!("{}\n{HELP}\n{}", address::HELP, exit::HELP))]
pub(crate) struct Options {
    /// Where HAProxy connects: HOST:PORT, *:PORT, or the path of a unix socket
    #[arg(value_parser = Address::parse)]
    listen: Address,
    /// The agent: HOST:PORT, or the path of a unix socket
    #[arg(value_parser = Address::parse)]
    target: Address,
    /// Shows only what matches: 'type=NOTIFY message=check-ip'; see --help
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Prints statistics at the end instead of frames: messages, sizes, latencies from NOTIFY to ACK
    #[arg(long)]
    stats: bool,
    /// Cuts lines after so many characters; 0 does not cut
    #[arg(long, value_name = "CHARACTERS", default_value_t = 2_000)]
    cut: usize,
    /// Records to this file (pcap), which is overwritten; only its owner may read it, and that must be this user
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The longest recording, in bytes: 64k, 100m, 2g
    #[arg(long, value_name = "SIZE", default_value = "1g", value_parser = record::size)]
    record_max: u64,
    /// Connections at once; others are closed
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_connections: u32,
    /// Delays frames: '300ms type=ACK'; see --help
    #[arg(long, value_name = "FAULT", value_parser = faults::delay, help_heading = "Faults")]
    delay: Vec<Fault>,
    /// Drops frames: 'type=ACK every=10'
    #[arg(long, value_name = "FAULT", value_parser = faults::drop, help_heading = "Faults")]
    drop: Vec<Fault>,
    /// Closes connections, also in the middle of a frame: 'after=100 byte=9'
    #[arg(long, value_name = "FAULT", value_parser = faults::close, help_heading = "Faults")]
    close: Vec<Fault>,
    /// Resets connections
    #[arg(long, value_name = "FAULT", value_parser = faults::reset, help_heading = "Faults")]
    reset: Vec<Fault>,
    /// Repeats what is random in faults
    #[arg(long, value_name = "N", help_heading = "Faults")]
    seed: Option<u64>,
    /// HAProxy uses TLS, with this certificate of the relay
    #[arg(long, value_name = "FILE", requires = "listen_tls_key", help_heading = "Connection from HAProxy")]
    listen_tls_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires = "listen_tls_cert", help_heading = "Connection from HAProxy")]
    listen_tls_key: Option<PathBuf>,
    /// HAProxy must have a certificate of one of the CAs in this file
    #[arg(long, value_name = "FILE", requires = "listen_tls_cert", help_heading = "Connection from HAProxy")]
    listen_tls_ca: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectOptions,
}

pub(crate) async fn run(options: Options, output: Output) -> Result<Exit, Failure> {
    let target = Arc::new(Connector::new(options.target.clone(), &options.connect)?);
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let (faults, is_random) = options.faults(seed);
    let accept = AcceptOptions {
        tls_cert: options.listen_tls_cert.clone(),
        tls_key: options.listen_tls_key.clone(),
        tls_ca: options.listen_tls_ca.clone(),
        proxy: false,
    };
    let listener = Listener::bind(&options.listen, &accept)?;
    descriptors::raise_limit(options.max_connections);
    let recorder = options.record.as_deref().map(|path| Recorder::create(path, options.record_max));
    let recorder = recorder.transpose()?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut terminate = signals(SignalKind::terminate())?;
    listening(&listener, &options, is_random.then_some(seed), output)?;

    let (taps, receiver) = tap::taps();
    let port = listener.port().unwrap_or(UNIX_PORT);
    let counters = Arc::clone(&taps.counters);
    let progress = Arc::clone(&counters);
    let (end, ended) = oneshot::channel();
    thread::spawn(move || {
        let mut filter = Filter::default();
        options.filter.into_iter().for_each(|part| filter.add(part));
        let printer = Printer::new(output, options.cut, filter, options.stats).counting();
        let watcher = Watcher::new(output, options.cut, printer, recorder, port, counters);
        let _ = end.send(watcher.run(&receiver));
    });
    let relay = Relay {
        listener,
        target,
        faults,
        is_tls: options.listen_tls_cert.is_some(),
        limit: options.max_connections as usize,
    };
    let is_interrupted = tokio::select! {
        never = relay.run(taps) => match never {},
        _ = interrupt.recv() => true,
        _ = terminate.recv() => false,
    };
    // The relay has gone, and with it all connections: the watcher ends behind what waits for it.
    tokio::select! {
        watched = ended => Ok(if is_interrupted { Exit::Interrupted } else { watched.unwrap_or(Exit::Io) }),
        () = stalled(&progress) => {
            let seconds = OUTPUT_STALLED.as_secs();
            let text = format!("the output has taken nothing for {seconds} seconds: the rest is not shown");
            let mut failure = Failure::io(text);
            if is_interrupted {
                failure.exit = Exit::Interrupted;
            }
            Err(failure)
        }
        _ = interrupt.recv() => Err(Failure::interrupted()),
        _ = terminate.recv() => Err(Failure::interrupted()),
    }
}

/// Waits until the watcher makes no progress, which an output that is not read prevents.
async fn stalled(counters: &Counters) {
    let mut before = None;
    loop {
        let watched = Some(counters.watched.load(Relaxed));
        if watched == before {
            return;
        }
        before = watched;
        sleep(OUTPUT_STALLED).await;
    }
}

fn signals(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::io_of("signals", &error))
}

fn listening(
    listener: &Listener,
    options: &Options,
    seed: Option<u64>,
    output: Output,
) -> Result<(), Failure> {
    let (address, target) = (listener.address(), options.target.to_string());
    output.line(format_args!("listening on {address}"))?;
    let shown = Shown::new(output, 0);
    let details = serde_json::json!({ "address": address, "target": target, "seed": seed });
    shown.object(Some(Utc::now()), None, "listening", details)?;
    if let Some(seed) = seed {
        output.line(output.paint(Paint::Dim, format_args!("--seed {seed} repeats what is random")))?;
    }
    Ok(())
}

/// Accepts connections, and relays them.
struct Relay {
    listener: Listener,
    target: Arc<Connector>,
    faults: Faults,
    is_tls: bool,
    limit: usize,
}

enum Never {}

impl Relay {
    async fn run(self, taps: Taps) -> Never {
        let slots = Arc::new(Semaphore::new(self.limit));
        let mut connections = JoinSet::new();
        let mut told: Option<(Instant, String)> = None;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    let text = format!("a connection was not accepted: {}", exit::reason(&error));
                    if told.as_ref().is_none_or(|(at, same)| *same != text || at.elapsed() >= NOT_ACCEPTED) {
                        taps.problem(text.clone());
                        told = Some((Instant::now(), text));
                    }
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let tap = taps.accepted();
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                let limit = self.limit;
                tap.refused(peer.to_string(), format!("{limit} others are open (--max-connections)"));
                continue;
            };
            let relaying = Relaying {
                target: Arc::clone(&self.target),
                entrance: self.is_tls.then(|| self.listener.entrance()),
                faults: self.faults.clone(),
                tap,
            };
            connections.spawn(async move {
                let _slot = slot;
                relaying.run(socket, peer).await;
            });
        }
    }
}

impl Options {
    /// Those that end a connection come first: what they strike is not delayed or dropped as well.
    fn faults(&self, seed: u64) -> (Faults, bool) {
        let faults: Vec<_> =
            [&self.reset, &self.close, &self.drop, &self.delay].into_iter().flatten().cloned().collect();
        let is_random = faults.iter().any(Fault::is_random);
        (Faults::new(faults, seed), is_random)
    }
}

/// The addresses of the Nth connection of a unix socket, from the networks that are for documentation.
fn unix_ends(number: u64) -> Ends {
    let index = number.saturating_sub(1);
    let port = (index % u64::from(u16::MAX)) as u16 + 1;
    let host = (index / u64::from(u16::MAX) % 250) as u8;
    let haproxy = if host == 0 { [192, 0, 2, 1] } else { [198, 51, 100, host] };
    let relay = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2), UNIX_PORT));
    Ends { haproxy: SocketAddr::from((haproxy, port)), relay }
}
