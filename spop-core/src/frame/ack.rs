//! Decoding the payload of an ACK (section 3.4): a list of actions on variables.

use alloc::string::String;
use core::{fmt, str::FromStr};

use super::DroppedName;
use crate::{
    DecodeError,
    excerpt::Escaped,
    wire::{Malformed, Piece, Reader, Value},
};

/// The scope of a variable: its lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// `proc`: the lifetime of the HAProxy process.
    #[doc(alias = "proc")]
    Process = 0,
    /// `sess`: the lifetime of the client's connection.
    #[doc(alias = "sess")]
    Session = 1,
    /// `txn`: from the request to the end of its response.
    #[doc(alias = "txn")]
    Transaction = 2,
    /// `req`: while the request is processed. HAProxy drops an action on it in an event of the response.
    #[doc(alias = "req")]
    Request = 3,
    /// `res`: while the response is processed. HAProxy drops an action on it in an event of the request.
    #[doc(alias = "res")]
    Response = 4,
}

impl Scope {
    /// All scopes, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Process, Self::Session, Self::Transaction, Self::Request, Self::Response];

    /// The name in HAProxy's configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "proc",
            Self::Session => "sess",
            Self::Transaction => "txn",
            Self::Request => "req",
            Self::Response => "res",
        }
    }

    /// The scope with this number on the wire.
    ///
    /// # Errors
    /// [`Malformed::UnknownScope`] for a number above 4.
    pub fn from_byte(byte: u8) -> Result<Self, Malformed> {
        Self::ALL.get(usize::from(byte)).copied().ok_or(Malformed::UnknownScope(byte))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By its name in HAProxy's configuration.
///
/// ```
/// use spop_core::Scope;
///
/// assert_eq!("txn".parse(), Ok(Scope::Transaction));
/// ```
impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(name: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.name() == name).ok_or_else(|| UnknownScope(name.into()))
    }
}

/// A name that is none of the five scopes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is no scope: there are proc, sess, txn, req and res", Escaped(.0.as_bytes()))]
pub struct UnknownScope(pub String);

pub(super) const SET_VAR: u8 = 1;
pub(super) const UNSET_VAR: u8 = 2;

/// One action of an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckAction<'a> {
    /// SET-VAR. Setting a variable to NULL unsets it.
    SetVar {
        /// VAR-SCOPE.
        scope: Scope,
        /// VAR-NAME, without the prefix that HAProxy adds.
        name: &'a [u8],
        /// VAR-VALUE.
        value: Value<'a>,
    },
    /// UNSET-VAR.
    UnsetVar {
        /// VAR-SCOPE.
        scope: Scope,
        /// VAR-NAME, without the prefix that HAProxy adds.
        name: &'a [u8],
    },
}

/// A list of actions, borrowed from the payload of an ACK.
#[derive(Clone, Copy, Debug)]
pub struct AckActions<'a> {
    good: &'a [u8],
    rest: Option<DecodeError>,
}

impl<'a> AckActions<'a> {
    /// Validates `payload` as a list of actions.
    ///
    /// # Errors
    /// [`DecodeError`] says what is malformed and where.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let list = Self::lenient(payload);
        list.rest.map_or(Ok(list), Err)
    }

    /// Decodes as HAProxy does: the first malformed action ends the list, and those before it apply.
    pub fn lenient(payload: &'a [u8]) -> Self {
        let mut reader = Reader::new(payload);
        loop {
            let start = payload.len() - reader.len();
            let good = payload.get(..start).unwrap_or_default();
            if reader.is_empty() {
                return Self { good, rest: None };
            }
            if let Err(what) = action(&mut reader) {
                return Self { good, rest: Some(reader.error(payload, what)) };
            }
        }
    }

    /// The error at which a [lenient](Self::lenient) decode ended the list.
    pub const fn error(&self) -> Option<DecodeError> {
        self.rest
    }

    /// The actions, in order.
    pub const fn iter(&self) -> AckIter<'a> {
        AckIter { reader: Reader::new(self.good) }
    }

    /// The variables that HAProxy silently drops with any prefix, in order: as
    /// [`Actions::dropped_names`](super::Actions::dropped_names).
    pub fn dropped_names(&self) -> impl Iterator<Item = DroppedName<'a>> + use<'a> {
        self.iter().filter_map(DroppedName::of)
    }
}

impl<'a> IntoIterator for &AckActions<'a> {
    type Item = AckAction<'a>;
    type IntoIter = AckIter<'a>;

    fn into_iter(self) -> AckIter<'a> {
        self.iter()
    }
}

/// An iterator over [`AckActions`].
#[derive(Clone, Debug)]
pub struct AckIter<'a> {
    reader: Reader<'a>,
}

impl<'a> AckIter<'a> {
    /// Iterates over a list that is well-formed.
    #[inline]
    pub(super) const fn new(list: &'a [u8]) -> Self {
        Self { reader: Reader::new(list) }
    }
}

impl<'a> Iterator for AckIter<'a> {
    type Item = AckAction<'a>;

    #[inline]
    fn next(&mut self) -> Option<AckAction<'a>> {
        if self.reader.is_empty() {
            return None;
        }
        action(&mut self.reader).ok()
    }
}

fn action<'a>(reader: &mut Reader<'a>) -> Result<AckAction<'a>, Malformed> {
    let action = reader.byte(Piece::Action)?;
    let expected = match action {
        SET_VAR => 3,
        UNSET_VAR => 2,
        unknown => return Err(Malformed::UnknownAction(unknown)),
    };
    let found = reader.byte(Piece::Action)?;
    if found != expected {
        return Err(Malformed::WrongArgumentCount { action, expected, found });
    }
    let scope = Scope::from_byte(reader.byte(Piece::Action)?)?;
    let name = reader.string()?;
    Ok(if action == SET_VAR {
        AckAction::SetVar { scope, name, value: reader.value()? }
    } else {
        AckAction::UnsetVar { scope, name }
    })
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::Actions;

    #[test]
    fn what_is_good_applies_and_the_rest_does_not() {
        let mut actions = Actions::new();
        actions.set_var(Scope::Session, "a", 1_i32).unset_var(Scope::Request, "b");
        let mut bytes = actions.as_bytes().to_vec();
        let good = bytes.len();
        for (bad, what) in [
            (&[9, 3][..], Malformed::UnknownAction(9)),
            (&[1, 2], Malformed::WrongArgumentCount { action: 1, expected: 3, found: 2 }),
            (&[2, 2, 5], Malformed::UnknownScope(5)),
            (&[2, 2, 0, 1], Malformed::Truncated(Piece::String)),
            (&[1, 3, 0, 1, b'x'], Malformed::Truncated(Piece::TypedData)),
            (&[1], Malformed::Truncated(Piece::Action)),
        ] {
            bytes.truncate(good);
            bytes.extend(bad);
            assert_eq!(AckActions::decode(&bytes).unwrap_err().what, what);
            let list = AckActions::lenient(&bytes);
            assert_eq!(list.error().unwrap().what, what);
            let read: Vec<_> = list.iter().collect();
            assert_eq!(
                read,
                [
                    AckAction::SetVar { scope: Scope::Session, name: b"a", value: Value::Int32(1) },
                    AckAction::UnsetVar { scope: Scope::Request, name: b"b" }
                ]
            );
        }
    }

    #[test]
    fn each_scope_is_its_number() {
        for scope in Scope::ALL {
            assert_eq!(Scope::from_byte(scope as u8), Ok(scope));
        }
        assert_eq!(Scope::from_byte(5), Err(Malformed::UnknownScope(5)));
    }
}
