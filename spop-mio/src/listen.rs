//! Where a server listens.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
#[cfg(unix)]
use std::{os::unix::net::UnixListener as StdUnixListener, path::Path};

use mio::{Interest, Registry, Token, event::Source, net::TcpListener};
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use spop_core::accept::{AcceptConfig, Peer};
use spop_server::Entrance;
#[cfg(feature = "tls")]
use spop_server::tls::Tls;
#[cfg(unix)]
use spop_server::{SocketFile, listen_unix};

use crate::stream::Plain;

/// Connections that may wait to be accepted. The system has a limit of its own.
const BACKLOG: i32 = 4096;

/// Whether the system spreads connections over the listeners of one address.
const SPREADS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Whether what is accepted has the options of its listener.
const INHERITS: bool = SPREADS;

/// Where to listen: what [`Server::bind`](crate::Server::bind) takes.
///
/// A text with a slash is the path of a unix socket, any other is `host:port`. A listener that is open already is taken
/// as it is.
///
/// An endpoint also says what its connections pass before their sessions, and has the options of its socket:
///
/// ```
/// use spop_mio::{Endpoint, accept::{AcceptConfig, Policy, SourceRules}};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let inside = SourceRules::new(Policy::Deny).allow("10.0.0.0/8".parse()?);
/// let tcp = Endpoint::from("0.0.0.0:12345").accept(AcceptConfig::new().with(inside)?).reuse_port(true);
/// let unix = Endpoint::from("/run/agent.sock").mode(0o660);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Endpoint {
    kind: Kind,
    accept: AcceptConfig,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    mode: Option<u32>,
    take_over: bool,
    reuse_port: bool,
    sockets: SocketOptions,
}

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

impl From<Kind> for Endpoint {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            accept: AcceptConfig::new(),
            #[cfg(feature = "tls")]
            tls: None,
            mode: None,
            take_over: false,
            reuse_port: false,
            sockets: SocketOptions { nodelay: true, keepalive: None },
        }
    }
}

impl From<&str> for Endpoint {
    fn from(text: &str) -> Self {
        #[cfg(unix)]
        if text.contains('/') {
            return Kind::Unix(text.into()).into();
        }
        Kind::Host(text.to_owned()).into()
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
        Kind::Tcp(address).into()
    }
}

impl From<StdTcpListener> for Endpoint {
    fn from(listener: StdTcpListener) -> Self {
        Kind::TcpListener(listener).into()
    }
}

#[cfg(unix)]
impl From<&Path> for Endpoint {
    fn from(path: &Path) -> Self {
        Kind::Unix(path.to_owned()).into()
    }
}

#[cfg(unix)]
impl From<PathBuf> for Endpoint {
    fn from(path: PathBuf) -> Self {
        Kind::Unix(path).into()
    }
}

/// Its socket file stays: it is its maker's.
#[cfg(unix)]
impl From<StdUnixListener> for Endpoint {
    fn from(listener: StdUnixListener) -> Self {
        Kind::UnixListener(listener).into()
    }
}

impl Endpoint {
    /// What connections pass before their sessions: rules, a PROXY header, a monitor's probe, TLS, in the order of the
    /// list.
    #[must_use]
    pub fn accept(mut self, config: AcceptConfig) -> Self {
        self.accept = config;
        self
    }

    /// The certificates for the step [`Tls`](spop_core::accept::Step::Tls), which is added to the end of the list if it is
    /// not there.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// The permissions of a unix socket's file, such as `0o660`. It has them before anybody can connect. Without, they
    /// follow from the umask.
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Takes the path of a unix socket also from somebody who serves it, in one step: for a new process beside the one that
    /// it replaces. That one keeps the connections that it has, and the next ones come here. Default false.
    #[must_use]
    pub const fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Lets other sockets with this option listen on the same TCP port, and the system share connections among them: for
    /// several processes, or for a new one beside the one that it replaces. Default false: the workers of this server
    /// share the port on Linux, and nobody else does.
    #[must_use]
    pub const fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// After how much silence the system asks whether a TCP peer is still there. Default: never; SPOP has its own idle
    /// timeout.
    #[must_use]
    pub const fn keepalive(mut self, after: Option<Duration>) -> Self {
        self.sockets.keepalive = after;
        self
    }

    /// Whether TCP sends answers at once instead of waiting for more. Default true; false is for measuring.
    #[must_use]
    pub const fn nodelay(mut self, nodelay: bool) -> Self {
        self.sockets.nodelay = nodelay;
        self
    }

    /// The sockets that systemd has opened for this process (`.socket` units, `LISTEN_FDS`), in their order. They are
    /// handed out once.
    ///
    /// # Errors
    /// One of them is neither a TCP listener nor a unix stream listener.
    #[cfg(all(feature = "systemd", unix))]
    pub fn from_systemd() -> io::Result<Vec<Self>> {
        let mut passed = listenfd::ListenFd::from_env();
        let mut endpoints = Vec::new();
        for index in 0..passed.len() {
            // What is not the one is put back, and may be the other.
            if let Ok(Some(listener)) = passed.take_unix_listener(index) {
                endpoints.push(listener.into());
            } else if let Some(listener) = passed.take_tcp_listener(index)? {
                endpoints.push(listener.into());
            }
        }
        Ok(endpoints)
    }

    pub(crate) fn listen(self) -> io::Result<Bound> {
        let Self { kind, accept, mode, take_over, reuse_port, sockets, .. } = self;
        #[cfg(feature = "tls")]
        let entrance = match self.tls {
            Some(tls) => Entrance::with_tls(accept, tls),
            None => Entrance::new(accept),
        }?;
        #[cfg(not(feature = "tls"))]
        let entrance = Entrance::new(accept)?;
        let listener = match kind {
            Kind::Host(host) => first_of(host.to_socket_addrs()?, reuse_port)?,
            Kind::Tcp(address) => first_of([address], reuse_port)?,
            Kind::TcpListener(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Tcp { listener: TcpListener::from_std(listener), shared: false }
            }
            #[cfg(unix)]
            Kind::Unix(path) => {
                let listener = listen_unix(&path, mode, take_over)?;
                Listener::unix(listener, Some(SocketFile::new(path)?))?
            }
            #[cfg(unix)]
            Kind::UnixListener(listener) => Listener::unix(listener, None)?,
        };
        let _ = mode;
        listener.prepare(sockets)?;
        Ok(Bound { listener, sockets, entrance })
    }
}

/// Listens on the first of the addresses that can be had.
fn first_of(addresses: impl IntoIterator<Item = SocketAddr>, reuse_port: bool) -> io::Result<Listener> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "it has no address");
    for address in addresses {
        match listen_at(address, reuse_port) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_at(address: SocketAddr, reuse_port: bool) -> io::Result<Listener> {
    if SPREADS && address.port() != 0 && !reuse_port {
        // Another server would share its connections with this one, and neither would notice.
        socket(address)?.bind(&address.into())?;
    }
    Ok(Listener::Tcp { listener: one_of_several(address, reuse_port)?, shared: SPREADS })
}

/// A listener on an address that may have others, of the same user.
fn one_of_several(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    socket.set_reuse_port(SPREADS || reuse_port)?;
    let _ = reuse_port;
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
        match &self.kind {
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

/// An open listener, and what its connections pass.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: Listener,
    sockets: SocketOptions,
    entrance: Option<Arc<Entrance>>,
}

/// What is set on each TCP socket that is accepted.
#[derive(Clone, Copy, Debug)]
struct SocketOptions {
    nodelay: bool,
    keepalive: Option<Duration>,
}

/// Dropping it removes the socket file that it made.
#[derive(Debug)]
enum Listener {
    Tcp {
        listener: TcpListener,
        /// Whether other workers may listen on its address too.
        shared: bool,
    },
    #[cfg(unix)]
    Unix { listener: mio::net::UnixListener, file: Option<SocketFile> },
}

impl SocketOptions {
    fn set(self, socket: &SockRef<'_>) -> io::Result<()> {
        // Without it an answer may wait for the ACK of the one before.
        socket.set_tcp_nodelay(self.nodelay)?;
        match self.keepalive {
            Some(after) => socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after)),
            None => Ok(()),
        }
    }
}

impl Listener {
    #[cfg(unix)]
    fn unix(listener: StdUnixListener, file: Option<SocketFile>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix { listener: mio::net::UnixListener::from_std(listener), file })
    }

    /// Sets what its connections inherit.
    fn prepare(&self, sockets: SocketOptions) -> io::Result<()> {
        match self {
            Self::Tcp { listener, .. } if INHERITS => sockets.set(&SockRef::from(listener)),
            _ => Ok(()),
        }
    }
}

impl Bound {
    pub(crate) fn address(&self) -> io::Result<Address> {
        Ok(match &self.listener {
            Listener::Tcp { listener, .. } => Address::Tcp(listener.local_addr()?),
            #[cfg(unix)]
            Listener::Unix { file: Some(file), .. } => Address::Unix(file.path().to_owned()),
            #[cfg(unix)]
            Listener::Unix { listener, file: None } => {
                Address::Unix(listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default())
            }
        })
    }

    /// Another listener on the same address, if the system spreads connections over them.
    pub(crate) fn sibling(&self) -> io::Result<Option<Self>> {
        match &self.listener {
            Listener::Tcp { listener, shared: true } => {
                let listener = one_of_several(listener.local_addr()?, true)?;
                let listener = Listener::Tcp { listener, shared: true };
                listener.prepare(self.sockets)?;
                Ok(Some(Self { listener, sockets: self.sockets, entrance: self.entrance.clone() }))
            }
            _ => Ok(None),
        }
    }

    /// Whether its connections are for all workers.
    pub(crate) const fn is_for_all(&self) -> bool {
        !matches!(self.listener, Listener::Tcp { shared: true, .. })
    }

    /// What its connections pass, if there is anything.
    pub(crate) fn entrance(&self) -> Option<Arc<Entrance>> {
        self.entrance.clone()
    }

    pub(crate) fn accept(&self) -> io::Result<(Plain, Peer)> {
        Ok(match &self.listener {
            Listener::Tcp { listener, .. } => {
                let (stream, peer) = listener.accept()?;
                if !INHERITS {
                    // A stream that refuses is closed already.
                    let _ = self.sockets.set(&SockRef::from(&stream));
                }
                (Plain::Tcp(stream), Peer::Ip(peer))
            }
            #[cfg(unix)]
            Listener::Unix { listener, .. } => (Plain::Unix(listener.accept()?.0), Peer::unnamed()),
        })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.listener {
            Listener::Tcp { listener, .. } => listener.register(registry, token, Interest::READABLE),
            #[cfg(unix)]
            Listener::Unix { listener, .. } => listener.register(registry, token, Interest::READABLE),
        }
    }
}
