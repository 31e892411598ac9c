//! Where a connection comes from: what the socket says, and what was learned before the session.

use alloc::borrow::Cow;
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// An address and a port.
    Ip(SocketAddr),
    /// The path of a unix socket. A client's is empty as a rule; an abstract one begins with a zero byte.
    Unix(Bytes),
    /// Something else, under a name for the log.
    Other(Cow<'static, str>),
}

impl Peer {
    /// The end of a unix socket that has no path.
    pub const fn unnamed() -> Self {
        Self::Unix(Bytes::new())
    }

    /// The address; `None` for a unix socket.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix(_) | Self::Other(_) => None,
        }
    }

    /// The address and the port; `None` for a unix socket.
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

/// What is known about where a connection comes from when its session begins.
///
/// An [`Acceptor`](super::Acceptor) hands it over with [`Accept::Ready`](super::Accept::Ready).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The other end of the transport: the client itself, or the proxy that it came through.
    pub transport: Peer,
    /// The PROXY header, if one was asked for.
    pub proxy: Option<ProxyHeader>,
    /// Whether TLS was done.
    pub tls: bool,
}

impl Origin {
    /// A connection of which nothing is known but the other end of its transport.
    pub const fn new(transport: Peer) -> Self {
        Self { transport, proxy: None, tls: false }
    }

    /// Who is asking: the source that the PROXY header announced, and otherwise the transport's. A proxy that speaks for
    /// itself (LOCAL) or does not know its client (UNKNOWN, UNSPEC) announces nobody.
    pub fn client(&self) -> &Peer {
        self.announced().map_or(&self.transport, |addresses| &addresses.source)
    }

    /// Whom the client connected to, if a PROXY header announced it.
    pub fn destination(&self) -> Option<&Peer> {
        self.announced().map(|addresses| &addresses.destination)
    }

    /// Both, if a PROXY header announced them.
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

/// The two ends of a connection that is passed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// Who connected.
    pub source: Peer,
    /// To whom.
    pub destination: Peer,
}

/// The two forms of a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a PROXY header says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyHeader {
    /// The form it had.
    pub version: ProxyVersion,
    /// Whether the proxy connected on its own behalf (version 2's LOCAL), to check our health for instance.
    pub local: bool,
    /// For whom it connected; `None` when it is local, and when the proxy does not know.
    pub addresses: Option<Addresses>,
    /// The type-length-values of version 2, found to be whole.
    pub(super) tlvs: Bytes,
}

/// `PP2_TYPE_AUTHORITY`.
const AUTHORITY: u8 = 0x02;
/// `PP2_TYPE_UNIQUE_ID`.
const UNIQUE_ID: u8 = 0x05;

impl ProxyHeader {
    /// The type-length-values of version 2: type and value of each, in order. What the types mean is for the reader; a
    /// checksum (`PP2_TYPE_CRC32C`) among them has not been verified.
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.tlvs[..];
        core::iter::from_fn(move || {
            let (kind, value, after) = split_tlv(rest)?;
            rest = after;
            Some((kind, value))
        })
    }

    /// The first value of a type.
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs().find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The id by which the proxy knows the connection (HAProxy's `proxy-v2-options unique-id`).
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(UNIQUE_ID)
    }

    /// The host name that the client asked for, from its TLS SNI for instance (HAProxy's `proxy-v2-options authority`).
    pub fn authority(&self) -> Option<&[u8]> {
        self.tlv(AUTHORITY)
    }
}

/// Splits the first type-length-value off: type, value, and what comes after.
pub(super) fn split_tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, rest))
}
