//! One greeting: a HAPROXY-HELLO, the agent's answer, and the end of the connection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use spop_core::{
    EngineConfig, Status,
    frame::{Capabilities, FrameType},
};

use super::{
    Options,
    finding::{Finding, Findings, Level},
};
use crate::{
    address::Connector,
    conversation::{Conversation, Received, disconnected, not_spop, refused},
    exit::{Failure, reason},
    frames,
    haproxy::{self, Verdict, Version},
    hello::Hello,
};

/// The most frames that are read after the AGENT-HELLO, so that no agent keeps the check from its end.
const FRAMES_AFTER: usize = 16;

/// What happened on one connection.
pub(super) struct Greeting {
    pub(super) version: Version,
    pub(super) healthcheck: bool,
    pub(super) connected: Duration,
    /// When the first frame was there, whatever it is.
    pub(super) answered: Option<Duration>,
    config: EngineConfig,
    /// The reads that the first frame came in.
    pieces: usize,
    /// All that was read until the agent was quiet.
    reads: Vec<Bytes>,
    eof: bool,
    first: Received,
    hello: Option<Hello>,
    verdict: Verdict,
    end: End,
}

/// How the connection ended.
enum End {
    /// The agent has closed it.
    Closed,
    /// This side has closed it, as HAProxy does.
    ByUs,
    /// The agent has answered this side's DISCONNECT with this status.
    Disconnected(Status),
    /// This side has sent a DISCONNECT, and this came instead of one.
    NoDisconnect(String),
}

/// Greets an agent as an HAProxy with this configuration does.
pub(super) async fn greet(
    connector: &Connector,
    config: &EngineConfig,
    version: Version,
    options: &Options,
) -> Result<Greeting, Failure> {
    let healthcheck = config.healthcheck;
    let begun = Instant::now();
    let mut conversation = Conversation::open(connector).await?;
    let connected = begun.elapsed();
    let hello = haproxy::hello(config.clone()).map_err(Failure::usage)?;
    let asked = Instant::now();
    let first = match conversation.send(&hello).await {
        Ok(()) => conversation.receive(asked + options.timeout).await,
        Err(error) => Received::Broken(reason(&error)),
    };
    let answered = matches!(first, Received::Frame(_)).then(|| asked.elapsed());
    let pieces = conversation.reads().len();
    if answered.is_some() && !conversation.is_eof() {
        // Nothing may follow. What does is judged with the rest.
        for _ in 0..FRAMES_AFTER {
            let Received::Frame(_) = conversation.receive(Instant::now() + options.quiet).await else {
                break;
            };
        }
    }
    let verdict = haproxy::judge(config.clone(), conversation.reads(), conversation.is_eof());
    let verdict = verdict.map_err(Failure::usage)?;
    let (reads, eof) = (conversation.reads().to_vec(), conversation.is_eof());
    // What follows is not judged, and may not end.
    conversation.stop_recording();
    let established = matches!(verdict, Verdict::Established(_));
    let end = if eof {
        End::Closed
    } else if established && !healthcheck && version.is_old() {
        end_of(conversation.disconnect(Status::NORMAL, options.timeout).await, options)
    } else {
        End::ByUs
    };
    let hello = match &first {
        Received::Frame(frame) => Hello::read(frame),
        _ => None,
    };
    Ok(Greeting {
        version,
        healthcheck,
        connected,
        answered,
        config: config.clone(),
        pieces,
        reads,
        eof,
        first,
        hello,
        verdict,
        end,
    })
}

fn end_of(received: Received, options: &Options) -> End {
    match received {
        Received::Frame(frame) => disconnected(&frame).map_or_else(
            || End::NoDisconnect("answers it with a malformed AGENT-DISCONNECT".into()),
            |(status, _)| End::Disconnected(status),
        ),
        Received::Eof(_) => End::NoDisconnect("closes the connection without its own".into()),
        Received::Broken(error) => End::NoDisconnect(format!("does not answer it: {error}")),
        Received::Nothing => End::NoDisconnect(format!("does not answer it within {:?}", options.timeout)),
        Received::TooLong(_) => End::NoDisconnect("answers it with bytes that are no frame".into()),
    }
}

impl Greeting {
    /// What the agent announces.
    pub(super) const fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    pub(super) fn capabilities(&self) -> Option<Capabilities> {
        self.hello.as_ref().map(|hello| hello.known)
    }

    /// Whether the HAProxy that was greeted as can work with the agent.
    pub(super) fn is_accepted(&self) -> bool {
        match &self.verdict {
            Verdict::Established(_) => true,
            Verdict::Ended(ended) => self.healthcheck && ended.is_healthy(),
            Verdict::Undecided => false,
        }
    }

    /// Whether no frame came in time, nor the end of the connection.
    pub(super) const fn is_silent(&self) -> bool {
        matches!(self.first, Received::Nothing)
    }

    /// Adds what is wrong with the agent, and what HAProxy makes of it.
    pub(super) fn judge(&self, findings: &mut Findings, options: &Options) {
        let mut add = |finding| findings.add(finding, Some((self.version, self.healthcheck)));
        if !self.is_accepted() {
            add(self.rejection(options));
        }
        if let Some(hello) = &self.hello {
            self.judge_split(&mut add);
            self.judge_rest(&mut add);
            self.judge_hello(hello, &mut add);
        }
        self.judge_end(&mut add);
    }

    fn rejection(&self, options: &Options) -> Finding {
        let effect = if self.healthcheck {
            "the health check fails: with `option spop-check`, HAProxy takes the server for down"
        } else if self.version.is_old() {
            "every request fails at `timeout processing`, and HAProxy reconnects in a storm until then"
        } else {
            "every request fails"
        };
        let (code, text) = match (&self.verdict, &self.first) {
            (_, Received::TooLong(_)) => {
                ("no-agent", not_spop(self.reads.first().map_or(&[], |read| &read[..])))
            }
            (_, Received::Broken(error)) => ("no-hello", format!("no AGENT-HELLO came: {error}")),
            (Verdict::Ended(ended), _) => ("rejected", refused(ended)),
            (_, Received::Frame(frame)) => {
                let text = frames::text(frame);
                ("no-hello", format!("the agent answers with {}", crate::text::cut(&text, 200)))
            }
            _ => ("no-hello", format!("no AGENT-HELLO came within {:?}", options.timeout)),
        };
        Finding::new(Level::Wrong, code, text).effect(effect)
    }

    fn judge_split(&self, add: &mut impl FnMut(Finding)) {
        if self.pieces > 1 {
            let pieces = self.pieces;
            let text = format!("the AGENT-HELLO comes in {pieces} pieces: send it in one write");
            add(Finding::new(Level::Wrong, "split-hello", text)
                .concerns("3.1 and later, except the latest releases of 3.2 and 3.4")
                .effect("HAProxy takes the second piece for a frame of its own, and closes the connection"));
        }
    }

    /// What follows the AGENT-HELLO.
    fn judge_rest(&self, add: &mut impl FnMut(Finding)) {
        let all: usize = self.reads.iter().map(Bytes::len).sum();
        let Received::Frame(hello) = &self.first else { return };
        let rest = all.saturating_sub(4 + hello.len());
        if rest == 0 {
            return;
        }
        let what = {
            let bytes = self.reads.concat();
            let next = bytes.get(8 + hello.len()..).map(frames::header);
            match next.flatten().map(|header| header.frame_type) {
                Some(FrameType::AgentDisconnect) => "an AGENT-DISCONNECT".to_owned(),
                _ => format!("{rest} bytes"),
            }
        };
        if self.healthcheck {
            let text =
                format!("{what} follows the AGENT-HELLO of a health check: send nothing more, and close");
            add(Finding::new(Level::Wrong, "after-health-check", text)
                .concerns("3.1 and later")
                .effect("the health check fails if both arrive in one read"));
        } else {
            let text = format!("{what} follows the AGENT-HELLO, before any request");
            add(Finding::new(Level::Wrong, "after-hello", text)
                .effect("HAProxy ends the session, or ignores it"));
        }
    }

    fn judge_hello(&self, hello: &Hello, add: &mut impl FnMut(Finding)) {
        if !hello.unknown.is_empty() {
            let text = format!("unknown capabilities: {}", hello.unknown.join(", "));
            add(Finding::new(Level::Warning, "unknown-capability", text).effect("HAProxy ignores them"));
        }
        if !hello.odd_keys.is_empty() {
            let text = format!("keys that no AGENT-HELLO has, or has once: {}", hello.odd_keys.join(", "));
            add(Finding::new(Level::Note, "odd-key", text).effect("HAProxy skips them"));
        }
        if self.healthcheck || !self.is_accepted() {
            return;
        }
        let offered = i128::from(self.config.max_frame_size);
        let fragments = hello.known.contains(Capabilities::FRAGMENTATION);
        if hello.max_frame_size.is_some_and(|size| size < offered) && (!self.version.is_old() || !fragments) {
            let size = hello.max_frame_size.unwrap_or_default();
            let text = format!("max-frame-size is {size}, and HAProxy offers {offered}");
            let effect = if self.version.is_old() {
                "a request that exceeds it makes HAProxy disconnect with status 10 and reconnect, because the agent does \
                 not announce fragmentation"
            } else {
                "a request that exceeds it fails with 259 or 3, and the agent never sees it: these versions send no fragments"
            };
            add(Finding::new(Level::Warning, "small-frames", text).effect(effect));
        } else if self.version.is_old() && !fragments {
            add(Finding::new(Level::Warning, "no-fragmentation", "the agent does not announce fragmentation").effect(
                "a request that exceeds the frame size makes HAProxy disconnect with status 10 and reconnect until its \
                 processing timeout",
            ));
        }
    }

    fn judge_end(&self, add: &mut impl FnMut(Finding)) {
        match &self.end {
            End::Closed if self.is_accepted() && !self.healthcheck => {
                add(Finding::new(
                    Level::Wrong,
                    "closes",
                    "the agent closes the connection after its AGENT-HELLO",
                )
                .effect("HAProxy has no connection to send requests on"));
            }
            End::NoDisconnect(what) => {
                let text = format!(
                    "after a HAPROXY-DISCONNECT the agent {what}: answer it with an AGENT-DISCONNECT"
                );
                add(Finding::new(Level::Wrong, "no-disconnect", text)
                    .effect("HAProxy waits for it, until `timeout idle` at most"));
            }
            End::Disconnected(status) if *status != Status::NORMAL => {
                let text = format!("the agent answers a HAPROXY-DISCONNECT of status 0 with status {status}");
                add(Finding::new(Level::Warning, "disconnect-status", text)
                    .effect("HAProxy reports this status in place of its own"));
            }
            End::ByUs if self.is_accepted() && self.healthcheck => {
                let text = "the agent leaves the connection of a health check open";
                add(Finding::new(Level::Note, "open-health-check", text).effect("HAProxy closes it"));
            }
            End::Closed | End::ByUs | End::Disconnected(_) => {}
        }
    }

    fn end(&self) -> String {
        match &self.end {
            End::Closed => "the agent closed the connection".into(),
            End::ByUs => "this side closed the connection".into(),
            End::Disconnected(status) => format!("the agent answered the DISCONNECT with status {status}"),
            End::NoDisconnect(what) => format!("after a DISCONNECT the agent {what}"),
        }
    }

    pub(super) fn object(&self) -> GreetingObject<'_> {
        let hello = self.hello.as_ref();
        GreetingObject {
            event: "greeting",
            haproxy: self.version.name(),
            healthcheck: self.healthcheck,
            accepted: self.is_accepted(),
            connect_ms: crate::time::millis(self.connected),
            hello_ms: self.answered.map(crate::time::millis),
            reads: self.reads.len(),
            closed: self.eof,
            hello: match &self.first {
                Received::Frame(frame) => Some(crate::text::cut(&frames::text(frame), 4_000).into_owned()),
                _ => None,
            },
            version: hello.and_then(|hello| hello.version.as_deref()),
            max_frame_size: hello.and_then(|hello| i64::try_from(hello.max_frame_size?).ok()),
            capabilities: hello.and_then(|hello| hello.capabilities.as_deref()),
            end: self.end(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct GreetingObject<'a> {
    event: &'static str,
    haproxy: &'static str,
    healthcheck: bool,
    accepted: bool,
    connect_ms: f64,
    hello_ms: Option<f64>,
    reads: usize,
    closed: bool,
    hello: Option<String>,
    version: Option<&'a str>,
    max_frame_size: Option<i64>,
    capabilities: Option<&'a str>,
    end: String,
}
