//! `spop check`: whether HAProxy can work with an agent.

mod finding;
mod greeting;

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use spop_core::{EngineConfig, frame::Capabilities};

use self::{
    finding::{Finding, Findings, Level},
    greeting::{Greeting, greet},
};
use crate::{
    address::{self, Address, ConnectOptions, Connector},
    exit::{self, Exit, Failure, interruptible},
    haproxy::Version,
    hello::Hello,
    output::{Output, Paint, Table},
    time::{self, millis},
};

const JSON: &str = r#"
JSON, one object per greeting and per finding, and a summary:
  {"event":"greeting","haproxy":"2.6","healthcheck":false,"accepted":true,"connect_ms":0.1,
   "hello_ms":0.3,"reads":1,"closed":false,"hello":"AGENT-HELLO fin 0 0 …","version":"2.0",
   "max_frame_size":16380,"capabilities":"pipelining","end":"…"}
  {"event":"finding","level":"wrong","code":"split-hello","haproxy":"…","text":"…","effect":"…"}
  {"event":"summary","greetings":8,"accepted":8,"wrong":0,"warnings":0,"notes":0,"ms":12.3}
  level is "wrong", "warning" or "note". hello_ms, hello, version, max_frame_size and capabilities
  are null where there is no AGENT-HELLO.
"#;

/// Checks whether HAProxy can work with an agent
///
/// Opens a session and a health check as HAProxy 2.6, 3.0, 3.2 and 3.4 do. Says what the agent announces, how long it takes, what
/// is wrong with it, and what HAProxy makes of it. It sends no request. An agent that sends no frame is greeted as the first only.
#[derive(Args, Debug)]
#[command(after_help = exit::HELP, after_long_help = format!("{}\n{JSON}\n{}", address::HELP, exit::HELP))]
pub(crate) struct Options {
    /// The agent: HOST:PORT, or the path of a unix socket
    #[arg(value_parser = Address::parse)]
    address: Address,
    /// Only as this version of HAProxy
    #[arg(long, value_name = "VERSION")]
    engine: Vec<Version>,
    /// How long to wait for the agent at each step
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time::timeout)]
    timeout: Duration,
    /// How long to listen for what follows an AGENT-HELLO, which nothing may
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time::timeout)]
    quiet: Duration,
    /// The longest frame that HAProxy announces: its `tune.bufsize` - 4
    #[arg(long, value_name = "BYTES", default_value_t = 16_380, value_parser = clap::value_parser!(u32).range(256..=1 << 20))]
    max_frame_size: u32,
    /// Warnings count as wrong
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    connect: ConnectOptions,
}

pub(crate) async fn run(options: Options, output: Output) -> Result<Exit, Failure> {
    interruptible(check(&options, output)).await
}

async fn check(options: &Options, output: Output) -> Result<Exit, Failure> {
    let begun = Instant::now();
    let connector = Connector::new(options.address.clone(), &options.connect)?;
    let versions = if options.engine.is_empty() { &Version::ALL[..] } else { &options.engine };
    let mut findings = Findings::default();
    let mut greetings = Vec::new();
    for version in versions {
        for healthcheck in [false, true] {
            let greeting =
                greet(&connector, &config(options, *version, healthcheck), *version, options).await?;
            greeting.judge(&mut findings, options);
            output.object(&greeting.object())?;
            greetings.push(greeting);
        }
        if greetings.iter().all(Greeting::is_silent) {
            // Each of the others would take the timeout as well.
            break;
        }
    }
    let others = versions.get(greetings.len() / 2..).unwrap_or_default();
    if !others.is_empty() {
        let names = others.iter().map(|version| version.name()).collect::<Vec<_>>().join(", ");
        let text = "the agent was not greeted as these versions: it answers others with no frame";
        findings.add(Finding::new(Level::Note, "not-greeted", text).concerns(&names), None);
    }
    together(&greetings, &mut findings);
    show(&greetings, output)?;
    findings.show(output)?;
    let accepted = greetings.iter().filter(|greeting| greeting.is_accepted()).count();
    let summary = Summary {
        event: "summary",
        greetings: greetings.len(),
        accepted,
        wrong: findings.count(Level::Wrong),
        warnings: findings.count(Level::Warning),
        notes: findings.count(Level::Note),
        ms: millis(begun.elapsed()),
    };
    output.object(&summary)?;
    let bad = summary.wrong > 0 || options.strict && summary.warnings > 0;
    output.line(summary.text(output, &options.address, bad))?;
    Ok(Exit::unless(bad))
}

fn config(options: &Options, version: Version, healthcheck: bool) -> EngineConfig {
    let mut config = version.config();
    config.max_frame_size = options.max_frame_size;
    config.healthcheck = healthcheck;
    config
}

/// What only several greetings together say.
fn together(greetings: &[Greeting], findings: &mut Findings) {
    let accepted = |healthcheck: bool| {
        greetings.iter().filter(|greeting| greeting.healthcheck == healthcheck).any(Greeting::is_accepted)
    };
    if accepted(false) && !accepted(true) {
        findings.add(
            Finding::new(Level::Wrong, "no-health-check", "the agent serves sessions, and no health check")
                .effect("with `option spop-check`, HAProxy takes the server for down"),
            None,
        );
    }
    let announced = |version: fn(&Greeting) -> bool| {
        greetings
            .iter()
            .filter(|greeting| !greeting.healthcheck && version(greeting))
            .find_map(Greeting::capabilities)
    };
    if announced(|greeting| !greeting.version.is_old())
        .is_some_and(|capabilities| capabilities.contains(Capabilities::PIPELINING))
    {
        findings.add(
            Finding::new(Level::Note, "pipelining-3.1", "the agent pipelines with HAProxy 3.1 and later")
                .effect(
                    "up to 20 requests share a connection; unread answers that fill the receive buffer (tune.bufsize) \
                     stall it for good: keep the sum of 20 answers below it",
                ),
            None,
        );
    }
}

fn show(greetings: &[Greeting], output: Output) -> Result<(), Failure> {
    let mut table = Table::new([
        "HAPROXY",
        "GREETING",
        "CONNECTED",
        "ANSWERED",
        "VERSION",
        "FRAME SIZE",
        "CAPABILITIES",
        "RESULT",
    ]);
    for greeting in greetings {
        let (paint, result) =
            if greeting.is_accepted() { (None, "ok") } else { (Some(Paint::Bad), "rejected") };
        let hello = greeting.hello();
        let of_hello =
            |text: fn(&Hello) -> Option<String>| hello.and_then(text).unwrap_or_else(|| "-".into());
        table.row(
            paint,
            [
                greeting.version.name().to_owned(),
                if greeting.healthcheck { "health check" } else { "session" }.to_owned(),
                format!("{:.3} ms", millis(greeting.connected)),
                greeting.answered.map_or_else(|| "-".into(), |took| format!("{:.3} ms", millis(took))),
                of_hello(|hello| hello.version.clone()),
                of_hello(|hello| hello.max_frame_size.map(|size| size.to_string())),
                of_hello(|hello| hello.capabilities.clone()),
                result.to_owned(),
            ],
        );
    }
    output.table("", &table)
}

#[derive(Serialize)]
struct Summary {
    event: &'static str,
    greetings: usize,
    accepted: usize,
    wrong: usize,
    warnings: usize,
    notes: usize,
    ms: f64,
}

impl Summary {
    fn text(&self, output: Output, address: &Address, bad: bool) -> String {
        let Self { greetings, accepted, wrong, warnings, ms, .. } = self;
        let paint = if bad { Paint::Bad } else { Paint::Good };
        let text = format!(
            "{address}: {accepted} of {greetings} greetings accepted in {ms:.0} ms; {wrong} wrong, {warnings} {}",
            if *warnings == 1 { "warning" } else { "warnings" }
        );
        output.paint(paint, text)
    }
}
