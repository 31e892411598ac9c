//! What the echo agent answers, whatever it runs on: this file knows neither sockets nor time.

use std::{hint::black_box, time::Duration};

use spop_core::{
    Actions, Scope, Status, Value,
    agent::Partial,
    frame::{ArgError, Message, Messages, Unusable},
};

/// The longest text that `blob` makes; far more than any peer accepts in one answer.
const BLOB_MAX: usize = 16 << 20;

const SCOPES: [Scope; 5] =
    [Scope::Process, Scope::Session, Scope::Transaction, Scope::Request, Scope::Response];

/// What is to be done for a NOTIFY: wait, then this.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    /// The sum of all `sleep` messages before the end.
    pub(crate) wait: Duration,
    /// What comes then.
    pub(crate) end: Result<End, Failure>,
}

/// How a NOTIFY ends.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// With these actions.
    Ack(Actions),
    /// With a disconnect.
    Disconnect(Status),
}

/// A message that fails.
#[derive(Debug, PartialEq)]
pub(crate) enum Failure {
    /// It is called `fail`.
    Wanted,
    /// It has a meaning of its own, and an argument without one.
    Argument(ArgError),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wanted => f.write_str("message \"fail\" fails"),
            Self::Argument(error) => error.fmt(f),
        }
    }
}

impl From<ArgError> for Failure {
    fn from(error: ArgError) -> Self {
        Self::Argument(error)
    }
}

/// Plans the answer to a NOTIFY: its messages in order, up to one that ends it.
pub(crate) fn plan(messages: Messages<'_>) -> Plan {
    let mut wait = Duration::ZERO;
    let mut actions = Actions::new();
    for message in messages {
        match answer(&message, &mut wait, &mut actions) {
            Ok(None) => {}
            Ok(Some(status)) => return Plan { wait, end: Ok(End::Disconnect(status)) },
            Err(failure) => return Plan { wait, end: Err(failure) },
        }
    }
    Plan { wait, end: Ok(End::Ack(actions)) }
}

/// Adds the answer to one message; a status is that of a disconnect.
fn answer(
    message: &Message<'_>,
    wait: &mut Duration,
    actions: &mut Actions,
) -> Result<Option<Status>, Failure> {
    match message.name() {
        // The caller keeps the request of `hold` meanwhile.
        b"sleep" | b"hold" => *wait = wait.saturating_add(Duration::from_millis(message.arg("ms")?)),
        b"blob" => {
            let text = vec![b'x'; blob_size(message)?];
            actions.set_var(Scope::Transaction, "blob", Value::String(&text));
        }
        b"unset" => each_argument(message, |name, _| {
            actions.unset_var(Scope::Transaction, name);
        }),
        b"scopes" => each_argument(message, |name, value| {
            let name = [b"scopes.", name].concat();
            for scope in SCOPES {
                actions.set_var(scope, &name, value);
            }
        }),
        b"fail" => return Err(Failure::Wanted),
        b"disconnect" => return Ok(Some(Status(message.arg("code")?))),
        // Refused while it arrives in fragments; it arrived in one piece.
        b"abort" => {}
        message_name => each_argument(message, |name, value| {
            actions.set_var(Scope::Transaction, [message_name, b".", name].concat(), value);
        }),
    }
    Ok(None)
}

fn blob_size(message: &Message<'_>) -> Result<usize, ArgError> {
    let size = message.arg("size")?;
    if size > BLOB_MAX {
        let why = Unusable::OutOfRange { expected: "a blob", value: size as i128 };
        return Err(ArgError::new("blob", "size", why));
    }
    Ok(size)
}

/// Goes through the arguments; one without a name is named by its position from 0.
fn each_argument<'a>(message: &Message<'a>, mut each: impl FnMut(&[u8], Value<'a>)) {
    for (position, (name, value)) in message.args().enumerate() {
        if name.is_empty() { each(position.to_string().as_bytes(), value) } else { each(name, value) }
    }
}

/// For measuring: the work of an agent that reads all it is told, and answers with a number.
pub(crate) fn score(messages: Messages<'_>) -> Actions {
    for message in messages {
        for argument in message.args() {
            black_box(argument);
        }
    }
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "score", 42_i32);
    actions
}

/// Whether a NOTIFY that is arriving in fragments is to be refused: its first message is `abort`.
pub(crate) fn is_refused(arriving: Partial<'_>) -> bool {
    arriving.messages().next().is_some_and(|message| message.name() == b"abort")
}

#[cfg(test)]
mod tests {
    use spop_core::notation;

    use super::*;

    /// Milliseconds to wait, and the answer as a sentence.
    fn planned(messages: &str) -> (u128, String) {
        let payload = notation::parse(&format!("NOTIFY fin 1 1 {messages}")).unwrap().payload;
        let plan = plan(Messages::decode(&payload).unwrap());
        let end = match plan.end {
            Ok(End::Ack(actions)) => {
                let mut frame = notation::parse("ACK fin 1 1").unwrap();
                frame.payload = actions.as_bytes().to_vec();
                frame.to_string().replacen("ACK fin 1 1", "", 1).trim().to_owned()
            }
            Ok(End::Disconnect(status)) => format!("disconnect {}", status.0),
            Err(failure) => failure.to_string(),
        };
        (plan.wait.as_millis(), end)
    }

    #[test]
    fn messages_are_echoed_in_order_with_their_types() {
        let echoed = planned("check ip=ipv4:192.0.2.1 =bool:true x=null ; log =int32:-1");
        let expected = "set txn check.ip=ipv4:192.0.2.1 ; set txn check.1=bool:true ; set txn check.x=null ; \
                        set txn log.0=int32:-1";
        assert_eq!(echoed, (0, expected.into()));
    }

    #[test]
    fn special_messages_do_what_they_are_for() {
        for (messages, wait, end) in [
            ("sleep ms=int64:5 ; a ; sleep ms=uint32:7 ; b c=int32:1", 12, "set txn b.c=int32:1"),
            ("blob size=int32:3", 0, "set txn blob=string:xxx"),
            ("unset a=null =null", 0, "unset txn a ; unset txn 1"),
            (
                "scopes a=int32:1",
                0,
                "set proc scopes.a=int32:1 ; set sess scopes.a=int32:1 ; set txn scopes.a=int32:1 ; \
                 set req scopes.a=int32:1 ; set res scopes.a=int32:1",
            ),
            ("abort x=null", 0, ""),
            ("sleep ms=int32:1 ; disconnect code=int64:7 ; fail", 1, "disconnect 7"),
            ("a b=null ; fail", 0, "message \"fail\" fails"),
            ("hold ms=int32:5 ; a b=null", 5, "set txn a.b=null"),
            ("sleep", 0, "argument \"ms\" of message \"sleep\" is missing"),
            ("sleep ms=int64:-1", 0, "argument \"ms\" of message \"sleep\" is -1, which does not fit u64"),
            (
                "blob size=string:1",
                0,
                "argument \"size\" of message \"blob\" is of type STRING, not an integer",
            ),
            (
                "blob size=int64:999999999",
                0,
                "argument \"size\" of message \"blob\" is 999999999, which does not fit a blob",
            ),
            ("disconnect code=null", 0, "argument \"code\" of message \"disconnect\" is NULL"),
        ] {
            assert_eq!(planned(messages), (wait, end.into()), "{messages}");
        }
    }
}
