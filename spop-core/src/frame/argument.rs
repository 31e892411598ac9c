//! Arguments of a message, converted to Rust types.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
};

use super::{FromValue, Message, Messages, OwnedMessages};
use crate::{DecodeError, excerpt::Escaped, wire::ValueType};

impl ArgError {
    /// The error of an argument that the application converts itself, without [`Message::arg`].
    pub fn new(message: impl Into<String>, argument: impl Into<String>, why: Unusable) -> Self {
        Self { message: message.into(), argument: argument.into(), why }
    }
}

impl<'a> Messages<'a> {
    /// The first argument of this name of the first message, converted to `T`: for handlers of a single message.
    ///
    /// # Errors
    /// [`ArgError`] if the argument is missing or does not convert. For an `Option<T>` a missing argument and NULL are `None`.
    pub fn arg<T: FromValue<'a>>(self, name: &str) -> Result<T, ArgError> {
        match self.iter().next() {
            Some(message) => message.arg(name),
            None => {
                T::absent().map_err(|why| ArgError { message: String::new(), argument: name.to_owned(), why })
            }
        }
    }
}

impl OwnedMessages {
    /// As [`Messages::arg`].
    ///
    /// # Errors
    /// As [`Messages::arg`].
    pub fn arg<'a, T: FromValue<'a>>(&'a self, name: &str) -> Result<T, ArgError> {
        self.view().arg(name)
    }
}

impl<'a> Message<'a> {
    /// The first argument of this name, converted to `T`.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// use spop_core::frame::{ArgError, Message};
    ///
    /// fn port_of(message: &Message<'_>) -> Result<(IpAddr, Option<u16>), ArgError> {
    ///     Ok((message.arg("ip")?, message.arg("port")?))
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ArgError`] if the argument is missing or does not convert. For an `Option<T>` a missing argument and NULL are `None`.
    #[inline]
    pub fn arg<T: FromValue<'a>>(&self, name: &str) -> Result<T, ArgError> {
        self.get(name).map_or_else(T::absent, T::from_value).map_err(|why| self.error(name, why))
    }

    #[cold]
    fn error(&self, name: &str, why: Unusable) -> ArgError {
        ArgError { message: Escaped(self.name()).to_string(), argument: name.to_owned(), why }
    }
}

/// An argument that is missing or does not convert to the requested type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("argument {argument:?} of message \"{message}\" {why}")]
#[non_exhaustive]
pub struct ArgError {
    /// The message, as [`Escaped`] displays it.
    pub message: String,
    /// The requested argument.
    pub argument: String,
    /// Why it is unusable.
    pub why: Unusable,
}

/// Why an argument does not convert to the requested type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// The message has no such argument.
    #[error("is missing")]
    Missing,
    /// It is NULL: HAProxy could not fetch the sample.
    #[error("is NULL")]
    Null,
    /// It has another type.
    #[error("is of type {found}, not {expected}")]
    WrongType {
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        found: ValueType,
    },
    /// The number is out of the range of the requested type.
    #[error("is {value}, which does not fit {expected}")]
    OutOfRange {
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        value: i128,
    },
    /// A STRING that is not UTF-8. For text that a client controls, request a `Cow<str>` or bytes.
    #[error("is not UTF-8")]
    NotUtf8,
    /// A BINARY that is not a list of headers as `req.hdrs_bin` sends it.
    #[error("is no list of headers: {0}")]
    NotHeaders(DecodeError),
    /// The type is right, and the value is none of those that the requested type has.
    #[error("is no {expected}")]
    Invalid {
        /// What was asked for.
        expected: &'static str,
    },
    /// The requested type has another reason.
    #[error("is unusable: {0}")]
    Other(String),
}
