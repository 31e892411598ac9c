//! The first bytes of a connection, by which its protocol is known.

use spop_core::{frame::FrameType, link::Side};

use crate::watch::{
    direction::{BEGIN, frame_type, is_begin},
    stream::Piece,
};

/// The longest PROXY header that is skipped, in bytes.
const PROXY_MAX: usize = 4_096;

/// The signature of a PROXY header of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// SPOP, from its first byte on, after a PROXY header of so many bytes.
    Spop {
        engine: usize,
        prefix: u64,
    },
    /// SPOP, from some byte on.
    Middle {
        engine: usize,
    },
    Tls,
    Other,
}

/// What was sent before the protocol is known.
#[derive(Debug)]
pub(super) struct Opening {
    /// The end that is HAProxy, if the port says so.
    engine: Option<usize>,
    /// The begin of the connection was captured.
    is_whole: bool,
    first: [Vec<u8>; 2],
    pieces: Vec<(usize, Piece)>,
}

/// What the first bytes of an end say.
enum First {
    More,
    Hello(Side, u64),
    Tls,
    Other,
}

impl Opening {
    pub(super) const fn new(engine: Option<usize>, is_whole: bool) -> Self {
        Self { engine, is_whole, first: [Vec::new(), Vec::new()], pieces: Vec::new() }
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        2 * self.first.iter().map(Vec::len).sum::<usize>() + size_of_val(&self.pieces[..])
    }

    pub(super) fn into_pieces(self) -> Vec<(usize, Piece)> {
        self.pieces
    }

    /// What an end has sent. The protocol, once it is known.
    pub(super) fn push(&mut self, end: usize, piece: Piece) -> Option<Protocol> {
        let is_lost = matches!(piece, Piece::Lost(_));
        if let (Piece::Data(data), Some(first)) = (&piece, self.first.get_mut(end)) {
            let missing = (PROXY_MAX + BEGIN).saturating_sub(first.len());
            first.extend_from_slice(data.get(..missing).unwrap_or(data));
        }
        let is_data = is_lost || matches!(piece, Piece::Data(_));
        if is_data || self.pieces.len() < BEGIN {
            self.pieces.push((end, piece));
        }
        if let Some(engine) = self.engine
            && (!self.is_whole || is_lost)
        {
            return Some(Protocol::Middle { engine });
        }
        if is_lost {
            return Some(Protocol::Other);
        }
        let first = self.first.get(end).filter(|_| is_data)?;
        let other = || self.engine.map_or(Protocol::Other, |engine| Protocol::Spop { engine, prefix: 0 });
        match look(first) {
            First::More => None,
            First::Hello(side, prefix) => {
                let engine = if side == Side::Engine { end } else { 1 - end };
                let prefix = if side == Side::Engine { prefix } else { 0 };
                Some(Protocol::Spop { engine: self.engine.unwrap_or(engine), prefix })
            }
            First::Tls => Some(Protocol::Tls),
            First::Other => Some(other()),
        }
    }

    /// The connection or the capture ends.
    pub(super) fn finish(&self) -> Protocol {
        match self.engine {
            Some(engine) if self.is_whole => Protocol::Spop { engine, prefix: 0 },
            Some(engine) => Protocol::Middle { engine },
            None => Protocol::Other,
        }
    }
}

fn look(first: &[u8]) -> First {
    let Some(prefix) = proxy_header(first) else { return First::More };
    let Some(rest) = first.get(prefix..) else { return First::Other };
    match rest {
        [0x16, 0x03, ..] => return First::Tls,
        _ if rest.len() < BEGIN => return First::More,
        _ => {}
    }
    let side = match frame_type(rest) {
        Some(FrameType::HaproxyHello) => Side::Engine,
        Some(FrameType::AgentHello | FrameType::AgentDisconnect) => Side::Agent,
        _ => return First::Other,
    };
    debug_assert!(is_begin(side, rest));
    First::Hello(side, prefix as u64)
}

/// The length of the PROXY header that the first bytes of a connection are; 0 if there is none, `None` while it may become one.
/// One that is longer than what is waited for is announced with its length.
pub(crate) fn proxy_header(first: &[u8]) -> Option<usize> {
    if first.starts_with(V2) {
        let len = u16::from_be_bytes(*first.get(14..)?.first_chunk()?);
        return Some(16 + usize::from(len)).filter(|len| first.len() >= *len || *len > PROXY_MAX);
    }
    if first.starts_with(b"PROXY ") {
        let line = first.iter().take(107).position(|byte| *byte == b'\n');
        return line.map(|end| end + 1).or(if first.len() >= 107 { Some(0) } else { None });
    }
    let may = !first.is_empty() && first.len() < V2.len() && V2.starts_with(first);
    let may = may || (first.len() < 6 && b"PROXY ".starts_with(first));
    if may { None } else { Some(0) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use spop_core::notation;

    use super::*;

    fn hello() -> Vec<u8> {
        notation::parse_bytes("HAPROXY-HELLO fin 0 0 supported-versions=string:2.0").unwrap()
    }

    /// The protocol of what end 1 sends in two pieces, whatever they are.
    fn protocol(sent: &[u8], engine: Option<usize>, whole: bool) -> Protocol {
        let mut protocols = (0..sent.len()).map(|cut| {
            let mut opening = Opening::new(engine, whole);
            [&sent[..cut], &sent[cut..]]
                .into_iter()
                .filter(|part| !part.is_empty())
                .find_map(|part| opening.push(1, Piece::Data(Bytes::copy_from_slice(part))))
                .unwrap_or_else(|| opening.finish())
        });
        let first = protocols.next().unwrap();
        assert!(protocols.all(|other| other == first), "{sent:?}");
        first
    }

    #[test]
    fn protocols_are_known_by_their_first_bytes() {
        let hello = hello();
        assert_eq!(protocol(&hello, None, true), Protocol::Spop { engine: 1, prefix: 0 });
        let agent = notation::parse_bytes("AGENT-HELLO fin 0 0").unwrap();
        assert_eq!(protocol(&agent, None, true), Protocol::Spop { engine: 0, prefix: 0 });
        assert_eq!(protocol(b"GET / HTTP/1.1\r\n\r\n", None, true), Protocol::Other);
        assert_eq!(protocol(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", None, true), Protocol::Tls);
        assert_eq!(protocol(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", Some(1), true), Protocol::Tls);
        assert_eq!(protocol(b"abcdefghijk", Some(0), true), Protocol::Spop { engine: 0, prefix: 0 });
        assert_eq!(protocol(&hello[2..], Some(1), false), Protocol::Middle { engine: 1 });
    }

    #[test]
    fn proxy_headers_are_skipped() {
        for header in [
            &b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"[..],
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02",
        ] {
            let sent = [header, &hello()].concat();
            let prefix = header.len() as u64;
            assert_eq!(protocol(&sent, None, true), Protocol::Spop { engine: 1, prefix });
        }
        let endless = [b"PROXY ".as_slice(), &[b'x'; 10_000]].concat();
        let mut opening = Opening::new(None, true);
        assert_eq!(opening.push(0, Piece::Data(endless.into())), Some(Protocol::Other));
    }
}
