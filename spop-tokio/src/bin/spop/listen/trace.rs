//! What a listener shows: frames, and what happens to connections.

use std::{
    fmt,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use spop_core::{agent::Session, notation::Direction};
use spop_tokio::Closed;

use crate::{
    exit::Failure,
    frames::{Next, Splitter},
    output::{Output, Paint},
    shown::Shown,
    time::Utc,
};

/// The longest frame that is shown: as long as the longest that is accepted.
const FRAME_MAX: u32 = 1 << 20;

/// Where lines go.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    shown: Shown,
    connections: Arc<AtomicU64>,
}

/// Shows one connection.
#[derive(Debug)]
pub(super) struct ConnectionTrace {
    shown: Shown,
    number: u64,
    /// The bytes of each direction.
    from_haproxy: Splitter,
    to_haproxy: Splitter,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Details<'a> {
    Listening { address: &'a str },
    Opened { peer: &'a str },
    Session { max_frame_size: u32, capabilities: String, peer_capabilities: String },
    Note { text: String },
    Closed { reason: String, normal: bool },
}

impl Trace {
    pub(super) fn new(output: Output, cut: usize) -> Self {
        Self { shown: Shown::new(output, cut), connections: Arc::default() }
    }

    pub(super) fn listening(&mut self, address: &str) -> Result<(), Failure> {
        self.shown.output.line(format_args!("listening on {address}"))?;
        self.shown.object(Some(Utc::now()), None, "listening", Details::Listening { address })
    }

    /// What happens to no connection that is shown.
    pub(super) fn problem(&mut self, text: fmt::Arguments<'_>) -> Result<(), Failure> {
        let details = Details::Note { text: text.to_string() };
        self.shown.event(Some(Utc::now()), None, "note", Paint::Warning, &format!("* {text}"), details)
    }

    /// The next connection.
    pub(super) fn connection(&self) -> ConnectionTrace {
        ConnectionTrace {
            shown: self.shown,
            number: self.connections.fetch_add(1, Ordering::Relaxed) + 1,
            from_haproxy: Splitter::new(FRAME_MAX),
            to_haproxy: Splitter::new(FRAME_MAX),
        }
    }
}

impl ConnectionTrace {
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn opened(&self, peer: &str) -> Result<(), Failure> {
        self.event("opened", Paint::Dim, &format!("connection from {peer}"), Details::Opened { peer })
    }

    pub(super) fn session(&self, session: &Session) -> Result<(), Failure> {
        let peer = if session.peer_is_multiplexer() { "HAProxy 3.1 or later" } else { "HAProxy up to 3.0" };
        let engine = session
            .engine_id
            .as_deref()
            .map_or_else(String::new, |id| format!(", engine {}", spop_core::excerpt::Escaped(id)));
        let capabilities = session.capabilities.to_string();
        let shown = if capabilities.is_empty() { "no capabilities" } else { &capabilities };
        let line = format!("session with {peer}: max-frame-size {}, {shown}{engine}", session.max_frame_size);
        let peer_capabilities = session.peer_capabilities.to_string();
        let details =
            Details::Session { max_frame_size: session.max_frame_size, capabilities, peer_capabilities };
        self.event("session", Paint::Dim, &line, details)
    }

    pub(super) fn note(&self, text: String) -> Result<(), Failure> {
        self.event("note", Paint::Warning, &text.clone(), Details::Note { text })
    }

    pub(super) fn closed(&self, closed: &Closed) -> Result<(), Failure> {
        let normal = closed.reason.is_normal();
        let reason = closed.to_string();
        let paint = if normal { Paint::Dim } else { Paint::Bad };
        self.event(
            "closed",
            paint,
            &format!("closed: {reason}"),
            Details::Closed { reason: reason.clone(), normal },
        )
    }

    fn event(
        &self,
        event: &'static str,
        paint: Paint,
        line: &str,
        details: Details<'_>,
    ) -> Result<(), Failure> {
        self.shown.event(Some(Utc::now()), Some(self.number), event, paint, &format!("* {line}"), details)
    }

    /// The bytes of frames that are not whole.
    pub(super) fn buffered(&self) -> usize {
        self.from_haproxy.rest().len() + self.to_haproxy.rest().len()
    }

    /// Shows nothing more of what HAProxy sends: the session is over.
    pub(super) fn clear(&mut self) {
        self.from_haproxy = Splitter::new(0);
    }

    /// Bytes that have arrived, or were sent.
    pub(super) fn bytes(&mut self, direction: Direction, bytes: &[u8]) -> Result<(), Failure> {
        let splitter = match direction {
            Direction::ToAgent => &mut self.from_haproxy,
            Direction::ToHaproxy => &mut self.to_haproxy,
        };
        splitter.push(bytes);
        let mut frames = Vec::new();
        while let Next::Frame(frame) = splitter.next() {
            frames.push(frame);
        }
        frames
            .iter()
            .try_for_each(|frame| self.shown.frame(Some(Utc::now()), self.number, direction, frame, None))
    }
}
