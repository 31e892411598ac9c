//! Capabilities (section 3.2.1): fragmentation, pipelining, async.

use core::{fmt, ops};

/// A set of capabilities.
///
/// ```
/// use spop_core::frame::Capabilities;
///
/// let set = Capabilities::parse(b"pipelining, async,teleport");
/// assert!(set.contains(Capabilities::ASYNC));
/// assert_eq!(set.to_string(), "pipelining,async");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u8);

impl Capabilities {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// `fragmentation`: this side accepts payloads in several frames. It is independent of the other side's.
    pub const FRAGMENTATION: Self = Self(1);
    /// `pipelining`: several NOTIFYs may be in flight, and their ACKs may arrive in any order. Both sides must announce it.
    pub const PIPELINING: Self = Self(2);
    /// `async`: as pipelining, and an ACK may be sent on any connection of the same engine. Both sides must announce it.
    pub const ASYNC: Self = Self(4);

    const NAMES: [(Self, &'static str); 3] =
        [(Self::FRAGMENTATION, "fragmentation"), (Self::PIPELINING, "pipelining"), (Self::ASYNC, "async")];

    /// The capability with this name; `None` if the specification has none.
    pub fn by_name(name: &[u8]) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| known.as_bytes() == name).map(|(capability, _)| *capability)
    }

    /// Parses the comma-separated list of a HELLO frame. Spaces and unknown names are ignored.
    pub fn parse(list: &[u8]) -> Self {
        list.split(|&byte| byte == b',')
            .filter_map(|name| Self::by_name(name.trim_ascii()))
            .fold(Self::NONE, ops::BitOr::bitor)
    }

    /// Whether this set contains all of `other`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a NOTIFY may be sent before the one before it is answered, if both sides have these: pipelining or async is enough.
    pub const fn allow_overlap(self) -> bool {
        self.contains(Self::PIPELINING) || self.contains(Self::ASYNC)
    }

    /// This set without those in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl ops::BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl ops::BitOrAssign for Capabilities {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl ops::BitAnd for Capabilities {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The comma-separated list of a HELLO frame, without spaces.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (_, name) in Self::NAMES.iter().filter(|(capability, _)| self.contains(*capability)) {
            write!(f, "{comma}{name}")?;
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn lists_are_read_as_the_spec_allows_them() {
        let all = Capabilities::FRAGMENTATION | Capabilities::PIPELINING | Capabilities::ASYNC;
        assert_eq!(Capabilities::parse(b" async ,, fragmentation,pipelining,async,x"), all);
        assert_eq!(Capabilities::parse(b""), Capabilities::NONE);
        assert_eq!(Capabilities::parse(b"Async"), Capabilities::NONE);
        assert_eq!(Capabilities::parse(all.to_string().as_bytes()), all);
        assert_eq!(all.without(Capabilities::ASYNC).to_string(), "fragmentation,pipelining");
    }
}
