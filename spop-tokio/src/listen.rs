//! Where a server listens.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use spop_core::accept::AcceptConfig;
use spop_server::Entrance;
#[cfg(unix)]
use spop_server::{SocketFile, listen_unix};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{Peer, stream::Stream};

/// Connections that may wait to be accepted: as many as come in a storm while others have their turn. The system has a
/// limit of its own.
const BACKLOG: u32 = 4096;

/// Where to listen: what [`Server::bind`](crate::Server::bind) takes.
///
/// A text with a slash is the path of a unix socket, any other is `host:port`. A listener that is open already is taken
/// as it is.
///
/// An endpoint also says what its connections pass before their sessions, and has the options of its socket:
///
/// ```
/// use spop_tokio::{Endpoint, accept::{AcceptConfig, Policy, SourceRules}};
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
    options: Options,
}

#[derive(Debug)]
struct Options {
    accept: AcceptConfig,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    mode: Option<u32>,
    take_over: bool,
    reuse_port: bool,
    sockets: SocketOptions,
}

/// What is set on each socket that is accepted.
#[derive(Clone, Copy, Debug)]
struct SocketOptions {
    nodelay: bool,
    keepalive: Option<Duration>,
}

impl From<Kind> for Endpoint {
    fn from(kind: Kind) -> Self {
        let options = Options {
            accept: AcceptConfig::new(),
            #[cfg(feature = "tls")]
            tls: None,
            mode: None,
            take_over: false,
            reuse_port: false,
            sockets: SocketOptions { nodelay: true, keepalive: None },
        };
        Self { kind, options }
    }
}

#[derive(Debug)]
enum Kind {
    Host(String),
    Tcp(SocketAddr),
    TcpListener(io::Result<TcpListener>),
    #[cfg(unix)]
    Unix(PathBuf),
    #[cfg(unix)]
    UnixListener(UnixListener),
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

impl From<TcpListener> for Endpoint {
    fn from(listener: TcpListener) -> Self {
        Kind::TcpListener(Ok(listener)).into()
    }
}

impl From<StdTcpListener> for Endpoint {
    fn from(listener: StdTcpListener) -> Self {
        let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
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
impl From<UnixListener> for Endpoint {
    fn from(listener: UnixListener) -> Self {
        Kind::UnixListener(listener).into()
    }
}

impl Endpoint {
    /// What connections pass before their sessions: rules, a PROXY header, a monitor's probe, TLS, in the order of the
    /// list.
    #[must_use]
    pub fn accept(mut self, config: AcceptConfig) -> Self {
        self.options.accept = config;
        self
    }

    /// The certificates for the step [`Tls`](spop_core::accept::Step::Tls), which is added to the end of the list if it is
    /// not there.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: &Tls) -> Self {
        self.options.tls = Some(tls.clone());
        self
    }

    /// The permissions of a unix socket's file, such as `0o660`. It has them before anybody can connect. Without, they
    /// follow from the umask.
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.options.mode = Some(mode);
        self
    }

    /// Takes the path of a unix socket also from somebody who serves it, in one step: for a new process beside the one that
    /// it replaces. That one keeps the connections that it has, and the next ones come here. Default false.
    #[must_use]
    pub const fn take_over(mut self, take_over: bool) -> Self {
        self.options.take_over = take_over;
        self
    }

    /// Lets other sockets with this option listen on the same TCP port, and the system share connections among them: for
    /// several processes, or for a new one beside the one that it replaces. Default false.
    #[must_use]
    pub const fn reuse_port(mut self, reuse: bool) -> Self {
        self.options.reuse_port = reuse;
        self
    }

    /// After how much silence the system asks whether a TCP peer is still there. Default: never; SPOP has its own idle
    /// timeout.
    #[must_use]
    pub const fn keepalive(mut self, after: Option<Duration>) -> Self {
        self.options.sockets.keepalive = after;
        self
    }

    /// Whether TCP sends answers at once instead of waiting for more. Default true; false is for measuring.
    #[must_use]
    pub const fn nodelay(mut self, nodelay: bool) -> Self {
        self.options.sockets.nodelay = nodelay;
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
                listener.set_nonblocking(true)?;
                endpoints.push(UnixListener::from_std(listener)?.into());
            } else if let Some(listener) = passed.take_tcp_listener(index)? {
                endpoints.push(listener.into());
            }
        }
        Ok(endpoints)
    }

    pub(crate) async fn listen(self) -> io::Result<Listener> {
        let Options { accept, mode, take_over, reuse_port, sockets, .. } = self.options;
        #[cfg(feature = "tls")]
        let entrance = match self.options.tls {
            Some(tls) => Entrance::with_tls(accept, tls),
            None => Entrance::new(accept),
        }?;
        #[cfg(not(feature = "tls"))]
        let entrance = Entrance::new(accept)?;
        let socket = match self.kind {
            Kind::Host(host) => {
                let addresses: Vec<_> = lookup_host(&host).await?.collect();
                Socket::Tcp(bind_tcp(&addresses, reuse_port)?)
            }
            Kind::Tcp(address) => Socket::Tcp(bind_tcp(&[address], reuse_port)?),
            Kind::TcpListener(listener) => Socket::Tcp(listener?),
            #[cfg(unix)]
            Kind::Unix(path) => {
                let listener = UnixListener::from_std(listen_unix(&path, mode, take_over)?)?;
                Socket::Unix { listener, file: Some(SocketFile::new(path)?) }
            }
            #[cfg(unix)]
            Kind::UnixListener(listener) => Socket::Unix { listener, file: None },
        };
        Ok(Listener { socket, sockets, entrance })
    }
}

/// Listens on the first of the addresses that can be had.
fn bind_tcp(addresses: &[SocketAddr], reuse_port: bool) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "it has no address");
    for address in addresses {
        match bind_one(*address, reuse_port) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a process before this one may linger. On Windows the option means something else.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    socket.set_reuseport(reuse_port)?;
    let _ = reuse_port;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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

/// An open listener. Dropping it removes the socket file that it made.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    sockets: SocketOptions,
    /// What its connections pass, if there is anything.
    pub(crate) entrance: Option<Arc<Entrance>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        file: Option<SocketFile>,
    },
}

impl Listener {
    pub(crate) fn address(&self) -> io::Result<Address> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            #[cfg(unix)]
            Socket::Unix { file: Some(file), .. } => Address::Unix(file.path().to_owned()),
            #[cfg(unix)]
            Socket::Unix { listener, file: None } => {
                Address::Unix(listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default())
            }
        })
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        Poll::Ready(Ok(match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                self.sockets.set(&stream);
                (Stream::Tcp(stream), Peer::Ip(peer))
            }
            #[cfg(unix)]
            Socket::Unix { listener, .. } => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                (Stream::Unix(stream), Peer::unnamed())
            }
        }))
    }

    /// Closes, and returns who had connected before. The system is asked, because the runtime has perhaps not heard of all
    /// of them; what it still has when a listener is closed, it resets.
    pub(crate) fn close(self) -> Vec<(Stream, Peer)> {
        let sockets = self.sockets;
        match self.socket {
            Socket::Tcp(listener) => listener.into_std().map_or_else(
                |_| Vec::new(),
                |listener| {
                    last(|| {
                        let (stream, peer) = listener.accept()?;
                        stream.set_nonblocking(true)?;
                        let stream = TcpStream::from_std(stream)?;
                        sockets.set(&stream);
                        Ok((Stream::Tcp(stream), Peer::Ip(peer)))
                    })
                },
            ),
            #[cfg(unix)]
            Socket::Unix { listener, file: _file } => listener.into_std().map_or_else(
                |_| Vec::new(),
                |listener| {
                    last(|| {
                        let (stream, _) = listener.accept()?;
                        stream.set_nonblocking(true)?;
                        Ok((Stream::Unix(UnixStream::from_std(stream)?), Peer::unnamed()))
                    })
                },
            ),
        }
    }
}

/// Accepts until nobody is there, or as many have come as can have been waiting.
fn last(mut accept: impl FnMut() -> io::Result<(Stream, Peer)>) -> Vec<(Stream, Peer)> {
    let mut connections = Vec::new();
    for _ in 0..BACKLOG {
        match accept() {
            Ok(connection) => connections.push(connection),
            Err(error) if is_of_connection(&error) => {}
            Err(_) => break,
        }
    }
    connections
}

/// Whether an error of accept is about the connection, not about accepting.
pub(crate) fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

impl SocketOptions {
    /// A stream that refuses its options is closed already.
    fn set(self, stream: &TcpStream) {
        if self.nodelay {
            // Without it an answer may wait for the ACK of the one before.
            let _ = stream.set_nodelay(true);
        }
        if let Some(after) = self.keepalive {
            let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(after));
        }
    }
}
