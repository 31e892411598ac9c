//! TLS, by rustls: certificates from files, and the identity of a peer.

mod client;
mod clients;
mod session;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
pub use client::{ClientTls, ClientTlsFiles};
use clients::Clients;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
pub(crate) use session::TlsSession;

/// The PEM files of a server: certificates and keys.
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

impl TlsFiles {
    /// The agent's certificate, followed by those that lead to its CA, and its key. One file may hold both. Clients are
    /// not asked for a certificate.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into(), clients: Clients::default() }
    }

    /// A client must have a certificate of one of the CAs in this file.
    ///
    /// Each certificate that a CA has issued is accepted, whatever its names, if it has not expired: use a CA that issues to HAProxy
    /// servers only, or [`client_names`](Self::client_names). If the certificate has an extended key usage, `clientAuth` must be among
    /// them; a certificate for servers only is refused.
    #[must_use]
    pub fn require_clients_of(mut self, ca: impl Into<PathBuf>) -> Self {
        self.clients.ca = Some((ca.into(), true));
        self
    }

    /// A client may have a certificate of one of the CAs in this file; one that
    /// [`require_clients_of`](Self::require_clients_of) would refuse is refused.
    #[must_use]
    pub fn ask_clients_of(mut self, ca: impl Into<PathBuf>) -> Self {
        self.clients.ca = Some((ca.into(), false));
        self
    }

    /// A client's certificate must have one of these names: a DNS name or an IP address among its subject alternative names. The
    /// common name does not count. A certificate for `*.example.com` has the name `haproxy.example.com`. Each call adds names.
    ///
    /// ```no_run
    /// use spop_server::tls::{Tls, TlsFiles};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let files = TlsFiles::new("agent.crt", "agent.key")
    ///     .require_clients_of("ca.crt")
    ///     .client_names(["haproxy-1.example", "haproxy-2.example"])
    ///     .client_revocations("ca.crl");
    /// let tls = Tls::from_files(files)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn client_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.clients.names.get_or_insert_default().extend(names.into_iter().map(Into::into));
        self
    }

    /// A client's certificate must not be in the revocation lists (CRLs) of this file. Each call adds a file.
    ///
    /// The lists must cover each certificate of a chain: one list of each CA that issued one of them. A certificate without a list, or
    /// whose list is past its next update, is refused, as HAProxy does with `crl-file`. Lists that were renewed are read by
    /// [`Tls::reload`]; open connections continue.
    #[must_use]
    pub fn client_revocations(mut self, lists: impl Into<PathBuf>) -> Self {
        self.clients.revocations.push(lists.into());
        self
    }

    fn load(&self) -> io::Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        builder
            .with_client_cert_verifier(self.clients.verifier(provider)?)
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

/// The TLS configuration of a listener. Clones share it: [`replace`](Self::replace) affects all.
///
/// A handshake uses the configuration that is current when it begins.
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

/// For options that [`TlsFiles`] does not have.
impl From<Arc<ServerConfig>> for Tls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { shared: Arc::new(Shared { current: ArcSwap::new(config), files: None }) }
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file that is unusable, and the reason.
    pub fn from_files(files: TlsFiles) -> io::Result<Self> {
        let current = ArcSwap::from_pointee(files.load()?);
        Ok(Self { shared: Arc::new(Shared { current, files: Some(files) }) })
    }

    /// Reads the files again, for new connections. Open connections continue.
    ///
    /// # Errors
    /// Names the file that is unusable, and the reason; the configuration is unchanged. Also if it does not come from files.
    pub fn reload(&self) -> io::Result<()> {
        let files = self.shared.files.as_ref().ok_or_else(|| io::Error::other("there are no files"))?;
        self.replace(Arc::new(files.load()?));
        Ok(())
    }

    /// Replaces the configuration, for new connections.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.shared.current.store(config);
    }

    /// The current configuration.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.shared.current.load_full()
    }
}

/// What is known of the peer of a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsPeer {
    /// The verified certificate chain of the peer; empty if it has sent none.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The server name that it has sent (SNI).
    pub server_name: Option<String>,
    /// The version, such as `TLSv1_3`.
    pub version: Option<&'static str>,
}

impl TlsPeer {
    /// The facts of a session whose handshake is done.
    pub fn of(session: &ServerConnection) -> Self {
        let certificates = session.peer_certificates().unwrap_or_default();
        Self {
            certificates: certificates.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            server_name: session.server_name().map(ToOwned::to_owned),
            version: session.protocol_version().and_then(|version| version.as_str()),
        }
    }
}
