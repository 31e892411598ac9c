//! Where a server listens, and with which options.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _},
    time::Duration,
};
#[cfg(unix)]
use std::{
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use spop_core::accept::AcceptConfig;

#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    Entrance, Listening, NameOrId, ParsedAddress,
    listening::{Listener, SocketOptions, first_of},
};
#[cfg(unix)]
use crate::{file_access::Access, socket_file::listen_unix};

/// Where to listen: what the `bind` of a server takes.
///
/// A text is an address in HAProxy's format, such as `*:12345`, `/run/agent.sock` or `abns@agent`: see [`ParsedAddress`].
/// One that cannot be read is an error of `bind`. A `(host, port)`, a [`SocketAddr`] and a path are addresses as well. A listener
/// that is open already is taken as it is.
///
/// An endpoint also says what its connections pass before their sessions, and has the options of its socket:
///
/// ```
/// use spop_core::accept::{AcceptConfig, Policy, SourceRules};
/// use spop_server::Endpoint;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let inside = SourceRules::new(Policy::Deny).allow("10.0.0.0/8".parse()?);
/// let tcp = Endpoint::from("0.0.0.0:12345").accept(AcceptConfig::new().with(inside)?).reuse_port(true);
/// let unix = Endpoint::from("/run/agent.sock").mode(0o660).group("haproxy");
/// let in_a_container = Endpoint::from("abns@agent");
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
    owner: Option<NameOrId>,
    group: Option<NameOrId>,
    take_over: bool,
    reuse_port: bool,
    sockets: SocketOptions,
}

#[derive(Debug)]
enum Kind {
    Text(String),
    Address(ParsedAddress),
    Open(Listener),
}

impl From<&str> for Endpoint {
    fn from(text: &str) -> Self {
        Self::new(Kind::Text(text.to_owned()))
    }
}

impl From<String> for Endpoint {
    fn from(text: String) -> Self {
        Self::new(Kind::Text(text))
    }
}

impl From<&String> for Endpoint {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<ParsedAddress> for Endpoint {
    fn from(address: ParsedAddress) -> Self {
        Self::new(Kind::Address(address))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        ParsedAddress::Tcp(address).into()
    }
}

impl From<(IpAddr, u16)> for Endpoint {
    fn from((ip, port): (IpAddr, u16)) -> Self {
        SocketAddr::new(ip, port).into()
    }
}

/// As the text `host:port`.
impl From<(&str, u16)> for Endpoint {
    fn from((host, port): (&str, u16)) -> Self {
        format!("{host}:{port}").into()
    }
}

/// As the text `host:port`.
impl From<(String, u16)> for Endpoint {
    fn from((host, port): (String, u16)) -> Self {
        (host.as_str(), port).into()
    }
}

impl From<TcpListener> for Endpoint {
    fn from(listener: TcpListener) -> Self {
        Self::new(Kind::Open(Listener::Tcp(listener)))
    }
}

#[cfg(unix)]
impl From<&Path> for Endpoint {
    fn from(path: &Path) -> Self {
        path.to_owned().into()
    }
}

#[cfg(unix)]
impl From<PathBuf> for Endpoint {
    fn from(path: PathBuf) -> Self {
        ParsedAddress::Unix(path).into()
    }
}

/// Its socket file is not removed.
#[cfg(unix)]
impl From<UnixListener> for Endpoint {
    fn from(listener: UnixListener) -> Self {
        Self::new(Kind::Open(Listener::Unix { listener, file: None }))
    }
}

impl Endpoint {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            accept: AcceptConfig::new(),
            #[cfg(feature = "tls")]
            tls: None,
            mode: None,
            owner: None,
            group: None,
            take_over: false,
            reuse_port: false,
            sockets: SocketOptions { nodelay: true, keepalive: None },
        }
    }

    /// What connections pass before their sessions: rules, a PROXY header, a monitor's probe, TLS, in the order of the
    /// list.
    #[must_use]
    pub fn accept(mut self, config: AcceptConfig) -> Self {
        self.accept = config;
        self
    }

    /// The certificates for the handler [`Tls`](spop_core::accept::AcceptHandler::Tls), which is added to the end of the list if it is
    /// not there.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// The permissions of a unix socket's file, such as `0o660`. They are set before a client can connect. Without, they
    /// follow from the umask. An error for what has no file, as an abstract socket.
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// The user that owns a unix socket's file, by name or number. It is set before a client can connect, and only
    /// root may set another user. Without, it is the user of the process. An error for what has no file.
    #[must_use]
    pub fn owner(mut self, user: impl Into<NameOrId>) -> Self {
        self.owner = Some(user.into());
        self
    }

    /// The group of a unix socket's file, by name or number. It is set before a client can connect; unless the process
    /// is root's, it must be in the group. Together with [`mode`](Self::mode) `0o660`, the members of the
    /// group may connect. An error for what has no file.
    ///
    /// ```
    /// use spop_server::Endpoint;
    ///
    /// let for_haproxy = Endpoint::from("/run/agent/agent.sock").group("haproxy").mode(0o660);
    /// let by_number = Endpoint::from("/run/agent/agent.sock").owner(0).group(108).mode(0o660);
    /// ```
    #[must_use]
    pub fn group(mut self, group: impl Into<NameOrId>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Replaces the file of a unix socket also if another process serves it, in one step: for a restart without interruption. The
    /// other process keeps its connections, and new ones come here. Default false.
    #[must_use]
    pub const fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Sets `SO_REUSEPORT`: other sockets with this option may listen on the same TCP port, and the system distributes connections
    /// among them. For several processes, or a restart without interruption. Default false.
    #[must_use]
    pub const fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// Sets `SO_KEEPALIVE` with this idle time on TCP connections. Default none: SPOP has its own idle timeout.
    #[must_use]
    pub const fn keepalive(mut self, after: Option<Duration>) -> Self {
        self.sockets.keepalive = after;
        self
    }

    /// Sets `TCP_NODELAY`: answers are sent at once. Default true; false is for measurements.
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
            // A socket of another type stays in the list.
            if let Ok(Some(listener)) = passed.take_unix_listener(index) {
                endpoints.push(listener.into());
            } else if let Some(listener) = passed.take_tcp_listener(index)? {
                endpoints.push(listener.into());
            }
        }
        Ok(endpoints)
    }

    /// Listens there. May ask for the addresses of a host name, and wait for the answer. With `several`, more listeners of
    /// this process may share a TCP address, where the system spreads connections over them
    /// ([`Listening::sibling`]).
    ///
    /// # Errors
    /// Says where it cannot listen, and why.
    pub fn listen(self, several: bool) -> io::Result<Listening> {
        let name = self.to_string();
        self.open(several)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {name}: {error}")))
    }

    fn open(self, several: bool) -> io::Result<Listening> {
        let Self { kind, accept, mode, owner, group, take_over, reuse_port, sockets, .. } = self;
        #[cfg(feature = "tls")]
        let entrance = match self.tls {
            Some(tls) => Entrance::with_tls(accept, tls),
            None => Entrance::new(accept),
        }?;
        #[cfg(not(feature = "tls"))]
        let entrance = Entrance::new(accept)?;
        let has_access = mode.is_some() || owner.is_some() || group.is_some();
        let address = match kind {
            Kind::Open(_) if has_access => return Err(has_no_file()),
            Kind::Open(listener) => return Listening::new(listener, false, sockets, entrance),
            Kind::Address(address) => address,
            Kind::Text(text) => text.parse()?,
        };
        if has_access && !matches!(address, ParsedAddress::Unix(_)) {
            return Err(has_no_file());
        }
        let (listener, shared) = match address {
            ParsedAddress::Tcp(address) => first_of([address], several, reuse_port)?,
            ParsedAddress::Host { host, port, family } => {
                let addresses = (host.as_str(), port).to_socket_addrs()?;
                first_of(family.select(&host, addresses)?, several, reuse_port)?
            }
            #[cfg(unix)]
            ParsedAddress::Unix(path) => {
                let access = Access {
                    mode,
                    owner: owner.map(|user| user.user_id()).transpose()?,
                    group: group.map(|group| group.group_id()).transpose()?,
                };
                let (listener, file) = listen_unix(path, access, take_over)?;
                (Listener::Unix { listener, file: Some(file) }, false)
            }
            #[cfg(unix)]
            ParsedAddress::Abstract(name) => {
                let listener = UnixListener::bind_addr(&name.socket_addr()?).map_err(name_in_use)?;
                (Listener::Unix { listener, file: None }, false)
            }
            #[cfg(not(unix))]
            ParsedAddress::Unix(_) | ParsedAddress::Abstract(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this system has no unix sockets: use HOST:PORT",
                ));
            }
        };
        let _ = take_over;
        Listening::new(listener, shared, sockets, entrance)
    }
}

/// The address, for messages.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Text(text) => f.write_str(text),
            Kind::Address(address) => address.fmt(f),
            Kind::Open(Listener::Tcp(_)) => f.write_str("a TCP listener"),
            #[cfg(unix)]
            Kind::Open(Listener::Unix { .. }) => f.write_str("a unix listener"),
        }
    }
}

fn has_no_file() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "it has no file that could have a mode, an owner or a group: use the path of a unix socket, or leave them out",
    )
}

/// Unlike a file, a name is free when its server has gone.
#[cfg(unix)]
fn name_in_use(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    io::Error::new(
        error.kind(),
        "another process of this network namespace listens there: stop it, or choose another name",
    )
}
