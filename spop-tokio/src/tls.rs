//! TLS, by rustls.

use std::io;

use bytes::BytesMut;
pub use spop_core::server::tls::{Tls, TlsFiles, TlsPeer};
use tokio_rustls::{TlsAcceptor, server};

use crate::stream::{Stream, Under};

pub(crate) type TlsStream = server::TlsStream<Under>;

/// Does the handshake on a socket, of which `rest` was read already.
pub(crate) async fn accept(tls: &Tls, rest: BytesMut, socket: Stream) -> io::Result<TlsStream> {
    let acceptor = TlsAcceptor::from(tls.current());
    acceptor.accept(Under { rest, socket, notified: false }).await
}
