//! The origin of a connection: its peer's address, and what the accept stage adds.

use alloc::borrow::Cow;
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;

/// The address of one end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// An address and a port.
    Ip(SocketAddr),
    /// The path of a unix socket. A client's is empty unless it was bound; an abstract one begins with a zero byte.
    Unix(Cow<'static, [u8]>),
    /// Another transport, with a name for the log.
    Other(Cow<'static, str>),
}

impl Peer {
    /// A unix socket without a path.
    pub const fn unnamed() -> Self {
        Self::Unix(Cow::Borrowed(&[]))
    }

    /// The IP address; `None` for other transports.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix(_) | Self::Other(_) => None,
        }
    }

    /// The IP address and the port; `None` for other transports.
    pub const fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) | Self::Other(_) => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) if path.is_empty() => f.write_str("a unix socket"),
            Self::Unix(path) => write!(f, "unix:{}", path.escape_ascii()),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// What is known of a connection when its session begins. [`Accept::Ready`](super::Accept::Ready) has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The peer's address: the client, or the proxy in front of it.
    pub transport: Peer,
    /// The PROXY header, if `ExpectProxy` is among the handlers.
    pub proxy: Option<ProxyHeader>,
    /// Whether the connection is inside TLS.
    pub tls: bool,
}

impl Origin {
    /// A connection of which only the peer's address is known.
    pub const fn new(transport: Peer) -> Self {
        Self { transport, proxy: None, tls: false }
    }

    /// The client's address: the source address of the PROXY header, or the peer's address if there is no header or it announces
    /// none (LOCAL, UNKNOWN, UNSPEC).
    pub fn client(&self) -> &Peer {
        self.announced().map_or(&self.transport, |addresses| &addresses.source)
    }

    /// The destination address of the PROXY header, if it announces one.
    pub fn destination(&self) -> Option<&Peer> {
        self.announced().map(|addresses| &addresses.destination)
    }

    /// The addresses of the PROXY header, if it announces any.
    pub fn announced(&self) -> Option<&Addresses> {
        self.proxy.as_ref()?.addresses.as_ref()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client().fmt(f)?;
        if self.announced().is_some() {
            write!(f, " via {}", self.transport)?;
        }
        f.write_str(if self.tls { " over TLS" } else { "" })
    }
}

/// The source and destination addresses of a proxied connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The client.
    pub source: Peer,
    /// The address that it connected to.
    pub destination: Peer,
}

/// The version of a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// Text: one line.
    V1,
    /// Binary.
    V2,
}

/// A parsed PROXY header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyHeader {
    /// Its version.
    pub version: ProxyVersion,
    /// Whether it is LOCAL (version 2): the proxy connected on its own behalf, for a health check for instance.
    pub local: bool,
    /// The addresses of the proxied connection; `None` for LOCAL, UNKNOWN and UNSPEC.
    pub addresses: Option<Addresses>,
    /// The TLVs of version 2. None is cut off.
    pub(super) tlvs: Bytes,
}

/// `PP2_TYPE_AUTHORITY`.
const AUTHORITY: u8 = 0x02;
/// `PP2_TYPE_UNIQUE_ID`.
const UNIQUE_ID: u8 = 0x05;

/// A header of version 2 with these addresses, and without TLVs.
impl From<Addresses> for ProxyHeader {
    fn from(addresses: Addresses) -> Self {
        Self { version: ProxyVersion::V2, local: false, addresses: Some(addresses), tlvs: Bytes::new() }
    }
}

impl ProxyHeader {
    /// The TLVs of version 2 in order: type and value. They are not interpreted; a checksum (`PP2_TYPE_CRC32C`) was not
    /// verified.
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.tlvs[..];
        core::iter::from_fn(move || {
            let (kind, value, after) = split_tlv(rest)?;
            rest = after;
            Some((kind, value))
        })
    }

    /// The value of the first TLV of this type.
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs().find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The proxy's unique id of the connection (HAProxy's `proxy-v2-options unique-id`).
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(UNIQUE_ID)
    }

    /// The host name that the client requested, such as its TLS SNI (HAProxy's `proxy-v2-options authority`).
    pub fn authority(&self) -> Option<&[u8]> {
        self.tlv(AUTHORITY)
    }
}

/// Splits the first TLV off: type, value, and the bytes behind it.
pub(super) fn split_tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, rest))
}
