//! TLS, by rustls: certificates from files, and what becomes known of a peer.

mod client;
mod session;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
pub use client::{ClientTls, ClientTlsFiles};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
pub(crate) use session::TlsSession;

/// Where certificates and keys are, all as PEM.
///
/// ```no_run
/// use spop_server::tls::{Tls, TlsFiles};
///
/// # fn main() -> std::io::Result<()> {
/// let tls = Tls::from_files(TlsFiles::new("agent.crt", "agent.key").require_clients_of("haproxy-ca.crt"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    clients: Clients,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Clients {
    Unknown,
    Asked(PathBuf),
    Required(PathBuf),
}

impl TlsFiles {
    /// The agent's certificate, followed by those that lead to its CA, and its key. One file may hold both. Clients are
    /// not asked for a certificate.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into(), clients: Clients::Unknown }
    }

    /// A client must have a certificate of one of the CAs in this file.
    #[must_use]
    pub fn require_clients_of(mut self, ca: impl Into<PathBuf>) -> Self {
        self.clients = Clients::Required(ca.into());
        self
    }

    /// A client may have a certificate of one of the CAs in this file; one of another CA is refused.
    #[must_use]
    pub fn ask_clients_of(mut self, ca: impl Into<PathBuf>) -> Self {
        self.clients = Clients::Asked(ca.into());
        self
    }

    fn load(&self) -> io::Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let verifier = match &self.clients {
            Clients::Unknown => WebPkiClientVerifier::no_client_auth(),
            Clients::Asked(ca) | Clients::Required(ca) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider);
                let verifier = match self.clients {
                    Clients::Asked(_) => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                verifier.build().map_err(|error| in_file(ca, error))?
            }
        };
        builder
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.certificate)?, key(&self.key)?)
            .map_err(|error| in_file(&self.certificate, error))
    }
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| in_file(file, error))?;
    if certificates.is_empty() { Err(in_file(file, "it has no certificate")) } else { Ok(certificates) }
}

/// The CAs in a file.
fn roots(file: &Path) -> io::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| in_file(file, error))?;
    }
    Ok(Arc::new(roots))
}

fn key(file: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| in_file(file, error))
}

fn in_file(file: &Path, error: impl fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}

/// What a listener needs to do TLS. Clones share it: what is replaced in one is replaced in all.
///
/// Connections keep what they began with; a handshake takes what is there when it begins.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    current: ArcSwap<ServerConfig>,
    files: Option<TlsFiles>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.shared.files).finish_non_exhaustive()
    }
}

/// For whatever [`TlsFiles`] has no word for.
impl From<Arc<ServerConfig>> for Tls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { shared: Arc::new(Shared { current: ArcSwap::new(config), files: None }) }
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Says which file is unusable, and why.
    pub fn from_files(files: TlsFiles) -> io::Result<Self> {
        let current = ArcSwap::from_pointee(files.load()?);
        Ok(Self { shared: Arc::new(Shared { current, files: Some(files) }) })
    }

    /// Reads the files again, for the connections to come. Those that are open go on.
    ///
    /// # Errors
    /// Says which file is unusable, and why; then everything stays as it was. Without files there is nothing to read.
    pub fn reload(&self) -> io::Result<()> {
        let files = self.shared.files.as_ref().ok_or_else(|| io::Error::other("there are no files"))?;
        self.replace(Arc::new(files.load()?));
        Ok(())
    }

    /// Takes this for the connections to come.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.shared.current.store(config);
    }

    /// What a handshake takes that begins now.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.shared.current.load_full()
    }
}

/// What TLS says of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsPeer {
    /// The peer's certificate, followed by those that lead to its CA; empty when it showed none. They were verified.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The name that it asked for (SNI).
    pub server_name: Option<String>,
    /// The version, such as `TLSv1_3`.
    pub version: Option<&'static str>,
}

impl TlsPeer {
    /// What is known when the handshake is done.
    pub fn of(session: &ServerConnection) -> Self {
        let certificates = session.peer_certificates().unwrap_or_default();
        Self {
            certificates: certificates.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            server_name: session.server_name().map(ToOwned::to_owned),
            version: session.protocol_version().and_then(|version| version.as_str()),
        }
    }
}
