//! A reactor's actions and state as text for transcripts.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::Write as _;

use spop_core::{
    AgentReactor, CloseReason, Closed, Interest, Timestamp,
    frame::{Flags, Frame, FrameType, Header, Ids},
    link::{Layer, Lost},
    notation,
};

/// The payload of a NOTIFY in the notation, after a space.
pub(super) fn sentence(payload: &[u8]) -> String {
    let header = Header { frame_type: FrameType::Notify, flags: Flags::FIN, ids: Ids::ZERO };
    let line = notation::print(Frame { header, payload }).to_string();
    line.strip_prefix("NOTIFY fin 0 0").unwrap_or(&line).to_owned()
}

pub(super) fn reason(closed: &Closed) -> String {
    match &closed.reason {
        CloseReason::PeerDisconnect { status, message, .. } => {
            format!("PeerDisconnect {} {}", status.0, message.escape_ascii())
        }
        CloseReason::Violation(violation) => format!("Violation {} {violation}", violation.status().0),
        CloseReason::Timeout(timer) => format!("Timeout {timer:?}"),
        CloseReason::Disconnect(status) => format!("Disconnect {}", status.0),
        other => format!("{other:?}"),
    }
}

pub(super) fn lost(lost: Lost) -> String {
    let Lost { messages, payloads, frame_bytes, answers, .. } = lost;
    let mut line = "Lost".to_owned();
    for (count, what) in
        [(messages, "messages"), (payloads, "payloads"), (frame_bytes, "frame-bytes"), (answers, "answers")]
    {
        if count > 0 {
            let _ = write!(line, " {what}={count}");
        }
    }
    line
}

/// The interest of the reactor.
pub(super) fn wants(interest: Interest) -> String {
    let words: Vec<_> = [
        (interest.read, "read"),
        (interest.write, "write"),
        (interest.read_now, "read-now"),
        (interest.resume, "resume"),
        (interest.shut == Some(Layer::Data), "shut-data"),
        (interest.shut == Some(Layer::Transport), "shut-transport"),
        (interest.close, "close"),
    ]
    .into_iter()
    .filter_map(|(wanted, word)| wanted.then_some(word))
    .collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }
}

/// The next deadline, and the time until then.
pub(super) fn timer(reactor: &AgentReactor, now: Timestamp) -> String {
    reactor.deadline().map_or("none".to_owned(), |(at, timer)| {
        format!("{} {:?}", format!("{timer:?}").to_lowercase(), at.since(now))
    })
}

/// The reactor's state with this name; `None` if there is none.
pub(super) fn state(reactor: &AgentReactor, name: &str) -> Option<String> {
    Some(match name {
        "in-flight" => reactor.in_flight().to_string(),
        "arriving" => reactor.reassembly_bytes().to_string(),
        "payloads" => reactor.payload_bytes().to_string(),
        "outgoing" => reactor.outgoing_bytes().to_string(),
        "skipped" => reactor.skipped_frames().to_string(),
        "phase" => format!("{:?}", reactor.phase()).to_lowercase(),
        _ => return None,
    })
}
