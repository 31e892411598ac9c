//! TLS for the peer: authorities, what they sign, and connections inside it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};

use super::{Peer, Wire};

/// The name that the certificates of agents are for.
const AGENT: &str = "agent.example";

/// A CA.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    /// Another one.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new([])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Signs a certificate, for an agent or a client.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn sign(&self) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([AGENT.to_owned()])?.signed_by(&key, &self.0)?;
        Ok(Identity { certificate: certificate.der().clone(), pem: certificate.pem(), key })
    }

    /// Writes its certificate into a file.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn write(&self, file: PathBuf) -> Result<PathBuf> {
        fs::write(&file, self.0.pem())?;
        Ok(file)
    }
}

impl Identity {
    /// Writes certificate and key into one file.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn write(&self, file: &Path) -> Result<()> {
        Ok(fs::write(file, self.pem.clone() + &self.key.serialize_pem())?)
    }
}

/// What a client needs that trusts agents of an authority, and may have a certificate of its own.
///
/// # Errors
/// The authority or the certificate is not usable.
pub fn trusting(agents: &Authority, identity: Option<&Identity>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(agents.0.der().clone())?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(match identity {
        None => config.with_no_client_auth(),
        Some(Identity { certificate, key, .. }) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
            config.with_client_auth_cert(vec![certificate.clone()], key)?
        }
    }))
}

impl Peer {
    /// Connects, and goes on inside TLS. The handshake is done when the first byte is sent or received.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> Result<Self> {
        Self::tcp(address)?.into_tls(config)
    }

    /// Goes on inside TLS.
    ///
    /// # Errors
    /// It is not a TCP connection.
    pub fn into_tls(self, config: Arc<ClientConfig>) -> Result<Self> {
        let Wire::Tcp(socket) = self.wire else { anyhow::bail!("TLS is for TCP here") };
        let session = ClientConnection::new(config, ServerName::try_from(AGENT)?)?;
        Self::over(Wire::Tls(Box::new(StreamOwned::new(session, socket))))
    }
}
