//! Protocol violations of the peer, and their mapping to status codes: the only place where an error becomes a code.

use core::fmt;

use super::table::Illegal;
use crate::{
    DecodeError, foreign,
    frame::{DisconnectError, FrameType, Header, HelloError, Ids},
    wire::Status,
};

/// A violation of the protocol by the peer. It ends the session with a DISCONNECT that has this [`status`](Self::status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A length prefix exceeds the frame size in effect.
    #[error("a frame of {len} bytes announced, more than the {max} agreed{}", Hint(*len))]
    #[non_exhaustive]
    FrameTooBig {
        /// The announced length, in bytes.
        len: u32,
        /// The limit: the agreed `max-frame-size`, or less before the handshake.
        max: u32,
    },
    /// A frame is too short for a header, or its header is malformed.
    #[error("a frame of {len} bytes has no valid header: malformed {error}")]
    #[non_exhaustive]
    BadHeader {
        /// The frame's length.
        len: u32,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A frame is illegal in this phase or from this side.
    #[error("{header}: {}", illegal(*why))]
    #[non_exhaustive]
    Illegal {
        /// The frame.
        header: Header,
        /// Why it is illegal.
        why: Illegal,
    },
    /// The identifiers of a HELLO are not 0/0.
    #[error("{0}: the identifiers of a HELLO must be 0/0")]
    HelloIds(Header),
    /// A HELLO is malformed or unacceptable.
    #[error("{frame_type}: {error}")]
    #[non_exhaustive]
    Hello {
        /// Which of the two.
        frame_type: FrameType,
        /// What is wrong with it.
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
    /// A DISCONNECT is malformed.
    #[error("{frame_type}: {error}")]
    #[non_exhaustive]
    Disconnect {
        /// Which of the two.
        frame_type: FrameType,
        /// What is wrong with it.
        error: DisconnectError,
    },
    /// The payload of a NOTIFY or ACK is malformed.
    #[error("{header}: the payload is malformed {error}")]
    #[non_exhaustive]
    Payload {
        /// The frame, or the last fragment.
        header: Header,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A fragment was received although this side did not announce the fragmentation capability.
    #[error("{0}: a fragment, though the capability was not announced")]
    FragmentationNotAnnounced(Header),
    /// A fragmented payload began while [`max_payloads`](crate::config::Limits::max_payloads) others were unfinished.
    #[error("{header}: begins a payload while {max} others are unfinished")]
    #[non_exhaustive]
    TooManyPayloads {
        /// The frame.
        header: Header,
        /// The limit.
        max: usize,
    },
    /// A fragment belongs to no payload that has begun.
    #[error("{0}: a fragment of a payload that was not begun")]
    NoSuchPayload(Header),
    /// A frame that must arrive in one read arrived in several. Engine only, where it models an HAProxy that requires this.
    #[error("{0}: did not arrive in one piece")]
    NotWhole(FrameType),
    /// Bytes followed the AGENT-HELLO of a health check. Engine only.
    #[error("{0} bytes follow the answer to a health check")]
    AfterHealthCheck(usize),
    /// An ACK matches no NOTIFY. Engine only.
    #[error("ACK {0}: answers no NOTIFY")]
    NoSuchNotify(Ids),
}

impl Violation {
    /// The status code (section 3.5) that the DISCONNECT carries.
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
            | Self::NotWhole(_)
            | Self::AfterHealthCheck(_) => Status::INVALID,
            Self::Hello { error, .. } => error.status(),
            Self::TooManyPayloads { .. } => Status::INTERLACED,
            Self::NoSuchPayload(_) | Self::NoSuchNotify(_) => Status::FRAME_ID,
        }
    }

    /// The other protocol that the peer speaks, such as `an HTTP request`, if its first bytes identify one.
    ///
    /// Such a client has the wrong port. It is no fault of HAProxy or of the agent, and may be logged at a lower level.
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

/// Appends the protocol that the first bytes identify to the message.
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
