//! What a reactor says is to be done.

use core::{fmt, time::Duration};

use bytes::Bytes;

use super::ticket::{Ticket, TicketId};
use crate::{
    frame::{Capabilities, Ids, Messages, NotifyPayload, Version},
    link::Closed,
};

/// What follows from an input: one action at most for each.
///
/// It borrows the input `'i`, and never the reactor.
#[derive(Debug)]
#[must_use = "an action that is not carried out leaves HAProxy waiting"]
#[non_exhaustive]
pub enum Action<'i> {
    /// The handshake is done. Go on with the input.
    Established(Session),
    /// HAProxy asks: run these messages and answer with the ticket, now or later. Go on with the input.
    RunMessages(Notify<'i>),
    /// A fragment of this payload came, not the last; [`arriving`](super::AgentReactor::arriving) shows what is there.
    /// Only with `watch_fragments`. Go on with the input.
    FragmentArrived(Ids),
    /// A payload that was arriving in fragments is dropped; its messages will not come. Go on with the input.
    AbortFragment(Aborted),
    /// The peer no longer waits for this answer: stop the work. Go on with the input.
    CancelMessages(Cancelled),
    /// There is no more to be done with the input; frames wait to be sent.
    SendFrames,
    /// There is no more to be done with the input, and nothing to be sent.
    WantBytes {
        /// How many bytes are missing at least for the next step.
        at_least: usize,
    },
    /// A limit is reached: the input waits until answers were given and sent.
    Paused,
    /// The session is over. Tickets are worthless now. Follow [`interest`](super::AgentReactor::interest) until it says
    /// close. Returned once.
    Close(Closed),
}

/// A session: what both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// The version of the protocol.
    pub version: Version,
    /// The longest frame, without its length prefix.
    pub max_frame_size: u32,
    /// What may be used: pipelining and async when both sides want them, fragmentation when this side receives fragments.
    pub capabilities: Capabilities,
    /// What the peer announced; with fragmentation among it, answers may leave in fragments.
    pub peer_capabilities: Capabilities,
    /// The longest frame that the peer offered to send.
    pub peer_max_frame_size: u32,
    /// Whose connection it is, as the peer says. HAProxy 2.6 and 3.0 have one for each thread.
    pub engine_id: Option<Bytes>,
}

impl Session {
    /// The engine-id, when answers may take any connection that has it.
    pub fn shared_engine(&self) -> Option<&Bytes> {
        self.engine_id.as_ref().filter(|_| self.capabilities.contains(Capabilities::ASYNC))
    }

    /// Whether HAProxy fails requests because of the session's frame size: the peer offered longer frames and cannot send
    /// fragments. Since 3.1 such a request fails with error 259; up to 3.0 HAProxy disconnects with status 10. The agent does
    /// not see the request.
    pub fn loses_long_requests(&self) -> bool {
        let fragments =
            self.capabilities.contains(Capabilities::FRAGMENTATION) && !self.peer_is_multiplexer();
        self.max_frame_size < self.peer_max_frame_size && !fragments
    }

    /// Whether the peer is taken for HAProxy 3.1 or later (the SPOP multiplexer): it announces neither async nor
    /// fragmentation. Such a peer never fragments, has at most 20 requests on a connection (1 without pipelining), and abandons
    /// requests silently. HAProxy 2.6 and 3.0 with `no option async` look the same.
    pub fn peer_is_multiplexer(&self) -> bool {
        is_multiplexer(self.peer_capabilities)
    }
}

pub(super) fn is_multiplexer(peer: Capabilities) -> bool {
    !peer.contains(Capabilities::ASYNC) && !peer.contains(Capabilities::FRAGMENTATION)
}

/// A NOTIFY.
///
/// Dropping it, or leaking it, changes nothing but that its ticket stays unanswered.
#[must_use = "HAProxy waits for an answer"]
pub struct Notify<'i> {
    /// The right to answer.
    pub ticket: Ticket,
    /// What is asked. It borrows the input `'i`, unless it came in fragments;
    /// [`into_owned`](NotifyPayload::into_owned) is for answers that come later.
    pub payload: NotifyPayload<'i>,
}

impl Notify<'_> {
    /// The messages.
    #[inline]
    pub fn messages(&self) -> Messages<'_> {
        self.payload.messages()
    }
}

/// The number of messages only; [`Messages`] show themselves.
impl fmt::Debug for Notify<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = self.messages().len();
        f.debug_struct("Notify").field("ticket", &self.ticket).field("messages", &messages).finish()
    }
}

/// A payload in fragments that will not be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Aborted {
    /// Whose payload it is.
    pub ids: Ids,
    /// How many bytes of it had arrived.
    pub received: usize,
    /// Why.
    pub why: Abort,
}

/// Why a payload was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abort {
    /// The peer said so.
    Peer,
    /// The same identifiers began anew.
    Superseded,
    /// It exceeds a limit. The peer was told, and the rest will be swallowed.
    TooBig,
    /// The next fragment did not come in time. The peer was told, and the rest will be swallowed.
    TimedOut,
}

/// A NOTIFY that needs no answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cancelled {
    /// Whose answer it would have been.
    pub ticket: TicketId,
    /// The identifiers of the NOTIFY.
    pub ids: Ids,
    /// How long it had waited.
    pub age: Duration,
    /// Why.
    pub why: Cancel,
}

/// Why a NOTIFY needs no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cancel {
    /// The same identifiers came again, and HAProxy would take the answer for that of the newer NOTIFY.
    Superseded,
    /// The peer aborted it.
    Aborted,
    /// The peer abandoned it: more requests arrived than HAProxy 3.1 and later keep on a connection (1, or 20 with pipelining).
    Abandoned,
    /// It was failed for being older than [`AgentConfig::processing`](super::AgentConfig::processing) while its connection was
    /// at `max_in_flight` or `max_waiting_frames`. The peer was sent what `on_failure` says.
    Overdue,
    /// It was not answered in time, and the peer got what the configuration says.
    TimedOut,
}
