//! Whether the agent serves.

use std::time::{Duration, Instant};

use spop_core::{
    frame::{Flags, FrameType, Header, Ids, put_frame},
    notation,
};
use tokio::time::{sleep, timeout};

use super::{engine::Engine, script};
use crate::{
    address::Connector,
    conversation::{Conversation, Received, disconnected, not_spop},
    exit::{Failure, reason},
    frames,
    hello::Hello,
    text::MessageText,
};

/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// The agent, and how long to wait for it.
pub(super) struct Agent {
    pub(super) connector: Connector,
    pub(super) timeout: Duration,
    pub(super) quiet: Duration,
    /// A NOTIFY with the messages of the command line.
    notify: Vec<u8>,
    /// The agent answers such a NOTIFY with some frame.
    pub(super) answers: bool,
}

impl Agent {
    pub(super) fn new(
        connector: Connector,
        timeout: Duration,
        quiet: Duration,
        message: &MessageText,
    ) -> Self {
        let mut notify = Vec::new();
        let header = Header { frame_type: FrameType::Notify, flags: Flags::FIN, ids: Ids::new(1, 1) };
        put_frame(&mut notify, header, &message.payload);
        Self { connector, timeout, quiet, notify, answers: false }
    }

    /// Does a handshake, and learns what the probes can expect.
    ///
    /// # Errors
    /// There is no agent.
    pub(super) async fn introduce(&mut self) -> Result<Hello, Failure> {
        let mut conversation = Conversation::open(&self.connector).await?;
        let hello = self.greet(&mut conversation).await;
        let hello =
            hello.map_err(|text| Failure::wrong(format_args!("{}: {text}", self.connector.address())))?;
        self.answers = self.ask(&mut conversation).await.is_ok();
        Ok(hello)
    }

    /// Whether a new connection is served: a handshake, and a NOTIFY. Which frames answer them is left to the cases.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) async fn serves(&self) -> Result<(), String> {
        let mut conversation = self.open().await?;
        self.greet(&mut conversation).await?;
        if self.answers { self.ask(&mut conversation).await } else { Ok(()) }
    }

    /// Waits until a new connection is served.
    pub(super) async fn recovers(&self) -> bool {
        let end = Instant::now() + self.timeout;
        while Instant::now() < end {
            sleep(PAUSE).await;
            if self.serves().await.is_ok() {
                return true;
            }
        }
        false
    }

    /// A new connection.
    pub(super) async fn open(&self) -> Result<Conversation, String> {
        Conversation::open(&self.connector).await.map_err(|failure| failure.to_string())
    }

    /// Does a handshake, and accepts any AGENT-HELLO.
    pub(super) async fn greet(&self, conversation: &mut Conversation) -> Result<Hello, String> {
        let hello = notation::parse_bytes(&script::hello("")).map_err(|error| error.to_string())?;
        let frame = match self.exchange(conversation, &Engine::new().bytes(&hello)).await {
            Received::Frame(frame) => frame,
            Received::TooLong(_) => return Err(not_spop(conversation.rest())),
            Received::Nothing => return Err(conversation.no_hello(self.timeout)),
            Received::Eof(_) if frames::foreign(conversation.rest()).is_some() => {
                return Err(not_spop(conversation.rest()));
            }
            Received::Eof(bytes @ 1..) => {
                return Err(format!("the agent closed the connection after {bytes} bytes of an AGENT-HELLO"));
            }
            Received::Eof(_) => {
                return Err("the agent closed the connection without an AGENT-HELLO: is it an agent?".into());
            }
            Received::Broken(error) => return Err(format!("no AGENT-HELLO came: {error}: is it an agent?")),
        };
        match frames::header(&frame).map(|header| header.frame_type) {
            Some(FrameType::AgentHello) => Ok(Hello::read(&frame).unwrap_or_default()),
            Some(FrameType::AgentDisconnect) => Err(match disconnected(&frame) {
                Some((status, message)) => {
                    format!(
                        "the agent refuses the session: AGENT-DISCONNECT with status {status}, \"{message}\""
                    )
                }
                None => "the agent refuses the session with a malformed AGENT-DISCONNECT".into(),
            }),
            _ => Err(format!("no AGENT-HELLO came, but {}", crate::text::cut(&frames::text(&frame), 200))),
        }
    }

    async fn ask(&self, conversation: &mut Conversation) -> Result<(), String> {
        match self.exchange(conversation, &self.notify).await {
            Received::Frame(_) => Ok(()),
            _ => Err(format!("a NOTIFY is not answered within {:?}", self.timeout)),
        }
    }

    async fn exchange(&self, conversation: &mut Conversation, frame: &[u8]) -> Received {
        let deadline = Instant::now() + self.timeout;
        match timeout(self.timeout, conversation.send(frame)).await {
            Ok(Ok(())) => conversation.receive(deadline).await,
            Ok(Err(error)) => Received::Broken(reason(&error)),
            Err(_) => Received::Nothing,
        }
    }
}
