//! Where a server listens.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs as _},
    path::PathBuf,
};
#[cfg(unix)]
use std::{os::unix::net::UnixListener as StdUnixListener, path::Path};

use mio::{Interest, Registry, Token, event::Source, net::TcpListener};
use socket2::{Domain, Protocol, Type};
use spop_core::accept::Peer;
#[cfg(unix)]
use spop_core::server::{SocketFile, listen_unix};

use crate::stream::Socket;

/// Connections that may wait to be accepted. The system has a limit of its own.
const BACKLOG: i32 = 4096;

/// Whether the system spreads connections over the listeners of one address.
const SPREADS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Where to listen: what [`Server::bind`](crate::Server::bind) takes.
///
/// A text with a slash is the path of a unix socket, any other is `host:port`. A listener that is open already is taken
/// as it is.
#[derive(Debug)]
pub struct Endpoint(Kind);

#[derive(Debug)]
enum Kind {
    Host(String),
    Tcp(SocketAddr),
    TcpListener(StdTcpListener),
    #[cfg(unix)]
    Unix(PathBuf),
    #[cfg(unix)]
    UnixListener(StdUnixListener),
}

impl From<&str> for Endpoint {
    fn from(text: &str) -> Self {
        #[cfg(unix)]
        if text.contains('/') {
            return Self(Kind::Unix(text.into()));
        }
        Self(Kind::Host(text.to_owned()))
    }
}

impl From<String> for Endpoint {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&String> for Endpoint {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self(Kind::Tcp(address))
    }
}

impl From<StdTcpListener> for Endpoint {
    fn from(listener: StdTcpListener) -> Self {
        Self(Kind::TcpListener(listener))
    }
}

#[cfg(unix)]
impl From<&Path> for Endpoint {
    fn from(path: &Path) -> Self {
        Self(Kind::Unix(path.to_owned()))
    }
}

#[cfg(unix)]
impl From<PathBuf> for Endpoint {
    fn from(path: PathBuf) -> Self {
        Self(Kind::Unix(path))
    }
}

/// Its socket file stays: it is its maker's.
#[cfg(unix)]
impl From<StdUnixListener> for Endpoint {
    fn from(listener: StdUnixListener) -> Self {
        Self(Kind::UnixListener(listener))
    }
}

impl Endpoint {
    pub(crate) fn listen(self) -> io::Result<Bound> {
        match self.0 {
            Kind::Host(host) => {
                let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the host has no address");
                for address in host.to_socket_addrs()? {
                    match listen_at(address) {
                        Ok(bound) => return Ok(bound),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Kind::Tcp(address) => listen_at(address),
            Kind::TcpListener(listener) => {
                listener.set_nonblocking(true)?;
                socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
                Ok(Bound::Tcp { listener: TcpListener::from_std(listener), shared: false })
            }
            #[cfg(unix)]
            Kind::Unix(path) => {
                let listener = listen_unix(&path, None)?;
                Bound::unix(listener, Some(SocketFile::new(path)?))
            }
            #[cfg(unix)]
            Kind::UnixListener(listener) => Bound::unix(listener, None),
        }
    }
}

fn listen_at(address: SocketAddr) -> io::Result<Bound> {
    if SPREADS && address.port() != 0 {
        // Another server would share its connections with this one, and neither would notice.
        socket(address)?.bind(&address.into())?;
    }
    Ok(Bound::Tcp { listener: one_of_several(address)?, shared: SPREADS })
}

/// A listener on an address that may have others, of the same user.
fn one_of_several(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    #[cfg(unix)]
    if SPREADS {
        socket.set_reuse_port(true)?;
    }
    // Without it an answer may wait for the ACK of the one before. What is accepted inherits it here.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows it would let others take the address over.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Where to listen, in words.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Host(host) => f.write_str(host),
            Kind::Tcp(address) => address.fmt(f),
            Kind::TcpListener(_) => f.write_str("a TCP listener"),
            #[cfg(unix)]
            Kind::Unix(path) => path.display().fmt(f),
            #[cfg(unix)]
            Kind::UnixListener(_) => f.write_str("a unix listener"),
        }
    }
}

/// Where a listener can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP address, with the port that it really has.
    Tcp(SocketAddr),
    /// The path of a unix socket; empty for one without a name.
    Unix(PathBuf),
}

impl Address {
    /// The TCP address, if it is one.
    pub const fn tcp(&self) -> Option<SocketAddr> {
        if let Self::Tcp(address) = self { Some(*address) } else { None }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// An open listener. Dropping it removes the socket file that it made.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp {
        listener: TcpListener,
        /// Whether other workers may listen on its address too.
        shared: bool,
    },
    #[cfg(unix)]
    Unix {
        listener: mio::net::UnixListener,
        #[allow(dead_code)] // Held for its drop.
        file: Option<SocketFile>,
    },
}

impl Bound {
    #[cfg(unix)]
    fn unix(listener: StdUnixListener, file: Option<SocketFile>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix { listener: mio::net::UnixListener::from_std(listener), file })
    }

    pub(crate) fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp { listener, .. } => Address::Tcp(listener.local_addr()?),
            #[cfg(unix)]
            Self::Unix { listener, .. } => {
                Address::Unix(listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default())
            }
        })
    }

    /// Another listener on the same address, if the system spreads connections over them.
    pub(crate) fn sibling(&self) -> io::Result<Option<Self>> {
        match self {
            Self::Tcp { listener, shared: true } => {
                let listener = one_of_several(listener.local_addr()?)?;
                Ok(Some(Self::Tcp { listener, shared: true }))
            }
            _ => Ok(None),
        }
    }

    /// Whether its connections are for all workers.
    pub(crate) const fn is_for_all(&self) -> bool {
        !matches!(self, Self::Tcp { shared: true, .. })
    }

    pub(crate) fn accept(&self) -> io::Result<(Socket, Peer)> {
        Ok(match self {
            Self::Tcp { listener, .. } => {
                let (stream, peer) = listener.accept()?;
                if !cfg!(any(target_os = "linux", target_os = "android")) {
                    // A stream that refuses is closed already.
                    let _ = stream.set_nodelay(true);
                }
                (Socket::Tcp(stream), Peer::Ip(peer))
            }
            #[cfg(unix)]
            Self::Unix { listener, .. } => (Socket::Unix(listener.accept()?.0), Peer::unnamed()),
        })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp { listener, .. } => listener.register(registry, token, Interest::READABLE),
            #[cfg(unix)]
            Self::Unix { listener, .. } => listener.register(registry, token, Interest::READABLE),
        }
    }
}
