//! The decision of an agent under test, and the outcome of a request.

use alloc::string::{String, ToString};
use core::{fmt, time::Duration};

use bytes::Bytes;

use crate::{
    Actions, Status,
    agent::{Failure, FailureKind},
    engine::EngineError,
    frame::{AckActions, Flags, Frame, FrameType, Header, Ids},
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
    /// [`AgentReactor::fail`](crate::AgentReactor::fail): apply the configured `on_failure`. The text says why the handler failed,
    /// for [`Outcome::failure`].
    Fail(String),
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
            crate::agent::Reply::Fail(failure) => match failure.answer {
                Some(answer) => Self::Now(*answer),
                None => Self::Fail(failure.error),
            },
            crate::agent::Reply::Abort => Self::Abort,
            crate::agent::Reply::Disconnect { status, .. } => Self::Disconnect(status),
        }
    }
}

/// The outcome of a request: what HAProxy gets, and why the handler gave no answer, if so.
///
/// ```
/// use spop_core::{AgentConfig, EngineConfig, MessageList, testing::{Decision, Pair}};
///
/// let mut pair = Pair::new(EngineConfig::haproxy_3_1(), AgentConfig::default(), |_| {
///     Decision::Fail("no database".into())
/// });
/// let mut question = MessageList::new();
/// question.message("check-ip");
/// let outcome = pair.ask(&question)?;
/// // HAProxy gets an ACK without actions, which is the default of `AgentConfig::on_failure`.
/// assert_eq!((outcome.error(), outcome.actions().iter().count()), (None, 0));
/// assert_eq!(outcome.failure(), Some("no database"));
/// # Ok::<(), spop_core::engine::NotifyError>(())
/// ```
#[derive(Clone)]
pub struct Outcome {
    end: End,
    failure: Option<Why>,
}

/// Why a handler gave no answer that HAProxy gets: a text, and the kind if it is a [`Failure`].
#[derive(Clone, Debug)]
pub struct Why {
    pub(super) kind: Option<FailureKind>,
    pub(super) text: String,
}

impl From<String> for Why {
    fn from(text: String) -> Self {
        Self { kind: None, text }
    }
}

impl From<&str> for Why {
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

impl From<&Failure> for Why {
    fn from(failure: &Failure) -> Self {
        Self { kind: Some(failure.kind), text: failure.to_string() }
    }
}

#[derive(Clone)]
enum End {
    Answered(Bytes, Duration),
    Failed(EngineError),
    Waiting,
}

impl Outcome {
    /// An ACK with this payload, which arrived after this time.
    pub(super) const fn acknowledged(payload: Bytes, took: Duration) -> Self {
        Self { end: End::Answered(payload, took), failure: None }
    }

    /// The request is in flight, and no event is left that could end it.
    #[doc(hidden)]
    pub const fn waiting() -> Self {
        Self { end: End::Waiting, failure: None }
    }

    /// HAProxy gets an answer with these actions.
    pub fn answered(actions: &Actions) -> Self {
        Self::acknowledged(Bytes::copy_from_slice(actions.as_bytes()), Duration::ZERO)
    }

    /// HAProxy gets no answer: the request fails.
    pub const fn failed(error: EngineError) -> Self {
        Self { end: End::Failed(error), failure: None }
    }

    /// The same, with why the agent's handler gave no answer.
    #[must_use]
    pub fn with_failure(self, why: impl Into<Why>) -> Self {
        Self { failure: Some(why.into()), ..self }
    }

    /// The actions as the [notation](crate::notation) writes them; if there are none, why: the [`failure`](Self::failure) or the
    /// [`error`](Self::error). Empty for an answer without actions.
    ///
    /// If HAProxy drops variables for their names, whatever the prefix, it says so behind the actions: a test that compares the
    /// sentence fails.
    ///
    /// ```
    /// use spop_core::{Actions, Scope, testing::Outcome};
    ///
    /// let outcome = Outcome::answered(&Actions::new().set(Scope::Session, "auth-status", true));
    /// assert_eq!(
    ///     outcome.sentence(),
    ///     "set sess auth-status=bool:true, but HAProxy drops it: \
    ///      the name of variable \"auth-status\" has more than letters, digits, `.` and `_`"
    /// );
    /// ```
    pub fn sentence(&self) -> String {
        let actions = self.payload().map(|payload| {
            let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: Ids::ZERO };
            let line = print(Frame { header, payload }).to_string();
            let mut sentence = line.strip_prefix("ACK fin 0 0").unwrap_or(&line).trim_start().to_string();
            for dropped in self.actions().dropped_names() {
                sentence.push_str(", but HAProxy drops it: ");
                sentence.push_str(&dropped.error().to_string());
            }
            sentence
        });
        match (actions.unwrap_or_default(), &self.failure, &self.end) {
            (actions, _, _) if !actions.is_empty() => actions,
            (_, Some(why), _) => why.text.clone(),
            (_, None, End::Failed(error)) => error.to_string(),
            (_, None, End::Waiting) => "in flight, and nothing is left that could end it".into(),
            (empty, None, End::Answered(..)) => empty,
        }
    }

    /// The actions of the answer, as HAProxy parses them. None if there was no answer.
    pub fn actions(&self) -> AckActions<'_> {
        AckActions::lenient(self.payload().unwrap_or_default())
    }

    /// The payload of the ACK, if HAProxy gets one.
    pub fn payload(&self) -> Option<&[u8]> {
        if let End::Answered(payload, _) = &self.end { Some(payload) } else { None }
    }

    /// The time from the request to its answer.
    pub const fn took(&self) -> Option<Duration> {
        if let End::Answered(_, took) = &self.end { Some(*took) } else { None }
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
        vars.apply(rules, self.actions());
        vars
    }

    /// Why HAProxy gets no answer.
    pub const fn error(&self) -> Option<EngineError> {
        if let End::Failed(error) = &self.end { Some(*error) } else { None }
    }

    /// Why the agent's handler gave no answer that HAProxy gets: its error, or what ended the request. HAProxy gets what
    /// [`AgentConfig::on_failure`](crate::AgentConfig::on_failure) or the route names, or nothing.
    ///
    /// From a server it is `KIND: ERROR`, as a [`Failure`] displays itself, and from a route of a router `KIND: message "NAME":
    /// ERROR`.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|why| why.text.as_str())
    }

    /// The kind of the [`failure`](Self::failure). `None` if there is no failure, and if the handler has decided to disconnect
    /// or to abort its answer, the payload was refused or dropped, or the request was cancelled.
    pub fn failure_kind(&self) -> Option<FailureKind> {
        self.failure.as_ref().and_then(|why| why.kind)
    }

    /// Whether the request is in flight, and no event is left that could end it.
    pub const fn is_waiting(&self) -> bool {
        matches!(self.end, End::Waiting)
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outcome({:?}", self.sentence())?;
        match &self.failure {
            Some(why) if why.text != self.sentence() => write!(f, ", failure: {:?})", why.text),
            _ => f.write_str(")"),
        }
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
    use alloc::format;

    use super::*;
    use crate::Scope;

    #[test]
    fn what_was_not_answered_sets_nothing() {
        let rules = VarRules::new("p").force();
        for outcome in [Outcome::waiting(), Outcome::failed(EngineError::Timeout)] {
            assert_eq!(outcome.vars(&rules), Vars::default());
            assert!(!outcome.sentence().is_empty());
        }
    }

    #[test]
    fn the_sentence_has_the_actions_or_why_there_are_none() {
        let mut actions = Actions::new();
        assert_eq!(Outcome::answered(&actions).sentence(), "");
        assert_eq!(Outcome::answered(&actions).with_failure("no").sentence(), "no");
        assert_eq!(Outcome::failed(EngineError::Aborted).with_failure("no").sentence(), "no");
        actions.set_var(Scope::Session, "a", true);
        let outcome = Outcome::answered(&actions).with_failure("no");
        assert_eq!(outcome.sentence(), "set sess a=bool:true");
        assert_eq!(format!("{outcome:?}"), r#"Outcome("set sess a=bool:true", failure: "no")"#);
    }

    #[test]
    fn the_sentence_names_each_variable_that_haproxy_drops() {
        let actions = Actions::new().set(Scope::Session, "a-b", true).set(Scope::Session, "a", 1);
        let outcome = Outcome::answered(&actions.unset(Scope::Request, ""));
        let (sentence, dropped) = (outcome.sentence(), ", but HAProxy drops it: ");
        let parts: alloc::vec::Vec<_> = sentence.split(dropped).collect();
        assert_eq!(parts[0], r#"set sess a-b=bool:true ; set sess a=int32:1 ; unset req """#);
        assert!(parts[1].contains(r#""a-b""#) && parts[2] == "a variable has no name", "{sentence}");
    }

    #[test]
    fn a_failure_has_its_kind_and_a_text_has_none() {
        let failure = Failure::new(FailureKind::Overloaded, "full");
        let outcome = Outcome::answered(&Actions::new()).with_failure(&failure);
        assert_eq!(
            (outcome.failure_kind(), outcome.failure()),
            (Some(FailureKind::Overloaded), Some("overloaded: full"))
        );
        assert_eq!(outcome.with_failure("no").failure_kind(), None);
    }
}
