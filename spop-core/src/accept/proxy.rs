//! Parses the PROXY header.
//!
//! This module finds the end of a header and never waits for more bytes than a header can have: version 1 is a line of at most
//! 107 bytes, version 2 has its length in the first 16. The crate `ppp` parses the header: it is strict, its errors are
//! specific, and it knows unix sockets. It gets complete headers only: of a version 1 line that is cut before the last port it
//! reports an error instead of an incomplete header.

use alloc::vec::Vec;
use core::{net::SocketAddr, ops::RangeInclusive};

use bytes::Bytes;
use ppp::{v1, v2};

use super::{Addresses, FirstBytes, Network, Peer, ProxyError, ProxyHeader, ProxyVersion, origin::split_tlv};

/// The first bytes of version 1.
const V1: &[u8] = b"PROXY ";
/// The signature of version 2.
const V2: &[u8] = v2::PROTOCOL_PREFIX;
/// The maximum length of a version 1 line, with its CRLF.
const V1_MAX: usize = 107;
/// The length of a version 2 header before its addresses.
const V2_FIXED: usize = 16;
/// Bytes to receive before a connection is refused for its first bytes: enough to recognize another protocol.
const FIRST: usize = 4;
/// The header of a HAPROXY-HELLO behind the length prefix: frame type, flags (FIN), stream-id 0, frame-id 0.
const HELLO: [u8; 7] = [1, 0, 0, 0, 1, 0, 0];
/// The lengths of a HAPROXY-HELLO: at least its header, at most the frame size that is accepted before the handshake.
const HELLO_LEN: RangeInclusive<u32> = HELLO.len() as u32..=0x4000;

/// Expects a PROXY header: from which peers, and up to which size.
///
/// A connection without the header is refused. With LOCAL, UNKNOWN and UNSPEC the header announces no client, and
/// [`Origin::client`](super::Origin::client) is the peer's address.
///
/// HAProxy up to 3.2 sends the header to agents whose `server` line has `send-proxy` or `send-proxy-v2`. **HAProxy 3.3 and
/// later ignore both on the servers of an SPOP backend** (`mode spop`, or `mode tcp` and used by an agent) and warn so when they start:
/// `'send-proxy*' server option is unsupported there, ignoring it`. Their connections begin with SPOP and are refused, with a
/// [reason](super::RefuseReason::SpopWithoutProxyHeader) of its own. A listener for them must not expect the header;
/// restrict its peers by [`SourceRules`](super::SourceRules) or client certificates instead. `check-send-proxy` still has an
/// effect, on health checks only.
///
/// ```
/// use spop_core::accept::{AcceptConfig, AcceptHandler, ExpectProxy, Policy, SourceRules};
///
/// let config = AcceptConfig::new()
///     .with(ExpectProxy::new().trust("10.0.0.0/8".parse()?))?
///     .with(SourceRules::new(Policy::Allow).deny("203.0.113.0/24".parse()?))? // the client that the proxy announces
///     .with(AcceptHandler::Tls)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpectProxy {
    /// The networks whose peers may connect; `None` for all. The peer of a unix socket is always trusted: the permissions of the
    /// socket file apply.
    pub trusted: Option<Vec<Network>>,
    /// The maximum size of a version 2 header in bytes, TLVs included. Default: 2048. A longer one is refused when its first 16
    /// bytes have arrived. Version 1 has at most 107 bytes.
    pub max_len: usize,
}

/// The result of parsing the first bytes of a connection.
pub(super) enum Read {
    /// A header, and its length.
    Header(ProxyHeader, usize),
    /// Part of a header, or too few bytes to recognize anything.
    Incomplete {
        /// Fewer bytes than this decide nothing.
        missing: usize,
    },
    /// A HAPROXY-HELLO.
    Spop,
    /// Something else.
    Other(FirstBytes),
    /// An invalid header.
    Bad(ProxyError),
}

impl ExpectProxy {
    /// A header from any peer.
    #[must_use]
    pub const fn new() -> Self {
        Self { trusted: None, max_len: 2048 }
    }

    /// Trusts a network. After the first call, only the peers of trusted networks may connect.
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

    /// Parses the first bytes of a connection. With `eof` no more bytes come.
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
        match input.get(..FIRST.max(good.max(hello) + 1)) {
            Some(first) => Read::Other(FirstBytes::new(first)),
            None if eof && len > good => Read::Other(FirstBytes::new(input)),
            None => Read::Incomplete { missing: FIRST.saturating_sub(len).max(1) },
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
        // LOCAL: addresses, their family and TLVs are to be ignored.
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
    // Text between UNKNOWN and the end of the line is to be ignored.
    let rest = line.strip_prefix(b"PROXY UNKNOWN");
    if rest.is_some_and(|rest| rest.starts_with(b" ") || rest.starts_with(b"\r")) {
        return Some(header_of(ProxyVersion::V1, false, None));
    }
    // Numbers have no sign, but `ppp` accepts a plus.
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
        // The remaining errors are about the 14th byte: signature and length were checked before.
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
            // UNSPEC: the bytes behind the header's first 16 may be anything.
            None if addresses.is_none() => return Ok(header_of(ProxyVersion::V2, false, None)),
            None => return Err(ProxyError::Tlv),
        }
    }
    Ok(ProxyHeader { tlvs, ..header_of(ProxyVersion::V2, false, addresses) })
}

fn header_of(version: ProxyVersion, local: bool, addresses: Option<Addresses>) -> ProxyHeader {
    ProxyHeader { version, local, addresses, tlvs: Bytes::new() }
}

/// A path is padded with zeros. An abstract one begins with a zero.
fn unix_path(padded: &[u8]) -> Peer {
    let len = padded.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    Peer::Unix(padded.get(..len).unwrap_or_default().to_vec().into())
}

/// The length of the common prefix of `bytes` and `prefix`.
fn common(bytes: &[u8], prefix: &[u8]) -> usize {
    bytes.iter().zip(prefix).take_while(|(byte, wanted)| byte == wanted).count()
}
