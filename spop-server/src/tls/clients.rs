//! Which client certificates a server accepts.

use std::{io, path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime, pem::PemObject as _},
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{in_file, roots};

/// Which clients a server accepts, by their certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clients {
    /// The file with their CAs, and whether a client must have a certificate.
    pub(super) ca: Option<(PathBuf, bool)>,
    /// The files with revocation lists.
    pub(super) revocations: Vec<PathBuf>,
    /// The names of which a certificate must have one.
    pub(super) names: Option<Vec<String>>,
}

impl Clients {
    pub(super) fn verifier(&self, provider: Arc<CryptoProvider>) -> io::Result<Arc<dyn ClientCertVerifier>> {
        let Some((ca, required)) = &self.ca else {
            if self.revocations.is_empty() && self.names.is_none() {
                return Ok(WebPkiClientVerifier::no_client_auth());
            }
            return Err(invalid(
                "revocation lists or names of clients need the CA of their certificates: use require_clients_of",
            ));
        };
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider).enforce_revocation_expiration();
        for file in &self.revocations {
            builder = builder.with_crls(revocation_lists(file)?);
        }
        if !required {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| match (&error, self.revocations.as_slice()) {
            (VerifierBuilderError::InvalidCrl(_), [file]) => in_file(file, error),
            (VerifierBuilderError::InvalidCrl(_), _) => io::Error::other(error),
            _ => in_file(ca, error),
        })?;
        let Some(names) = &self.names else { return Ok(verifier) };
        if names.is_empty() {
            return Err(invalid("the list of client names is empty: no client would be accepted"));
        }
        let name = |name: &String| {
            ServerName::try_from(name.clone())
                .map_err(|error| invalid(format!("{name:?} can be in no certificate: {error}")))
        };
        let names = names.iter().map(name).collect::<io::Result<_>>()?;
        Ok(Arc::new(NamedClients { verifier, names }))
    }
}

fn revocation_lists(file: &PathBuf) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    let lists = CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect);
    let lists: Vec<_> = lists.map_err(|error| in_file(file, error))?;
    if lists.is_empty() { Err(in_file(file, "it has no revocation list")) } else { Ok(lists) }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}

/// Accepts the certificates that another verifier accepts, if they have one of these names.
#[derive(Debug)]
struct NamedClients {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ClientCertVerifier for NamedClients {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        // The error of the last name lists the names that the certificate has.
        let mut refused = Error::from(CertificateError::NotValidForName);
        for name in &self.names {
            match verify_server_name(&certificate, name) {
                Ok(()) => return Ok(verified),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
