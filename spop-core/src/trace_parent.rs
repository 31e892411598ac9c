//! The header `traceparent`.

use core::{fmt, num::NonZero};

/// The place of a request in a distributed trace, as the header `traceparent` of [W3C Trace
/// Context](https://www.w3.org/TR/trace-context/) has it.
///
/// An agent that asks another service because of a request sends it the same trace, with a span of its own:
///
/// ```
/// use std::num::NonZero;
/// use spop_core::http::TraceParent;
///
/// let received = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let received = TraceParent::parse(received).unwrap();
/// // In an agent it is a random number.
/// let own = received.child(NonZero::new(7).unwrap());
/// assert_eq!(own.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
/// assert_eq!(own.trace_id(), received.trace_id());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: NonZero<u128>,
    span_id: NonZero<u64>,
    flags: u8,
}

impl TraceParent {
    /// Reads the value of a header. Of one that is not valid there is none, which is no error: a client can send anything, and its request
    /// is in no trace then.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = value.split(|byte| *byte == b'-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = NonZero::new(hex(fields.next()?, 32)?)?;
        let span_id = NonZero::new(hex(fields.next()?, 16)? as u64)?;
        let flags = hex(fields.next()?, 2)? as u8;
        // A later version may have more fields.
        let is_valid = match version {
            0 => fields.next().is_none(),
            _ => version != 0xff,
        };
        is_valid.then_some(Self { trace_id, span_id, flags })
    }

    /// The trace: in text 32 digits, `{:032x}`.
    pub const fn trace_id(self) -> NonZero<u128> {
        self.trace_id
    }

    /// The same trace with another span, for a request that is made because of this one.
    #[must_use]
    pub const fn child(self, span_id: NonZero<u64>) -> Self {
        Self { span_id, ..self }
    }
}

/// The value of a header, of version 00.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, span_id, flags } = self;
        // Sampled, and that the trace-id is random. Others must be 0.
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", flags & 0b11)
    }
}

/// A field of so many lower-case digits.
fn hex(field: &[u8], digits: usize) -> Option<u128> {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let text = core::str::from_utf8(field).ok()?;
    (field.len() == digits && field.iter().all(is_hex)).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString as _};

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_valid_header_is_read_and_written() {
        for (header, written) in [
            ("00-T-00f067aa0ba902b7-01", "00-T-00f067aa0ba902b7-01"),
            ("00-T-00f067aa0ba902b7-00", "00-T-00f067aa0ba902b7-00"),
            ("00-T-00f067aa0ba902b7-ff", "00-T-00f067aa0ba902b7-03"),
            ("01-T-00f067aa0ba902b7-01", "00-T-00f067aa0ba902b7-01"),
            ("fe-T-00f067aa0ba902b7-01-what-will-be", "00-T-00f067aa0ba902b7-01"),
        ] {
            let parent = TraceParent::parse(header.replace('T', TRACE).as_bytes());
            assert_eq!(
                parent.map(|parent| parent.to_string()),
                Some(written.replace('T', TRACE)),
                "{header}"
            );
        }
        let parent = TraceParent::parse(format!("00-{:032x}-{:016x}-01", 5, u64::MAX).as_bytes()).unwrap();
        assert_eq!(parent.trace_id().get(), 5);
        assert_eq!(parent.child(NonZero::<u64>::MIN).to_string(), format!("00-{:032x}-{:016x}-01", 5, 1));
    }

    #[test]
    fn what_is_not_valid_is_none() {
        for header in [
            "",
            "00",
            "00-T",
            "00-T-00f067aa0ba902b7",
            "00-T-00f067aa0ba902b7-",
            "00-T-00f067aa0ba902b7-1",
            "00-T-00f067aa0ba902b7-01-",
            "00-T-00f067aa0ba902b7-01-more",
            "00-T-00f067aa0ba902b7-01 ",
            " 00-T-00f067aa0ba902b7-01",
            "ff-T-00f067aa0ba902b7-01",
            "0-T-00f067aa0ba902b7-01",
            "00-T-00F067AA0BA902B7-01",
            "00-T-+0f067aa0ba902b7-01",
            "00-T-0000000000000000-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-T0-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00_T_00f067aa0ba902b7_01",
        ] {
            assert_eq!(TraceParent::parse(header.replace('T', TRACE).as_bytes()), None, "{header}");
        }
        assert_eq!(TraceParent::parse(b"00-\xff-\xff-\xff"), None);
    }
}
