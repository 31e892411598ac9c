//! Status codes of DISCONNECT frames (section 3.5 of the specification).

use core::fmt;

/// The status code of a DISCONNECT.
///
/// The specification assigns the codes below; an agent may use others. HAProxy reports 256 + the code, in its log and in the
/// variable of `option set-on-error`: see [`haproxy::explain`](crate::haproxy::explain).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u32);

impl Status {
    /// 0: no error.
    pub const NORMAL: Self = Self(0);
    /// 1: I/O error.
    pub const IO: Self = Self(1);
    /// 2: a timeout occurred.
    pub const TIMEOUT: Self = Self(2);
    /// 3: frame is too big.
    pub const TOO_BIG: Self = Self(3);
    /// 4: invalid frame received.
    pub const INVALID: Self = Self(4);
    /// 5: version value not found.
    pub const NO_VERSION: Self = Self(5);
    /// 6: max-frame-size value not found.
    pub const NO_FRAME_SIZE: Self = Self(6);
    /// 7: capabilities value not found.
    pub const NO_CAPABILITIES: Self = Self(7);
    /// 8: unsupported version.
    pub const BAD_VERSION: Self = Self(8);
    /// 9: max-frame-size too big or too small.
    pub const BAD_FRAME_SIZE: Self = Self(9);
    /// 10: payload fragmentation is not supported.
    pub const FRAGMENTED: Self = Self(10);
    /// 11: invalid interlaced frames.
    pub const INTERLACED: Self = Self(11);
    /// 12: frame-id not found.
    pub const FRAME_ID: Self = Self(12);
    /// 13: resource allocation error.
    pub const RESOURCE: Self = Self(13);
    /// 99: an unknown error occurred.
    pub const UNKNOWN: Self = Self(99);

    /// The specification's text for this code; `None` for a code that it does not assign.
    pub const fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::NORMAL => "normal",
            Self::IO => "I/O error",
            Self::TIMEOUT => "a timeout occurred",
            Self::TOO_BIG => "frame is too big",
            Self::INVALID => "invalid frame received",
            Self::NO_VERSION => "version value not found",
            Self::NO_FRAME_SIZE => "max-frame-size value not found",
            Self::NO_CAPABILITIES => "capabilities value not found",
            Self::BAD_VERSION => "unsupported version",
            Self::BAD_FRAME_SIZE => "max-frame-size too big or too small",
            Self::FRAGMENTED => "payload fragmentation is not supported",
            Self::INTERLACED => "invalid interlaced frames",
            Self::FRAME_ID => "frame-id not found",
            Self::RESOURCE => "resource allocation error",
            Self::UNKNOWN => "an unknown error occurred",
            _ => return None,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{} ({reason})", self.0),
            None => write!(f, "{} (a code of the application)", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn the_words_of_section_3_5() {
        for (code, words) in [
            (0, "normal"),
            (1, "I/O error"),
            (2, "a timeout occurred"),
            (3, "frame is too big"),
            (4, "invalid frame received"),
            (5, "version value not found"),
            (6, "max-frame-size value not found"),
            (7, "capabilities value not found"),
            (8, "unsupported version"),
            (9, "max-frame-size too big or too small"),
            (10, "payload fragmentation is not supported"),
            (11, "invalid interlaced frames"),
            (12, "frame-id not found"),
            (13, "resource allocation error"),
            (99, "an unknown error occurred"),
        ] {
            assert_eq!(Status(code).reason(), Some(words));
            assert_eq!(Status(code).to_string(), alloc::format!("{code} ({words})"));
        }
        for code in [14, 98, 100, u32::MAX] {
            assert_eq!(Status(code).reason(), None);
        }
    }
}
