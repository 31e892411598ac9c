//! Listeners that are open.

#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

#[cfg(unix)]
use crate::SocketFile;
use crate::{Address, Entrance};

/// The backlog of a listener: for a burst of connections while others are served. The system has a limit of its own
/// (`somaxconn`).
pub const BACKLOG: u16 = 4096;

/// Whether the system distributes connections among the listeners of one address.
const DISTRIBUTES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Whether accepted sockets inherit the options of their listener.
const INHERITS: bool = DISTRIBUTES;

/// An open, nonblocking listener, and the settings of its connections.
#[derive(Debug)]
#[non_exhaustive]
pub struct Listening {
    /// The listener.
    pub listener: Listener,
    /// Whether other listeners of this process may share its address.
    pub shared: bool,
    /// The options of accepted sockets.
    pub sockets: SocketOptions,
    /// Its address, and the accept stage of its connections.
    pub entrance: Arc<Entrance>,
}

/// A listener. Dropping it removes its socket file.
#[derive(Debug)]
pub enum Listener {
    /// For TCP.
    Tcp(TcpListener),
    /// For a unix socket.
    #[cfg(unix)]
    Unix {
        /// The listener.
        listener: UnixListener,
        /// Its file, if this process has created it.
        file: Option<SocketFile>,
    },
}

/// The options of accepted TCP sockets.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Duration>,
}

impl SocketOptions {
    /// Sets the options that an accepted socket does not inherit. An error means that it is closed already.
    pub fn complete<'s>(self, accepted: impl Into<SockRef<'s>>) {
        if !INHERITS {
            let _ = self.set(&accepted.into());
        }
    }

    fn set(self, socket: &SockRef<'_>) -> io::Result<()> {
        // Without it an answer may wait for the ACK of the one before.
        socket.set_tcp_nodelay(self.nodelay)?;
        match self.keepalive {
            Some(after) => socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after)),
            None => Ok(()),
        }
    }
}

impl Listening {
    pub(crate) fn new(
        listener: Listener,
        shared: bool,
        sockets: SocketOptions,
        mut entrance: Entrance,
    ) -> io::Result<Self> {
        entrance.listener = Some(listener.address()?);
        Self::with_entrance(listener, shared, sockets, Arc::new(entrance))
    }

    fn with_entrance(
        listener: Listener,
        shared: bool,
        sockets: SocketOptions,
        entrance: Arc<Entrance>,
    ) -> io::Result<Self> {
        match &listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                if INHERITS {
                    sockets.set(&SockRef::from(listener))?;
                }
            }
            #[cfg(unix)]
            Listener::Unix { listener, .. } => listener.set_nonblocking(true)?,
        }
        Ok(Self { listener, shared, sockets, entrance })
    }

    /// Its local address.
    ///
    /// # Errors
    /// The system call fails.
    pub fn address(&self) -> io::Result<Address> {
        self.listener.address()
    }

    /// Another listener on the same address, if it can be shared.
    ///
    /// # Errors
    /// The system call fails.
    pub fn sibling(&self) -> io::Result<Option<Self>> {
        match &self.listener {
            Listener::Tcp(listener) if self.shared => {
                let listener = Listener::Tcp(bind(listener.local_addr()?, true)?);
                let entrance = Arc::clone(&self.entrance);
                Self::with_entrance(listener, true, self.sockets, entrance).map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl Listener {
    fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            #[cfg(unix)]
            Self::Unix { file: Some(file), .. } => Address::Unix(file.path().to_owned()),
            #[cfg(unix)]
            Self::Unix { listener, file: None } => listener.local_addr()?.into(),
        })
    }
}

/// Listens on the first usable address. True if other listeners of this process may share it.
pub(crate) fn first_of(
    addresses: impl IntoIterator<Item = SocketAddr>,
    several: bool,
    reuse_port: bool,
) -> io::Result<(Listener, bool)> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for address in addresses {
        match listen_at(address, several && DISTRIBUTES, reuse_port) {
            Ok(listener) => return Ok((Listener::Tcp(listener), several && DISTRIBUTES)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_at(address: SocketAddr, several: bool, reuse_port: bool) -> io::Result<TcpListener> {
    if several && address.port() != 0 && !reuse_port {
        // Fails if another server listens there: with SO_REUSEPORT the two would share connections unnoticed.
        socket(address)?.bind(&address.into())?;
    }
    bind(address, several || reuse_port)
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    socket.set_reuse_port(reuse_port)?;
    let _ = reuse_port;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG.into())?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process may be in TIME-WAIT. On Windows the option would let other processes take the address.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Whether an error of accept is about the connection, not about accepting.
pub fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
