//! `spop send`: asks an agent as HAProxy does, and shows the answers.

mod request;

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use spop_core::haproxy::explain;
use tokio::signal::ctrl_c;

use self::request::{Answer, Asked, Fragmentation, Peer};
use crate::{
    address::{self, Address, ConnectOptions, Connector},
    exit::{self, Exit, Failure},
    frames,
    haproxy::Version,
    input,
    output::{Output, Paint},
    text::{self, MessageText},
    time::{self, millis},
    variables::{self, Effect, Rules, VariableOptions},
};

const NOTATION: &str = r#"
Messages:
  NAME ARG=TYPE:VALUE …, where TYPE is bool, int32, uint32, int64, uint64, ipv4, ipv6, string or
  binary (hexadecimal digits), or the value is null. Texts with spaces are quoted:
  string:"two words". string:"x"*5000 repeats.
  Each argument is one NOTIFY. A semicolon separates several messages of one NOTIFY:
  'check-ip ip=ipv4:203.0.113.7 ; log text=string:hello'

JSON, one object per NOTIFY, and a summary:
  {"event":"answer","request":1,"messages":"…","stream":1,"frame":1,"fragments":1,"ms":0.3,
   "abort":false,"actions":[{"action":"set","scope":"sess","name":"score",
   "variable":"sess.PREFIX.score","type":"INT32","value":42,"dropped":null,"note":null}],
   "malformed":null}
  {"event":"failure","request":1,"messages":"…","code":258,"name":"…","meaning":"…","detail":"…",
   "ms":0.3}
  {"event":"aborted","request":1,"messages":"…","fragments":2,"answered":false}
  {"event":"summary","requests":1,"answered":1,"aborted":0,"failed":0,"dropped":0,"min_ms":0.3,
   "mean_ms":0.3,"max_ms":0.3}
  A value that is no text is {"hex":"…"}.
"#;

/// Asks an agent as HAProxy does, and shows the answers
///
/// Sends each MESSAGE in a NOTIFY and prints the actions of its ACK with the names that HAProxy gives to the variables. Actions
/// that HAProxy would silently drop are flagged, and count as wrong.
#[derive(Args, Debug)]
#[command(after_help = exit::HELP, after_long_help = format!("{}\n{NOTATION}\n{}", address::HELP, exit::HELP))]
pub(crate) struct Options {
    /// The agent: HOST:PORT, or the path of a unix socket
    #[arg(value_parser = Address::parse)]
    address: Address,
    /// Messages in the notation, such as 'check-ip ip=ipv4:203.0.113.7'; each argument is one NOTIFY
    #[arg(value_name = "MESSAGE", value_parser = text::messages, required_unless_present = "stdin")]
    messages: Vec<MessageText>,
    /// Reads messages from standard input as well, one NOTIFY a line; blank lines and those with # are skipped
    #[arg(long)]
    stdin: bool,
    /// The version of HAProxy to behave like
    #[arg(long, value_name = "VERSION", default_value = "3.4")]
    engine: Version,
    /// Sends the messages so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// How long to wait for each answer: `timeout processing`
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time::timeout)]
    timeout: Duration,
    /// The longest frame that this side announces: HAProxy's `tune.bufsize` - 4
    #[arg(long, value_name = "BYTES", default_value_t = 16_380, value_parser = clap::value_parser!(u32).range(256..=1 << 20))]
    max_frame_size: u32,
    /// Sends each payload in fragments of so many bytes, as HAProxy up to 3.0 does with long ones
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    fragment: Option<u32>,
    /// Aborts each payload after so many fragments, as HAProxy does on a timeout
    #[arg(long, value_name = "N", requires = "fragment", value_parser = clap::value_parser!(u32).range(1..))]
    abort_after: Option<u32>,
    #[command(flatten)]
    variables: VariableOptions,
    #[command(flatten)]
    connect: ConnectOptions,
}

pub(crate) async fn run(options: Options, output: Output) -> Result<Exit, Failure> {
    let connector = Connector::new(options.address.clone(), &options.connect)?;
    let mut config = options.engine.config();
    config.max_frame_size = options.max_frame_size;
    let fragmentation = options.fragment.map(|size| Fragmentation {
        size: size as usize,
        abort_after: options.abort_after.map(|count| count as usize),
    });
    let mut sender = Sender {
        peer: Peer::new(connector, options.engine, config, options.timeout, fragmentation),
        rules: options.variables.rules(),
        output,
        totals: Totals::default(),
    };
    let result = tokio::select! {
        result = sender.send_all(&options) => result,
        _ = ctrl_c() => Err(Failure::interrupted()),
    };
    sender.totals.show(output)?;
    if result.is_ok() {
        sender.peer.close().await;
    }
    result.map(|()| Exit::unless(sender.totals.is_bad()))
}

struct Sender {
    peer: Peer,
    rules: Rules,
    output: Output,
    totals: Totals,
}

impl Sender {
    async fn send_all(&mut self, options: &Options) -> Result<(), Failure> {
        for _ in 0..options.repeat {
            for messages in &options.messages {
                self.send(messages).await?;
            }
        }
        if options.stdin {
            let mut lines = input::lines();
            while let Some((number, line)) = lines.recv().await {
                let messages = line.and_then(|line| {
                    text::messages(&line)
                        .map_err(|error| Failure::wrong(format_args!("line {number}: {error}")))
                });
                match messages {
                    Ok(messages) => {
                        for _ in 0..options.repeat {
                            self.send(&messages).await?;
                        }
                    }
                    Err(failure) if failure.exit == Exit::Wrong => {
                        self.totals.bad_lines += 1;
                        failure.show();
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, messages: &MessageText) -> Result<(), Failure> {
        if let Some(session) = self.peer.connect().await? {
            self.output.line(self.output.paint(Paint::Dim, session))?;
        }
        self.output.line(self.output.paint(Paint::ToAgent, format_args!("> {}", messages.text)))?;
        self.totals.requests += 1;
        let asked = self.peer.ask(&messages.payload).await?;
        for frame in &asked.skipped {
            let text = frames::text(frame);
            let text = format!("  skipped: {}", text::cut(&text, 200));
            self.output.line(self.output.paint(Paint::Warning, text))?;
        }
        self.show(messages, &asked)
    }

    fn show(&mut self, messages: &MessageText, asked: &Asked) -> Result<(), Failure> {
        let request = self.totals.requests;
        let messages = messages.text.as_str();
        let ms = millis(asked.took);
        match &asked.answer {
            Answer::Ack { actions, abort, malformed } => {
                let actions = spop_core::frame::AckActions::lenient(actions);
                let effects = self.rules.effects(actions);
                self.totals.answered(asked.took, &effects, malformed.is_some());
                self.output.object(&AnswerObject {
                    event: "answer",
                    request,
                    messages,
                    stream: asked.ids.stream,
                    frame: asked.ids.frame,
                    fragments: asked.fragments,
                    ms,
                    abort: *abort,
                    actions: &effects,
                    malformed: malformed.as_deref(),
                })?;
                self.show_ack(asked, &effects, *abort, malformed.as_deref())
            }
            Answer::Aborted { answered } => {
                let fragments = asked.fragments;
                self.output.object(&AbortedObject {
                    event: "aborted",
                    request,
                    messages,
                    fragments,
                    answered: *answered,
                })?;
                let end =
                    if *answered { "and the agent has answered it" } else { "no answer came, as it must be" };
                self.output.line(format_args!("  aborted after {fragments} fragments: {end}"))?;
                if *answered {
                    self.totals.failed += 1;
                } else {
                    self.totals.aborted += 1;
                }
                Ok(())
            }
            Answer::Failed { code, detail } => {
                self.totals.failed += 1;
                let known = explain(*code);
                let name = known.map_or("unknown", |known| known.name);
                let meaning = known.map_or("", |known| known.meaning);
                self.output.object(&FailureObject {
                    event: "failure",
                    request,
                    messages,
                    code: *code,
                    name,
                    meaning,
                    detail,
                    ms,
                })?;
                let line = format!("  failed after {ms:.3} ms: {detail}");
                self.output.line(self.output.paint(Paint::Bad, line))?;
                self.output.line(format_args!("  HAProxy reports {code} ({name}): see `spop explain {code}`"))
            }
        }
    }

    fn show_ack(
        &self,
        asked: &Asked,
        effects: &[Effect],
        abort: bool,
        malformed: Option<&str>,
    ) -> Result<(), Failure> {
        let output = self.output;
        let actions = match effects.len() {
            0 => "no action".to_owned(),
            1 => "1 action".to_owned(),
            many => format!("{many} actions"),
        };
        let fragments =
            if asked.fragments > 1 { format!(" to {} fragments", asked.fragments) } else { String::new() };
        let abort = if abort { ", with ABORT: HAProxy takes it as an answer without actions" } else { "" };
        let ms = millis(asked.took);
        let line = format!("< ACK{fragments} after {ms:.3} ms, {actions}{abort}");
        output.line(output.paint(Paint::ToHaproxy, line))?;
        if !effects.is_empty() {
            output.table("  ", &variables::table(effects))?;
        }
        if let Some(error) = malformed {
            let line = format!("  HAProxy ignores the rest, which is malformed {error}");
            output.line(output.paint(Paint::Bad, line))?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct AnswerObject<'a> {
    event: &'static str,
    request: u64,
    messages: &'a str,
    stream: u64,
    frame: u64,
    fragments: usize,
    ms: f64,
    abort: bool,
    actions: &'a [Effect],
    malformed: Option<&'a str>,
}

#[derive(Serialize)]
struct AbortedObject<'a> {
    event: &'static str,
    request: u64,
    messages: &'a str,
    fragments: usize,
    answered: bool,
}

#[derive(Serialize)]
struct FailureObject<'a> {
    event: &'static str,
    request: u64,
    messages: &'a str,
    code: u32,
    name: &'a str,
    meaning: &'a str,
    detail: &'a str,
    ms: f64,
}

#[derive(Debug, Default)]
struct Totals {
    requests: u64,
    answered: u64,
    aborted: u64,
    failed: u64,
    dropped: u64,
    malformed: u64,
    bad_lines: u64,
    shortest: Option<Duration>,
    longest: Duration,
    sum: Duration,
}

#[derive(Serialize)]
struct Summary {
    event: &'static str,
    requests: u64,
    answered: u64,
    aborted: u64,
    failed: u64,
    dropped: u64,
    min_ms: f64,
    mean_ms: f64,
    max_ms: f64,
}

impl Totals {
    fn answered(&mut self, took: Duration, effects: &[Effect], malformed: bool) {
        self.answered += 1;
        self.dropped += effects.iter().filter(|effect| effect.dropped.is_some()).count() as u64;
        self.malformed += u64::from(malformed);
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        self.longest = self.longest.max(took);
        self.sum += took;
    }

    const fn is_bad(&self) -> bool {
        self.failed + self.dropped + self.malformed + self.bad_lines > 0
    }

    fn show(&self, output: Output) -> Result<(), Failure> {
        let answered = u32::try_from(self.answered.max(1)).unwrap_or(u32::MAX);
        let summary = Summary {
            event: "summary",
            requests: self.requests,
            answered: self.answered,
            aborted: self.aborted,
            failed: self.failed,
            dropped: self.dropped,
            min_ms: millis(self.shortest.unwrap_or_default()),
            mean_ms: millis(self.sum / answered),
            max_ms: millis(self.longest),
        };
        output.object(&summary)?;
        if self.requests < 2 {
            return Ok(());
        }
        let Summary { requests, answered, failed, dropped, min_ms, mean_ms, max_ms, .. } = summary;
        output.line(format_args!(
            "{requests} requests: {answered} answered in {min_ms:.3} to {max_ms:.3} ms (mean {mean_ms:.3}), {failed} failed, \
             {dropped} actions dropped"
        ))
    }
}
