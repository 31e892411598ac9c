//! `spop decode`: what a recording of the network shows.

mod capture;
mod recording;
mod source;

use std::{iter::from_fn, path::PathBuf, pin::pin};

use bytes::Bytes;
use clap::Args;
use tokio::signal::ctrl_c;

use self::{recording::Recording, source::Source};
use crate::{
    exit::{self, Exit, Failure},
    output::Output,
    watch::{Filter, Printer},
};

/// Whether a file that begins with these bytes has captured packets: pcap or pcapng.
pub(crate) const fn is_capture(first: [u8; 4]) -> bool {
    capture::Kind::of(first).is_some()
}

const EXAMPLES: &str = r#"
Examples:
  spop decode agent.pcap
  tcpdump -i any -s 0 -U -w - port 12345 | spop decode
  spop decode agent.pcapng --filter 'message=check-ip connection=1,2'
  spop decode agent.pcap --port 12345 --stats

Each line has the time (UTC), the number of the connection, and:
  >  a frame from HAProxy       <  a frame to HAProxy
  *  what happens to the connection, and payloads that were joined from fragments
  !  a violation, with the direction and the byte of its stream: it makes the exit status 1
The time is that of the packet with which the frame is complete. What HAProxy does when it gives a
request up is no violation: a NOTIFY before the answer to another one without pipelining, or with
the same ids.

Filters: all keys must match; of the values of a key, separated by commas, one.
  connection=N   the number of the connection
  type=TYPE      the type of the frame: NOTIFY, ACK, UNSET, HAPROXY-HELLO, …
  stream=ID      the stream id
  message=NAME   a NOTIFY with this message, and its ACK
Statistics, counts and the exit status are about what the filter leaves.

JSON, one object per frame or event:
  {"event":"opened","time":"…","connection":1,"peer":"10.0.0.1:40000","agent":"10.0.0.2:12345"}
  {"event":"session","time":"…","connection":1,"max_frame_size":16380,"capabilities":"pipelining",
   "healthcheck":false,"engine_id":"…"}
  {"event":"frame","time":"2026-01-02T03:04:05.000006Z","connection":1,"direction":"to-haproxy",
   "type":"ACK","stream":1,"frame":1,"fin":true,"abort":false,"size":22,"offset":52,
   "latency_ms":0.42,"text":"ACK fin …"}
  {"event":"joined","time":"…","connection":1,"direction":"from-haproxy","fragments":3,"stream":1,
   "frame":1,"text":"NOTIFY fin …"}
  {"event":"violation","time":"…","connection":1,"direction":"…","offset":52,"reason":"…"}
  {"event":"lost","time":"…","connection":1,"direction":"…","offset":52,"bytes":1448}
  {"event":"note","time":"…","connection":1,"text":"…"}
  {"event":"closed","time":"…","connection":1,"reason":"…","unanswered":0}
  {"event":"stats","frames":[…],"messages":[…],"latency_ms":{"p50":…,"p90":…,"p99":…,"max":…}}
  {"event":"end","connections":1,"others":0,"tls":0,"frames":8,"violations":0,"lost":0,"repeated":0,
   "early":0}
  As "lost": "repeated" (sent or captured again) and "early" (out of order). Sizes include the
  length prefix; raw bytes have no times.
"#;

/// Decodes a capture of the network: frames, and what is illegal in them
///
/// It reads pcap and pcapng files, also while they are written to its standard input, and the raw bytes of one direction of a
/// connection. TCP streams are reassembled. Connections with TLS cannot be decoded.
#[derive(Args, Debug)]
#[command(after_help = exit::HELP, after_long_help = format!("{EXAMPLES}\n{}", exit::HELP))]
pub(crate) struct Options {
    /// The recording; without it, or if it is -, standard input
    file: Option<PathBuf>,
    /// Shows only what matches: 'type=NOTIFY message=check-ip'; see --help
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Prints statistics instead of frames: messages, sizes, latencies from NOTIFY to ACK
    #[arg(long)]
    stats: bool,
    /// Decodes connections to agents on this port, also if their begin is missing; without it, those that begin with a HELLO
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// Cuts lines after so many characters; 0 does not cut
    #[arg(long, value_name = "CHARACTERS", default_value_t = 2_000)]
    cut: usize,
}

/// A few packets at a time: one can end a connection with a megabyte of frames behind a gap, and events are held until they are
/// printed.
fn parts(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    const PART: usize = 512;
    from_fn(move || (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(PART))))
}

pub(crate) async fn run(options: Options, output: Output) -> Result<Exit, Failure> {
    let mut filter = Filter::default();
    for part in options.filter {
        filter.add(part);
    }
    let mut source = Source::open(options.file.as_ref())?;
    let mut printer = Printer::new(output, options.cut, filter, options.stats);
    let mut recording = Recording::new(options.port);
    let mut events = Vec::new();
    let mut interrupt = pin!(ctrl_c());
    let mut is_interrupted = false;
    let mut result = Ok(());
    while result.is_ok() {
        let read = tokio::select! {
            biased;
            _ = &mut interrupt => {
                is_interrupted = true;
                break;
            }
            read = source.reads.recv() => read,
        };
        let bytes = match read {
            None => break,
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => {
                result = Err(Failure::io_of(&source.name, &error));
                break;
            }
        };
        for part in parts(bytes) {
            let pushed = recording.push(&part, &mut events);
            if recording.is_raw() {
                printer.without_times();
            }
            printer.events(&mut events)?;
            result = pushed.map_err(|error| Failure::wrong(format_args!("{}: {error}", source.name)));
            if result.is_err() {
                break;
            }
        }
    }
    while recording.finish_one(&mut events) {
        printer.events(&mut events)?;
    }
    let finished = recording.finish(&mut events);
    printer.events(&mut events)?;
    if recording.counts().is_some_and(|counts| counts.spop > 0) || recording.is_raw() {
        printer.finish(recording.counts())?;
    }
    if is_interrupted {
        return Err(Failure::interrupted());
    }
    result?;
    finished.map_err(|error| Failure::wrong(format_args!("{}: {error}", source.name)))?;
    Ok(Exit::unless(printer.violations > 0))
}
