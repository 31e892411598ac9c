//! What a capture shows.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use spop_core::{
    frame::{Frame, FrameType, Header, Ids, Messages},
    notation::Direction,
};

/// Names of messages that are kept of a NOTIFY, and their longest length.
const NAMES: usize = 64;
const NAME_MAX: usize = 256;

/// The names of the messages of a NOTIFY.
pub(crate) type Names = Rc<[Box<[u8]>]>;

/// Something that happened on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The number of the connection.
    pub(crate) connection: u64,
    /// Since 1970.
    pub(crate) time: Duration,
    pub(crate) what: What,
    /// The frame that it is about.
    pub(crate) about: About,
}

/// What an event belongs to; filters ask for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) frame_type: Option<FrameType>,
    pub(crate) ids: Option<Ids>,
    /// The messages of the NOTIFY, also of the one that an ACK answers.
    pub(crate) names: Names,
}

/// A place in a direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) direction: Direction,
    /// The byte, from 0.
    pub(crate) offset: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Opened {
        engine: SocketAddr,
        agent: SocketAddr,
    },
    Session {
        max_frame_size: u32,
        capabilities: String,
        healthcheck: bool,
        engine_id: Option<String>,
    },
    /// A frame, without its length prefix.
    Frame {
        at: Place,
        frame: Bytes,
        /// Since the NOTIFY, if the frame ends an answer to one that was seen.
        latency: Option<Duration>,
    },
    /// The payload of fragments.
    Joined {
        at: Place,
        header: Header,
        payload: Vec<u8>,
        fragments: u32,
    },
    /// Something illegal.
    Violation {
        at: Place,
        reason: String,
    },
    /// Something unusual that is legal.
    Note {
        at: Option<Place>,
        text: String,
    },
    /// A segment that is missing, repeated or early.
    Segment {
        at: Place,
        kind: Disorder,
        len: u64,
    },
    /// A fault that was injected into what is relayed.
    Fault {
        direction: Direction,
        /// Its name in JSON.
        name: &'static str,
        text: String,
    },
    Closed {
        reason: String,
        unanswered: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disorder {
    Lost,
    Repeated,
    Early,
}

impl About {
    pub(crate) fn header(header: Header) -> Self {
        Self { frame_type: Some(header.frame_type), ids: Some(header.ids), names: Names::default() }
    }

    /// What a frame without its length prefix is about.
    pub(crate) fn frame(frame: &[u8]) -> Self {
        Frame::decode(frame).map_or_else(|_| Self::default(), |frame| Self::header(frame.header))
    }
}

/// The names of messages.
pub(crate) fn names(messages: Messages<'_>) -> Names {
    let name = |name: &[u8]| name.get(..NAME_MAX).unwrap_or(name).into();
    messages.iter().take(NAMES).map(|message| name(message.name())).collect()
}

/// So many requests without an answer.
pub(crate) fn unanswered(count: usize) -> String {
    format!("{count} request{} without an answer", if count == 1 { "" } else { "s" })
}
