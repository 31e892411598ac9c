//! What the agent is to do with a NOTIFY, and what becomes of it.

use alloc::string::{String, ToString};
use core::time::Duration;

use crate::{
    Actions, Status,
    engine::{Answer, EngineError},
    frame::{Flags, Frame, FrameType, Header, Ids},
    haproxy::{VarRules, Vars},
    notation::print,
};

/// What the agent does with a NOTIFY.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// Answers at once.
    Now(Actions),
    /// Answers after this time.
    After(Duration, Actions),
    /// Never answers.
    Never,
    /// Says that it has no answer.
    Fail,
    /// Refuses to answer.
    Abort,
    /// Disconnects.
    Disconnect(Status),
}

/// What a handler of an adapter, or [`Routes`](crate::agent::Routes), says.
impl<T: Into<crate::agent::Reply>> From<T> for Reply {
    fn from(reply: T) -> Self {
        match reply.into() {
            crate::agent::Reply::Ack(actions) => Self::Now(actions),
            crate::agent::Reply::Fail(_) => Self::Fail,
            crate::agent::Reply::Disconnect { status, .. } => Self::Disconnect(status),
        }
    }
}

/// What has become of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The agent has answered.
    Answered(Answer<'static>),
    /// It failed.
    Failed(EngineError),
    /// It waits, and nothing that could end it will happen.
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

    /// The variables that HAProxy has after this answer, if it had none before: what production sets. A name that HAProxy drops
    /// is not there. A request that failed or waits sets nothing (but see
    /// [`AgentSection::set_on_error`](crate::haproxy::AgentSection::set_on_error)).
    ///
    /// ```
    /// use spop_core::{Actions, AgentConfig, EngineConfig, MessageList, Scope};
    /// use spop_core::{haproxy::{Sample, VarRules}, testing::{Pair, Reply}};
    ///
    /// let mut pair = Pair::new(EngineConfig::haproxy_3_1(), AgentConfig::default(), |_| {
    ///     let mut actions = Actions::new();
    ///     actions.set_var(Scope::Session, "ip_score", 77).set_var(Scope::Session, "ip-country", "nl");
    ///     Reply::Now(actions)
    /// });
    /// let mut question = MessageList::new();
    /// question.message("check-ip");
    ///
    /// // `option var-prefix iprep`
    /// let vars = pair.ask(&question)?.vars(&VarRules::new("iprep"));
    /// assert_eq!(vars.get("sess.iprep.ip_score"), Some(&Sample::Int(77)));
    /// assert_eq!(vars.get("sess.iprep.ip-country"), None, "HAProxy takes no `-` in a name");
    /// # Ok::<(), spop_core::engine::NotifyError>(())
    /// ```
    pub fn vars(&self, rules: &VarRules) -> Vars {
        let mut vars = Vars::default();
        if let Self::Answered(answer) = self {
            vars.apply(rules, answer.actions());
        }
        vars
    }

    /// The error, of a request that failed.
    pub const fn error(&self) -> Option<EngineError> {
        if let Self::Failed(error) = self { Some(*error) } else { None }
    }
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// NOTIFYs that reached the agent whole.
    pub asked: u64,
    /// Answers that the agent has queued.
    pub queued: u64,
    /// Answers that nobody waited for any more.
    pub dropped: u64,
    /// Answers that could not be sent as they were, and became failures.
    pub refused: u64,
    /// NOTIFYs that needed no answer any more.
    pub cancelled: u64,
    /// Payloads in fragments that were dropped by the agent.
    pub aborted: u64,
    /// Tickets that the handler's side dropped without an answer, see
    /// [`AgentReactor::dropped_tickets`](crate::AgentReactor::dropped_tickets).
    pub forgotten: u64,
    /// ACKs that answered nothing, with `async`.
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
