//! The names of variables, as HAProxy takes them.

use alloc::string::{String, ToString};

use super::Scope;

/// The most characters of `scope.prefix.name`.
const MAX: usize = 63;

/// A variable's name that HAProxy would drop silently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is empty.
    #[error("a variable has no name")]
    Empty,
    /// It has a character that is neither a letter or digit of ASCII, nor `.` or `_`.
    #[error("the name of variable {0:?} has more than letters, digits, `.` and `_`")]
    BadCharacter(String),
    /// With its scope and its prefix it exceeds 63 characters.
    #[error("the name of variable {name:?} has {len} characters with scope and prefix, more than 63")]
    TooLong {
        /// The name.
        name: String,
        /// How long `scope.prefix.name` is.
        len: usize,
    },
}

/// Checks a name that HAProxy will put behind this scope and this prefix: that of `option var-prefix`, else the name of the
/// `spoe-agent`.
///
/// HAProxy tells nobody about a name that it does not take: the variable is just not set.
///
/// # Errors
/// Says what is the matter with it. Whether HAProxy knows the variable is another question (`option force-set-var`).
pub fn check_name(scope: Scope, prefix: &str, name: &[u8]) -> Result<(), NameError> {
    check(scope, prefix.len(), name)
}

pub(super) fn check(scope: Scope, prefix: usize, name: &[u8]) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let text = || name.escape_ascii().to_string();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
    if !name.iter().all(plain) {
        return Err(NameError::BadCharacter(text()));
    }
    let len = scope.name().len() + 1 + prefix + 1 + name.len();
    if len > MAX { Err(NameError::TooLong { name: text(), len }) } else { Ok(()) }
}
