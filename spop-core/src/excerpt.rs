//! Texts of a peer or an application in messages: cut, so that neither decides how long a log line is and how long it takes.

use alloc::string::ToString as _;
use core::{
    error::Error,
    fmt::{self, Write as _},
};

/// The longest escaped text of [`Escaped`], in bytes. HAProxy's names and messages are shorter.
const ESCAPED_MAX: usize = 256;
/// The longest text of [`Shortened`], in bytes. It holds an [`Escaped`] and the sentence around it.
const SHORTENED_MAX: usize = 512;
/// How many causes of an error [`Causes`] displays. A chain is longer only if it has no end.
const CAUSES_MAX: usize = 16;

/// Displays bytes of the peer: what is not printable ASCII is escaped, and a text above 256 bytes is cut and followed by `…` and
/// the number of bytes in all.
///
/// ```
/// use spop_core::excerpt::Escaped;
///
/// assert_eq!(Escaped(b"check-\xff").to_string(), "check-\\xff");
/// let name = Escaped(&[b'a'; 1_000_000]).to_string();
/// assert_eq!(name, format!("{}… (1000000 bytes)", "a".repeat(256)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = ESCAPED_MAX;
        for byte in self.0 {
            let escaped = byte.escape_ascii();
            match left.checked_sub(escaped.len()) {
                Some(rest) => left = rest,
                None => return write!(f, "… ({} bytes)", self.0.len()),
            }
            escaped.fmt(f)?;
        }
        Ok(())
    }
}

/// Displays a text that may have any length, as an error of an application: above 512 bytes it is cut and followed by `…`. The
/// value is not formatted any further.
///
/// ```
/// use spop_core::excerpt::Shortened;
///
/// assert_eq!(Shortened("the database is down").to_string(), "the database is down");
/// let text = Shortened("a".repeat(1_000_000)).to_string();
/// assert_eq!(text, format!("{}…", "a".repeat(512)));
/// // What was cut stays as it is.
/// assert_eq!(Shortened(&text).to_string(), text);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortened<T>(pub T);

impl<T: fmt::Display> fmt::Display for Shortened<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = Head { f, left: SHORTENED_MAX, cut: false };
        match write!(head, "{}", self.0) {
            _ if head.cut => head.f.write_char('…'),
            other => other,
        }
    }
}

/// Displays an error and what caused it, `a: b: c`, cut as by [`Shortened`]. A cause that the text before ends with is not repeated.
///
/// ```
/// use std::{error::Error, fmt, io};
/// use spop_core::excerpt::Causes;
///
/// #[derive(Debug)]
/// struct Lookup(io::Error);
///
/// impl fmt::Display for Lookup {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         f.write_str("lookup failed")
///     }
/// }
///
/// impl Error for Lookup {
///     fn source(&self) -> Option<&(dyn Error + 'static)> {
///         Some(&self.0)
///     }
/// }
///
/// let error = Lookup(io::Error::other("connection refused"));
/// assert_eq!(Causes(&error).to_string(), "lookup failed: connection refused");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Shortened(self.0).to_string();
        let mut cause = self.0.source();
        for _ in 0..CAUSES_MAX {
            let Some(error) = cause.filter(|_| text.len() <= SHORTENED_MAX) else { break };
            cause = error.source();
            let error = Shortened(error).to_string();
            if !text.ends_with(&error) {
                text.push_str(": ");
                text.push_str(&error);
            }
        }
        Shortened(text).fmt(f)
    }
}

/// The beginning of a text. The write that exceeds it is an error, which ends the formatting.
/// Displays the text of an error that may quote a peer: as [`Shortened`], with control characters escaped.
#[cfg(feature = "serde")]
pub(crate) struct Printable<T>(pub T);

#[cfg(feature = "serde")]
impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b, 'f>(&'a mut Head<'b, 'f>);

        impl fmt::Write for Escape<'_, '_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for piece in text.split_inclusive(char::is_control) {
                    let plain = piece.trim_end_matches(char::is_control);
                    self.0.write_str(plain)?;
                    for control in piece.chars().rev().take_while(|char| char.is_control()) {
                        write!(self.0, "{}", control.escape_default())?;
                    }
                }
                Ok(())
            }
        }

        let mut head = Head { f, left: SHORTENED_MAX, cut: false };
        match write!(Escape(&mut head), "{}", self.0) {
            _ if head.cut => head.f.write_char('…'),
            other => other,
        }
    }
}

struct Head<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    left: usize,
    cut: bool,
}

impl fmt::Write for Head<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Err(fmt::Error);
        }
        let head = prefix(text, self.left);
        self.f.write_str(head)?;
        self.left -= head.len();
        self.cut = head.len() < text.len();
        if self.cut { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The longest prefix of a text that has at most `max` bytes and ends at a character boundary.
pub(crate) fn prefix(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use alloc::{
        format,
        string::{String, ToString as _},
        vec,
    };
    use core::{
        cell::Cell,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn escaped_bytes_are_cut_between_two_and_counted() {
        assert_eq!(Escaped(&[b'a'; 256]).to_string(), "a".repeat(256));
        assert_eq!(Escaped(&[b'a'; 257]).to_string(), format!("{}… (257 bytes)", "a".repeat(256)));
        let escaped = Escaped(&vec![b'\n'; 1000]).to_string();
        assert_eq!(escaped, format!("{}… (1000 bytes)", "\\n".repeat(128)));
        let mut uneven = vec![b'a'];
        uneven.extend([0xff; 100]);
        assert_eq!(Escaped(&uneven).to_string(), format!("a{}… (101 bytes)", "\\xff".repeat(63)));
    }

    #[test]
    fn a_text_is_cut_at_a_character_and_once() {
        for text in ["é".repeat(256), "a".repeat(512), String::new()] {
            assert_eq!(Shortened(&text).to_string(), text);
        }
        let text = Shortened(format!("a{}", "é".repeat(300))).to_string();
        assert_eq!(text, format!("a{}…", "é".repeat(255)));
        assert_eq!(Shortened(&text).to_string(), text);
        let name = format!("argument \"ip\" of message \"{}\" is missing", Escaped(&[0; 300]));
        assert_eq!(Shortened(&name).to_string(), name, "a sentence with an escaped name is not cut");
    }

    /// Writes the same text as often as it is allowed to.
    struct Endless(Cell<usize>);

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                self.0.set(self.0.get() + 1);
                f.write_str("0123456789")?;
            }
        }
    }

    #[test]
    fn a_text_is_formatted_as_far_as_it_is_shown() {
        let endless = Endless(Cell::new(0));
        assert_eq!(Shortened(&endless).to_string().len(), 512 + '…'.len_utf8());
        assert_eq!(endless.0.get(), 52);
    }

    #[derive(Debug)]
    struct Link(&'static str, Option<&'static Self>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.map(|cause| cause as _)
        }
    }

    /// An error that causes itself, with another number each time.
    #[derive(Debug)]
    struct Circle(AtomicUsize);

    impl fmt::Display for Circle {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "x{}", self.0.fetch_add(1, Ordering::Relaxed))
        }
    }

    impl Error for Circle {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    #[test]
    fn causes_are_not_repeated_and_their_number_is_bounded() {
        static ROOT: Link = Link("root", None);
        static INNER: Link = Link("inner", Some(&ROOT));
        assert_eq!(Causes(&Link("outer: inner", Some(&INNER))).to_string(), "outer: inner: root");
        assert_eq!(Causes(&ROOT).to_string(), "root");
        let circle = Causes(&Circle(AtomicUsize::new(0))).to_string();
        assert_eq!(circle.matches('x').count(), 1 + CAUSES_MAX, "{circle}");
        let long: &'static str = "y".repeat(600).leak();
        assert_eq!(Causes(&Link(long, Some(&ROOT))).to_string(), format!("{}…", "y".repeat(512)));
    }
}
