//! Plays a case: sends what HAProxy sends, and compares what comes.

mod receive;

use std::time::Duration;

use spop_core::frame::Capabilities;
use tokio::time::{sleep, timeout};

use super::{
    engine::Engine,
    log::Log,
    pattern::Pattern,
    probe::Agent,
    script::{Case, Level, Step},
};
use crate::{conversation::Conversation, exit::reason, hello::Hello};

/// Between the writes of bytes one by one, and of a write cut in two.
const BYTE_PAUSE: Duration = Duration::from_millis(1);

/// After what must be a segment of its own.
const PAUSE: Duration = Duration::from_millis(20);

/// The most frames that are read after hostile input, and in place of what was expected.
const FRAMES: usize = 64;

/// How a case ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Passed,
    /// The agent lacks something that the case needs.
    NotApplicable(String),
    Failed(Fault),
}

/// Why a case failed.
#[derive(Debug, Default)]
pub(super) struct Fault {
    pub(super) expected: String,
    pub(super) came: String,
    pub(super) log: Vec<String>,
}

/// Why a case ends before its last step.
enum Stop {
    /// By an alternative.
    Done,
    NotApplicable(String),
    Fault {
        expected: String,
        came: String,
    },
}

fn fault(expected: impl Into<String>, came: impl Into<String>) -> Stop {
    Stop::Fault { expected: expected.into(), came: came.into() }
}

/// Plays a case, once or with all cuts.
pub(super) async fn play(agent: &Agent, case: &Case) -> Outcome {
    let last = case.steps.iter().rposition(|step| matches!(step, Step::Send { .. }));
    let cuts = match last.and_then(|last| case.steps.get(last)) {
        Some(Step::Send { bytes, .. }) if case.cut => 1..bytes.len(),
        _ => 0..1,
    };
    for cut in cuts {
        let mut player = Player::new(agent);
        if case.cut {
            player.cut = last.zip(Some(cut));
        }
        match player.run(case).await {
            Ok(()) | Err(Stop::Done) => {}
            Err(Stop::NotApplicable(why)) => return Outcome::NotApplicable(why),
            Err(Stop::Fault { expected, came }) => {
                return Outcome::Failed(Fault { expected, came, log: player.log.into_lines() });
            }
        }
    }
    Outcome::Passed
}

/// A connection of a case.
struct Connection {
    /// From 1.
    number: usize,
    /// `None` after a reset.
    conversation: Option<Conversation>,
    /// What the agent has announced.
    hello: Option<Hello>,
}

struct Player<'a> {
    agent: &'a Agent,
    engine: Engine,
    connections: Vec<Connection>,
    /// Those that only stay open.
    others: Vec<Conversation>,
    current: usize,
    any_connection: bool,
    bytewise: bool,
    /// The step whose bytes are cut, and where.
    cut: Option<(usize, usize)>,
    allowed: Vec<Pattern>,
    /// A HAPROXY-DISCONNECT was sent: HAProxy ignores ACKs from here on.
    disconnecting: bool,
    /// The length of the last frame, with its prefix.
    last: usize,
    /// The reads in which the last frame came.
    reads: usize,
    log: Log,
}

impl<'a> Player<'a> {
    fn new(agent: &'a Agent) -> Self {
        Self {
            agent,
            engine: Engine::new(),
            connections: Vec::new(),
            others: Vec::new(),
            current: 1,
            any_connection: false,
            bytewise: false,
            cut: None,
            allowed: Vec::new(),
            disconnecting: false,
            last: 0,
            reads: 0,
            log: Log::default(),
        }
    }

    async fn run(&mut self, case: &Case) -> Result<(), Stop> {
        for (index, step) in case.steps.iter().enumerate() {
            self.step(index, step).await?;
        }
        if case.level == Level::Survives {
            self.settle().await;
        }
        Ok(())
    }

    async fn step(&mut self, index: usize, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Send { lines, bytes } => self.send(index, lines, bytes).await,
            Step::Expect(expected) => self.expect(expected).await,
            Step::End(or) => self.end(or).await,
            Step::Quiet => self.quiet().await,
            Step::Allow(pattern) => {
                self.allowed.push(pattern.clone());
                Ok(())
            }
            Step::OneRead if self.reads > 1 => {
                Err(fault("the frame in one segment", format!("it came in {} reads", self.reads)))
            }
            Step::AtMost(bytes) if self.last > *bytes => {
                Err(fault(format!("a frame of {bytes} bytes at most"), format!("{} bytes", self.last)))
            }
            Step::OneRead | Step::AtMost(_) => Ok(()),
            Step::Needs(capability) => self.announces(*capability, true),
            Step::Lacks(capability) => self.announces(*capability, false),
            Step::NeedsSize(size) => match self.frame_size() {
                Some(agreed) if agreed < i128::from(*size) => {
                    Err(Stop::NotApplicable(format!("the agent's max-frame-size is {agreed}, below {size}")))
                }
                _ => Ok(()),
            },
            Step::On(number) => {
                self.current = *number;
                self.conversation().await.map(|_| ())
            }
            Step::AnyConnection => {
                self.any_connection = true;
                Ok(())
            }
            Step::Bytewise => {
                self.bytewise = true;
                Ok(())
            }
            Step::Pause => {
                sleep(PAUSE).await;
                Ok(())
            }
            Step::Shut => {
                self.log.add(self.current, "(this side closes)");
                let limit = self.agent.timeout;
                // The agent may have closed the connection already.
                let _ = timeout(limit, self.conversation().await?.shut()).await;
                Ok(())
            }
            Step::Reset => {
                sleep(PAUSE).await;
                self.log.add(self.current, "(this side closes with unread data)");
                self.connection().await?.conversation = None;
                Ok(())
            }
            Step::Open(count) => self.open(*count).await,
            Step::Serves => {
                let served = self.agent.serves().await;
                served.map_err(|why| fault("a new connection is served while this one is open", why))
            }
        }
    }

    /// The current connection, which is opened if it is not yet.
    async fn connection(&mut self) -> Result<&mut Connection, Stop> {
        let number = self.current;
        let known = self.connections.iter().position(|connection| connection.number == number);
        let index = match known {
            Some(index) => index,
            None => {
                let opened = self.agent.open().await;
                let conversation = opened.map_err(|why| fault("a connection", why))?;
                self.connections.push(Connection { number, conversation: Some(conversation), hello: None });
                self.connections.len() - 1
            }
        };
        self.connections.get_mut(index).ok_or_else(|| fault("a connection", "none"))
    }

    async fn conversation(&mut self) -> Result<&mut Conversation, Stop> {
        let conversation = self.connection().await?.conversation.as_mut();
        conversation.ok_or_else(|| fault("a connection", "it was reset"))
    }

    fn known(&self) -> Option<&Connection> {
        self.connections.iter().find(|connection| connection.number == self.current)
    }

    fn hello(&self) -> Option<&Hello> {
        self.known().and_then(|connection| connection.hello.as_ref())
    }

    /// What has arrived on the current connection and is no whole frame.
    fn rest(&self) -> &[u8] {
        let conversation = self.known().and_then(|connection| connection.conversation.as_ref());
        conversation.map_or(&[], Conversation::rest)
    }

    fn frame_size(&self) -> Option<i128> {
        self.hello().and_then(|hello| hello.max_frame_size)
    }

    fn announces(&self, capability: Capabilities, wanted: bool) -> Result<(), Stop> {
        let announced = self.hello().is_some_and(|hello| hello.known.contains(capability));
        if announced == wanted {
            return Ok(());
        }
        let verb = if wanted { "does not announce" } else { "announces" };
        Err(Stop::NotApplicable(format!("the agent {verb} {capability}")))
    }

    async fn send(&mut self, index: usize, lines: &[String], bytes: &[u8]) -> Result<(), Stop> {
        self.conversation().await?;
        for line in lines {
            self.log.add(self.current, &self.engine.line(line));
            self.disconnecting |= line.starts_with("> HAPROXY-DISCONNECT");
        }
        let bytes = &self.engine.bytes(bytes)[..];
        let pieces: Vec<&[u8]> = match self.cut {
            Some((step, at)) if step == index => {
                self.log
                    .add(self.current, &format!("(in two segments, of {at} and {} bytes)", bytes.len() - at));
                let (front, rest) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
                vec![front, rest]
            }
            _ if self.bytewise => bytes.chunks(1).collect(),
            _ => vec![bytes],
        };
        let limit = self.agent.timeout;
        let several = pieces.len() > 1;
        for piece in pieces {
            let failed = match timeout(limit, self.conversation().await?.send(piece)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(reason(&error)),
                Err(_) => Some(format!("the agent has read nothing for {limit:?}")),
            };
            if let Some(why) = failed {
                // What the agent has sent before it closed the connection decides.
                self.log.add(self.current, &format!("(not all was sent: {why})"));
                return Ok(());
            }
            if several {
                sleep(BYTE_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn open(&mut self, count: usize) -> Result<(), Stop> {
        self.log.add(1, &format!("({count} connections, each with a handshake)"));
        for number in 1..=count {
            let wrong = |why| {
                fault(format!("{count} connections are accepted"), format!("at number {number}: {why}"))
            };
            let mut conversation = self.agent.open().await.map_err(wrong)?;
            self.agent.greet(&mut conversation).await.map_err(wrong)?;
            self.others.push(conversation);
        }
        Ok(())
    }
}
