//! HAProxy's log line of an SPOE event.

use serde::Serialize;
use spop_core::excerpt::Escaped;

use super::Number;
use crate::{
    exit::Failure,
    output::{Output, Paint, Table},
};

/// A log line, taken apart. HAProxy 3.1 and later logs only the last of the times, and the last two counts.
#[derive(Debug, Serialize)]
pub(super) struct LogLine {
    event: &'static str,
    format: &'static str,
    agent: String,
    /// `EVENT` or `GROUP`.
    #[serde(rename = "type")]
    kind: String,
    name: String,
    sid: u64,
    st: u32,
    encode_ms: Option<u64>,
    queue_ms: Option<u64>,
    wait_ms: Option<u64>,
    response_ms: Option<u64>,
    processing_ms: Option<u64>,
    idles: Option<u64>,
    applets: Option<u64>,
    sending: Option<u64>,
    waiting: Option<u64>,
    errors: u64,
    processed: u64,
    number: Option<Number>,
}

const OLD: &str = "up to 3.0";
const NEW: &str = "3.1 and later";

/// Without characters that control a terminal.
fn printable(text: &str) -> String {
    Escaped(text.as_bytes()).to_string()
}

impl LogLine {
    /// Finds the log line in a line of a log. `None` if there is none; an error if it cannot be read.
    pub(super) fn find(line: &str) -> Option<Result<Self, String>> {
        let (_, rest) = line.split_once("SPOE: [")?;
        Some(Self::parse(rest).ok_or_else(|| {
            "the log line does not end as HAProxy's do: sid=N st=N and the times and counts".to_owned()
        }))
    }

    fn parse(rest: &str) -> Option<Self> {
        let (agent, rest) = rest.split_once("] <")?;
        let (event, rest) = rest.split_once("> ")?;
        let (kind, name) = event.split_once(':')?;
        let mut words = rest.split_whitespace();
        let sid = words.next()?.strip_prefix("sid=")?.parse().ok()?;
        let st = words.next()?.strip_prefix("st=")?.parse().ok()?;
        let times = numbers(words.next()?)?;
        let counts: Option<Vec<_>> = words.take(3).map(numbers).collect();
        let counts = counts?.concat();
        let line = Self {
            event: "log-line",
            format: OLD,
            // Others may write into the log.
            agent: printable(agent),
            kind: printable(kind),
            name: printable(name),
            sid,
            st,
            encode_ms: None,
            queue_ms: None,
            wait_ms: None,
            response_ms: None,
            processing_ms: None,
            idles: None,
            applets: None,
            sending: None,
            waiting: None,
            errors: 0,
            processed: 0,
            number: Number::error(st),
        };
        Some(match (&times[..], &counts[..]) {
            (
                &[encode, queue, wait, response, processing],
                &[idles, applets, sending, waiting, errors, processed],
            ) => Self {
                encode_ms: encode,
                queue_ms: queue,
                wait_ms: wait,
                response_ms: response,
                processing_ms: processing,
                idles,
                applets,
                sending,
                waiting,
                errors: errors?,
                processed: processed?,
                ..line
            },
            (&[processing], &[errors, processed]) => Self {
                format: NEW,
                processing_ms: processing,
                errors: errors?,
                processed: processed?,
                ..line
            },
            _ => return None,
        })
    }

    pub(super) fn show(&self, output: Output) -> Result<(), Failure> {
        output.object(self)?;
        let title = format!("A log line of SPOE, of HAProxy {}", self.format);
        output.line(output.paint(Paint::Heading, title))?;
        output.table("  ", &self.table())?;
        if let Some(hint) = self.hint() {
            output.line(format_args!("  {hint}"))?;
        }
        match &self.number {
            Some(number) if number.is_error() => {
                output.line("")?;
                number.show_text(output)
            }
            Some(_) => Ok(()),
            None => output.line(format_args!("  No HAProxy is known to log st={}.", self.st)),
        }
    }

    /// What the times of a request that timed out say about it.
    fn hint(&self) -> Option<&'static str> {
        match (self.format, self.st, self.queue_ms, self.wait_ms) {
            (OLD, 1, None, _) => Some(
                "The request was never sent: HAProxy had no connection to the agent that was free. See whether it runs: `spop check`.",
            ),
            (OLD, 1, Some(_), None) => {
                Some("The request was sent, and no answer came in time: the agent is slow.")
            }
            _ => None,
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(["FIELD", "VALUE", "MEANING"]);
        let mut row = |field: &str, value: String, meaning: &str| {
            table.row(None, [field.to_owned(), value, meaning.to_owned()]);
        };
        row("agent", self.agent.clone(), "the section `spoe-agent`");
        let kind = match &*self.kind {
            "EVENT" => "the event at which the messages were sent",
            "GROUP" => "the group that a rule `send-spoe-group` has sent",
            _ => "an event or a group",
        };
        row(&self.kind.to_lowercase(), self.name.clone(), kind);
        row("sid", self.sid.to_string(), "the number of the stream: `%rt` in the other log lines");
        let name = self.number.as_ref().map_or("unknown".into(), Number::describe);
        row("st", self.st.to_string(), &name);
        if self.format == OLD {
            for (field, value, meaning) in [
                ("reqT", self.encode_ms, "time to evaluate and encode the messages, their ACLs included"),
                (
                    "qT",
                    self.queue_ms,
                    "time in the queue, until the request was sent; long: too few connections",
                ),
                ("wT", self.wait_ms, "time until the answer came: the agent, and the network"),
                ("resT", self.response_ms, "time to apply the answer"),
            ] {
                row(field, time(value), meaning);
            }
        }
        row("pT", time(self.processing_ms), "all in all: the delay of the stream by SPOE");
        for (field, value, meaning) in [
            ("idles", self.idles, "idle connections to the agent, of this thread"),
            ("applets", self.applets, "connections to the agent, of this thread"),
            ("sending", self.sending, "streams that wait to send"),
            ("waiting", self.waiting, "streams that wait for an answer"),
        ] {
            if let Some(value) = value {
                row(field, value.to_string(), meaning);
            }
        }
        row("errors", self.errors.to_string(), "events and groups that failed so far");
        row("processed", self.processed.to_string(), "events and groups so far");
        table
    }
}

/// Numbers between slashes; -1 is none.
fn numbers(word: &str) -> Option<Vec<Option<u64>>> {
    word.split('/')
        .map(|number| if number == "-1" { Some(None) } else { number.parse().ok().map(Some) })
        .collect()
}

fn time(value: Option<u64>) -> String {
    value.map_or_else(|| "-1 (not reached)".to_owned(), |value| format!("{value} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(line: &str) -> Option<Result<LogLine, String>> {
        LogLine::find(line)
    }

    #[test]
    fn both_formats_are_taken_apart() {
        let line = "<133>Nov 29 12:00:00 haproxy[7]: SPOE: [ip-rep] <EVENT:on-client-session> sid=7 st=258 \
                    1/2/-1/-1/15 3/4 5/6 7/42";
        let found = find(line).unwrap().unwrap();
        assert_eq!(
            (found.format, &*found.agent, &*found.kind, &*found.name),
            (OLD, "ip-rep", "EVENT", "on-client-session")
        );
        assert_eq!((found.sid, found.st, found.errors, found.processed), (7, 258, 7, 42));
        let times = [found.encode_ms, found.queue_ms, found.wait_ms, found.response_ms, found.processing_ms];
        assert_eq!(times, [Some(1), Some(2), None, None, Some(15)]);
        let counts = [found.idles, found.applets, found.sending, found.waiting];
        assert_eq!(counts, [Some(3), Some(4), Some(5), Some(6)]);
        let hint = |times: &str| {
            find(&format!("SPOE: [a] <EVENT:e> sid=1 st=1 {times} 0/1 0/0 1/2")).unwrap().unwrap().hint()
        };
        assert!(hint("0/-1/-1/-1/510").unwrap().contains("never sent"));
        assert!(hint("0/0/-1/-1/510").unwrap().contains("no answer"));

        let found = find("SPOE: [a b] <GROUP:g> sid=0 st=0 3 0/42").unwrap().unwrap();
        assert_eq!((found.format, &*found.agent, &*found.kind), (NEW, "a b", "GROUP"));
        assert_eq!((found.processing_ms, found.idles, found.processed), (Some(3), None, 42));
    }

    #[test]
    fn what_is_no_log_line_is_told_from_a_broken_one() {
        assert!(find("haproxy[7]: Proxy web started.").is_none());
        for line in [
            "SPOE: [a",
            "SPOE: [a] <EVENT:e> sid=1",
            "SPOE: [a] <EVENT:e> sid=x st=0 3 0/1",
            "SPOE: [a] <EVENT:e> sid=1 st=0 3/4 0/1",
            "SPOE: [a] <EVENT:e> sid=1 st=0 3 0/1/2",
            "SPOE: [a] <EVENT:e> sid=1 st=0 3 -1/1",
        ] {
            assert!(find(line).unwrap().is_err(), "{line}");
        }
    }
}
