//! Connections to an HTTP service: over TCP, and with TLS if its URL begins with `https://`.

use std::{
    error::Error,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use http::{Uri, uri::Scheme};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::timeout;
use tower_service::Service;

/// Makes connections, each within a time.
#[derive(Clone, Debug)]
pub struct Connector {
    https: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.https.call(uri), self.timeout);
        Box::pin(async move {
            timeout(limit, connecting).await.map_err(|_| format!("no connection within {limit:?}"))?
        })
    }
}

/// For the service of this URL, whose certificate is of one of these authorities, or of one that the system trusts.
///
/// # Errors
/// There are no certificates of authorities.
pub fn connector(
    upstream: &Uri,
    authorities: Option<&Path>,
    connect_timeout: Duration,
) -> anyhow::Result<Connector> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    let tls = match authorities {
        Some(file) => tls.with_root_certificates(read(file).with_context(|| file.display().to_string())?),
        None if upstream.scheme() == Some(&Scheme::HTTPS) => {
            tls.with_native_roots().context("the certificates of the system")?
        }
        None => tls.with_root_certificates(RootCertStore::empty()),
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp.set_nodelay(true);
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth());
    let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
    Ok(Connector { https, timeout: connect_timeout })
}

fn read(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    ensure!(!roots.is_empty(), "no certificate is in it");
    Ok(roots)
}
