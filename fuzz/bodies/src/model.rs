//! A minimal reference model of an agent's connection: complete frames, no time, no bytes. It shares no code with the reactor,
//! and random sequences of events must have the same results in both.

use std::{collections::VecDeque, fmt::Write as _};

use spop_core::frame::{FrameType, Ids, Messages};

/// The limits of the model's connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// `max_frame_size` of the session.
    pub frame: usize,
    /// `Limits::max_payload`.
    pub payload: usize,
    /// `Limits::max_payloads`.
    pub payloads: usize,
    /// `Limits::max_refused`.
    pub refused: usize,
    /// `Limits::max_messages`.
    pub messages: usize,
    /// `Limits::max_in_flight`.
    pub in_flight: usize,
    /// The requests in flight whose answers the peer awaits: all, or one as HAProxy 3.1 and later without pipelining.
    pub window: usize,
    /// `Limits::max_outgoing`.
    pub outgoing: usize,
    /// Whether fragments are accepted.
    pub fragmentation: bool,
}

/// A frame of the peer, after its HELLO.
#[derive(Clone, Debug)]
pub struct PeerFrame {
    /// Its type.
    pub frame_type: FrameType,
    /// FIN.
    pub fin: bool,
    /// ABORT.
    pub abort: bool,
    /// Its identifiers.
    pub ids: Ids,
    /// Its payload; the status of a DISCONNECT.
    pub payload: Vec<u8>,
}

/// The connection.
#[derive(Clone, Debug)]
pub struct Model {
    bounds: Bounds,
    /// The actions, in the format of the driver's log.
    pub events: Vec<String>,
    /// The sent frames: type, identifiers, flags and length of the payload, or status.
    pub frames: Vec<String>,
    /// The unanswered NOTIFYs, each with the number of its ticket.
    waiting: Vec<(Ids, usize)>,
    tickets: usize,
    arriving: Vec<(Ids, Vec<u8>)>,
    refused: VecDeque<Ids>,
    /// Frames that the peer has sent and the agent has not read.
    unread: VecDeque<PeerFrame>,
    ended: bool,
    /// Answers that are not fully sent, and the number of their outgoing bytes.
    unsent: usize,
    bytes: usize,
    closed: bool,
}

impl Model {
    /// A connection whose handshake is done.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            events: Vec::new(),
            frames: Vec::new(),
            waiting: Vec::new(),
            tickets: 0,
            arriving: Vec::new(),
            refused: VecDeque::new(),
            unread: VecDeque::new(),
            ended: false,
            unsent: 0,
            bytes: 0,
            closed: false,
        }
    }

    /// The peer sends a frame, unless it has shut its write side.
    pub fn send(&mut self, frame: PeerFrame) {
        if !self.ended {
            self.unread.push_back(frame);
        }
    }

    /// The peer shuts its write side.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The agent reads.
    pub fn read(&mut self) {
        while !self.closed && !self.is_full() {
            match self.unread.pop_front() {
                Some(frame) => self.receive(frame),
                None if self.ended && self.waiting.is_empty() && self.bytes == 0 => {
                    self.close("Eof");
                }
                None => return,
            }
        }
    }

    /// The peer reads all bytes.
    pub fn take(&mut self) {
        self.unsent = 0;
        self.bytes = 0;
        self.read();
    }

    /// The application answers with a payload of this length. True if the ticket is used up.
    pub fn answer(&mut self, ticket: usize, len: usize) -> bool {
        let Some(index) = self.waiting.iter().position(|(_, number)| *number == ticket) else {
            self.events.push("Dropped".to_owned());
            return true;
        };
        let limit = self.bounds.frame - 7;
        if len > limit {
            self.events.push(format!("TooBig {len} {limit}"));
            return false;
        }
        let share = (self.bounds.outgoing / self.bounds.in_flight).max(16 * 1024);
        if self.bytes >= self.bounds.outgoing && len > share {
            self.events.push(format!("TooBig {len} {share}"));
            return false;
        }
        let (ids, _) = self.waiting.remove(index);
        self.unsent += 1;
        self.push(format!("ACK {ids} fin {len}"), 11 + len);
        true
    }

    /// The application aborts its answer.
    pub fn abort_answer(&mut self, ticket: usize) {
        match self.waiting.iter().position(|(_, number)| *number == ticket) {
            Some(index) => {
                let (ids, _) = self.waiting.remove(index);
                self.unsent += 1;
                self.push_abort(ids);
            }
            None => self.events.push("Dropped".to_owned()),
        }
    }

    /// The application refuses a payload that is arriving.
    pub fn refuse(&mut self, ids: Ids) {
        if self.drop_arriving(ids).is_some() {
            self.remember_refused(ids);
            self.push_abort(ids);
        } else {
            self.events.push(format!("NotArriving {ids}"));
        }
    }

    /// The application ends the session.
    pub fn disconnect(&mut self, status: u8) {
        if !self.closed {
            for (ids, _) in self.arriving.clone() {
                self.push_abort(ids);
            }
            self.close(&format!("Disconnect {status}"));
            self.push(format!("AGENT-DISCONNECT {status}"), 0);
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.len() + self.unsent >= self.bounds.in_flight || self.bytes >= self.bounds.outgoing
    }

    fn receive(&mut self, frame: PeerFrame) {
        let PeerFrame { frame_type, fin, abort, ids, payload } = frame;
        match frame_type {
            FrameType::Unknown(_) => {}
            FrameType::HaproxyDisconnect if fin || abort => {
                let status = payload.first().copied().unwrap_or_default();
                self.close(&format!("PeerDisconnect {status}"));
                self.push(format!("AGENT-DISCONNECT {status}"), 0);
            }
            FrameType::HaproxyDisconnect => self.violated(10),
            FrameType::Notify => self.notify(ids, fin, abort, payload),
            FrameType::Unset if !self.bounds.fragmentation => self.violated(10),
            FrameType::Unset if abort => self.aborted(ids, payload.len()),
            FrameType::Unset => self.fragment(ids, fin, &payload),
            _ => self.violated(4),
        }
    }

    fn notify(&mut self, ids: Ids, fin: bool, abort: bool, payload: Vec<u8>) {
        if !fin && !abort && !self.bounds.fragmentation {
            return self.violated(10);
        }
        if let Some(index) = self.waiting.iter().position(|(waiting, _)| *waiting == ids) {
            self.waiting.remove(index);
            self.events.push(format!("CancelMessages {ids} Superseded"));
        }
        if let Some(dropped) = self.drop_arriving(ids) {
            self.events.push(format!("AbortFragment {ids} {dropped} Superseded"));
        }
        self.refused.retain(|refused| *refused != ids);
        while !abort && self.waiting.len() >= self.bounds.window {
            let (oldest, _) = self.waiting.remove(0);
            self.events.push(format!("CancelMessages {oldest} Abandoned"));
        }
        if abort {
            self.events.push(format!("AbortFragment {ids} {} Peer", payload.len()));
        } else if fin {
            self.run(ids, &payload);
        } else if self.arriving.len() >= self.bounds.payloads {
            self.violated(11);
        } else if payload.len() > self.bounds.payload {
            self.remember_refused(ids);
            self.push_abort(ids);
            self.events.push(format!("AbortFragment {ids} {} TooBig", payload.len()));
        } else {
            self.arriving.push((ids, payload));
        }
    }

    fn fragment(&mut self, ids: Ids, last: bool, fragment: &[u8]) {
        let Some(mut payload) = self.drop_arriving_payload(ids) else {
            if !self.refused.contains(&ids) {
                self.violated(12);
            } else if last {
                self.refused.retain(|refused| *refused != ids);
            }
            return;
        };
        payload.extend_from_slice(fragment);
        if payload.len() > self.bounds.payload {
            if !last {
                self.remember_refused(ids);
            }
            self.push_abort(ids);
            self.events.push(format!("AbortFragment {ids} {} TooBig", payload.len()));
        } else if last {
            self.run(ids, &payload);
        } else {
            self.arriving.push((ids, payload));
        }
    }

    fn aborted(&mut self, ids: Ids, len: usize) {
        if let Some(received) = self.drop_arriving(ids) {
            self.events.push(format!("AbortFragment {ids} {} Peer", received + len));
        } else if let Some(index) = self.waiting.iter().position(|(waiting, _)| *waiting == ids) {
            self.waiting.remove(index);
            self.events.push(format!("CancelMessages {ids} Aborted"));
        } else if self.refused.contains(&ids) {
            self.refused.retain(|refused| *refused != ids);
        } else {
            self.violated(12);
        }
    }

    fn run(&mut self, ids: Ids, payload: &[u8]) {
        if payload.is_empty() {
            self.unsent += 1;
            return self.push(format!("ACK {ids} fin 0"), 11);
        }
        if has_more_messages(payload, self.bounds.messages) {
            self.unsent += 1;
            self.push_abort(ids);
            return self.events.push(format!("AbortFragment {ids} {} TooManyMessages", payload.len()));
        }
        if Messages::decode(payload).is_err() {
            return self.violated(4);
        }
        self.waiting.push((ids, self.tickets));
        self.tickets += 1;
        self.events.push(format!("RunMessages {ids}"));
    }

    fn violated(&mut self, status: u8) {
        self.close(&format!("Violation {status}"));
        self.push(format!("AGENT-DISCONNECT {status}"), 0);
    }

    fn close(&mut self, why: &str) {
        self.events.push(format!("Close {why}"));
        let mut lost = "Lost".to_owned();
        for (count, what) in [(self.waiting.len(), "messages"), (self.arriving.len(), "payloads")] {
            if count > 0 {
                let _ = write!(lost, " {what}={count}");
            }
        }
        if lost != "Lost" {
            self.events.push(lost);
        }
        self.waiting.clear();
        self.arriving.clear();
        self.closed = true;
    }

    fn drop_arriving(&mut self, ids: Ids) -> Option<usize> {
        self.drop_arriving_payload(ids).map(|payload| payload.len())
    }

    fn drop_arriving_payload(&mut self, ids: Ids) -> Option<Vec<u8>> {
        let index = self.arriving.iter().position(|(arriving, _)| *arriving == ids)?;
        Some(self.arriving.remove(index).1)
    }

    fn remember_refused(&mut self, ids: Ids) {
        self.refused.push_back(ids);
        if self.refused.len() > self.bounds.refused {
            self.refused.pop_front();
        }
    }

    fn push_abort(&mut self, ids: Ids) {
        self.push(format!("ACK {ids} fin,abort 0"), 11);
    }

    fn push(&mut self, frame: String, len: usize) {
        self.frames.push(frame);
        self.bytes += len;
    }
}

/// Whether some front of the payload is that many messages, and something follows it.
fn has_more_messages(payload: &[u8], messages: usize) -> bool {
    // The shortest message has two bytes.
    (2 * messages..payload.len())
        .any(|end| Messages::decode(&payload[..end]).is_ok_and(|front| front.len() == messages))
}
