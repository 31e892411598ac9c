//! TLS, by rustls.

use std::io;

pub use spop_server::tls::{ClientTls, ClientTlsFiles, Tls, TlsFiles, TlsPeer};
use tokio_rustls::{TlsConnector, client, rustls::pki_types::ServerName};

use crate::stream::{Stream, Under};

/// What an engine has opened.
pub(crate) type ClientTlsStream = client::TlsStream<Under>;

/// Does the handshake on a socket that this side has opened.
pub(crate) async fn connect(
    tls: &ClientTls,
    name: ServerName<'static>,
    socket: Stream,
) -> io::Result<ClientTlsStream> {
    let connector = TlsConnector::from(tls.current());
    connector.connect(name, Under { socket, notified: false }).await
}
