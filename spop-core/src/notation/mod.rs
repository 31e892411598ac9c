//! A text notation for frames: one readable line each, for tests, fixtures and logs.
//!
//! ```text
//! HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:""
//! NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7 port=int32:-1 ; log =string:"no name"
//! ACK fin 5 1 set sess ip_score=int32:77 ; unset txn reason
//! AGENT-DISCONNECT fin 0 0 status-code=uint32:2 message=string:"a timeout occurred"
//! ```
//!
//! Every frame, well-formed or not, can be printed, and parsing the line gives the same bytes again.
//!
//! ```
//! use spop_core::notation;
//!
//! let line = "NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7 port=int32:-1";
//! let frame = notation::parse(line)?;
//! assert!(frame.payload.starts_with(b"\x08check-ip\x02"));
//! assert_eq!(notation::print(frame.as_frame()).to_string(), line);
//!
//! let error = notation::parse("NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113").unwrap_err();
//! assert_eq!(error.to_string(), "column 33: expected an IPv4 address, found `203.0.113`");
//! # Ok::<(), notation::ParseError>(())
//! ```
//!
//! # Grammar
//!
//! Spaces and tabs separate tokens; `{…}` is repeated any number of times, `[…]` is optional.
//!
//! ```text
//! frame    = TYPE flags stream-id frame-id payload
//! TYPE     = a name of the specification, or "TYPE:" number
//! flags    = "-", or "fin", "abort" and 0x… numbers, joined by commas
//!
//! payload  = items                              of HELLO and DISCONNECT frames
//!          | messages                           of a NOTIFY
//!          | actions                            of an ACK
//!          | {raw}                              of any other
//!          | "items["    range "]" items        of any frame: a byte range of what follows
//!          | "messages[" range "]" messages
//!          | "actions["  range "]" actions
//! range    = [first byte] ".." [byte after the last]
//!
//! items    = {pair | raw}
//! messages = message {";" message}              or nothing
//! message  = name {pair}  | raw {raw}
//! actions  = action {";" action}                or nothing
//! action   = "set" scope pair  |  "unset" scope name  |  raw {raw}
//! scope    = "proc" | "sess" | "txn" | "req" | "res"
//!
//! pair     = [name] "=" value                   an unnamed one begins with "="
//! name     = letters, digits, "-", "_" and "."  |  quoted
//! value    = "null"          | "bool:" true or false
//!          | "int32:" number | "uint32:" number | "int64:" number | "uint64:" number
//!          | "ipv4:" address | "ipv6:" address  | "string:" text  | "binary:" bytes
//! raw      = "raw:" text     | "hex:" bytes     bytes that are inserted verbatim
//!
//! text     = quoted, or printable ASCII without spaces, quotes, backslashes and semicolons
//! quoted   = '"' anything '"' ["*" times]       escapes: \" \\ \n \r \t and \x with two digits
//! bytes    = {two hexadecimal digits} ["*" times]
//! ```
//!
//! `fin` and `abort` are one bit each: the specification requires `fin,abort` for an aborted payload. The repetitions
//! (`string:"x"*5000`) of a line may add up to [`MAX_REPEATED`] bytes.
//!
//! # Malformed data
//!
//! Raw data is allowed in place of an item, a message or an action. A malformed payload is printed as raw data from the first
//! malformed byte on, and so is the cut end of a first fragment.
//!
//! ```
//! # use spop_core::notation;
//! let cut = notation::parse(r#"ACK fin 5 1 set sess a=bool:true ; hex:0105"#)?;
//! assert_eq!(cut.payload, b"\x01\x03\x01\x01a\x11\x01\x05");
//! assert_eq!(cut.to_string(), "ACK fin 5 1 set sess a=bool:true ; hex:0105");
//! # Ok::<(), notation::ParseError>(())
//! ```
//!
//! # Fragments
//!
//! A range before a payload selects a part of it, so that fragments can be written without counting bytes.
//!
//! ```
//! # use spop_core::notation;
//! let whole = notation::parse(r#"NOTIFY fin 5 1 waf body=string:"x"*600"#)?;
//! let first = notation::parse(r#"NOTIFY -  5 1 messages[..300] waf body=string:"x"*600"#)?;
//! let last = notation::parse(r#"UNSET fin 5 1 messages[300..] waf body=string:"x"*600"#)?;
//! assert_eq!([first.payload, last.payload].concat(), whole.payload);
//! # Ok::<(), notation::ParseError>(())
//! ```
//!
//! # Transcripts
//!
//! [`transcript()`] parses the frames that two sides send to each other.
//!
//! ```
//! use spop_core::notation::{self, Direction};
//!
//! let steps = notation::transcript(
//!     "
//!     ## An agent without a handler for addresses.
//!     > NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7
//!     < ACK fin 5 1
//!     ",
//! )?;
//! assert_eq!(steps[0].direction, Direction::ToAgent);
//! assert_eq!(steps[1].to_string(), "< ACK fin 5 1");
//! # Ok::<(), notation::ParseError>(())
//! ```

mod cursor;
mod parse;
mod print;
#[cfg(test)]
mod tests;
mod transcript;

use alloc::{string::String, vec::Vec};
use core::{fmt, str};

use crate::frame::{Frame, Header, MessageList, Messages};

pub use print::{Sentence, print};
pub use transcript::{Direction, Step, transcript};

/// The limit of bytes that the repetitions (`"x"*5000`) of one line add up to, so that a short line cannot exhaust memory.
pub const MAX_REPEATED: usize = 16 << 20;

/// Parses one line.
///
/// # Errors
/// [`ParseError`] names the position of the first error.
pub fn parse(line: &str) -> Result<OwnedFrame, ParseError> {
    parse::frame(&mut cursor::Cursor::new(line))
}

/// Parses one line, and returns the frame in its wire format, length prefix included.
///
/// ```
/// # use spop_core::notation;
/// assert_eq!(notation::parse_bytes("ACK fin 5 1"), Ok(vec![0, 0, 0, 7, 103, 0, 0, 0, 1, 5, 1]));
/// ```
///
/// # Errors
/// As [`parse`].
pub fn parse_bytes(line: &str) -> Result<Vec<u8>, ParseError> {
    Ok(parse(line)?.to_bytes())
}

/// Parses messages, as those of a NOTIFY.
impl str::FromStr for MessageList {
    type Err = ParseError;

    fn from_str(sentence: &str) -> Result<Self, ParseError> {
        let mut cursor = cursor::Cursor::new(sentence);
        let payload = parse::messages(&mut cursor)?;
        if Messages::decode(&payload).is_err() {
            return Err(cursor.error("messages that are well-formed"));
        }
        Ok(Self::checked(payload))
    }
}

/// A frame that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFrame {
    /// The header.
    pub header: Header,
    /// The payload.
    pub payload: Vec<u8>,
}

impl OwnedFrame {
    /// The frame, borrowed.
    pub fn as_frame(&self) -> Frame<'_> {
        Frame { header: self.header, payload: &self.payload }
    }

    /// The frame in its wire format, length prefix included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.as_frame().encode(&mut bytes);
        bytes
    }
}

impl str::FromStr for OwnedFrame {
    type Err = ParseError;

    fn from_str(line: &str) -> Result<Self, ParseError> {
        parse(line)
    }
}

/// Prints the frame in the notation.
impl fmt::Display for OwnedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self.as_frame()).fmt(f)
    }
}

/// A syntax error, and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseError {
    /// The line of the transcript, from 1.
    pub line: Option<usize>,
    /// The character of the line, from 1.
    pub column: usize,
    /// What was expected there.
    pub expected: &'static str,
    /// The start of the text that was found; empty at the end of the line.
    pub found: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}, ")?;
        }
        write!(f, "column {}: expected {}, found ", self.column, self.expected)?;
        if self.found.is_empty() { f.write_str("the end of the line") } else { write!(f, "`{}`", self.found) }
    }
}

impl core::error::Error for ParseError {}
