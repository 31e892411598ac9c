//! `spop conform`: whether an agent does what the specification and HAProxy ask of it.

mod engine;
mod expected;
mod junit;
mod log;
mod pattern;
mod player;
mod probe;
mod report;
mod script;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;

use self::{
    player::{Outcome, play},
    probe::Agent,
    report::{Report, Verdict},
    script::{Case, Level},
};
use crate::{
    address::{self, Address, ConnectOptions, Connector},
    exit::{self, Exit, Failure, interruptible},
    output::Output,
    text::{self, MessageText},
    time,
};

const DETAILS: &str = r#"
Levels:
  must      the specification requires it, or no HAProxy works without it
  should    the specification recommends it, or some versions of HAProxy need it
  survives  after hostile or broken input the agent still serves new connections
After each case, whatever its level, a new connection shows whether the agent still serves. A case
that needs what the agent does not announce is not applicable, and is never counted as passed.
In the report for continuous integration (--junit), a case of should that fails is a failure as well.
Of a case that fails is shown what was sent and what came, in a notation:
  > NOTIFY fin 5 1 check ip=ipv4:203.0.113.7   to the agent: type, flags (- is none), stream-id,
                                               frame-id, messages with arguments NAME=TYPE:VALUE
  < ACK fin 5 1 set txn score=int32:42         from the agent
  #2 > NOTIFY …                                on the second connection of the case
  messages[2..5] check ip=…                    bytes 2 to 4 of what the messages are on the wire
  string:"x"*600  hex:00ff  raw:text           repeated text; bytes of a payload as they are
In what was expected, * is any payload or value. What HAProxy does with such an agent is shown where
it is known.
The status is 0 if no case of must and survives has failed, and the agent served to the end.

JSON, one object for the agent, one per case, and a summary:
  {"event":"agent","address":"…","version":"2.0","max_frame_size":16380,"capabilities":"…",
   "answers":true}
  {"event":"case","topic":"requests","title":"…","level":"must","reference":"3.2.7",
   "result":"failed","reason":"…","expected":"…","came":"…","haproxy":"…",
   "log":["> NOTIFY …","< ACK …"],"serves":true,"ms":0.3}
  {"event":"summary","conforms":false,"must":{"passed":50,"failed":1,"not_applicable":2,
   "not_run":0},"should":{…},"survives":{…},"ms":5000.0}
  result is "passed", "failed", "not-applicable" or "not-run". A reference is a section of the
  specification (doc/SPOE.txt of HAProxy), or a version of HAProxy.
"#;

/// Checks whether an agent, in any language, conforms to the protocol
///
/// Plays cases to the agent, each on connections of its own and one after the other: for every rule of the specification, and for
/// what HAProxy is known to do. Shows for each that failed what was sent, what came, and what had to come.
#[derive(Args, Debug)]
#[command(after_help = exit::HELP, after_long_help = format!("{}\n{DETAILS}\n{}", address::HELP, exit::HELP))]
pub(crate) struct Options {
    /// The agent: HOST:PORT, or the path of a unix socket
    #[arg(value_parser = Address::parse, required_unless_present = "list")]
    address: Option<Address>,
    /// What a NOTIFY asks, where a case needs a message that the agent may know
    #[arg(long, value_name = "MESSAGE", value_parser = text::messages, default_value = "spop-conform text=string:hello")]
    message: MessageText,
    /// Only cases with this text in their topics or titles
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Only cases of this level
    #[arg(long, value_name = "LEVEL")]
    level: Vec<Level>,
    /// Lists the cases, and plays none
    #[arg(long)]
    list: bool,
    /// Writes a report in the format of `JUnit`, for continuous integration
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// A case of should that fails counts as wrong
    #[arg(long)]
    strict: bool,
    /// How long to wait for each frame of the agent, and for it to close a connection
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time::timeout)]
    timeout: Duration,
    /// How long to listen where nothing may come
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time::timeout)]
    quiet: Duration,
    #[command(flatten)]
    connect: ConnectOptions,
}

pub(crate) async fn run(options: Options, output: Output) -> Result<Exit, Failure> {
    interruptible(conform(&options, output)).await
}

async fn conform(options: &Options, output: Output) -> Result<Exit, Failure> {
    let mut cases = script::all(&options.message.text).map_err(Failure::usage)?;
    cases.retain(|case| options.selects(case));
    if cases.is_empty() {
        return Err(Failure::usage("no case has this text and this level: see --list"));
    }
    let Some(address) = options.address.as_ref().filter(|_| !options.list) else {
        report::list(&cases, output)?;
        return Ok(Exit::Fine);
    };
    let connector = Connector::new(address.clone(), &options.connect)?;
    let mut agent = Agent::new(connector, options.timeout, options.quiet, &options.message);
    let hello = agent.introduce().await?;
    let unanswered = (!agent.answers).then_some(&*options.message.text);
    let mut report = Report::new(output, address, &hello, unanswered)?;
    let mut serves = true;
    for case in &cases {
        let begun = Instant::now();
        let verdict = if serves { verdict(&agent, case).await } else { Verdict::NotRun };
        serves = serves && !matches!(verdict, Verdict::Dead { recovers: false, .. });
        report.add(case, verdict, begun.elapsed())?;
    }
    report.show_summary()?;
    if let Some(path) = &options.junit {
        junit::write(path, &report)?;
    }
    Ok(Exit::unless(!report.conforms() || options.strict && report.failed(Level::Should) > 0))
}

/// Plays a case, and tries whether the agent still serves.
async fn verdict(agent: &Agent, case: &Case) -> Verdict {
    let outcome = play(agent, case).await;
    match (agent.serves().await, outcome) {
        (Ok(()), outcome) => outcome.into(),
        (Err(why), outcome) => {
            let fault = if let Outcome::Failed(fault) = outcome { Some(fault) } else { None };
            Verdict::Dead { why, fault, recovers: agent.recovers().await }
        }
    }
}

impl Options {
    fn selects(&self, case: &Case) -> bool {
        let names = format!("{}: {}", case.topic, case.title).to_lowercase();
        (self.only.is_empty() || self.only.iter().any(|text| names.contains(&text.to_lowercase())))
            && (self.level.is_empty() || self.level.contains(&case.level))
    }
}
