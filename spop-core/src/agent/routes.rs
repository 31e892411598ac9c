//! Dispatch of messages to handlers by name.

use alloc::{boxed::Box, string::String, string::ToString, sync::Arc, vec::Vec};
use core::{error::Error, fmt};

use crate::{
    Actions,
    excerpt::Escaped,
    frame::{ArgError, Message, Messages},
};

type Handler = dyn Fn(&Message<'_>, &mut Actions) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync;

/// Calls a handler for each message of a NOTIFY, by the name of the message. All handlers append to one list of actions, in
/// the order of the messages.
///
/// ```
/// use std::net::IpAddr;
/// use spop_core::{wire::Headers, MessageList, agent::Routes, Scope, frame::Messages};
///
/// let routes = Routes::new()
///     .on("get-ip-reputation", |message, actions| {
///         let ip: IpAddr = message.arg("ip")?;
///         actions.set_var(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 });
///         Ok(())
///     })
///     .on("check-request", |message, actions| {
///         let headers: Headers<'_> = message.arg("hdrs")?;
///         actions.set_var(Scope::Request, "browser", headers.get("user-agent").is_some());
///         Ok(())
///     });
///
/// let mut asked = MessageList::new();
/// asked.message("get-ip-reputation").arg("ip", IpAddr::from([192, 0, 2, 1]));
/// asked.message("without-a-route");
/// let actions = routes.answer(Messages::decode(asked.as_bytes())?)?;
/// assert_eq!(actions.iter().count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Clones share the handlers.
#[derive(Clone, Default)]
pub struct Routes {
    named: Vec<(Box<str>, Arc<Handler>)>,
    otherwise: Option<Arc<Handler>>,
    unknown: Unknown,
}

/// The policy for messages without a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// Skip the message, and answer the others.
    #[default]
    Skip,
    /// Fail the NOTIFY.
    Fail,
}

/// A message that could not be answered. The whole NOTIFY fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The message has no route, and the policy is [`Unknown::Fail`].
    #[error("there is no route for message \"{message}\"")]
    #[non_exhaustive]
    Unknown {
        /// The message, as [`Escaped`] displays it.
        message: String,
    },
    /// An argument is missing or has the wrong type.
    #[error(transparent)]
    Argument(#[from] ArgError),
    /// The handler returned an error.
    #[error("message \"{message}\": {why}")]
    #[non_exhaustive]
    Failed {
        /// The message, as [`Escaped`] displays it.
        message: String,
        /// The error of the handler.
        why: Box<dyn Error + Send + Sync>,
    },
}

impl RouteError {
    /// The error for a message of this name that has no route.
    pub fn unknown(message: &[u8]) -> Self {
        Self::Unknown { message: Escaped(message).to_string() }
    }
}

impl Routes {
    /// No routes: every message is unknown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for messages of this name. It replaces an earlier handler of the same name.
    #[must_use]
    pub fn on<F>(mut self, message: &str, handler: F) -> Self
    where
        F: Fn(&Message<'_>, &mut Actions) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    {
        self.named.retain(|(name, _)| **name != *message);
        self.named.push((message.into(), Arc::new(handler)));
        self
    }

    /// Sets the handler for messages of all other names.
    #[must_use]
    pub fn otherwise<F>(mut self, handler: F) -> Self
    where
        F: Fn(&Message<'_>, &mut Actions) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    {
        self.otherwise = Some(Arc::new(handler));
        self
    }

    /// Sets the policy for messages without a handler. Default [`Unknown::Skip`].
    #[must_use]
    pub const fn unknown(mut self, policy: Unknown) -> Self {
        self.unknown = policy;
        self
    }

    /// Answers the messages of a NOTIFY.
    ///
    /// # Errors
    /// [`RouteError`] names the first message that could not be answered.
    pub fn answer(&self, messages: Messages<'_>) -> Result<Actions, RouteError> {
        let mut actions = Actions::new();
        for message in messages {
            self.answer_one(&message, &mut actions)?;
        }
        Ok(actions)
    }

    fn answer_one(&self, message: &Message<'_>, actions: &mut Actions) -> Result<(), RouteError> {
        let name = message.name();
        let route = self.named.iter().find(|(known, _)| known.as_bytes() == name);
        match (route.map(|(_, handler)| handler).or(self.otherwise.as_ref()), self.unknown) {
            (Some(handler), _) => handler(message, actions).map_err(|why| failed(name, why)),
            (None, Unknown::Skip) => Ok(()),
            (None, Unknown::Fail) => Err(RouteError::unknown(name)),
        }
    }
}

#[cold]
fn failed(message: &[u8], why: Box<dyn Error + Send + Sync>) -> RouteError {
    match why.downcast::<ArgError>() {
        Ok(error) => RouteError::Argument(*error),
        Err(why) => RouteError::Failed { message: Escaped(message).to_string(), why },
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.named.iter().map(|(name, _)| name);
        f.debug_set().entries(names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::{Scope, Value, notation};

    fn routes() -> Routes {
        Routes::new()
            .on("a", |_, actions| {
                actions.set_var(Scope::Session, "replaced", true);
                Ok(())
            })
            .on("b", |message, actions| {
                actions.set_var(Scope::Session, "b", message.arg::<i32>("n")?);
                Ok(())
            })
            .on("a", |message, actions| {
                actions.set_var(Scope::Session, "a", message.arg::<i32>("n")?);
                Ok(())
            })
            .on("no", |_, _| Err("on purpose".into()))
    }

    fn answered(routes: &Routes, messages: &str) -> Result<String, String> {
        let payload = notation::parse(&format!("NOTIFY fin 1 1 {messages}")).unwrap().payload;
        let actions = routes.answer(Messages::decode(&payload).unwrap());
        let actions = actions.map_err(|error| error.to_string())?;
        let mut frame = notation::parse("ACK fin 1 1").unwrap();
        frame.payload = actions.as_bytes().to_vec();
        Ok(frame.to_string().replacen("ACK fin 1 1", "", 1).trim().to_string())
    }

    #[test]
    fn actions_come_in_the_order_of_the_messages() {
        let asked = "b n=int32:1 ; x ; a n=int32:2 ; b n=int32:3";
        let expected = "set sess b=int32:1 ; set sess a=int32:2 ; set sess b=int32:3";
        assert_eq!(answered(&routes(), asked).as_deref(), Ok(expected));
        assert_eq!(answered(&routes(), "").as_deref(), Ok(""));
    }

    #[test]
    fn what_has_no_route_is_skipped_fails_or_goes_elsewhere() {
        let asked = r#""x\xff" ; a n=int32:2"#;
        assert_eq!(answered(&routes(), asked).as_deref(), Ok("set sess a=int32:2"));
        let error = answered(&routes().unknown(Unknown::Fail), asked).unwrap_err();
        assert_eq!(error, r#"there is no route for message "x\xff""#);
        let all = routes().unknown(Unknown::Fail).otherwise(|message, actions| {
            actions.set_var(Scope::Session, "name", Value::Binary(message.name()));
            Ok(())
        });
        let expected = "set sess name=binary:78ff ; set sess a=int32:2";
        assert_eq!(answered(&all, asked).as_deref(), Ok(expected));
    }

    #[test]
    fn errors_name_the_message() {
        let error = |asked| answered(&routes(), asked).unwrap_err();
        assert_eq!(error("no"), r#"message "no": on purpose"#);
        assert_eq!(error("a n=int32:1 ; b"), r#"argument "n" of message "b" is missing"#);
        assert_eq!(format!("{:?}", routes()), r#"{"b", "a", "no", ..}"#);
    }
}
