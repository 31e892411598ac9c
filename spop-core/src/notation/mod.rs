//! Frames as sentences: one line that a person can type and read, for tests, fixtures and logs.
//!
//! ```text
//! HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:""
//! NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7 port=int32:-1 ; log =string:"no name"
//! ACK fin 5 1 set sess ip_score=int32:77 ; unset txn reason
//! AGENT-DISCONNECT fin 0 0 status-code=uint32:2 message=string:"a timeout occurred"
//! ```
//!
//! Any frame has a sentence, well-formed or not, and reading the sentence gives the same bytes again.
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
//! Spaces and tabs separate words; `{…}` may come any number of times, `[…]` at most once.
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
//!          | "items["    range "]" items        of any frame: a part of what follows
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
//! raw      = "raw:" text     | "hex:" bytes     data that is put there as it is
//!
//! text     = quoted, or printable ASCII without spaces, quotes, backslashes and semicolons
//! quoted   = '"' anything '"' ["*" times]       escapes: \" \\ \n \r \t and \x with two digits
//! bytes    = {two hexadecimal digits} ["*" times]
//! ```
//!
//! `fin` and `abort` are one bit each: what the specification wants of an aborted payload is `fin,abort`. All of the
//! repetitions (`string:"x"*5000`) in a line may amount to [`MAX_REPEATED`] bytes.
//!
//! # Data that is not well-formed
//!
//! Raw data may stand wherever an item, a message or an action may. Printing uses it for what is left where a payload
//! ceases to be well-formed, which is the way to read a first fragment too.
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
//! A range before a payload takes a part of it, so that fragments can be written without counting lengths by hand.
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
//! [`transcript()`] reads what two sides say to each other.
//!
//! ```
//! use spop_core::notation::{self, Direction};
//!
//! let steps = notation::transcript(
//!     "
//!     ## An agent that knows nothing of addresses.
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

use crate::frame::{Frame, Header};

pub use print::{Sentence, print};
pub use transcript::{Direction, Step, transcript};

/// How many bytes the repetitions (`"x"*5000`) of one line may amount to: a short line must not take all memory.
pub const MAX_REPEATED: usize = 16 << 20;

/// Reads one sentence.
///
/// # Errors
/// [`ParseError`] says where the line ceases to make sense.
pub fn parse(line: &str) -> Result<OwnedFrame, ParseError> {
    parse::frame(&mut cursor::Cursor::new(line))
}

/// Reads one sentence, and gives the frame as it is on the wire, length prefix included.
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

/// A frame that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFrame {
    /// What comes first.
    pub header: Header,
    /// What comes after it.
    pub payload: Vec<u8>,
}

impl OwnedFrame {
    /// The frame, borrowed.
    pub fn as_frame(&self) -> Frame<'_> {
        Frame { header: self.header, payload: &self.payload }
    }

    /// The frame as it is on the wire, length prefix included.
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

/// The frame's sentence.
impl fmt::Display for OwnedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self.as_frame()).fmt(f)
    }
}

/// Where a line ceases to make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseError {
    /// Which line of a transcript, from 1.
    pub line: Option<usize>,
    /// Which character of the line, from 1.
    pub column: usize,
    /// What would have made sense there.
    pub expected: &'static str,
    /// The start of what is there; empty at the end of the line.
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
