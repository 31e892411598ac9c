//! Errors of encoded data.

use core::fmt;

/// The error in a piece of encoded data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The data ends inside a value.
    #[error("the data ends in the middle of {0}")]
    Truncated(Piece),
    /// A variable-length integer needs more than 64 bits.
    #[error("a varint exceeds 64 bits")]
    VarintTooLong,
    /// A typed value has one of the types 10 to 15, which section 3.1 reserves.
    #[error("the value type {0} is reserved")]
    ReservedType(u8),
    /// A value typed INT32 lies outside −2³¹ … 2³¹−1.
    #[error("an INT32 does not fit 32 bits")]
    Int32OutOfRange,
    /// A value typed UINT32 lies outside 0 … 2³²−1.
    #[error("a UINT32 does not fit 32 bits")]
    Uint32OutOfRange,
    /// An action is neither SET-VAR (1) nor UNSET-VAR (2).
    #[error("the action type {0} is unknown")]
    UnknownAction(u8),
    /// An action has the wrong number of arguments for its type.
    #[error("action {action} takes {expected} arguments, not {found}")]
    #[non_exhaustive]
    WrongArgumentCount {
        /// The action's type: 1 for SET-VAR, 2 for UNSET-VAR.
        action: u8,
        /// The number that the type takes.
        expected: u8,
        /// The number in the NB-ARGS byte.
        found: u8,
    },
    /// A list of headers has a value without a name.
    #[error("a header has no name")]
    NamelessHeader,
    /// Data follows the end of a list of headers.
    #[error("more bytes follow the end of the headers")]
    BytesAfterHeaders,
    /// A variable scope is not 0 to 4.
    #[error("the variable scope {0} is unknown")]
    UnknownScope(u8),
}

/// The elements of encoded data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // The names of section 3.
pub enum Piece {
    FrameHeader,
    Varint,
    TypedData,
    Ipv4,
    Ipv6,
    String,
    Binary,
    Message,
    Action,
    Headers,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FrameHeader => "a frame header",
            Self::Varint => "a varint",
            Self::TypedData => "typed data",
            Self::Ipv4 => "an IPv4 address",
            Self::Ipv6 => "an IPv6 address",
            Self::String => "a string",
            Self::Binary => "a binary value",
            Self::Message => "a message",
            Self::Action => "an action",
            Self::Headers => "a list of headers",
        })
    }
}

/// Encoded data that violates section 3 of the specification: the error, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("at byte {offset}: {what}")]
#[non_exhaustive]
pub struct DecodeError {
    /// The error.
    pub what: Malformed,
    /// The number of valid bytes before the error.
    pub offset: usize,
}
