//! Where an agent is, and how a connection to it is opened.

use std::{fmt, io, os::unix::fs::FileTypeExt as _, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use spop_core::accept::{ProxyVersion, encode_proxy_header};
use spop_tokio::{
    ParsedAddress,
    tls::{ClientTls, ClientTlsFiles},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Join},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{self, ClientConnection},
};

use crate::{
    exit::{Failure, reason},
    insecure, time,
};

/// The help of an address.
pub(crate) const HELP: &str = "\
An address is HOST:PORT, the path of a unix socket, or in HAProxy's format: ipv4@HOST:PORT,
ipv6@HOST:PORT, unix@PATH, abns@NAME, abnsz@NAME.";

/// An open connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Its close resets the connection, where there is such a thing: TCP, also below TLS.
    fn reset_on_close(&self) {}
}

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        // A stream that refuses is closed already.
        let _ = self.set_zero_linger();
    }
}

impl Transport for UnixStream {}

impl Transport for Box<dyn Transport> {
    fn reset_on_close(&self) {
        (**self).reset_on_close();
    }
}

impl<S: Transport> Transport for TlsStream<S> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

impl<S: Transport> Transport for tokio_rustls::server::TlsStream<S> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

/// Behind bytes that were read before. It cannot be reset.
impl<R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Transport for Join<R, W> {}

/// A socket without TLS.
pub(crate) enum Socket<T, U> {
    Tcp(T),
    Unix(U),
}

impl Socket<TcpStream, UnixStream> {
    pub(crate) fn boxed(self) -> Box<dyn Transport> {
        match self {
            Self::Tcp(socket) => Box::new(socket),
            Self::Unix(socket) => Box::new(socket),
        }
    }
}

/// An open connection that no runtime drives: its socket is non-blocking, and TLS is established.
pub(crate) struct Bare {
    pub(crate) socket: Socket<std::net::TcpStream, std::os::unix::net::UnixStream>,
    pub(crate) tls: Option<Box<ClientConnection>>,
}

/// An address, and the text that it was.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    text: String,
    parsed: ParsedAddress,
}

impl Address {
    /// Parses an address.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.parse().map_err(|error: io::Error| error.to_string())?;
        Ok(Self { text: text.to_owned(), parsed })
    }

    pub(crate) fn parsed(&self) -> &ParsedAddress {
        &self.parsed
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How to open a connection.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectOptions {
    /// Uses TLS; the certificate must be for NAME, or for the host of the address
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    tls: Option<String>,
    /// The CAs, one of which must have issued the agent's certificate
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with = "tls_insecure")]
    tls_ca: Option<PathBuf>,
    /// The certificate of this side, for agents that require one
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls",
        requires = "tls_key",
        conflicts_with = "tls_insecure"
    )]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Accepts any certificate: encrypted, but with anybody
    #[arg(long, requires = "tls")]
    tls_insecure: bool,
    /// Sends a PROXY header first, of this version, without the address of a client
    #[arg(long, value_name = "VERSION", num_args = 0..=1, require_equals = true, default_missing_value = "v2")]
    proxy: Option<Proxy>,
    /// How long opening a connection may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time::timeout)]
    connect_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Proxy {
    V1,
    V2,
}

/// Opens connections to one agent.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    address: Address,
    tls: Option<ClientTls>,
    proxy: Option<Proxy>,
    limit: Duration,
}

impl Connector {
    pub(crate) fn new(address: Address, options: &ConnectOptions) -> Result<Self, Failure> {
        let tls = options.tls.as_deref().map(|name| tls(name, options)).transpose()?;
        Ok(Self { address, tls, proxy: options.proxy, limit: options.connect_timeout })
    }

    /// The address, for messages.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// Opens a connection: the transport, the PROXY header, TLS.
    pub(crate) async fn open(&self) -> Result<Box<dyn Transport>, Failure> {
        self.limited(async {
            Ok(match connect(self.address.parsed()).await? {
                Socket::Tcp(socket) => self.secure(socket).await?.boxed(),
                Socket::Unix(socket) => self.secure(socket).await?.boxed(),
            })
        })
        .await
    }

    /// As [`open`](Self::open), for a thread with an event loop of its own.
    pub(crate) async fn open_bare(&self) -> Result<Bare, Failure> {
        self.limited(async {
            let (socket, tls) = match connect(self.address.parsed()).await? {
                Socket::Tcp(socket) => {
                    let (socket, tls) = self.secure(socket).await?.into_parts();
                    (Socket::Tcp(socket.into_std()?), tls)
                }
                Socket::Unix(socket) => {
                    let (socket, tls) = self.secure(socket).await?.into_parts();
                    (Socket::Unix(socket.into_std()?), tls)
                }
            };
            Ok(Bare { socket, tls })
        })
        .await
    }

    async fn limited<T>(&self, opening: impl Future<Output = io::Result<T>>) -> Result<T, Failure> {
        let opened = timeout(self.limit, opening).await;
        opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| self.failed(&error))
    }

    async fn secure<S: Transport>(&self, mut socket: S) -> io::Result<Secured<S>> {
        if let Some(version) = self.proxy {
            let version = match version {
                Proxy::V1 => ProxyVersion::V1,
                Proxy::V2 => ProxyVersion::V2,
            };
            let mut header = Vec::new();
            encode_proxy_header(version, None, &mut header);
            socket.write_all(&header).await?;
        }
        let Some(tls) = &self.tls else { return Ok(Secured::Plain(socket)) };
        let name = tls.name_of(self.host().as_deref())?;
        match TlsConnector::from(tls.current()).connect(name, socket).await {
            Ok(stream) => Ok(Secured::Tls(Box::new(stream))),
            Err(error) => Err(io::Error::other(format!("TLS failed: {}{}", reason(&error), hint(&error)))),
        }
    }

    fn host(&self) -> Option<String> {
        match self.address.parsed() {
            ParsedAddress::Host { host, .. } => Some(host.clone()),
            ParsedAddress::Tcp(address) => Some(address.ip().to_string()),
            ParsedAddress::Unix(_) | ParsedAddress::Abstract(_) => None,
        }
    }

    /// The address is the path of something else.
    fn is_no_socket(&self) -> bool {
        let ParsedAddress::Unix(path) = self.address.parsed() else { return false };
        path.metadata().is_ok_and(|file| !file.file_type().is_socket())
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let address = &self.address;
        Failure::io(match error.kind() {
            io::ErrorKind::ConnectionRefused if self.is_no_socket() => {
                format!("{address}: this is no socket")
            }
            io::ErrorKind::ConnectionRefused => {
                format!("{address}: connection refused: is the agent running?")
            }
            io::ErrorKind::NotFound => format!("{address}: there is no such socket: is the agent running?"),
            io::ErrorKind::PermissionDenied => {
                format!("{address}: permission denied: see the mode and the group of the socket")
            }
            io::ErrorKind::TimedOut => {
                format!("{address}: no connection within {:?}: is a firewall between?", self.limit)
            }
            _ => format!("{address}: {}", reason(error)),
        })
    }
}

/// A socket, and TLS on it if there is any.
enum Secured<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
}

impl<S: Transport> Secured<S> {
    fn boxed(self) -> Box<dyn Transport>
    where
        S: 'static,
    {
        match self {
            Self::Plain(socket) => Box::new(socket),
            Self::Tls(stream) => stream,
        }
    }

    fn into_parts(self) -> (S, Option<Box<ClientConnection>>) {
        match self {
            Self::Plain(socket) => (socket, None),
            Self::Tls(stream) => {
                let (socket, tls) = stream.into_inner();
                (socket, Some(Box::new(tls)))
            }
        }
    }
}

/// What to look at when TLS fails.
fn hint(error: &io::Error) -> &'static str {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => ": does the agent use TLS?",
        _ => "",
    }
}

fn tls(name: &str, options: &ConnectOptions) -> Result<ClientTls, Failure> {
    let tls = match (&options.tls_ca, options.tls_insecure) {
        (None, false) => {
            return Err(Failure::usage("--tls needs --tls-ca FILE, or --tls-insecure"));
        }
        (None, true) => insecure::tls(),
        (Some(ca), _) => {
            let mut files = ClientTlsFiles::new(ca);
            if let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) {
                files = files.certificate(certificate, key);
            }
            ClientTls::from_files(files)
        }
    };
    let tls = tls.map_err(|error| Failure::io(reason(&error)))?;
    Ok(match name {
        // The name is sent, and not checked.
        "" if options.tls_insecure => tls.server_name("localhost"),
        "" => tls,
        name => tls.server_name(name),
    })
}

async fn connect(address: &ParsedAddress) -> io::Result<Socket<TcpStream, UnixStream>> {
    let stream = match address {
        ParsedAddress::Host { host, port, family } => {
            let addresses = lookup_host((host.as_str(), *port)).await?;
            TcpStream::connect(family.select(host, addresses)?.as_slice()).await?
        }
        ParsedAddress::Tcp(address) => TcpStream::connect(address).await?,
        ParsedAddress::Unix(path) => return Ok(Socket::Unix(UnixStream::connect(path).await?)),
        ParsedAddress::Abstract(name) => {
            let address = name.socket_addr()?.into();
            return Ok(Socket::Unix(UnixStream::connect_addr(&address).await?));
        }
    };
    // HAProxy sets it as well. A stream that refuses is closed already.
    let _ = stream.set_nodelay(true);
    Ok(Socket::Tcp(stream))
}
