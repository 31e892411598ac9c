//! Certificates for tests: a CA for servers, one for clients, and their files.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use spop_tokio::tls::TlsFiles;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;

pub type Ca = CertifiedIssuer<'static, KeyPair>;

pub fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub struct Leaf {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

pub fn leaf(ca: &Ca, name: &str) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    Leaf { certificate: params.signed_by(&key, ca).unwrap(), key }
}

/// Files of a server, and what signs its clients.
pub struct Setting {
    folder: TempDir,
    pub servers: Ca,
    pub clients: Ca,
}

impl Setting {
    pub fn new() -> Self {
        let this =
            Self { folder: tempfile::tempdir().unwrap(), servers: ca("servers"), clients: ca("clients") };
        fs::write(this.path("clients.pem"), this.clients.pem()).unwrap();
        fs::write(this.path("servers.pem"), this.servers.pem()).unwrap();
        this.renew();
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another certificate for the server.
    pub fn renew(&self) -> CertificateDer<'static> {
        let leaf = leaf(&self.servers, "agent.example");
        fs::write(self.path("agent.pem"), leaf.certificate.pem() + &leaf.key.serialize_pem()).unwrap();
        leaf.certificate.der().clone()
    }

    pub fn files(&self) -> TlsFiles {
        TlsFiles::new(self.path("agent.pem"), self.path("agent.pem"))
    }
}
