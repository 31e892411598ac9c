//! Users and groups of the system.

use std::fmt;
#[cfg(unix)]
use std::io;

#[cfg(unix)]
use nix::unistd::{Group, User};

/// A user or a group, by name or by number: what [`Endpoint::owner`](crate::Endpoint::owner) and
/// [`Endpoint::group`](crate::Endpoint::group) take.
///
/// A name of digits only that the system does not know is a number, as for `chown`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NameOrId {
    /// Looked up when the listener opens.
    Name(String),
    /// The number, which need not be known to the system.
    Id(u32),
}

impl From<u32> for NameOrId {
    fn from(id: u32) -> Self {
        Self::Id(id)
    }
}

impl From<&str> for NameOrId {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for NameOrId {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for NameOrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Id(id) => id.fmt(f),
        }
    }
}

#[cfg(unix)]
impl NameOrId {
    pub(crate) fn user_id(&self) -> io::Result<u32> {
        self.id("user", |name| Ok(User::from_name(name)?.map(|user| user.uid.as_raw())))
    }

    pub(crate) fn group_id(&self) -> io::Result<u32> {
        self.id("group", |name| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw())))
    }

    fn id(&self, what: &str, look_up: impl FnOnce(&str) -> nix::Result<Option<u32>>) -> io::Result<u32> {
        let name = match self {
            Self::Id(id) => return Ok(*id),
            Self::Name(name) => name,
        };
        match look_up(name) {
            Ok(Some(id)) => Ok(id),
            // Some name services report an unknown name as an error.
            found => name.parse().map_err(|_| match found.err().map(io::Error::from) {
                None => io::Error::new(
                    io::ErrorKind::NotFound,
                    format!(
                        "the system knows no {what} {name:?}: create it, or give another name or a number"
                    ),
                ),
                Some(error) => {
                    io::Error::new(error.kind(), format!("cannot look up the {what} {name:?}: {error}"))
                }
            }),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_become_ids() {
        assert_eq!(NameOrId::from("root").user_id().unwrap(), 0);
        assert_eq!(NameOrId::from(4_000_000).user_id().unwrap(), 4_000_000);
        assert_eq!(NameOrId::from("4000000").group_id().unwrap(), 4_000_000);
        assert_eq!(
            Group::from_gid(0.into()).unwrap().map(|group| NameOrId::from(group.name).group_id().unwrap()),
            Some(0)
        );
    }

    #[test]
    fn an_unknown_name_is_named() {
        let error = NameOrId::from("nobody-of-that-name").user_id().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("no user \"nobody-of-that-name\""), "{error}");
        let error = NameOrId::from("no\0name").group_id().unwrap_err().to_string();
        assert!(error.contains("group \"no\\0name\""), "{error}");
    }
}
