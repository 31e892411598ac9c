//! The frames that an agent writes, and what its server counts of them.

use spop_core::{
    AgentReactor, CloseReason, Status,
    frame::{Frame, FrameType},
    link::{Initiator, Timer},
};
use spop_server::Conn;

/// The answers in what an agent writes on a connection.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// A frame that was written in part.
    partial: Vec<u8>,
    /// Those that ended: with their last fragment, or as an ACK with ABORT.
    answers: u64,
    /// Those that were aborted after their first fragment.
    aborted: u64,
}

impl Frames {
    /// These bytes were written.
    pub fn written(&mut self, bytes: &[u8]) {
        self.partial.extend(bytes);
        let mut used = 0;
        while let Some((length, rest)) = self.partial[used..].split_first_chunk::<4>() {
            let Some(frame) = rest.get(..u32::from_be_bytes(*length) as usize) else { break };
            let header = Frame::decode(frame).expect("an agent writes frames").header;
            used += 4 + frame.len();
            match (header.frame_type, header.flags.is_abort()) {
                (FrameType::Ack, _) | (FrameType::Unset, false) => {
                    self.answers += u64::from(header.flags.is_fin());
                }
                (FrameType::Unset, true) => self.aborted += 1,
                _ => {}
            }
        }
        self.partial.drain(..used);
    }
}

/// What a server has counted of the answers of one connection.
#[derive(Debug, Default)]
pub struct Account {
    /// Answers, failures, and payloads that were refused: each has one answer on the wire.
    pub counted: u64,
    /// Its transport was reset, or its server stopped: queued answers are lost.
    pub lossy: bool,
}

impl Account {
    /// After a turn. An answer that was counted is queued or was written, and nothing else is.
    pub fn check(&self, conn: &Conn, frames: &Frames) {
        let Self { counted, lossy } = *self;
        let Frames { answers, aborted, .. } = *frames;
        let id = conn.id().0;
        let queued = conn.reactor().map_or(0, AgentReactor::outgoing_bytes);
        let closed = conn.closed();
        // Each payload that is arriving when this side ends the session is refused.
        let arriving = closed.filter(|closed| closed.reason.initiator() != Initiator::Peer);
        let counted = counted + arriving.map_or(0, |closed| closed.lost.payloads as u64);
        assert!(answers <= counted, "connection {id} has written {answers} answers, and counted {counted}");
        let lossy = lossy
            || closed.is_some_and(|closed| {
                let of_memory = CloseReason::Disconnect(Status::RESOURCE);
                [CloseReason::Transport, CloseReason::Timeout(Timer::Write), of_memory]
                    .contains(&closed.reason)
            });
        if queued == 0 && !lossy {
            // Those whose first fragment had not left when the session ended.
            let lost = closed.map_or(0, |closed| closed.lost.answers as u64);
            assert!(
                counted <= answers + aborted + lost,
                "connection {id} has counted {counted} answers, and written {answers}, {aborted} in part, {lost} lost: {closed:?}"
            );
        }
    }
}
