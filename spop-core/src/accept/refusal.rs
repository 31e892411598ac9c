//! Why a connection is refused.

use alloc::vec::Vec;
use core::{fmt, time::Duration};

use arrayvec::ArrayVec;

use super::{Network, Peer};
use crate::foreign;

/// A refused connection: its peer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The peer's address.
    pub peer: Peer,
    /// Why.
    pub reason: RefuseReason,
}

/// Why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefuseReason {
    /// [`SourceRules`](super::SourceRules) deny the source address.
    #[non_exhaustive]
    Denied {
        /// The client that a PROXY header announced, if the rules were evaluated for it and not for the peer.
        announced: Option<Peer>,
        /// The network of the rule; `None` when no rule matched and the default policy applies.
        network: Option<Network>,
    },
    /// A PROXY header is expected, and this peer is not trusted to send one.
    Untrusted,
    /// The connection does not begin with a PROXY header.
    NoProxyHeader(FirstBytes),
    /// The connection begins with a HAPROXY-HELLO instead of a PROXY header. HAProxy 3.3 and later ignore `send-proxy` and
    /// `send-proxy-v2` on the servers of SPOP backends.
    SpopWithoutProxyHeader,
    /// The connection begins with an invalid PROXY header.
    BadProxyHeader(ProxyError),
    /// The peer shut its write side.
    #[non_exhaustive]
    Eof {
        /// What the connection was waiting for.
        during: Waiting,
        /// How many bytes of that were received.
        got: usize,
    },
    /// The accept timeout has passed.
    #[non_exhaustive]
    Timeout {
        /// What the connection was waiting for.
        during: Waiting,
        /// [`AcceptConfig::timeout`](super::AcceptConfig::timeout).
        limit: Duration,
    },
}

/// What a pending connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waiting {
    /// A complete PROXY header.
    ProxyHeader,
    /// Bytes that distinguish a monitor's probe from a session.
    FirstBytes,
    /// The end of the TLS handshake.
    Tls,
    /// The peer's reading of a monitor's answer.
    Answer,
}

/// The first bytes of a connection that does not begin with a PROXY header: four, or more, up to the first byte that no header
/// has there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FirstBytes(ArrayVec<u8, 12>);

/// Why a PROXY header is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Version 1: the first 107 bytes have no CRLF.
    #[error("its line does not end within 107 bytes")]
    LineTooLong,
    /// Version 1: a line that does not parse, without its CRLF.
    #[error("\"{}\" does not parse", .0.escape_ascii())]
    Line(Vec<u8>),
    /// Version 2: it announces more bytes than the configuration allows.
    #[error("it announces {length} bytes, above the limit of {limit}")]
    #[non_exhaustive]
    TooLong {
        /// The size of the header in bytes.
        length: usize,
        /// `ExpectProxy::max_len`.
        limit: usize,
    },
    /// Version 2: the 13th byte has another version.
    #[error("its version is {0}, not 2")]
    Version(u8),
    /// Version 2: a command other than LOCAL and PROXY.
    #[error("the command {0} is unknown")]
    Command(u8),
    /// Version 2: the address family or transport in the 14th byte is unassigned.
    #[error("the address family and transport {0:#04x} are unknown")]
    Family(u8),
    /// Version 2: the header ends before its addresses do.
    #[error("its addresses take {needed} bytes, but it has {found}")]
    #[non_exhaustive]
    Addresses {
        /// How many bytes the header has after its first 16.
        found: usize,
        /// How many bytes the addresses of this family take.
        needed: usize,
    },
    /// Version 2: the TLVs do not end where the header does.
    #[error("its last TLV is cut off")]
    Tlv,
}

impl FirstBytes {
    #[cfg(feature = "proxy")]
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().take(12).collect())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Another protocol that they belong to, such as `an HTTP request`, if it is recognized.
    pub fn foreign(&self) -> Option<&'static str> {
        let first = self.0.first_chunk::<4>()?;
        foreign::recognize(*first).filter(|what| *what != foreign::PROXY_HEADER)
    }
}

impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if position == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FirstBytes({self})")
    }
}

impl core::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = Host(&self.peer);
        match &self.reason {
            RefuseReason::Denied { announced, network } => {
                match announced {
                    Some(client) => write!(f, "{}, announced by {peer}, is denied", Host(client))?,
                    None => write!(f, "{peer} is denied")?,
                }
                match network {
                    Some(network) => write!(f, " by the rule for {network}"),
                    None if announced.as_ref().unwrap_or(&self.peer).ip().is_none() => Ok(()),
                    None => f.write_str(": no rule allows it"),
                }
            }
            RefuseReason::Untrusted => write!(f, "{peer} is not trusted to send a PROXY header"),
            RefuseReason::NoProxyHeader(first) => {
                write!(f, "no PROXY header from {peer}: the connection began with {first}")?;
                first.foreign().map_or(Ok(()), |what| write!(f, " (it looks like {what})"))
            }
            RefuseReason::SpopWithoutProxyHeader => write!(
                f,
                "{peer} began with SPOP, and this listener expects a PROXY header first: HAProxy 3.3 and later ignore \
                 send-proxy and send-proxy-v2 on the servers of SPOP backends; remove ExpectProxy from this listener, and \
                 restrict its clients by SourceRules or TLS instead. HAProxy up to 3.2 sends the header if its server line says so"
            ),
            RefuseReason::BadProxyHeader(error) => write!(f, "bad PROXY header from {peer}: {error}"),
            RefuseReason::Eof { during: Waiting::ProxyHeader, got } => {
                write!(f, "{peer} closed the connection {got} bytes into its PROXY header")
            }
            RefuseReason::Eof { during: Waiting::Tls, .. } => {
                write!(f, "{peer} closed the connection before TLS was done")
            }
            RefuseReason::Eof { during: Waiting::FirstBytes | Waiting::Answer, .. } => {
                write!(f, "{peer} closed the connection before its session")
            }
            RefuseReason::Timeout { during, limit } => match during {
                Waiting::ProxyHeader => write!(f, "no whole PROXY header from {peer} within {limit:?}"),
                Waiting::FirstBytes => {
                    write!(f, "neither a probe nor a session from {peer} within {limit:?}")
                }
                Waiting::Tls => write!(f, "TLS with {peer} was not done within {limit:?}"),
                Waiting::Answer => write!(f, "{peer} did not read the monitor's answer within {limit:?}"),
            },
        }
    }
}

/// Shows a peer without its port: rules are about addresses, and an ephemeral port identifies nothing.
struct Host<'a>(&'a Peer);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.ip() {
            Some(address) => address.to_canonical().fmt(f),
            None => self.0.fmt(f),
        }
    }
}
