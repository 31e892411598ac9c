//! Reading the PROXY header.
//!
//! Where a header ends is found here, before a byte is waited for that no header may have: version 1 is a line of at most
//! 107 bytes, and version 2 says its length in its first 16. What a whole header says is `ppp`'s to find out, which is
//! strict, names what is wrong, and reads addresses of unix sockets. It is given whole headers only, because on parts of
//! one it errs: it takes a version 1 line that was cut before its last port for a wrong one.

use alloc::vec::Vec;
use core::{net::SocketAddr, ops::RangeInclusive};

use bytes::Bytes;
use ppp::{v1, v2};

use super::{Addresses, Began, Network, Peer, ProxyError, ProxyHeader, ProxyVersion, origin::split_tlv};

/// How version 1 begins.
const V1: &[u8] = b"PROXY ";
/// How version 2 begins.
const V2: &[u8] = v2::PROTOCOL_PREFIX;
/// The longest line of version 1, its end included.
const V1_MAX: usize = 107;
/// What comes before the addresses of version 2.
const V2_FIXED: usize = 16;
/// How many bytes are waited for before anything is called no header: as many as tell what it is instead.
const BEGAN: usize = 4;
/// How a HAPROXY-HELLO goes on after its length: the frame type, the flags FIN, the identifiers 0/0.
const HELLO: [u8; 7] = [1, 0, 0, 0, 1, 0, 0];
/// The lengths that a HAPROXY-HELLO can have: a header at least, and no more than is accepted before the handshake.
const HELLO_LEN: RangeInclusive<u32> = HELLO.len() as u32..=0x4000;

/// A PROXY header is due: who may send it, and how long it may be.
///
/// A connection without the header is refused, since it would pass for one from the proxy itself. The header names the
/// client only if the proxy does: with LOCAL, UNKNOWN and UNSPEC the transport's address stays.
///
/// HAProxy up to 3.2 sends the header to agents whose `server` line has `send-proxy` or `send-proxy-v2`. **HAProxy 3.3 and
/// later ignore both on the servers of an SPOP backend** (`mode spop`, or `mode tcp` and used by an agent) and warn so when they start:
/// `'send-proxy*' server option is unsupported there, ignoring it`. Their connections begin with SPOP and are refused, with a
/// [reason](super::RefuseReason::SpopWithoutProxyHeader) of its own. A listener for them must not expect the header;
/// what it was to prove, [`SourceRules`](super::SourceRules) or certificates of TLS can. `check-send-proxy` still has effect,
/// on health checks alone.
///
/// ```
/// use spop_core::accept::{AcceptConfig, AcceptHandler, ExpectProxy, Policy, SourceRules};
///
/// let config = AcceptConfig::new()
///     .with(ExpectProxy::new().trust("10.0.0.0/8".parse()?))?
///     .with(SourceRules::new(Policy::Allow).deny("203.0.113.0/24".parse()?))? // whom the proxy announces
///     .with(AcceptHandler::Tls)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpectProxy {
    /// Who may connect at all; `None` for everybody. It is the transport's address that counts. The peer of a unix socket
    /// is trusted always: the socket's file has its own permissions.
    pub trusted: Option<Vec<Network>>,
    /// The longest header of version 2, with its first 16 bytes and its TLVs. Default: 2048. A longer one is refused as
    /// soon as its first 16 bytes are there. (Version 1 has a limit of its own, 107.)
    pub max_len: usize,
}

/// What the front of a connection holds.
pub(super) enum Read {
    /// A header, and how many bytes of the input it takes.
    Header(ProxyHeader, usize),
    /// The beginning of one, or too little to tell.
    Incomplete {
        /// Fewer bytes more than this decide nothing.
        missing: usize,
    },
    /// A HAPROXY-HELLO.
    Spop,
    /// Something else.
    Other(Began),
    /// A header that is wrong.
    Bad(ProxyError),
}

impl ExpectProxy {
    /// A header from anybody.
    #[must_use]
    pub const fn new() -> Self {
        Self { trusted: None, max_len: 2048 }
    }

    /// Trusts a network; those that no call names are trusted no more.
    #[must_use]
    pub fn trust(mut self, network: Network) -> Self {
        self.trusted.get_or_insert_default().push(network);
        self
    }

    pub(super) fn trusts(&self, transport: &Peer) -> bool {
        match (&self.trusted, transport.ip()) {
            (Some(networks), Some(address)) => networks.iter().any(|network| network.contains(address)),
            (None, _) | (_, None) => true,
        }
    }

    /// Reads the front of a connection. After `eof` nothing is waited for that can be no header any more.
    pub(super) fn read(&self, input: &[u8], eof: bool) -> Read {
        let (v1, v2) = (common(input, V1), common(input, V2));
        if v1 == V1.len() {
            return read_v1(input);
        }
        if v2 == V2.len() {
            return self.read_v2(input);
        }
        let (good, len) = (v1.max(v2), input.len());
        let hello = match input.split_first_chunk::<4>() {
            Some((length, rest)) if HELLO_LEN.contains(&u32::from_be_bytes(*length)) => {
                4 + common(rest, &HELLO)
            }
            _ => 0,
        };
        if hello == 4 + HELLO.len() {
            return Read::Spop;
        }
        match input.get(..BEGAN.max(good.max(hello) + 1)) {
            Some(began) => Read::Other(Began::new(began)),
            None if eof && len > good => Read::Other(Began::new(input)),
            None => Read::Incomplete { missing: BEGAN.saturating_sub(len).max(1) },
        }
    }

    fn read_v2(&self, input: &[u8]) -> Read {
        let Some(&[.., command, _, high, low]) = input.first_chunk::<V2_FIXED>() else {
            return Read::Incomplete { missing: V2_FIXED.saturating_sub(input.len()) };
        };
        let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
        if length > self.max_len {
            return Read::Bad(ProxyError::TooLong { length, limit: self.max_len });
        }
        let Some(header) = input.get(..length) else {
            return Read::Incomplete { missing: length.saturating_sub(input.len()) };
        };
        // LOCAL: whatever comes with it is to be ignored, the address family included.
        if command == 0x20 {
            return Read::Header(header_of(ProxyVersion::V2, true, None), length);
        }
        parse_v2(header).map_or_else(Read::Bad, |header| Read::Header(header, length))
    }
}

impl Default for ExpectProxy {
    fn default() -> Self {
        Self::new()
    }
}

fn read_v1(input: &[u8]) -> Read {
    let Some(end) = input.windows(2).take(V1_MAX - 1).position(|pair| pair == b"\r\n") else {
        return match input.last() {
            _ if input.len() >= V1_MAX => Read::Bad(ProxyError::LineTooLong),
            Some(b'\r') => Read::Incomplete { missing: 1 },
            _ => Read::Incomplete { missing: 2 },
        };
    };
    let (line, len) = (input.get(..end).unwrap_or_default(), end + 2);
    match parse_v1(input.get(..len).unwrap_or_default()) {
        Some(header) => Read::Header(header, len),
        None => Read::Bad(ProxyError::Line(line.to_vec())),
    }
}

fn parse_v1(line: &[u8]) -> Option<ProxyHeader> {
    // Whatever stands between UNKNOWN and the end of the line is to be ignored.
    let rest = line.strip_prefix(b"PROXY UNKNOWN");
    if rest.is_some_and(|rest| rest.starts_with(b" ") || rest.starts_with(b"\r")) {
        return Some(header_of(ProxyVersion::V1, false, None));
    }
    // Numbers have no sign; the parser lets a plus pass.
    if line.contains(&b'+') {
        return None;
    }
    let addresses = match v1::Header::try_from(line).ok()?.addresses {
        v1::Addresses::Unknown => return None,
        v1::Addresses::Tcp4(ip) => Addresses {
            source: SocketAddr::from((ip.source_address, ip.source_port)).into(),
            destination: SocketAddr::from((ip.destination_address, ip.destination_port)).into(),
        },
        v1::Addresses::Tcp6(ip) => Addresses {
            source: SocketAddr::from((ip.source_address, ip.source_port)).into(),
            destination: SocketAddr::from((ip.destination_address, ip.destination_port)).into(),
        },
    };
    Some(header_of(ProxyVersion::V1, false, Some(addresses)))
}

fn parse_v2(bytes: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let header = v2::Header::try_from(bytes).map_err(|error| match error {
        v2::ParseError::Version(version) => ProxyError::Version(version >> 4),
        v2::ParseError::Command(command) => ProxyError::Command(command),
        v2::ParseError::InvalidAddresses(found, needed) => ProxyError::Addresses { found, needed },
        // What remains is the 14th byte: prefix and length were right before.
        _ => ProxyError::Family(bytes.get(13).copied().unwrap_or_default()),
    })?;
    let addresses = match &header.addresses {
        v2::Addresses::Unspecified => None,
        v2::Addresses::IPv4(ip) => Some(Addresses {
            source: SocketAddr::from((ip.source_address, ip.source_port)).into(),
            destination: SocketAddr::from((ip.destination_address, ip.destination_port)).into(),
        }),
        v2::Addresses::IPv6(ip) => Some(Addresses {
            source: SocketAddr::from((ip.source_address, ip.source_port)).into(),
            destination: SocketAddr::from((ip.destination_address, ip.destination_port)).into(),
        }),
        v2::Addresses::Unix(unix) => {
            Some(Addresses { source: unix_path(&unix.source), destination: unix_path(&unix.destination) })
        }
    };
    let mut rest = header.tlv_bytes();
    let tlvs = Bytes::copy_from_slice(rest);
    while !rest.is_empty() {
        match split_tlv(rest) {
            Some((_, _, after)) => rest = after,
            // Where addresses are unspecified, what comes after them may be anything.
            None if addresses.is_none() => return Ok(header_of(ProxyVersion::V2, false, None)),
            None => return Err(ProxyError::Tlv),
        }
    }
    Ok(ProxyHeader { tlvs, ..header_of(ProxyVersion::V2, false, addresses) })
}

fn header_of(version: ProxyVersion, local: bool, addresses: Option<Addresses>) -> ProxyHeader {
    ProxyHeader { version, local, addresses, tlvs: Bytes::new() }
}

/// The path is padded with zeros; an abstract one begins with a zero as well.
fn unix_path(padded: &[u8]) -> Peer {
    let len = padded.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    Peer::Unix(Bytes::copy_from_slice(padded.get(..len).unwrap_or_default()))
}

/// How many bytes `bytes` and `prefix` have in common.
fn common(bytes: &[u8], prefix: &[u8]) -> usize {
    bytes.iter().zip(prefix).take_while(|(byte, wanted)| byte == wanted).count()
}
