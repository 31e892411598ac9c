//! TLS of an engine.

use std::{fmt, io, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};

use super::{certificates, in_file, key, roots};

/// The PEM files of an engine: certificates and keys.
///
/// ```no_run
/// use spop_server::tls::{ClientTls, ClientTlsFiles};
///
/// # fn main() -> std::io::Result<()> {
/// let files = ClientTlsFiles::new("agents-ca.crt").certificate("engine.crt", "engine.key");
/// let tls = ClientTls::from_files(files)?.server_name("agent.example");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTlsFiles {
    ca: PathBuf,
    identity: Option<(PathBuf, PathBuf)>,
}

impl ClientTlsFiles {
    /// An agent must have a certificate of one of the CAs in this file, for the name that the engine expects.
    pub fn new(ca: impl Into<PathBuf>) -> Self {
        Self { ca: ca.into(), identity: None }
    }

    /// The engine's own certificate, followed by those that lead to its CA, and its key: for agents that require one.
    #[must_use]
    pub fn certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    fn load(&self) -> io::Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots(&self.ca)?);
        let Some((file, key_file)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        builder
            .with_client_auth_cert(certificates(file)?, key(key_file)?)
            .map_err(|error| in_file(file, error))
    }
}

/// The TLS configuration of an engine. Clones share it: [`reload`](Self::reload) affects all.
#[derive(Clone)]
pub struct ClientTls {
    current: Arc<ArcSwap<ClientConfig>>,
    files: Option<ClientTlsFiles>,
    name: Option<String>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, name, .. } = self;
        f.debug_struct("ClientTls").field("files", files).field("name", name).finish_non_exhaustive()
    }
}

/// For options that [`ClientTlsFiles`] does not have.
impl From<Arc<ClientConfig>> for ClientTls {
    fn from(config: Arc<ClientConfig>) -> Self {
        Self { current: Arc::new(ArcSwap::new(config)), files: None, name: None }
    }
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file that is unusable, and the reason.
    pub fn from_files(files: ClientTlsFiles) -> io::Result<Self> {
        let current = Arc::new(ArcSwap::from_pointee(files.load()?));
        Ok(Self { current, files: Some(files), name: None })
    }

    /// The name that the agents' certificates have, where it is not the host by which they are reached: for addresses and
    /// unix sockets.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Reads the files again, for new connections. Open connections continue.
    ///
    /// # Errors
    /// Names the file that is unusable, and the reason; the configuration is unchanged. Also if it does not come from files.
    pub fn reload(&self) -> io::Result<()> {
        let files = self.files.as_ref().ok_or_else(|| io::Error::other("there are no files"))?;
        self.current.store(Arc::new(files.load()?));
        Ok(())
    }

    /// The current configuration.
    pub fn current(&self) -> Arc<ClientConfig> {
        self.current.load_full()
    }

    /// The name that an agent's certificate must have: that of [`server_name`](Self::server_name), else its host.
    ///
    /// # Errors
    /// There is neither, or it is no DNS name or IP address.
    pub fn name_of(&self, host: Option<&str>) -> io::Result<ServerName<'static>> {
        let Some(name) = self.name.as_deref().or(host) else {
            return Err(io::Error::other("TLS needs the name that the certificate has"));
        };
        ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::other(format!("{name:?} can be in no certificate: {error}")))
    }
}
