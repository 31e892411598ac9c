//! Where an agent is.

#[cfg(feature = "tls")]
use std::borrow::Cow;
use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::{Address, stream::Stream};

/// Where an agent listens: what [`Engine::agent`](super::Engine::agent) takes.
///
/// A text with a slash is the path of a unix socket, any other is `host:port`, looked up anew for each connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Host(String),
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        Self(if text.contains('/') { Kind::Unix(text.into()) } else { Kind::Host(text.to_owned()) })
    }
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self(Kind::Tcp(address))
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self(Kind::Unix(path.to_owned()))
    }
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Self {
        Self(Kind::Unix(path))
    }
}

/// Where a server listens.
impl From<Address> for Target {
    fn from(address: Address) -> Self {
        match address {
            Address::Tcp(address) => address.into(),
            Address::Unix(path) => path.into(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Host(host) => f.write_str(host),
            Kind::Tcp(address) => address.fmt(f),
            Kind::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Target {
    /// The host of a text, or the address; unix sockets have neither.
    #[cfg(feature = "tls")]
    pub(super) fn host(&self) -> Option<Cow<'_, str>> {
        match &self.0 {
            Kind::Host(text) => {
                let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
                let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                Some(address.unwrap_or(host).into())
            }
            Kind::Tcp(address) => Some(address.ip().to_string().into()),
            Kind::Unix(_) => None,
        }
    }

    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let stream = match &self.0 {
            Kind::Host(host) => TcpStream::connect(host).await?,
            Kind::Tcp(address) => TcpStream::connect(address).await?,
            #[cfg(unix)]
            Kind::Unix(path) => return UnixStream::connect(path).await.map(Stream::Unix),
            #[cfg(not(unix))]
            Kind::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        // Without it a request may wait for the ACK of the one before. A stream that refuses is closed already.
        let _ = stream.set_nodelay(true);
        Ok(Stream::Tcp(stream))
    }
}
