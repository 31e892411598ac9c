//! `spop explain`: what an error number, a status or a log line of HAProxy means.

mod log_line;
pub(crate) mod number;

use clap::Args;

use self::{log_line::LogLine, number::Number};
use crate::{
    exit::{self, Exit, Failure},
    input,
    output::Output,
};

const EXAMPLES: &str = r#"
Examples:
  spop explain 258
  spop explain st=1
  spop explain status=8
  spop explain 'SPOE: [iprep] <EVENT:on-client-session> sid=7 st=258 0/0/-1/-1/15 1/2 0/1 1/42'
  journalctl -u haproxy | spop explain -

JSON, one object per number or log line:
  {"event":"number","number":258,"kind":"error","name":"…","meaning":"…","culprit":"…","causes":[
   {"versions":"all","cause":"…","remedy":"…"}]}
  {"event":"log-line","format":"up to 3.0","agent":"…","type":"EVENT","name":"…","sid":7,"st":258,
   "encode_ms":0,"queue_ms":0,"wait_ms":null,"response_ms":null,"processing_ms":15,"idles":1,
   "applets":2,"sending":0,"waiting":1,"errors":1,"processed":42,"number":{…}}
  kind is "error" (of `st=` and `set-on-error`) or "status" (of a DISCONNECT). A time that HAProxy
  logs as -1 is null.
"#;

/// Explains an error number, a status or a log line of HAProxy
///
/// An error number is that of HAProxy's log (`st=258`) and of `option set-on-error`. A status is that of a DISCONNECT
/// (`status=2`). A number below 256 that can be either is explained as both.
#[derive(Args, Debug)]
#[command(after_help = exit::HELP, after_long_help = format!("{EXAMPLES}\n{}", exit::HELP))]
pub(crate) struct Options {
    /// A number, `st=NUMBER`, `status=NUMBER`, a whole log line, or - for the log on standard input
    #[arg(value_name = "WHAT", required = true)]
    what: Vec<String>,
}

pub(crate) async fn run(options: Options, output: Output) -> Result<Exit, Failure> {
    if options.what == ["-"] {
        return exit::interruptible(explain_input(output)).await;
    }
    let whole = options.what.join(" ");
    if let Some(line) = LogLine::find(&whole) {
        line.map_err(Failure::wrong)?.show(output)?;
        return Ok(Exit::Fine);
    }
    let numbers: Result<Vec<_>, _> = options.what.iter().map(|what| number::parse(what)).collect();
    for (index, number) in numbers.map_err(Failure::wrong)?.into_iter().flatten().enumerate() {
        if index > 0 {
            output.line("")?;
        }
        number.show(output)?;
    }
    Ok(Exit::Fine)
}

/// Explains the log lines of SPOE among those of standard input.
async fn explain_input(output: Output) -> Result<Exit, Failure> {
    let mut lines = input::lines();
    let (mut found, mut wrong) = (0_u64, false);
    while let Some((number, line)) = lines.recv().await {
        let line = match line {
            Ok(line) => line,
            // Other programs log what they like.
            Err(failure) if failure.exit == Exit::Wrong => continue,
            Err(failure) => return Err(failure),
        };
        match LogLine::find(&line) {
            None => {}
            Some(Ok(line)) => {
                if found > 0 {
                    output.line("")?;
                }
                found += 1;
                line.show(output)?;
            }
            Some(Err(error)) => {
                wrong = true;
                exit::warn(format_args!("line {number}: {error}"));
            }
        }
    }
    if found == 0 && !wrong {
        return Err(Failure::wrong(
            "standard input has no log line of SPOE: they contain `SPOE: [AGENT] <EVENT:NAME>`",
        ));
    }
    Ok(Exit::unless(wrong))
}
