//! The decision of an agent under test, and the outcome of a request.

use alloc::string::{String, ToString};
use core::time::Duration;

use crate::{
    Actions, Status,
    engine::{Answer, EngineError},
    frame::{Flags, Frame, FrameType, Header, Ids},
    haproxy::{VarRules, Vars},
    notation::print,
};

/// The decision of the agent's handler about a NOTIFY.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Decision {
    /// Acknowledge at once.
    Now(Actions),
    /// Acknowledge after this time.
    After(Duration, Actions),
    /// Never answer: keep the ticket.
    Never,
    /// [`AgentReactor::fail`](crate::AgentReactor::fail): apply the configured `on_failure`.
    Fail,
    /// [`AgentReactor::abort_answer`](crate::AgentReactor::abort_answer): answer with ABORT.
    Abort,
    /// Disconnect with this status.
    Disconnect(Status),
}

/// The reply of a handler of an adapter, or of a [`Router`](crate::agent::Router).
impl<T: Into<crate::agent::Reply>> From<T> for Decision {
    fn from(reply: T) -> Self {
        match reply.into() {
            crate::agent::Reply::Ack(actions) => Self::Now(actions),
            crate::agent::Reply::Fail(failure) => {
                failure.answer.map_or(Self::Fail, |answer| Self::Now(*answer))
            }
            crate::agent::Reply::Abort => Self::Abort,
            crate::agent::Reply::Disconnect { status, .. } => Self::Disconnect(status),
        }
    }
}

/// The outcome of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The agent answered.
    Answered(Answer<'static>),
    /// The request failed.
    Failed(EngineError),
    /// The request is in flight, and no event is left that could end it.
    Waiting,
}

impl Outcome {
    /// The actions as the [notation](crate::notation) writes them, or the error.
    pub fn sentence(&self) -> String {
        match self {
            Self::Answered(answer) => {
                let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: Ids::ZERO };
                let line = print(Frame { header, payload: &answer.payload }).to_string();
                line.strip_prefix("ACK fin 0 0").unwrap_or(&line).trim_start().into()
            }
            Self::Failed(error) => error.to_string(),
            Self::Waiting => "no end in sight".into(),
        }
    }

    /// The variables that HAProxy sets from this answer, without those that it drops. A request that failed or is in flight
    /// sets none (but see [`AgentSection::set_on_error`](crate::haproxy::AgentSection::set_on_error)).
    ///
    /// ```
    /// use spop_core::{Actions, AgentConfig, EngineConfig, MessageList, Scope};
    /// use spop_core::{haproxy::{Sample, VarRules}, testing::{Pair, Decision}};
    ///
    /// let mut pair = Pair::new(EngineConfig::haproxy_3_1(), AgentConfig::default(), |_| {
    ///     Decision::Now(Actions::new().set(Scope::Session, "ip_score", 77).set(Scope::Session, "ip-country", "nl"))
    /// });
    /// let mut question = MessageList::new();
    /// question.message("check-ip");
    ///
    /// // `option var-prefix iprep`
    /// let vars = pair.ask(&question)?.vars(&VarRules::new("iprep"));
    /// assert_eq!(vars.get("sess.iprep.ip_score"), Some(&Sample::Int(77)));
    /// assert_eq!(vars.get("sess.iprep.ip-country"), None, "HAProxy allows no `-` in a name");
    /// # Ok::<(), spop_core::engine::NotifyError>(())
    /// ```
    pub fn vars(&self, rules: &VarRules) -> Vars {
        let mut vars = Vars::default();
        if let Self::Answered(answer) = self {
            vars.apply(rules, answer.actions());
        }
        vars
    }

    /// The error of a request that failed.
    pub const fn error(&self) -> Option<EngineError> {
        if let Self::Failed(error) = self { Some(*error) } else { None }
    }
}

/// Counts of events in a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Complete NOTIFYs that the agent received.
    pub asked: u64,
    /// Answers that the agent queued.
    pub queued: u64,
    /// Answers to requests that had been cancelled or superseded, or whose session had ended.
    pub dropped: u64,
    /// Answers that could not be sent, and became failures.
    pub refused: u64,
    /// NOTIFYs that were cancelled.
    pub cancelled: u64,
    /// Fragmented payloads that were aborted.
    pub aborted: u64,
    /// Tickets that were dropped without an answer, see
    /// [`AgentReactor::dropped_tickets`](crate::AgentReactor::dropped_tickets).
    pub dropped_tickets: u64,
    /// ACKs that matched no request, with `async`.
    pub unclaimed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_sets_nothing() {
        let rules = VarRules::new("p").force();
        for outcome in [Outcome::Waiting, Outcome::Failed(EngineError::Timeout)] {
            assert_eq!(outcome.vars(&rules), Vars::default());
        }
    }
}
