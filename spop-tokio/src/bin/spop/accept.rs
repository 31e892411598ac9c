//! Sockets of a listener, and what comes before a session: a PROXY header, TLS.

use std::{io, path::PathBuf, sync::Arc};

use bytes::BytesMut;
use clap::Args;
use spop_core::{
    Clock,
    accept::{Accept, AcceptConfig, Acceptor, ExpectProxy, Origin, Peer},
    config::Checked,
};
use spop_server::{Endpoint, SocketFile};
use spop_tokio::tls::{Tls, TlsFiles};
use tokio::{
    io::{AsyncReadExt as _, join, split},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::timeout_at,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    address::{self, Address, Transport},
    exit::{Failure, reason},
};

/// What comes before a session.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(crate) struct AcceptOptions {
    /// Uses TLS, with this certificate
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Clients must have a certificate of one of the CAs in this file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Expects a PROXY header of either version: `send-proxy` or `send-proxy-v2` of HAProxy's server line
    #[arg(long)]
    pub(crate) proxy: bool,
}

/// An open listener.
pub(crate) struct Listener {
    socket: Socket,
    entrance: Arc<Entrance>,
}

enum Socket {
    Tcp(TcpListener),
    /// The file is removed when the listener is dropped.
    Unix(UnixListener, Option<SocketFile>),
}

/// What a connection passes before its session.
pub(crate) struct Entrance {
    accept: Arc<Checked<AcceptConfig>>,
    tls: Option<Tls>,
}

impl Listener {
    pub(crate) fn bind(address: &Address, options: &AcceptOptions) -> Result<Self, Failure> {
        let tls = options.tls_cert.clone().zip(options.tls_key.clone()).map(|(certificate, key)| {
            let files = TlsFiles::new(certificate, key);
            Tls::from_files(match &options.tls_ca {
                Some(ca) => files.require_clients_of(ca),
                None => files,
            })
        });
        let tls = tls.transpose().map_err(|error| Failure::io(reason(&error)))?;
        let mut accept = AcceptConfig::new();
        if options.proxy {
            accept = accept.with(ExpectProxy::new()).map_err(Failure::usage)?;
        }
        if tls.is_some() {
            accept = accept.with(spop_core::accept::AcceptHandler::Tls).map_err(Failure::usage)?;
        }
        let accept = Arc::new(accept.checked().map_err(Failure::usage)?);
        let socket = listen(address).map_err(|error| Failure::io(reason(&error)))?;
        Ok(Self { socket, entrance: Arc::new(Entrance { accept, tls }) })
    }

    pub(crate) fn address(&self) -> String {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Socket::Unix(_, Some(file)) => Ok(file.path().display().to_string()),
            Socket::Unix(listener, None) => listener.local_addr().map(|address| {
                spop_tokio::Address::from(std::os::unix::net::SocketAddr::from(address)).to_string()
            }),
        }
        .unwrap_or_default()
    }

    /// The port, if it has one.
    pub(crate) fn port(&self) -> Option<u16> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Socket::Unix(..) => None,
        }
    }

    pub(crate) fn entrance(&self) -> Arc<Entrance> {
        Arc::clone(&self.entrance)
    }

    pub(crate) async fn accept(&self) -> io::Result<(address::Socket<TcpStream, UnixStream>, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                // An answer must not wait for the ACK of the one before. A stream that refuses is closed already.
                let _ = socket.set_nodelay(true);
                Ok((address::Socket::Tcp(socket), Peer::from(peer)))
            }
            Socket::Unix(listener, _) => {
                Ok((address::Socket::Unix(listener.accept().await?.0), Peer::unnamed()))
            }
        }
    }
}

fn listen(address: &Address) -> io::Result<Socket> {
    let listening = Endpoint::from(address.parsed().clone()).listen(false)?;
    Ok(match listening.listener {
        spop_server::Listener::Tcp(listener) => Socket::Tcp(TcpListener::from_std(listener)?),
        spop_server::Listener::Unix { listener, file } => {
            Socket::Unix(UnixListener::from_std(listener)?, file)
        }
    })
}

/// A connection whose session begins, and what was read of it.
pub(crate) struct Entered {
    pub(crate) io: Box<dyn Transport>,
    pub(crate) input: BytesMut,
    pub(crate) origin: Origin,
}

impl Entrance {
    /// Passes a connection to its session.
    ///
    /// # Errors
    /// Why it has none.
    pub(crate) async fn pass(
        &self,
        mut io: Box<dyn Transport>,
        peer: Peer,
        clock: &Clock,
    ) -> Result<Entered, String> {
        let mut acceptor = Acceptor::new(Arc::clone(&self.accept), peer, clock.now());
        let mut input = BytesMut::new();
        loop {
            let step = acceptor.on_bytes(clock.now(), &input);
            let (consumed, action) = (step.consumed, step.action);
            let _ = input.split_to(consumed.min(input.len()));
            match action {
                Accept::Ready(origin) => return Ok(Entered { io, input, origin }),
                Accept::Refuse(refusal) => return Err(refusal.to_string()),
                Accept::WantBytes { .. } => {
                    input.reserve(4 << 10);
                    let read = io.read_buf(&mut input);
                    let read = match acceptor.deadline().and_then(|deadline| clock.instant(deadline)) {
                        Some(deadline) => timeout_at(deadline.into(), read).await.unwrap_or_else(|_| {
                            Err(io::Error::new(io::ErrorKind::TimedOut, "no session began in time"))
                        }),
                        None => read.await,
                    };
                    if read.map_err(|error| reason(&error))? == 0 {
                        return Err("the peer closed the connection before its session".into());
                    }
                }
                Accept::StartTls => {
                    let Some(tls) = &self.tls else { return Err("there is no certificate".into()) };
                    // What was read of the handshake, behind a PROXY header, comes first.
                    if !input.is_empty() {
                        let (reader, writer) = split(io);
                        io = Box::new(join(io::Cursor::new(input.split()).chain(reader), writer));
                    }
                    let accepted = TlsAcceptor::from(tls.current()).accept(io);
                    let accepted = match acceptor.deadline().and_then(|deadline| clock.instant(deadline)) {
                        Some(deadline) => timeout_at(deadline.into(), accepted)
                            .await
                            .map_err(|_| "the TLS handshake was not finished in time".to_owned())?,
                        None => accepted.await,
                    };
                    io = Box::new(accepted.map_err(|error| format!("TLS failed: {}", reason(&error)))?);
                    acceptor.on_tls_done(clock.now()).map_err(|misuse| misuse.to_string())?;
                }
                other => return Err(format!("cannot go on with {other:?}")),
            }
        }
    }
}
