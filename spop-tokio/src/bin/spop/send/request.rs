//! Requests on a connection to an agent.

use std::time::{Duration, Instant};

use bytes::Bytes;
use spop_core::{
    EngineConfig,
    agent::Session,
    frame::{AckActions, Capabilities, Flags, Frame, FrameType, Header, Ids, put_frame},
    wire::Status,
};

use crate::{
    address::Connector,
    conversation::{Conversation, Received, disconnected, not_spop},
    exit::{Failure, reason, warn},
    haproxy::Version,
};

/// The part of a frame that HAProxy reserves for the header of a NOTIFY.
const NOTIFY_HEADER: usize = 32;

/// How long an answer to an aborted payload is awaited, which must not come.
const AFTER_ABORT: Duration = Duration::from_millis(100);

/// How long the agent's DISCONNECT is awaited at the end.
const AT_END: Duration = Duration::from_millis(500);

/// The most frames that are no answer to a request: late ACKs, and what an agent invents.
const SKIPPED_MAX: usize = 100;

/// Payloads in fragments, whatever their length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragmentation {
    pub(super) size: usize,
    pub(super) abort_after: Option<usize>,
}

/// An agent, and the connection to it.
pub(super) struct Peer {
    connector: Connector,
    version: Version,
    config: EngineConfig,
    limit: Duration,
    fragmentation: Option<Fragmentation>,
    open: Option<Open>,
    /// HAProxy up to 3.0 numbers its streams over all connections.
    next_stream: u64,
}

struct Open {
    conversation: Conversation,
    session: Session,
}

/// A request and its end.
pub(super) struct Asked {
    pub(super) ids: Ids,
    /// The frames that it was sent in.
    pub(super) fragments: usize,
    pub(super) answer: Answer,
    pub(super) took: Duration,
    /// Frames that are no answer to it.
    pub(super) skipped: Vec<Bytes>,
}

pub(super) enum Answer {
    Ack {
        actions: Bytes,
        abort: bool,
        malformed: Option<String>,
    },
    /// This side has aborted it. An agent must not answer it.
    Aborted {
        answered: bool,
    },
    Failed {
        code: u32,
        detail: String,
    },
}

impl Peer {
    pub(super) fn new(
        connector: Connector,
        version: Version,
        config: EngineConfig,
        limit: Duration,
        fragmentation: Option<Fragmentation>,
    ) -> Self {
        let next_stream = u64::from(!version.is_old());
        Self { connector, version, config, limit, fragmentation, open: None, next_stream }
    }

    /// Opens a session if there is none, and describes it.
    pub(super) async fn connect(&mut self) -> Result<Option<String>, Failure> {
        if self.open.is_some() {
            return Ok(None);
        }
        let address = self.connector.address();
        let mut conversation = Conversation::open(&self.connector).await?;
        let session = conversation
            .greet(&self.config, self.limit)
            .await
            .map_err(|error| Failure::wrong(format_args!("{address}: {error}")))?;
        let capabilities = session.peer_capabilities.to_string();
        let capabilities = if capabilities.is_empty() { "no capabilities".into() } else { capabilities };
        let description = format!(
            "{address}: SPOP {}, max-frame-size {}, {capabilities}; asked as HAProxy {}",
            session.version, session.max_frame_size, self.version
        );
        if !self.version.is_old() {
            self.next_stream = 1;
        }
        if self.fragmentation.is_some() && !session.peer_capabilities.contains(Capabilities::FRAGMENTATION) {
            warn(format_args!(
                "warning: the agent does not announce fragmentation: HAProxy would send it no fragments"
            ));
        } else if self.fragmentation.is_some() && !self.version.is_old() {
            warn(format_args!("warning: HAProxy {} sends no fragments: try --engine 3.0", self.version));
        }
        self.open = Some(Open { conversation, session });
        Ok(Some(description))
    }

    /// Sends a request, and awaits its answer.
    pub(super) async fn ask(&mut self, payload: &[u8]) -> Result<Asked, Failure> {
        let ids = Ids::new(self.next_stream, 1);
        self.next_stream += if self.version.is_old() { 1 } else { 2 };
        let begun = Instant::now();
        let mut asked = Asked {
            ids,
            fragments: 0,
            answer: Answer::Aborted { answered: false },
            took: Duration::ZERO,
            skipped: Vec::new(),
        };
        let Some(mut open) = self.open.take() else {
            return Err(Failure::io("there is no session"));
        };
        asked.answer = match self.encode(&open.session, ids, payload) {
            Ok((frames, count)) => {
                asked.fragments = count;
                match open.conversation.send(&frames).await {
                    Ok(()) => self.receive(&mut open, &mut asked, begun).await,
                    Err(error) => failed(Status::IO, format!("the connection broke: {}", reason(&error))),
                }
            }
            Err(detail) => Answer::Failed { code: 3, detail },
        };
        asked.took = begun.elapsed();
        // After any other failure HAProxy continues on another connection.
        if matches!(
            asked.answer,
            Answer::Ack { .. } | Answer::Aborted { .. } | Answer::Failed { code: 1..=5, .. }
        ) {
            self.open = Some(open);
        }
        Ok(asked)
    }

    /// The frames of a request, and how many there are.
    fn encode(&self, session: &Session, ids: Ids, payload: &[u8]) -> Result<(Vec<u8>, usize), String> {
        let most = (session.max_frame_size as usize).saturating_sub(NOTIFY_HEADER);
        let fragments = session.peer_capabilities.contains(Capabilities::FRAGMENTATION);
        let (size, abort_after) = match self.fragmentation {
            Some(Fragmentation { size, abort_after }) => (size.min(most), abort_after),
            None if payload.len() <= most => (payload.len().max(1), None),
            None if self.config.send_frag_payload && fragments => (most, None),
            None => {
                let why = if self.config.send_frag_payload {
                    "the agent accepts no fragments"
                } else {
                    "this HAProxy sends no fragments"
                };
                return Err(format!("the messages take {} bytes of {most}, and {why}", payload.len()));
            }
        };
        let mut frames = Vec::new();
        let parts = payload.len().div_ceil(size).max(1);
        for (index, part) in payload.chunks(size).take(abort_after.unwrap_or(parts)).enumerate() {
            let frame_type = if index == 0 { FrameType::Notify } else { FrameType::Unset };
            let last = index + 1 == parts && abort_after.is_none();
            let flags = if last { Flags::FIN } else { Flags::NONE };
            put_frame(&mut frames, Header { frame_type, flags, ids }, part);
        }
        if abort_after.is_some() {
            put_frame(&mut frames, Header { frame_type: FrameType::Unset, flags: Flags::ABORT, ids }, &[]);
        }
        Ok((frames, abort_after.map_or(parts, |count| count.min(parts))))
    }

    async fn receive(&self, open: &mut Open, asked: &mut Asked, begun: Instant) -> Answer {
        let aborted = self.fragmentation.is_some_and(|fragmentation| fragmentation.abort_after.is_some());
        let deadline = begun + if aborted { AFTER_ABORT } else { self.limit };
        loop {
            let frame = match open.conversation.receive(deadline).await {
                Received::Frame(frame) => frame,
                Received::Nothing if aborted => return Answer::Aborted { answered: false },
                Received::Nothing => {
                    return Answer::Failed { code: 1, detail: format!("no answer within {:?}", self.limit) };
                }
                Received::Eof(0) => {
                    return failed(Status::IO, "the agent closed the connection without an answer".into());
                }
                Received::Eof(bytes) => {
                    return failed(
                        Status::IO,
                        format!("the agent closed the connection after {bytes} bytes of a frame"),
                    );
                }
                Received::Broken(error) => {
                    return failed(Status::IO, format!("the connection broke: {error}"));
                }
                Received::TooLong(_) => return failed(Status::TOO_BIG, not_spop(open.conversation.rest())),
            };
            // 3.1 and later stop reading for good when a read fills their buffer.
            if !self.version.is_old() && frame.len() >= self.config.max_frame_size as usize {
                let detail = format!(
                    "the ACK of {} bytes fills HAProxy's receive buffer, and stalls the connection",
                    frame.len()
                );
                return Answer::Failed { code: 1, detail };
            }
            if frame.len() > open.session.max_frame_size as usize {
                let (len, most) = (frame.len(), open.session.max_frame_size);
                return failed(
                    Status::TOO_BIG,
                    format!("a frame of {len} bytes, more than the {most} agreed"),
                );
            }
            if let Some(answer) = Self::answer(&frame, asked, aborted) {
                return answer;
            }
            if asked.skipped.len() >= SKIPPED_MAX {
                return failed(
                    Status::INVALID,
                    format!("the agent has sent {SKIPPED_MAX} frames that are no answer"),
                );
            }
            asked.skipped.push(frame);
        }
    }

    /// The answer in a frame; `None` if it is for another request, or no answer.
    fn answer(frame: &Bytes, asked: &Asked, aborted: bool) -> Option<Answer> {
        let Ok(Frame { header, payload }) = Frame::decode(frame) else {
            return Some(failed(Status::INVALID, "a frame without a valid header".into()));
        };
        if header.frame_type == FrameType::AgentDisconnect {
            let Some((status, message)) = disconnected(frame) else {
                return Some(failed(Status::INVALID, "a malformed AGENT-DISCONNECT".into()));
            };
            return Some(failed(status, format!("the agent disconnected with {status}: \"{message}\"")));
        }
        if header.frame_type != FrameType::Ack || header.ids != asked.ids {
            return None;
        }
        let abort = header.flags.is_abort();
        if aborted {
            return Some(Answer::Aborted { answered: !abort });
        }
        if !header.flags.is_fin() {
            return Some(failed(
                Status::FRAGMENTED,
                "the agent fragments its ACK, which no HAProxy accepts".into(),
            ));
        }
        if abort && asked.fragments > 1 {
            return Some(Answer::Failed { code: 4, detail: "the agent aborted the payload".into() });
        }
        let actions = if abort { Bytes::new() } else { frame.slice_ref(payload) };
        let malformed = AckActions::lenient(&actions).error().map(|error| error.to_string());
        Some(Answer::Ack { actions, abort, malformed })
    }

    /// Ends the session as HAProxy does.
    pub(super) async fn close(&mut self) {
        if let Some(mut open) = self.open.take()
            && self.version.is_old()
        {
            open.conversation.disconnect(Status::NORMAL, AT_END).await;
        }
    }
}

/// The failure of a request whose session has ended with a status.
const fn failed(status: Status, detail: String) -> Answer {
    Answer::Failed { code: status.0.saturating_add(256), detail }
}
