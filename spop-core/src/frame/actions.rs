//! Encoding the payload of an ACK.

use alloc::vec::Vec;
use core::fmt;

use arrayvec::ArrayVec;

use super::{
    AckAction, AckIter, DroppedName, NameError, Scope,
    ack::{SET_VAR, UNSET_VAR},
    variable,
};
use crate::wire::{HeaderError, Sink, ToValue, Value, encode_header_names, encode_headers, put_string};

/// The length of an answer that is kept without an allocation: two or three variables with short names. A reply then has 128 bytes,
/// the most that is moved without a call of `memcpy`.
const INLINE: usize = 112;

/// The actions of an answer, in their wire format: acknowledging copies them once.
///
/// HAProxy prefixes each name (`option var-prefix`, by default the agent's name). It silently drops a variable if its full
/// name, `scope.prefix.name`, exceeds 63 characters or contains others than letters, digits, `.` and `_`, or if it has scope
/// `proc` and is not known there ([`VarRules`](crate::haproxy::VarRules)). For names from data, use
/// [`try_set_var`](Self::try_set_var); test literal names with [`check_names`](Self::check_names). The servers log
/// [`dropped_names`](Self::dropped_names).
///
/// ```
/// use spop_core::{Actions, Scope};
///
/// let actions = Actions::new().set(Scope::Session, "ip_score", 77).unset(Scope::Transaction, "reason");
/// # drop(actions);
/// ```
///
/// [`set`](Self::set) and [`unset`](Self::unset) are for an answer in one expression, [`set_var`](Self::set_var) and
/// [`unset_var`](Self::unset_var) for a list that is filled step by step. A tuple of scope, name and value converts into a list, and
/// so do tuples, arrays and `Option`s of them, and `()`.
#[derive(Clone, Default)]
pub struct Actions {
    bytes: Bytes,
    /// HAProxy may drop one of the names: see `is_suspect`.
    suspect: bool,
}

#[derive(Clone)]
enum Bytes {
    Inline(ArrayVec<u8, INLINE>),
    Heap(Vec<u8>),
}

impl Default for Bytes {
    #[inline]
    fn default() -> Self {
        Self::Inline(ArrayVec::new())
    }
}

impl Sink for Bytes {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let fits = match self {
            Self::Inline(inline) => inline.try_extend_from_slice(bytes).is_ok(),
            Self::Heap(_) => false,
        };
        if !fits {
            self.put_on_heap(bytes);
        }
    }
}

impl Bytes {
    #[cold]
    fn put_on_heap(&mut self, bytes: &[u8]) {
        if let Self::Inline(inline) = self {
            let mut heap = Vec::with_capacity(2 * (inline.len() + bytes.len()));
            heap.extend_from_slice(inline);
            *self = Self::Heap(heap);
        }
        if let Self::Heap(heap) = self {
            heap.extend_from_slice(bytes);
        }
    }
}

impl Actions {
    /// An empty list: the answer changes no variable.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`set_var`](Self::set_var), by value.
    ///
    /// ```
    /// use spop_core::{Actions, Scope};
    ///
    /// let answer = Actions::new().set(Scope::Session, "ip_score", 77).set(Scope::Transaction, "reason", "listed");
    /// assert_eq!(answer.iter().count(), 2);
    /// ```
    #[expect(clippy::inline_always, reason = "as set_var")]
    #[inline(always)]
    #[must_use = "it returns the list"]
    pub fn set(mut self, scope: Scope, name: impl AsRef<[u8]>, value: impl ToValue) -> Self {
        self.set_var(scope, name, value);
        self
    }

    /// As [`unset_var`](Self::unset_var), by value.
    #[inline]
    #[must_use = "it returns the list"]
    pub fn unset(mut self, scope: Scope, name: impl AsRef<[u8]>) -> Self {
        self.unset_var(scope, name);
        self
    }

    /// SET-VAR: sets a variable to a value of any type that implements [`ToValue`], or a reference to one. NULL (`None`)
    /// unsets it.
    ///
    /// ```
    /// use std::{borrow::Cow, net::IpAddr};
    /// use spop_core::{Actions, Scope};
    ///
    /// let user = String::from("alice");
    /// let reason: Cow<'_, str> = "listed".into();
    /// let origin: Option<IpAddr> = None;
    /// let mut actions = Actions::new();
    /// actions
    ///     .set_var(Scope::Transaction, "user", &user)
    ///     .set_var(Scope::Transaction, "reason", reason)
    ///     .set_var(Scope::Transaction, "hits", user.len())
    ///     .set_var(Scope::Transaction, "origin", origin);
    /// ```
    #[expect(
        clippy::inline_always,
        reason = "most names are literals: their lengths are known where this is called"
    )]
    #[inline(always)]
    pub fn set_var(&mut self, scope: Scope, name: impl AsRef<[u8]>, value: impl ToValue) -> &mut Self {
        self.put_head([SET_VAR, 3, scope as u8], name.as_ref());
        value.to_value().encode(&mut self.bytes);
        self
    }

    /// UNSET-VAR: unsets a variable.
    #[inline]
    pub fn unset_var(&mut self, scope: Scope, name: impl AsRef<[u8]>) -> &mut Self {
        self.put_head([UNSET_VAR, 2, scope as u8], name.as_ref());
        self
    }

    /// SET-VAR with a check of the name, for names from data. HAProxy accepts the name if the prefix is short enough.
    ///
    /// ```
    /// use spop_core::{Actions, frame::NameError, Scope};
    ///
    /// let mut actions = Actions::new();
    /// actions.try_set_var(Scope::Session, "score.ip", 77_i32)?.try_set_var(Scope::Session, "score.all", 70_i32)?;
    /// assert!(matches!(actions.try_set_var(Scope::Session, "x-score", 1_i32), Err(NameError::BadCharacter(_))));
    /// # Ok::<(), NameError>(())
    /// ```
    ///
    /// # Errors
    /// [`NameError`] if HAProxy drops the variable with any prefix. Nothing was added.
    pub fn try_set_var(
        &mut self,
        scope: Scope,
        name: impl AsRef<[u8]>,
        value: impl ToValue,
    ) -> Result<&mut Self, NameError> {
        variable::check(scope, 1, name.as_ref())?;
        Ok(self.set_var(scope, name, value))
    }

    /// Checks all names as HAProxy does with this prefix: that of `option var-prefix`, by default the name of the
    /// `spoe-agent`.
    ///
    /// ```
    /// use spop_core::{Actions, Scope};
    ///
    /// let mut actions = Actions::new();
    /// actions.set_var(Scope::Transaction, "a_name_that_is_just_about_as_long_as_a_name_can_be", true);
    /// assert!(actions.check_names("iprep").is_ok());
    /// assert!(actions.check_names("ip-reputation").is_err());
    /// ```
    ///
    /// # Errors
    /// [`NameError`] for the first name that HAProxy drops.
    pub fn check_names(&self, prefix: &str) -> Result<(), NameError> {
        self.iter().try_for_each(|action| match action {
            AckAction::SetVar { scope, name, .. } | AckAction::UnsetVar { scope, name } => {
                variable::check(scope, prefix.len(), name)
            }
        })
    }

    /// The variables that HAProxy silently drops with any prefix, in order. Without any, the call costs one test of a flag:
    /// names are checked when they are added, and literal ones at compile time.
    ///
    /// ```
    /// use spop_core::{Actions, Scope};
    ///
    /// let mut actions = Actions::new();
    /// actions.set_var(Scope::Session, "ip_score", 77_i32).set_var(Scope::Session, "ip-country", "nl");
    /// let dropped: Vec<_> = actions.dropped_names().map(|dropped| dropped.name()).collect();
    /// assert_eq!(dropped, [b"ip-country"]);
    /// ```
    #[inline]
    pub fn dropped_names(&self) -> impl Iterator<Item = DroppedName<'_>> {
        // Without a suspect name nothing is decoded.
        let suspects = if self.suspect { self.as_bytes() } else { &[] };
        AckIter::new(suspects).filter_map(DroppedName::of)
    }

    /// Sets a BINARY variable to a list of headers, which HAProxy 3.4 and later sets with one rule:
    ///
    /// ```text
    /// http-request set-headers-bin var(txn.my_agent.headers)
    /// ```
    ///
    /// `set-headers-bin` replaces the headers of these names; of a name that is listed several times only the last value remains.
    /// `add-headers-bin` adds to the existing headers. With `prefix x-`, both use only names that begin with `x-`, case-sensitive.
    /// HAProxy skips `connection`, `content-length`, `transfer-encoding`, `upgrade` and other headers that frame the message.
    ///
    /// ```
    /// use spop_core::{Actions, wire::HeaderError, Scope};
    ///
    /// let mut actions = Actions::new();
    /// actions.set_headers(Scope::Transaction, "headers", [("x-user", "alice"), ("x-risk", "7")])?;
    /// let forged = actions.set_headers(Scope::Transaction, "headers", [("x-user", "bob\r\nx-admin: 1")]);
    /// assert!(matches!(forged, Err(HeaderError::Value { .. })));
    /// # Ok::<(), HeaderError>(())
    /// ```
    ///
    /// # Errors
    /// [`HeaderError`] names the first header that HTTP does not allow, and that HAProxy would forward unchecked. Nothing was
    /// added.
    pub fn set_headers(
        &mut self,
        scope: Scope,
        name: impl AsRef<[u8]>,
        headers: impl IntoIterator<Item = (impl AsRef<[u8]>, impl AsRef<[u8]>)>,
    ) -> Result<&mut Self, HeaderError> {
        Ok(self.set_var(scope, name, Value::Binary(&encode_headers(headers)?)))
    }

    /// Sets a BINARY variable to a list of header names, which HAProxy 3.4 and later deletes with one rule:
    ///
    /// ```text
    /// http-request del-headers-bin var(txn.my_agent.gone)
    /// ```
    ///
    /// It deletes all headers of these names. With `-m beg`, `-m end` or `-m sub` it deletes those whose names begin with, end with
    /// or contain one of them. The list differs in format from that of [`set_headers`](Self::set_headers): it has names only.
    ///
    /// # Errors
    /// [`HeaderError`] names the first that is not a header name. Nothing was added.
    pub fn delete_headers(
        &mut self,
        scope: Scope,
        name: impl AsRef<[u8]>,
        headers: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<&mut Self, HeaderError> {
        Ok(self.set_var(scope, name, Value::Binary(&encode_header_names(headers)?)))
    }

    /// Appends the actions of another list.
    pub fn append(&mut self, other: &Self) -> &mut Self {
        self.suspect |= other.suspect;
        self.bytes.put(other.as_bytes());
        self
    }

    /// Appends type, number of arguments, scope and name of an action.
    #[expect(clippy::inline_always, reason = "as set_var")]
    #[inline(always)]
    fn put_head(&mut self, [action, args, scope]: [u8; 3], name: &[u8]) {
        self.suspect |= variable::is_suspect(name);
        if let Ok(len @ ..240) = u8::try_from(name.len()) {
            self.bytes.put(&[action, args, scope, len]);
            self.bytes.put(name);
        } else {
            self.bytes.put(&[action, args, scope]);
            put_string(&mut self.bytes, name);
        }
    }

    /// The actions so far, decoded.
    pub fn iter(&self) -> impl Iterator<Item = AckAction<'_>> {
        AckIter::new(self.as_bytes())
    }

    /// Whether there is no action.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// Removes all actions, and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.suspect = false;
        match &mut self.bytes {
            Bytes::Inline(inline) => inline.clear(),
            Bytes::Heap(heap) => heap.clear(),
        }
    }

    /// The payload of the ACK.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Inline(inline) => inline,
            Bytes::Heap(heap) => heap,
        }
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Actions {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Actions {}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;

    #[test]
    fn actions_have_their_bytes() {
        let mut actions = Actions::new();
        actions.set_var(Scope::Session, "ip_score", 77_i32);
        assert_eq!(actions.as_bytes(), b"\x01\x03\x01\x08ip_score\x02\x4d");
        assert!(alloc::format!("{actions:?}").contains("Int32(77)"), "{actions:?}");
        assert_eq!(actions, actions.clone());
        assert_ne!(actions, Actions::new());
        actions.clear();
        actions.unset_var(Scope::Response, "x");
        assert_eq!(actions.as_bytes(), b"\x02\x02\x04\x01x");
    }

    #[test]
    fn names_that_haproxy_would_drop_are_found() {
        let longest = "x".repeat(63 - "proc.p.".len());
        let mut actions = Actions::new();
        assert!(actions.try_set_var(Scope::Process, &longest, true).is_ok());
        assert!(actions.check_names("p").is_ok());
        let too_long = NameError::TooLong { name: longest.clone(), len: 64 };
        assert_eq!(actions.check_names("pp"), Err(too_long));
        let too_long = longest.clone() + "x";
        assert!(actions.try_set_var(Scope::Transaction, &too_long, true).is_ok(), "txn is shorter than proc");
        for (name, error) in [
            ("", NameError::Empty),
            ("a b", NameError::BadCharacter("a b".into())),
            ("ÿ", NameError::BadCharacter(r"\xc3\xbf".into())),
            (&too_long, NameError::TooLong { name: too_long.clone(), len: 64 }),
        ] {
            assert_eq!(actions.try_set_var(Scope::Process, name, true).map(drop), Err(error));
        }
        assert_eq!(actions.iter().count(), 2);
        actions.clear();
        actions.unset_var(Scope::Process, "a-b");
        assert!(actions.check_names("p").is_err());
    }

    #[test]
    fn dropped_names_are_those_of_any_prefix() {
        let long = "x".repeat(57);
        let mut actions = Actions::new();
        actions.set_var(Scope::Session, "good.name_1", 1_i32).unset_var(Scope::Session, "also_good");
        assert_eq!((actions.suspect, actions.dropped_names().count()), (false, 0));
        actions.set_var(Scope::Transaction, &long, 1_i32);
        assert_eq!(
            (actions.suspect, actions.dropped_names().count()),
            (true, 0),
            "long, and short enough in txn"
        );
        actions
            .unset_var(Scope::Process, &long)
            .set_var(Scope::Request, "a-b", 1_i32)
            .unset_var(Scope::Request, "");
        let dropped: Vec<_> = actions.dropped_names().collect();
        let names: Vec<_> = dropped.iter().map(|one| (one.scope(), one.name())).collect();
        assert_eq!(
            names,
            [(Scope::Process, long.as_bytes()), (Scope::Request, b"a-b"), (Scope::Request, b"")]
        );
        assert_eq!(dropped[1].error(), NameError::BadCharacter("a-b".into()));
        let mut all = Actions::new();
        assert_eq!(all.append(&actions).dropped_names().count(), 3);
        all.clear();
        assert_eq!((all.suspect, all.dropped_names().count()), (false, 0));
    }

    #[test]
    fn headers_are_binary_variables() {
        let mut actions = Actions::new();
        actions.set_headers(Scope::Transaction, "set", [("a", "1"), ("b", "")]).unwrap();
        actions.delete_headers(Scope::Request, "del", ["x-c"]).unwrap();
        let before = actions.clone();
        assert!(actions.set_headers(Scope::Transaction, "set", [("a", "1\n")]).is_err());
        assert!(actions.delete_headers(Scope::Transaction, "set", ["a", "b:"]).is_err());
        assert_eq!(actions, before);
        let read: Vec<_> = actions.iter().collect();
        let set = Value::Binary(b"\x01a\x011\x01b\0\0\0");
        let del = Value::Binary(b"\x03x-c\0");
        assert_eq!(
            read,
            [
                AckAction::SetVar { scope: Scope::Transaction, name: b"set", value: set },
                AckAction::SetVar { scope: Scope::Request, name: b"del", value: del },
            ]
        );
    }

    #[test]
    fn lists_are_joined_in_order() {
        let mut all = Actions::new();
        let mut more = Actions::new();
        more.set_var(Scope::Session, "b", 2_i32).unset_var(Scope::Session, "c");
        all.set_var(Scope::Session, "a", 1_i32).append(&Actions::new()).append(&more).append(&more);
        let names: Vec<_> = all
            .iter()
            .map(|action| match action {
                AckAction::SetVar { name, .. } | AckAction::UnsetVar { name, .. } => name,
            })
            .collect();
        assert_eq!(names, [b"a", b"b", b"c", b"b", b"c"]);
    }

    #[test]
    fn a_list_that_outgrows_its_inline_room_loses_nothing() {
        let text = vec![b'x'; 50];
        let mut actions = Actions::new();
        for name in ["a", "b", "c", "d"] {
            actions.set_var(Scope::Transaction, name, Value::String(&text));
        }
        let read: Vec<_> = actions.iter().collect();
        assert_eq!(read.len(), 4);
        assert_eq!(
            read[3],
            AckAction::SetVar { scope: Scope::Transaction, name: b"d", value: Value::String(&text) }
        );
        let copy = actions.clone();
        actions.clear();
        assert!(actions.is_empty() && !copy.is_empty());
    }
}
