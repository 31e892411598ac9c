//! What an engine's reactor says is to be done.

use alloc::vec::Vec;
use core::{fmt, time::Duration};

use bytes::Bytes;

use super::{EngineError, NotifyId};
use crate::{
    agent::Session,
    frame::{AckActions, Flags, Ids, Received},
    link::{CloseReason, Closed},
};

/// What follows from an input: one action at most for each.
///
/// It borrows the input `'i`, and never the reactor.
#[derive(Debug)]
#[must_use = "an action that is not carried out leaves a request without its end"]
#[non_exhaustive]
pub enum EngineAction<'i> {
    /// The handshake is done: requests may be sent. Go on with the input.
    Established(Session),
    /// The agent has answered a request. Go on with the input.
    Answered(Answer<'i>),
    /// A request has failed, and only this one. Go on with the input.
    Failed(Failure),
    /// An ACK answers no request of this connection. With `async` it may be meant for another connection of the engine:
    /// [`claim`](super::EngineReactor::claim) it there. Go on with the input.
    Unclaimed(UnclaimedAck),
    /// There is no more to be done with the input; frames wait to be sent.
    SendFrames,
    /// There is no more to be done with the input, and nothing to be sent.
    WantBytes {
        /// How many bytes are missing at least for the next step.
        at_least: usize,
    },
    /// The session is over, and what was not answered will not be. Follow [`interest`](super::EngineReactor::interest)
    /// until it says close. Comes once.
    Close(Ended),
}

/// What the agent answered.
#[derive(Clone)]
#[non_exhaustive]
pub struct Answer<'i> {
    /// Whose answer it is.
    pub id: NotifyId,
    /// The payload of the ACK, which borrows the input unless it came in fragments.
    pub payload: Received<'i>,
    /// The time from the request to its answer.
    pub took: Duration,
}

/// The length only of its payload; [`actions`](Self::actions) show themselves.
impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, payload, took } = self;
        f.debug_struct("Answer").field("id", id).field("len", &payload.len()).field("took", took).finish()
    }
}

impl Answer<'_> {
    /// The actions, read the way HAProxy does: the first malformed one ends the list, and those before it apply.
    pub fn actions(&self) -> AckActions<'_> {
        AckActions::lenient(&self.payload)
    }

    /// The same, owning its payload.
    pub fn into_owned(self) -> Answer<'static> {
        Answer { id: self.id, payload: self.payload.into_bytes().into(), took: self.took }
    }
}

/// A request that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Which one.
    pub id: NotifyId,
    /// Why.
    pub error: EngineError,
    /// The time from the request to its failure.
    pub took: Duration,
}

/// An ACK for a request that this connection does not wait for.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnclaimedAck {
    /// Whose answer it is.
    pub ids: Ids,
    /// Its flags.
    pub flags: Flags,
    /// Its payload.
    pub payload: Bytes,
}

/// The length only of its payload.
impl fmt::Debug for UnclaimedAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ids, flags, payload } = self;
        let mut ack = f.debug_struct("UnclaimedAck");
        ack.field("ids", ids).field("flags", flags).field("len", &payload.len()).finish()
    }
}

/// The end of a session, and of the requests that were under way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// Why it ended, and how much was lost.
    pub closed: Closed,
    /// What the unanswered requests fail with. It is the agent's status where the agent gave one, even if this side ended
    /// the session for another reason.
    pub error: EngineError,
    /// The requests without an answer, oldest first.
    pub unanswered: Vec<NotifyId>,
    /// Whether the answers may yet come by another connection of the engine (`async`): if one is left, the requests have
    /// not failed before their time is up.
    pub adrift: bool,
}

impl Ended {
    /// Whether this was a health check, and the agent is well.
    pub fn is_healthy(&self) -> bool {
        self.closed.reason == CloseReason::HealthCheck
    }
}
