//! Addresses, as HAProxy writes them.

#[cfg(target_os = "android")]
use std::os::android::net::SocketAddrExt as _;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
#[cfg(unix)]
use std::os::unix::net::SocketAddr as UnixAddr;
use std::{
    fmt::{self, Write as _},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// The bytes of an abstract name that fit beside the NUL byte in front.
const ABSTRACT_NAME_MAX: usize = 107;

const PREFIXES: &str = "ip@, ipv4@, ipv6@, tcp@, tcp4@, tcp6@ (each before HOST:PORT), unix@, uxst@ (before a path), abns@ and \
                        abnsz@ (before a name)";

/// The address of a listener. As text it is in the format of [`ParsedAddress`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP address, with the port that the system has assigned.
    Tcp(SocketAddr),
    /// The path of a unix socket; empty if it is unnamed.
    Unix(PathBuf),
    /// The name of an abstract unix socket.
    Abstract(AbstractName),
}

impl Address {
    /// The TCP address, if it is one.
    pub const fn tcp(&self) -> Option<SocketAddr> {
        if let Self::Tcp(address) = self { Some(*address) } else { None }
    }
}

#[cfg(unix)]
impl From<UnixAddr> for Address {
    fn from(address: UnixAddr) -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = address.as_abstract_name() {
            return Self::Abstract(AbstractName(name.to_vec()));
        }
        Self::Unix(address.as_pathname().map(Into::into).unwrap_or_default())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::Abstract(name) => name.fmt(f),
        }
    }
}

/// The name of an abstract unix socket, which Linux keeps in the network namespace and not in a file system.
///
/// The NUL bytes at its end count: HAProxy's `abns@name` fills the name up to 107 bytes, its `abnsz@name` (since 3.1) adds
/// nothing. A name that most other programs use is of the second kind.
///
/// There are no permissions: every process of the network namespace may connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AbstractName(Vec<u8>);

impl AbstractName {
    /// HAProxy's `abns@name`: filled up with NUL bytes.
    ///
    /// # Errors
    /// The name is empty, or longer than 107 bytes.
    pub fn padded(name: &str) -> io::Result<Self> {
        let Self(mut bytes) = Self::exact(name)?;
        bytes.resize(ABSTRACT_NAME_MAX, 0);
        Ok(Self(bytes))
    }

    /// HAProxy's `abnsz@name`: this name and no more.
    ///
    /// # Errors
    /// The name is empty, or longer than 107 bytes.
    pub fn exact(name: &str) -> io::Result<Self> {
        if name.is_empty() {
            return Err(invalid("the abstract socket has no name: write abns@NAME"));
        }
        if name.len() > ABSTRACT_NAME_MAX {
            let length = name.len();
            return Err(invalid(format!(
                "the name of the abstract socket has {length} bytes: use at most {ABSTRACT_NAME_MAX}"
            )));
        }
        Ok(Self(name.as_bytes().to_vec()))
    }

    /// The name without the NUL byte that an abstract address begins with.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For the calls of std and of runtimes that bind or connect.
    ///
    /// # Errors
    /// This system is not Linux and has no abstract sockets.
    #[cfg(unix)]
    pub fn socket_addr(&self) -> io::Result<UnixAddr> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return UnixAddr::from_abstract_name(&self.0);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "abstract sockets exist on Linux only: use a path or HOST:PORT",
        ));
    }
}

/// `abns@name`, or `abnsz@name` if it is shorter than those of HAProxy's `abns@`.
impl fmt::Display for AbstractName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, name) = match self.0.len() {
            ABSTRACT_NAME_MAX => {
                let end = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                ("abns@", self.0.get(..end).unwrap_or_default())
            }
            _ => ("abnsz@", self.0.as_slice()),
        };
        f.write_str(prefix)?;
        for character in String::from_utf8_lossy(name).chars() {
            if character.is_control() {
                character.escape_default().fmt(f)?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// An address as text, in HAProxy's format:
///
/// | text | means |
/// |---|---|
/// | `127.0.0.1:12345`, `[::1]:12345`, `agent.internal:12345` | TCP |
/// | `:12345`, `*:12345` | TCP on all IPv4 addresses |
/// | `[::]:12345`, `ipv6@:12345` | TCP on all IPv6 addresses, and where the system is set so, on all IPv4 ones |
/// | `ipv4@host:12345`, `ipv6@host:12345` | TCP, only with addresses of this family; also `tcp4@`, `tcp6@` |
/// | `/run/agent.sock`, `./agent.sock`, `unix@agent.sock` | the path of a unix socket; a slash or a prefix makes it one; also `uxst@` |
/// | `abns@name`, `abnsz@name` | an abstract unix socket (Linux), see [`AbstractName`] |
///
/// `ip@` and `tcp@` change nothing. A port is a single number: ranges and offsets are errors. Port 0 lets the system choose
/// one for a listener. Environment variables are not expanded.
///
/// ```
/// use spop_server::ParsedAddress;
///
/// assert_eq!("*:12345".parse::<ParsedAddress>().unwrap(), ParsedAddress::Tcp(([0, 0, 0, 0], 12345).into()));
/// assert!("quic4@127.0.0.1:12345".parse::<ParsedAddress>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParsedAddress {
    /// An address of TCP.
    Tcp(SocketAddr),
    /// A name to resolve.
    Host {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// Which of its addresses are meant.
        family: Family,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
    /// The name of an abstract unix socket.
    Abstract(AbstractName),
}

/// Which addresses of a host are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// All.
    Any,
    /// `ipv4@`.
    V4,
    /// `ipv6@`.
    V6,
}

impl Family {
    /// Those of the addresses that are of this family.
    ///
    /// # Errors
    /// None of them is.
    pub fn select(
        self,
        host: &str,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> io::Result<Vec<SocketAddr>> {
        let selected: Vec<_> = addresses.into_iter().filter(|address| self.includes(address.ip())).collect();
        if selected.is_empty() {
            let message = format!("host {host} has no {self} address");
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
        }
        Ok(selected)
    }

    const fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "IP",
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What it would be as text.
impl fmt::Display for ParsedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Host { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
            Self::Abstract(name) => name.fmt(f),
        }
    }
}

impl FromStr for ParsedAddress {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        match text.split_once('@') {
            // An @ behind a slash belongs to a path.
            Some((prefix, rest)) if !prefix.contains('/') => match prefix {
                "unix" | "uxst" if rest.is_empty() => Err(invalid("the path is missing: write unix@PATH")),
                "unix" | "uxst" => Ok(Self::Unix(rest.into())),
                "abns" => AbstractName::padded(rest).map(Self::Abstract),
                "abnsz" => AbstractName::exact(rest).map(Self::Abstract),
                "ip" | "tcp" => tcp(rest, Family::Any),
                "ipv4" | "tcp4" => tcp(rest, Family::V4),
                "ipv6" | "tcp6" => tcp(rest, Family::V6),
                _ => Err(invalid(format!(
                    "the prefix {prefix}@ is not supported: use one of {PREFIXES}, or no prefix; for a path with an @, write \
                     unix@PATH"
                ))),
            },
            _ if text.contains('/') => Ok(Self::Unix(text.into())),
            _ => tcp(text, Family::Any),
        }
    }
}

/// Like HAProxy, takes what is behind the last colon that no bracket follows for the port.
fn tcp(text: &str, family: Family) -> io::Result<ParsedAddress> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && !port.is_empty() => (host, port_number(port)?),
        _ => {
            return Err(invalid(
                "the port is missing: write HOST:PORT, [IPV6]:PORT, :PORT, a path with a slash, or abns@NAME",
            ));
        }
    };
    let bare = match host.strip_prefix('[') {
        Some(rest) => {
            rest.strip_suffix(']').ok_or_else(|| invalid("a bracket is not closed: write [IPV6]:PORT"))?
        }
        None => host,
    };
    let address = match host {
        "" | "*" if family == Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "" | "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => match bare.parse() {
            Ok(address) => address,
            // One with a scope, such as fe80::1%eth0, is for the resolver.
            Err(_) if bare.is_empty() || bare.contains(':') && !bare.contains('%') => {
                return Err(invalid(format!("{host} is not an IPv6 address: write [IPV6]:PORT")));
            }
            Err(_) => return Ok(ParsedAddress::Host { host: bare.to_owned(), port, family }),
        },
    };
    if !family.includes(address) {
        return Err(invalid(format!("{address} is not an {family} address, as its prefix says")));
    }
    Ok(ParsedAddress::Tcp(SocketAddr::new(address, port)))
}

fn port_number(text: &str) -> io::Result<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| invalid(format!("port {text} does not exist: use 0 to 65535")));
    }
    Err(invalid(match text.as_bytes() {
        [b'+' | b'-', ..] => format!("{text} is a port offset: write the port itself"),
        [b'0'..=b'9', ..] if text.contains('-') => {
            format!("{text} is a port range: one address has one port, write an address for each")
        }
        _ => format!("port {text} is not a number"),
    }))
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}
