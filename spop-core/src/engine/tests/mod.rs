//! The engine's reactor, its actions and frames as text.

use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};
use core::time::Duration;

use super::*;
use crate::{
    MessageList, Status, Timer, Timestamp,
    agent::ConnectionId,
    frame::{Capabilities, Frame, Ids},
    notation,
    testing::Inbox,
};

mod anything;
mod closing;
mod handshake;
mod profiles;
mod requests;
mod streams;

const HELLO: &str =
    "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining";
const HELLO_ALL: &str = "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:256 \
                         capabilities=string:fragmentation,pipelining,async";
const HELLO_NONE: &str =
    "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:256 capabilities=string:\"\"";

/// An engine under test.
struct Engine {
    reactor: EngineReactor,
    inbox: Inbox,
    now: Timestamp,
}

impl Engine {
    fn new(config: EngineConfig) -> Self {
        let now = Timestamp::ZERO;
        let reactor = EngineReactor::new(Arc::new(config.checked().unwrap()), ConnectionId(1), now);
        Self { reactor, inbox: Inbox::new(), now }
    }

    /// An engine that has received this AGENT-HELLO.
    fn greeted(config: EngineConfig, hello: &str) -> Self {
        let mut engine = Self::new(config);
        engine.sent();
        assert_eq!(engine.feed(&[hello]), ["established"]);
        engine
    }

    /// Receives these frames in one read. Returns the actions as text.
    fn feed(&mut self, lines: &[&str]) -> Vec<String> {
        for line in lines {
            self.inbox.extend_from_slice(&notation::parse_bytes(line).unwrap());
        }
        self.bytes(&[])
    }

    fn bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        self.inbox.extend_from_slice(bytes);
        let mut said = vec![];
        loop {
            let action = self.inbox.feed(|input| self.reactor.on_bytes(self.now, input));
            if !Self::log_action(&mut said, action) {
                return said;
            }
        }
    }

    fn log_action(said: &mut Vec<String>, action: EngineAction<'_>) -> bool {
        said.push(match action {
            EngineAction::Established(_) => "established".into(),
            EngineAction::Answered(answer) => format!("{} answered", answer.id.ids()),
            EngineAction::Failed(failure) => format!("{} failed {}", failure.id.ids(), failure.error.code()),
            EngineAction::Unclaimed(ack) => format!("{} unclaimed", ack.ids),
            EngineAction::SendFrames | EngineAction::WantBytes { .. } => return false,
            EngineAction::Close(ended) => {
                let ids: Vec<_> = ended.unanswered.iter().map(|id| id.ids().to_string()).collect();
                let orphaned = if ended.orphaned { " orphaned" } else { "" };
                said.push(format!("close {} [{}]{orphaned}", ended.error.code(), ids.join(" ")));
                return false;
            }
        });
        true
    }

    fn eof(&mut self) -> Vec<String> {
        let mut said = vec![];
        while {
            let action = self.inbox.feed(|input| self.reactor.on_input_eof(self.now, input));
            Self::log_action(&mut said, action)
        } {}
        said
    }

    /// Advances the time to the next deadline, and fires it.
    fn timeout(&mut self) -> Vec<String> {
        let mut said = vec![];
        while let Some((at, Timer::Memory)) = self.reactor.deadline() {
            self.now = at;
            let action = self.reactor.on_timeout(at);
            assert!(!Self::log_action(&mut said, action) && said.is_empty());
        }
        let Some((at, _)) = self.reactor.deadline() else { return said };
        self.now = at;
        while {
            let action = self.reactor.on_timeout(self.now);
            Self::log_action(&mut said, action)
        } {}
        said
    }

    fn notify(&mut self, ids: Option<Ids>, size: usize) -> Result<Ids, NotifyError> {
        let mut list = MessageList::new();
        list.message("m").arg("s", &*"x".repeat(size));
        self.reactor.notify(self.now, ids, &list).map(NotifyId::ids)
    }

    /// Sends all outgoing bytes. Returns the frames without their payloads.
    fn sent(&mut self) -> Vec<String> {
        let mut heads = vec![];
        while !self.reactor.outgoing().is_empty() {
            let bytes = self.reactor.outgoing().to_vec();
            let mut rest = &bytes[..];
            while let Some((prefix, more)) = rest.split_first_chunk::<4>() {
                let (frame, more) = more.split_at(u32::from_be_bytes(*prefix) as usize);
                let frame = Frame::decode(frame).unwrap();
                let line = notation::print(frame).to_string();
                let words = if frame.header.ids == Ids::ZERO { 5 } else { 4 };
                let head: Vec<_> = line.split(' ').take(words).collect();
                heads.push(head.join(" "));
                rest = more;
            }
            let _ = self.reactor.on_sent(self.now, bytes.len());
        }
        heads
    }
}

fn quick(mut config: EngineConfig) -> EngineConfig {
    config.timeouts.hello = Some(Duration::from_secs(1));
    config.timeouts.message = Some(Duration::from_secs(2));
    config.timeouts.idle = Some(Duration::from_secs(30));
    config.engine_id = Some("an-id".into());
    config
}

fn old() -> EngineConfig {
    quick(EngineConfig::haproxy_2_6())
}

fn new() -> EngineConfig {
    quick(EngineConfig::haproxy_3_1())
}

fn no_async(mut config: EngineConfig) -> EngineConfig {
    config.capabilities = Capabilities::PIPELINING;
    config
}
