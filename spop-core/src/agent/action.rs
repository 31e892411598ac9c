//! Actions of the agent's reactor, and the data they carry.

use alloc::sync::Arc;
use core::{fmt, time::Duration};

use bytes::Bytes;

use super::ticket::{Ticket, TicketId};
use crate::{
    frame::{Capabilities, Ids, Messages, NotifyPayload, Version},
    link::Closed,
};

/// The result of an input: what the caller has to do next.
///
/// It may borrow the input `'i`; it never borrows the reactor. Unless it [ends the input](Self::ends_input), repeat the call
/// that returned it, with the rest of the input; `on_bytes` need not be repeated with an empty rest.
#[derive(Debug)]
#[must_use = "an action that is not carried out leaves HAProxy waiting"]
#[non_exhaustive]
pub enum Action<'i> {
    /// The handshake is complete.
    Established(Arc<Session>),
    /// A NOTIFY arrived: run its messages and answer with the ticket, now or later.
    RunMessages(Notify<'i>),
    /// A fragment of this NOTIFY arrived that is neither empty nor the last; [`arriving`](super::AgentReactor::arriving)
    /// returns what has arrived, and what of it is new. Only with [`AgentConfig::watch_fragments`](super::AgentConfig::watch_fragments).
    FragmentArrived(Ids),
    /// A NOTIFY was dropped: a fragmented one before it was complete, or one that exceeds a limit, in fragments or not. Do not
    /// expect its messages. There is no ticket, and the peer has its reply.
    AbortFragment(Aborted),
    /// A NOTIFY needs no answer any more: stop the work. Its ticket is void.
    ///
    /// It no longer counts in [`in_flight`](super::AgentReactor::in_flight) and
    /// [`payload_bytes`](super::AgentReactor::payload_bytes), so the next NOTIFY can arrive before the work has stopped. A peer
    /// can have NOTIFYs cancelled as fast as it sends them, by repeating their identifiers. If work or memory can outlive its
    /// NOTIFY, count and limit it separately.
    CancelMessages(Cancelled),
    /// No more input can be processed now, and bytes are queued: write [`outgoing`](super::AgentReactor::outgoing).
    SendFrames,
    /// There is nothing more to do with this input, and nothing to send; [`interest`](super::AgentReactor::interest) says what
    /// is next.
    WantBytes {
        /// The next frame needs at least this many further bytes. A hint for the next read: allocate nothing because of it.
        at_least: usize,
    },
    /// Backpressure: a limit is reached. The rest of the input stays unused until
    /// [`Interest::resume`](crate::Interest::resume) is set.
    Paused,
    /// The session is over. Its tickets are void, unless another connection of the engine can answer them (async, see
    /// [`hub`](crate::hub)). Discard the rest of the input, and apply [`interest`](super::AgentReactor::interest) until it
    /// says `close`. Returned once.
    Close(Closed),
}

impl Action<'_> {
    /// Whether this is one of the four actions after which there is nothing more to do with the input: `SendFrames`,
    /// `WantBytes`, `Paused` and `Close`.
    pub const fn ends_input(&self) -> bool {
        matches!(self, Self::SendFrames | Self::WantBytes { .. } | Self::Paused | Self::Close(_))
    }
}

/// The parameters of a session, as agreed in the handshake.
///
/// The default has no capabilities and a frame size of 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// The version of SPOP.
    pub version: Version,
    /// The longest frame in bytes, without its length prefix: the lower of both sides' limits.
    pub max_frame_size: u32,
    /// The capabilities in effect: pipelining and async if both sides announced them, fragmentation if this side accepts
    /// fragments.
    pub capabilities: Capabilities,
    /// The capabilities that the peer announced. With fragmentation, long answers are sent in fragments.
    pub peer_capabilities: Capabilities,
    /// The `max-frame-size` that the peer announced.
    pub peer_max_frame_size: u32,
    /// The `engine-id` that the peer announced, unless it is empty. HAProxy 2.6 and 3.0 send one per thread.
    pub engine_id: Option<Arc<Bytes>>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            version: Version::V2_0,
            max_frame_size: 0,
            capabilities: Capabilities::default(),
            peer_capabilities: Capabilities::default(),
            peer_max_frame_size: 0,
            engine_id: None,
        }
    }
}

impl Session {
    /// The engine-id, if async is in effect: an answer may then take any connection with the same engine-id.
    pub fn shared_engine(&self) -> Option<&Arc<Bytes>> {
        self.engine_id.as_ref().filter(|_| self.capabilities.contains(Capabilities::ASYNC))
    }

    /// Whether HAProxy fails long requests because of this side's frame size: the peer announced a larger one, and sends no
    /// fragments or this side accepts none. HAProxy 3.1 and later fail such a request with error 259; up to 3.0 HAProxy
    /// disconnects with status 10. The agent never sees the request.
    pub fn loses_long_requests(&self) -> bool {
        let fragments =
            self.capabilities.contains(Capabilities::FRAGMENTATION) && !self.peer_is_multiplexer();
        self.max_frame_size < self.peer_max_frame_size && !fragments
    }

    /// Whether the peer appears to be HAProxy 3.1 or later (the SPOP multiplexer): it announces neither async nor
    /// fragmentation.
    ///
    /// Such a peer never sends fragments, has at most 20 requests on a connection (1 without pipelining), and abandons requests
    /// without notice. HAProxy 2.6 and 3.0 with `no option async` announce the same.
    pub fn peer_is_multiplexer(&self) -> bool {
        is_multiplexer(self.peer_capabilities)
    }
}

pub(super) fn is_multiplexer(peer: Capabilities) -> bool {
    !peer.contains(Capabilities::ASYNC) && !peer.contains(Capabilities::FRAGMENTATION)
}

/// A NOTIFY that has arrived in full, with the ticket to answer it.
///
/// If it is dropped, its ticket stays unanswered until [`Timeouts::message`](crate::config::Timeouts::message).
#[must_use = "HAProxy waits for an answer"]
pub struct Notify<'i> {
    /// The ticket for the answer.
    pub ticket: Ticket,
    /// The messages. They borrow the input `'i`, unless they arrived in fragments; use
    /// [`into_owned`](NotifyPayload::into_owned) to keep them beyond the input.
    pub payload: NotifyPayload<'i>,
}

impl Notify<'_> {
    /// The messages.
    #[inline]
    pub fn messages(&self) -> Messages<'_> {
        self.payload.messages()
    }
}

/// The number of messages only: payloads must not appear in logs.
impl fmt::Debug for Notify<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = self.messages().len();
        f.debug_struct("Notify").field("ticket", &self.ticket).field("messages", &messages).finish()
    }
}

/// A NOTIFY that was dropped: a fragmented one before it was complete, or one that exceeds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Aborted {
    /// STREAM-ID and FRAME-ID of the NOTIFY.
    pub ids: Ids,
    /// How many bytes of its payload had arrived.
    pub received: usize,
    /// Why it was dropped.
    pub why: Abort,
}

/// Why a NOTIFY was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abort {
    /// The peer aborted it.
    Peer,
    /// A new NOTIFY with the same identifiers began.
    Superseded,
    /// It exceeds [`Limits::max_payload`](crate::config::Limits::max_payload) or
    /// [`max_payload_bytes`](crate::config::Limits::max_payload_bytes). The peer receives an ACK with ABORT, and further fragments are discarded.
    TooBig,
    /// It has more messages than [`Limits::max_messages`](crate::config::Limits::max_messages), in fragments or not. The peer
    /// receives an ACK with ABORT, which HAProxy treats as an answer without actions.
    TooManyMessages,
    /// The last fragment did not arrive in time. The peer receives an ACK with ABORT, and further fragments are discarded.
    TimedOut,
}

/// A NOTIFY that needs no answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cancelled {
    /// The ticket, which is void now.
    pub ticket: TicketId,
    /// STREAM-ID and FRAME-ID of the NOTIFY.
    pub ids: Ids,
    /// The time since it arrived.
    pub age: Duration,
    /// Why it was cancelled.
    pub why: Cancel,
}

/// Why a NOTIFY was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cancel {
    /// A newer NOTIFY has the same identifiers. HAProxy would take this answer for the answer to the newer one.
    Superseded,
    /// The peer aborted it.
    Aborted,
    /// The peer abandoned it: more requests arrived than HAProxy 3.1 and later have in flight on a connection (1, or 20 with
    /// pipelining).
    Abandoned,
    /// It was older than [`AgentConfig::processing`](super::AgentConfig::processing) while its connection was at
    /// `max_in_flight`, `max_waiting_frames` or `max_payload_bytes`. The reactor has sent the reply that
    /// [`AgentConfig::on_failure`](super::AgentConfig::on_failure) names.
    Overdue,
    /// It was not answered within [`Timeouts::message`](crate::config::Timeouts::message). The reactor has sent the reply that
    /// [`AgentConfig::on_failure`](super::AgentConfig::on_failure) names.
    TimedOut,
}
