//! Versions of the protocol, and their negotiation (section 3.2.4).

use core::{fmt, str};

/// A version of SPOP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The major version. Different majors are incompatible.
    pub major: u16,
    /// The minor version. It implies all lower minors of its major.
    pub minor: u16,
}

impl Version {
    /// 2.0: the version of this crate, and of every HAProxy since 1.8.10.
    pub const V2_0: Self = Self { major: 2, minor: 0 };

    /// Parses `Major.Minor`; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (major, minor) = str::from_utf8(text.trim_ascii()).ok()?.split_once('.')?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok())?
        };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }

    /// Whether a side that announced `list` supports this version: the list has it, or a higher minor of its major.
    ///
    /// ```
    /// use spop_core::frame::Version;
    ///
    /// assert!(Version::V2_0.is_announced_by(b"1.5, 2.1"));
    /// assert!(!Version::V2_0.is_announced_by(b"3.0"));
    /// ```
    pub fn is_announced_by(self, list: &[u8]) -> bool {
        list.split(|&byte| byte == b',')
            .filter_map(Self::parse)
            .any(|other| other.major == self.major && other.minor >= self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_plain_numbers_are_a_version() {
        assert_eq!(Version::parse(b" 2.0 "), Some(Version::V2_0));
        for bad in ["", "2", "2.", ".0", "+2.0", "2.0.0", "2. 0", "2.x", "65536.0", "-2.0"] {
            assert_eq!(Version::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_list_announces_the_lower_minors_of_each_major() {
        for (list, common) in [
            ("2.0", true),
            ("2.3", true),
            ("1.0,2.0", true),
            (" 2.0 , 3.1 ", true),
            ("1.9", false),
            ("3.0", false),
            ("", false),
            ("x,2.0", true),
        ] {
            assert_eq!(Version::V2_0.is_announced_by(list.as_bytes()), common, "{list}");
        }
    }
}
