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

/// Connections that may wait to be accepted: as many as come in a storm while others have their turn. The system has a
/// limit of its own.
pub const BACKLOG: u16 = 4096;

/// Whether the system spreads connections over the listeners of one address.
const SPREADS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Whether what is accepted has the options of its listener.
const INHERITS: bool = SPREADS;

/// A listener that is open and does not block, and what is done with its connections.
#[derive(Debug)]
#[non_exhaustive]
pub struct Listening {
    /// The listener.
    pub listener: Listener,
    /// Whether others of this process may listen on its address.
    pub shared: bool,
    /// What its connections get.
    pub sockets: SocketOptions,
    /// What its connections pass, if there is anything.
    pub entrance: Option<Arc<Entrance>>,
}

/// A listener. Dropping it removes the socket file that it made.
#[derive(Debug)]
pub enum Listener {
    /// For TCP.
    Tcp(TcpListener),
    /// For a unix socket.
    #[cfg(unix)]
    Unix {
        /// The listener.
        listener: UnixListener,
        /// Its file, unless that is somebody else's.
        file: Option<SocketFile>,
    },
}

/// What is set on each TCP socket that is accepted.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Duration>,
}

impl SocketOptions {
    /// Sets what a socket that was accepted did not get from its listener. One that refuses is closed already.
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
        entrance: Option<Arc<Entrance>>,
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

    /// Where it can be reached.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<Address> {
        Ok(match &self.listener {
            Listener::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            #[cfg(unix)]
            Listener::Unix { file: Some(file), .. } => Address::Unix(file.path().to_owned()),
            #[cfg(unix)]
            Listener::Unix { listener, file: None } => listener.local_addr()?.into(),
        })
    }

    /// Another listener on the same address, if several may share it.
    ///
    /// # Errors
    /// Of the system.
    pub fn sibling(&self) -> io::Result<Option<Self>> {
        match &self.listener {
            Listener::Tcp(listener) if self.shared => {
                let listener = Listener::Tcp(bind(listener.local_addr()?, true)?);
                Self::new(listener, true, self.sockets, self.entrance.clone()).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Listens on the first of the addresses that can be had. True when others of this process may listen there too.
pub(crate) fn first_of(
    addresses: impl IntoIterator<Item = SocketAddr>,
    several: bool,
    reuse_port: bool,
) -> io::Result<(Listener, bool)> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for address in addresses {
        match listen_at(address, several && SPREADS, reuse_port) {
            Ok(listener) => return Ok((Listener::Tcp(listener), several && SPREADS)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_at(address: SocketAddr, several: bool, reuse_port: bool) -> io::Result<TcpListener> {
    if several && address.port() != 0 && !reuse_port {
        // Another server would share its connections with this one, and neither would notice.
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
    // Connections of a process before this one may linger. On Windows it would let others take the address over.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Whether an error of accept is about the connection, not about accepting.
pub fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
