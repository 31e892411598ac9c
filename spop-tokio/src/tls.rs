//! TLS, by rustls.

use std::io;

use bytes::BytesMut;
pub use spop_server::tls::{ClientTls, ClientTlsFiles, Tls, TlsFiles, TlsPeer};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, rustls::pki_types::ServerName, server};

use crate::stream::{Stream, Under};

/// What an agent has accepted.
pub(crate) type TlsStream = server::TlsStream<Under>;
/// What an engine has opened.
pub(crate) type ClientTlsStream = client::TlsStream<Under>;

/// Does the handshake on a socket, of which `rest` was read already.
pub(crate) async fn accept(tls: &Tls, rest: BytesMut, socket: Stream) -> io::Result<TlsStream> {
    let acceptor = TlsAcceptor::from(tls.current());
    acceptor.accept(Under { rest, socket, notified: false }).await
}

/// Does the handshake on a socket that this side has opened.
pub(crate) async fn connect(
    tls: &ClientTls,
    name: ServerName<'static>,
    socket: Stream,
) -> io::Result<ClientTlsStream> {
    let connector = TlsConnector::from(tls.current());
    connector.connect(name, Under { rest: BytesMut::new(), socket, notified: false }).await
}
