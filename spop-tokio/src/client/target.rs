//! Where an agent is.

use std::{
    borrow::Cow,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpStream, lookup_host};

use crate::{Address, ParsedAddress, stream::Stream};

/// Where an agent listens: what [`Engine::agent`](super::Engine::agent) takes.
///
/// A text is an address in HAProxy's format, such as `agent:12345`, `/run/agent.sock` or `abns@agent`: see
/// [`ParsedAddress`]. A name is looked up anew for each connection. An address of all interfaces, such as `:12345`, is this
/// host. A text in another format is an error of [`start`](super::Engine::start).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Text(String),
    Address(ParsedAddress),
}

impl From<ParsedAddress> for Target {
    fn from(address: ParsedAddress) -> Self {
        Self(Kind::Address(address))
    }
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        Self(Kind::Text(text.to_owned()))
    }
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        Self(Kind::Text(text))
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        ParsedAddress::Tcp(address).into()
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        path.to_owned().into()
    }
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Self {
        ParsedAddress::Unix(path).into()
    }
}

/// Where a server listens.
impl From<Address> for Target {
    fn from(address: Address) -> Self {
        match address {
            Address::Tcp(address) => address.into(),
            Address::Unix(path) => path.into(),
            Address::Abstract(name) => ParsedAddress::Abstract(name).into(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Text(text) => f.write_str(text),
            Kind::Address(address) => address.fmt(f),
        }
    }
}

impl Target {
    fn address(&self) -> io::Result<Cow<'_, ParsedAddress>> {
        match &self.0 {
            Kind::Text(text) => text.parse().map(Cow::Owned),
            Kind::Address(address) => Ok(Cow::Borrowed(address)),
        }
    }

    /// Says what is wrong with the text of an address.
    pub(super) fn check(&self) -> io::Result<()> {
        let Err(error) = self.address() else { return Ok(()) };
        Err(io::Error::new(error.kind(), format!("the agent's address {self} cannot be used: {error}")))
    }

    /// The name of a host, or the IP address; unix sockets have neither.
    #[cfg(feature = "tls")]
    pub(super) fn host(&self) -> Option<String> {
        match self.address().ok()?.into_owned() {
            ParsedAddress::Host { host, .. } => Some(host),
            ParsedAddress::Tcp(address) => Some(address.ip().to_string()),
            ParsedAddress::Unix(_) | ParsedAddress::Abstract(_) => None,
        }
    }

    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let stream = match self.address()?.as_ref() {
            ParsedAddress::Host { host, port, family } => {
                let addresses = lookup_host((host.as_str(), *port)).await?;
                TcpStream::connect(family.select(host, addresses)?.as_slice()).await?
            }
            ParsedAddress::Tcp(address) => TcpStream::connect(reachable(*address)).await?,
            #[cfg(unix)]
            ParsedAddress::Unix(path) => return UnixStream::connect(path).await.map(Stream::Unix),
            #[cfg(unix)]
            ParsedAddress::Abstract(name) => {
                let address = name.socket_addr()?.into();
                return UnixStream::connect_addr(&address).await.map(Stream::Unix);
            }
            #[cfg(not(unix))]
            ParsedAddress::Unix(_) | ParsedAddress::Abstract(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this system has no unix sockets: use HOST:PORT",
                ));
            }
        };
        // Without it a request may wait for the ACK of the one before. A stream that refuses is closed already.
        let _ = stream.set_nodelay(true);
        Ok(Stream::Tcp(stream))
    }
}

/// A server on all interfaces is reached by the loopback interface, on every system.
const fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_interfaces_are_reached_by_the_loopback() {
        for (address, at) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("192.0.2.1:1", "192.0.2.1:1")]
        {
            assert_eq!(reachable(address.parse().unwrap()), at.parse().unwrap());
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_host_is_its_name_alone() {
        for (text, host) in [
            ("agent:1", Some("agent")),
            ("ipv6@agent:1", Some("agent")),
            ("tcp@127.0.0.1:1", Some("127.0.0.1")),
            ("[::1]:1", Some("::1")),
            ("unix@agent", None),
            ("abns@agent", None),
        ] {
            assert_eq!(Target::from(text).host().as_deref(), host, "{text}");
        }
    }
}
