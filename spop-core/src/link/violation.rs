//! What a peer did wrong, and the status that says so: the one place where an error becomes a code.

use core::fmt;

use super::table::Illegal;
use crate::{
    DecodeError, foreign,
    frame::{DisconnectError, FrameType, Header, HelloError, Ids},
    wire::Status,
};

/// A breach of the protocol by the peer. It ends the connection with [`status`](Self::status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A length prefix announces more than was negotiated.
    #[error("a frame of {len} bytes announced, more than the {max} agreed{}", Hint(*len))]
    #[non_exhaustive]
    FrameTooBig {
        /// What the prefix says.
        len: u32,
        /// The most that is accepted now.
        max: u32,
    },
    /// A frame is too short to have a header, or its header is malformed.
    #[error("a frame of {len} bytes has no valid header: malformed {error}")]
    #[non_exhaustive]
    BadHeader {
        /// The frame's length.
        len: u32,
        /// What is wrong.
        error: DecodeError,
    },
    /// A frame came that this phase, or this side, does not allow.
    #[error("{header}: {}", illegal(*why))]
    #[non_exhaustive]
    Illegal {
        /// The frame.
        header: Header,
        /// What about it.
        why: Illegal,
    },
    /// A HELLO came with identifiers other than 0/0.
    #[error("{0}: the identifiers of a HELLO must be 0/0")]
    HelloIds(Header),
    /// A HELLO cannot be accepted.
    #[error("{frame_type}: {error}")]
    #[non_exhaustive]
    Hello {
        /// Which of the two.
        frame_type: FrameType,
        /// What is wrong.
        error: HelloError,
    },
    /// The `engine-id` is longer than the configured limit.
    #[error("HAPROXY-HELLO: \"engine-id\" has {len} bytes, more than the limit of {max}")]
    #[non_exhaustive]
    EngineIdTooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A DISCONNECT cannot be understood.
    #[error("{frame_type}: {error}")]
    #[non_exhaustive]
    Disconnect {
        /// Which of the two.
        frame_type: FrameType,
        /// What is wrong.
        error: DisconnectError,
    },
    /// The payload of a NOTIFY or ACK is malformed.
    #[error("{header}: the payload is malformed {error}")]
    #[non_exhaustive]
    Payload {
        /// The frame, or the last fragment.
        header: Header,
        /// What is wrong.
        error: DecodeError,
    },
    /// A fragment came though this side has not announced that it accepts them.
    #[error("{0}: a fragment, though the capability was not announced")]
    FragmentationNotAnnounced(Header),
    /// A payload was begun while as many others are unfinished as are allowed.
    #[error("{header}: begins a payload while {max} others are unfinished")]
    #[non_exhaustive]
    TooManyPayloads {
        /// The frame.
        header: Header,
        /// The limit.
        max: usize,
    },
    /// A fragment belongs to no payload that was begun.
    #[error("{0}: a fragment of a payload that was not begun")]
    NoSuchPayload(Header),
    /// A frame that must arrive in one piece did not.
    #[error("{0}: did not arrive in one piece")]
    Split(FrameType),
    /// Something followed the AGENT-HELLO of a health check.
    #[error("{0} bytes follow the answer to a health check")]
    AfterHealthCheck(usize),
    /// An ACK answers nothing that was asked.
    #[error("ACK {0}: answers no NOTIFY")]
    NoSuchNotify(Ids),
}

impl Violation {
    /// The status code of section 3.5 for it.
    pub const fn status(&self) -> Status {
        match self {
            Self::FrameTooBig { .. } => Status::TOO_BIG,
            Self::Illegal { why: Illegal::Fragmented, .. } | Self::FragmentationNotAnnounced(_) => {
                Status::FRAGMENTED
            }
            Self::BadHeader { .. }
            | Self::Illegal { .. }
            | Self::HelloIds(_)
            | Self::EngineIdTooLong { .. }
            | Self::Disconnect { .. }
            | Self::Payload { .. }
            | Self::Split(_)
            | Self::AfterHealthCheck(_) => Status::INVALID,
            Self::Hello { error, .. } => error.status(),
            Self::TooManyPayloads { .. } => Status::INTERLACED,
            Self::NoSuchPayload(_) | Self::NoSuchNotify(_) => Status::FRAME_ID,
        }
    }

    /// What the peer speaks instead of SPOP, such as `an HTTP request`, if its bytes tell: it is a client of another
    /// protocol, on the wrong port. Such clients come again and again, and are no fault of HAProxy or the agent.
    pub const fn foreign(&self) -> Option<&'static str> {
        match self {
            Self::FrameTooBig { len, .. } => foreign::recognize(len.to_be_bytes()),
            _ => None,
        }
    }
}

const fn illegal(why: Illegal) -> &'static str {
    match why {
        Illegal::BeforeHello => "the handshake must come first",
        Illegal::SecondHello => "the handshake was done already",
        Illegal::WrongSide => "only the other side sends such frames",
        Illegal::Fragmented => "such a frame must not be fragmented",
    }
}

/// What the first bytes of a client of another protocol read as, behind the message.
struct Hint(u32);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        foreign::recognize(self.0.to_be_bytes()).map_or(Ok(()), |what| write!(f, " (it looks like {what})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_another_protocol_is_recognized() {
        let big = |first: &[u8; 4]| Violation::FrameTooBig { len: u32::from_be_bytes(*first), max: 16_384 };
        assert_eq!(big(b"GET ").foreign(), Some("an HTTP request"));
        assert_eq!(big(b"SSH-").foreign(), Some("an SSH handshake"));
        assert_eq!(big(b"\x16\x03\x01\x02").foreign(), Some("a TLS handshake"));
        assert_eq!(big(b"\x01\0\0\0").foreign(), None);
        assert_eq!(Violation::AfterHealthCheck(1).foreign(), None);
    }
}
