//! Names of variables, checked as HAProxy checks them.

use alloc::string::{String, ToString};

use super::{AckAction, Scope};
use crate::excerpt::Escaped;

/// The limit of characters of `scope.prefix.name`.
const MAX: usize = 63;
/// The length of the shortest prefix.
const PREFIX_MIN: usize = 1;

/// Why HAProxy silently drops a variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("a variable has no name")]
    Empty,
    /// The name has a character other than ASCII letters and digits, `.` and `_`.
    #[error("the name of variable {0:?} has more than letters, digits, `.` and `_`")]
    BadCharacter(String),
    /// The full name, `scope.prefix.name`, exceeds 63 characters.
    #[error("the name of variable {name:?} has {len} characters with scope and prefix, more than 63")]
    #[non_exhaustive]
    TooLong {
        /// The name.
        name: String,
        /// The length of `scope.prefix.name`.
        len: usize,
    },
}

/// Checks a name as HAProxy does with this scope and prefix: that of `option var-prefix`, by default the name of the
/// `spoe-agent`.
///
/// HAProxy silently drops a variable whose name it rejects.
///
/// # Errors
/// [`NameError`] if HAProxy rejects the name. Whether it knows a variable in scope `proc` is not checked: see
/// [`VarRules`](crate::haproxy::VarRules).
pub fn check_name(scope: Scope, prefix: &str, name: &[u8]) -> Result<(), NameError> {
    check(scope, prefix.len(), name)
}

pub(super) fn check(scope: Scope, prefix: usize, name: &[u8]) -> Result<(), NameError> {
    Fault::of(scope, prefix, name).map_or(Ok(()), |fault| Err(fault.error(name)))
}

/// A variable that HAProxy silently drops with any prefix: an item of
/// [`Actions::dropped_names`](super::Actions::dropped_names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedName<'a> {
    scope: Scope,
    name: &'a [u8],
    fault: Fault,
}

impl<'a> DroppedName<'a> {
    pub(super) fn of(action: AckAction<'a>) -> Option<Self> {
        let (AckAction::SetVar { scope, name, .. } | AckAction::UnsetVar { scope, name }) = action;
        Fault::of(scope, PREFIX_MIN, name).map(|fault| Self { scope, name, fault })
    }

    /// Its scope.
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// Its name, as it is in the action.
    pub const fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Why HAProxy drops it.
    pub fn error(&self) -> NameError {
        self.fault.error(self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Empty,
    BadCharacter,
    TooLong { len: usize },
}

impl Fault {
    fn of(scope: Scope, prefix: usize, name: &[u8]) -> Option<Self> {
        let len = scope.name().len() + 1 + prefix + 1 + name.len();
        if name.is_empty() {
            Some(Self::Empty)
        } else if name.iter().any(|&byte| is_bad(byte)) {
            Some(Self::BadCharacter)
        } else {
            (len > MAX).then_some(Self::TooLong { len })
        }
    }

    fn error(self, name: &[u8]) -> NameError {
        let text = || Escaped(name).to_string();
        match self {
            Self::Empty => NameError::Empty,
            Self::BadCharacter => NameError::BadCharacter(text()),
            Self::TooLong { len } => NameError::TooLong { name: text(), len },
        }
    }
}

/// Whether HAProxy may drop a variable with this name. It does if the name is empty or has a bad character; a name of 57 bytes
/// is too long in some scopes only.
///
/// There is no loop up to 32 bytes, so the check of a literal is evaluated at compile time. Otherwise a name of 8 bytes costs
/// about 30 instructions.
#[expect(clippy::inline_always, reason = "as Actions::set_var: most names are literals")]
#[inline(always)]
pub(super) fn is_suspect(name: &[u8]) -> bool {
    // Two overlapping parts of N bytes cover all lengths from N to 2 N.
    match name.len() {
        1 => any_bad::<1>(name.first_chunk()),
        2..=3 => any_bad::<2>(name.first_chunk()) | any_bad::<2>(name.last_chunk()),
        4..=8 => any_bad::<4>(name.first_chunk()) | any_bad::<4>(name.last_chunk()),
        9..=16 => any_bad::<8>(name.first_chunk()) | any_bad::<8>(name.last_chunk()),
        17..=32 => any_bad::<16>(name.first_chunk()) | any_bad::<16>(name.last_chunk()),
        _ => is_odd_suspect(name),
    }
}

/// `is_suspect` for a name that is empty or long.
#[inline(never)]
fn is_odd_suspect(name: &[u8]) -> bool {
    Fault::of(Scope::Session, PREFIX_MIN, name).is_some()
}

/// Whether one of the bytes is bad: a table look-up for each, without a branch.
#[expect(clippy::inline_always, reason = "part of is_suspect")]
#[inline(always)]
fn any_bad<const N: usize>(bytes: Option<&[u8; N]>) -> bool {
    let bad = |byte: &u8| BAD.get(usize::from(*byte)).copied().unwrap_or(true);
    bytes.is_none_or(|bytes| bytes.iter().fold(false, |any, byte| any | bad(byte)))
}

/// Whether a byte is not a letter, digit, `.` or `_`.
const fn is_bad(byte: u8) -> bool {
    !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'))
}

/// [`is_bad`] of each byte.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
static BAD: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = is_bad(byte);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;

    /// `is_suspect` agrees with `check`, except for lengths whose limit depends on the scope.
    fn same(name: &[u8]) {
        let dropped = Scope::ALL.map(|scope| check(scope, PREFIX_MIN, name).is_err());
        let expected = if name.len() == 57 { dropped.contains(&true) } else { dropped[0] };
        assert_eq!(is_suspect(name), expected, "{}", name.escape_ascii());
        assert!(name.len() == 57 || dropped.iter().all(|one| *one == dropped[0]));
    }

    #[test]
    fn each_byte_at_each_place_of_each_length_is_judged() {
        for len in 0..70 {
            let name: Vec<u8> = b"abyzABYZ059._".iter().copied().cycle().take(len).collect();
            same(&name);
            for at in 0..len {
                for byte in 0..=255 {
                    let mut name = vec![b'x'; len];
                    name[at] = byte;
                    same(&name);
                }
            }
        }
    }
}
