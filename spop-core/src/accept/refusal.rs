//! Why a connection is refused, for people.

use alloc::vec::Vec;
use core::{fmt, time::Duration};

use arrayvec::ArrayVec;

use super::{Network, Peer};
use crate::foreign;

/// A connection that is refused: whose, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The other end of the transport.
    pub peer: Peer,
    /// Why.
    pub reason: RefuseReason,
}

/// Why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefuseReason {
    /// A rule on the source address denies it.
    #[non_exhaustive]
    Denied {
        /// Whom the rule judged, when that is the client of a PROXY header and not the peer.
        announced: Option<Peer>,
        /// The network of the rule; `None` when no rule names the address.
        network: Option<Network>,
    },
    /// A PROXY header is due, and this peer is not trusted to send one.
    Untrusted,
    /// The connection begins with something that is no PROXY header.
    NoProxyHeader(Began),
    /// The connection begins with a HAPROXY-HELLO, and a PROXY header is due. HAProxy 3.3 and later ignore `send-proxy` and
    /// `send-proxy-v2` on the servers of SPOP backends.
    SpopWithoutProxyHeader,
    /// The connection begins with a PROXY header that is wrong.
    BadProxyHeader(ProxyError),
    /// The peer closed its side.
    #[non_exhaustive]
    Eof {
        /// What it should have sent first.
        during: Waiting,
        /// How many bytes of that it had sent.
        got: usize,
    },
    /// The time for all of it ran out.
    #[non_exhaustive]
    Timeout {
        /// What there was to wait for.
        during: Waiting,
        /// How long it was.
        limit: Duration,
    },
}

/// What a connection can wait for before its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waiting {
    /// A whole PROXY header.
    ProxyHeader,
    /// Bytes that tell a monitor's probe from a session.
    FirstBytes,
    /// The end of the TLS handshake.
    Tls,
    /// The peer to take a monitor's answer.
    Answer,
}

/// The first bytes of something else than a PROXY header: four, or all up to the first that is wrong where that is more.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Began(ArrayVec<u8, 12>);

/// What is wrong with a PROXY header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Version 1: 107 bytes have come and no end of line is among them.
    #[error("its line does not end within 107 bytes")]
    LineTooLong,
    /// Version 1: a line that does not parse, given here without its end.
    #[error("\"{}\" does not parse", .0.escape_ascii())]
    Line(Vec<u8>),
    /// Version 2: it announces more bytes than the configuration allows.
    #[error("it announces {length} bytes, above the limit of {limit}")]
    #[non_exhaustive]
    TooLong {
        /// The size of the whole header.
        length: usize,
        /// `ExpectProxy::max_len`.
        limit: usize,
    },
    /// Version 2: the version in the 13th byte is another.
    #[error("its version is {0}, not 2")]
    Version(u8),
    /// Version 2: neither LOCAL nor PROXY.
    #[error("the command {0} is unknown")]
    Command(u8),
    /// Version 2: the address family or transport in the 14th byte is unassigned.
    #[error("the address family and transport {0:#04x} are unknown")]
    Family(u8),
    /// Version 2: it ends before its addresses do.
    #[error("its addresses take {needed} bytes, but it has {found}")]
    #[non_exhaustive]
    Addresses {
        /// How many bytes come after the first 16.
        found: usize,
        /// How many bytes addresses of this family take.
        needed: usize,
    },
    /// Version 2: the type-length-values after the addresses do not end where the header does.
    #[error("its last TLV is cut off")]
    Tlv,
}

impl Began {
    #[cfg(feature = "proxy")]
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().take(12).collect())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the peer speaks instead, such as `an HTTP request`, if that can be told.
    pub fn foreign(&self) -> Option<&'static str> {
        let first = self.0.first_chunk::<4>()?;
        foreign::recognize(*first).filter(|what| *what != foreign::PROXY_HEADER)
    }
}

impl fmt::Display for Began {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if position == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Began {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Began({self})")
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
            RefuseReason::NoProxyHeader(began) => {
                write!(f, "no PROXY header from {peer}: the connection began with {began}")?;
                began.foreign().map_or(Ok(()), |what| write!(f, " (it looks like {what})"))
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

/// Shows a peer without its port: rules judge addresses, and a port does not help to find anyone.
struct Host<'a>(&'a Peer);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.ip() {
            Some(address) => address.to_canonical().fmt(f),
            None => self.0.fmt(f),
        }
    }
}
