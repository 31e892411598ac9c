//! The actions that an engine's reactor returns.

use alloc::vec::Vec;
use core::{fmt, time::Duration};

use bytes::Bytes;

use super::{EngineError, NotifyId};
use crate::{
    agent::Session,
    frame::{AckActions, Flags, Ids, Received},
    link::{CloseReason, Closed},
};

/// What the driver must do after an input. An input returns exactly one.
///
/// It borrows the input `'i`, never the reactor.
#[derive(Debug)]
#[must_use = "an action that is dropped leaves a request without its outcome"]
#[non_exhaustive]
pub enum EngineAction<'i> {
    /// The handshake is done: requests may be sent. Continue with the rest of the input.
    Established(Session),
    /// The agent has answered a request. Continue with the rest of the input.
    Answered(Answer<'i>),
    /// A single request has failed; the session goes on. Continue with the rest of the input.
    Failed(Failure),
    /// An ACK that matches no request of this connection. Returned only if `async` was negotiated: the request may have been
    /// sent on another connection of the engine, so offer the ACK to the others with
    /// [`claim`](super::EngineReactor::claim). Continue with the rest of the input.
    Unclaimed(UnclaimedAck),
    /// The input needs no more calls; there are outgoing bytes to write.
    SendFrames,
    /// The input needs no more calls, and there is nothing to write.
    WantBytes {
        /// The next frame needs at least this many further bytes.
        at_least: usize,
    },
    /// The session has ended, and with it every unanswered request. Apply [`interest`](super::EngineReactor::interest)
    /// until `close` is set. Returned once.
    Close(Ended),
}

impl EngineAction<'_> {
    /// Whether this is one of the three actions after which there is nothing more to do with the input: `SendFrames`,
    /// `WantBytes` and `Close`.
    pub const fn ends_input(&self) -> bool {
        matches!(self, Self::SendFrames | Self::WantBytes { .. } | Self::Close(_))
    }
}

/// The agent's answer to a request.
#[derive(Clone)]
#[non_exhaustive]
pub struct Answer<'i> {
    /// The request that it answers.
    pub id: NotifyId,
    /// The payload of the ACK. It borrows the input unless the ACK came in fragments.
    pub payload: Received<'i>,
    /// The time from the request to its answer.
    pub took: Duration,
}

/// Shows the length of the payload, not its bytes.
impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, payload, took } = self;
        f.debug_struct("Answer").field("id", id).field("len", &payload.len()).field("took", took).finish()
    }
}

impl Answer<'_> {
    /// The actions as HAProxy parses them: the first malformed one ends the list, and those before it apply.
    pub fn actions(&self) -> AckActions<'_> {
        AckActions::lenient(&self.payload)
    }

    /// Copies the payload if it is borrowed, so that the answer outlives the input.
    pub fn into_owned(self) -> Answer<'static> {
        Answer { id: self.id, payload: self.payload.into_bytes().into(), took: self.took }
    }
}

/// A request that failed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The request.
    pub id: NotifyId,
    /// Why it failed.
    pub error: EngineError,
    /// The time from the request to its failure.
    pub took: Duration,
}

/// An ACK that matches no request of the connection on which it arrived.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnclaimedAck {
    /// The identifiers of the request that it answers.
    pub ids: Ids,
    /// Its flags.
    pub flags: Flags,
    /// Its payload.
    pub payload: Bytes,
}

/// Shows the length of the payload, not its bytes.
impl fmt::Debug for UnclaimedAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ids, flags, payload } = self;
        let mut ack = f.debug_struct("UnclaimedAck");
        ack.field("ids", ids).field("flags", flags).field("len", &payload.len()).finish()
    }
}

/// The end of a session and of its requests in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// Why it ended, and how much was lost.
    pub closed: Closed,
    /// The error of the unanswered requests. If the agent sent a status, it is that one, even if this side ended the session
    /// for another reason: HAProxy reports the agent's.
    pub error: EngineError,
    /// The requests without an answer, oldest first.
    pub unanswered: Vec<NotifyId>,
    /// `async` was negotiated, so another connection of the engine may still deliver the answers. While there is one, the
    /// unanswered requests are orphaned, not failed: they fail when their processing timeout ends.
    pub orphaned: bool,
}

impl Ended {
    /// Whether this was a health check that the agent passed.
    pub fn is_healthy(&self) -> bool {
        self.closed.reason == CloseReason::HealthCheck
    }
}
