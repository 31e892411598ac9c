//! Detection of clients of other protocols by the first bytes of a connection.

/// The name of a PROXY header of either version.
pub(crate) const PROXY_HEADER: &str = "a PROXY header";

/// The protocol, other than SPOP, that a connection with these first four bytes speaks; `None` if it is unknown.
///
/// No valid frame begins with them: read as a length prefix, each is above 150 MB.
pub(crate) const fn recognize(first: [u8; 4]) -> Option<&'static str> {
    match &first {
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"DELE" | b"PATC" | b"CONN" | b"TRAC" | b"PRI " => {
            Some("an HTTP request")
        }
        [0x16, 0x03, 0..=4, _] => Some("a TLS handshake"),
        b"SSH-" => Some("an SSH handshake"),
        b"PROX" | b"\r\n\r\n" => Some(PROXY_HEADER),
        [a, b, c, d] if is_text(*a) && is_text(*b) && is_text(*c) && is_text(*d) => Some("text"),
        _ => None,
    }
}

const fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_known_by_four_bytes() {
        for (first, name) in [
            (b"GET ", Some("an HTTP request")),
            (b"DELE", Some("an HTTP request")),
            (b"PRI ", Some("an HTTP request")),
            (b"\x16\x03\x01\x02", Some("a TLS handshake")),
            (b"\x16\x03\x05\x02", None),
            (b"SSH-", Some("an SSH handshake")),
            (b"PROX", Some("a PROXY header")),
            (b"\r\n\r\n", Some("a PROXY header")),
            (b"EHLO", Some("text")),
            (b"\r\nx\t", Some("text")),
            (b"\0\0\0\x81", None),
            (b"abc\x7f", None),
            (b"\xff\xff\xff\xff", None),
        ] {
            assert_eq!(recognize(*first), name, "{}", first.escape_ascii());
            assert!(name.is_none() || u32::from_be_bytes(*first) > 150_000_000);
        }
    }
}
