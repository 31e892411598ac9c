//! Which client certificates are accepted: handshakes in memory.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // It is a test.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConnection,
    crypto::ring,
    pki_types::{PrivateKeyDer, ServerName},
};
use spop_server::tls::{Tls, TlsFiles};
use tempfile::TempDir;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// A certificate with these subject alternative names and extended key usages.
fn leaf(ca: &Ca, serial: u64, names: &[&str], usages: &[ExtendedKeyUsagePurpose]) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "common.example");
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages = usages.to_vec();
    Leaf { certificate: params.signed_by(&key, ca).unwrap(), key }
}

struct Setting {
    folder: TempDir,
    ca: Ca,
}

impl Setting {
    fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap(), ca: ca("clients") };
        fs::write(this.path("ca.pem"), this.ca.pem()).unwrap();
        let agent = this.leaf(1, &["agent.example"]);
        fs::write(this.path("agent.pem"), agent.certificate.pem() + &agent.key.serialize_pem()).unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self) -> TlsFiles {
        TlsFiles::new(self.path("agent.pem"), self.path("agent.pem"))
    }

    fn leaf(&self, serial: u64, names: &[&str]) -> Leaf {
        leaf(&self.ca, serial, names, &[])
    }

    /// Writes the revocation list of a CA.
    fn revoke(&self, ca: &Ca, file: &str, serials: &[u64], next_update: i32) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(self.path(file), list.signed_by(ca).unwrap().pem().unwrap()).unwrap();
    }

    /// The handshake of a client: why the server refuses it, if so.
    fn handshake(&self, tls: &Tls, identity: Option<&Leaf>) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(Leaf { certificate, key }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                config.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        };
        let name = ServerName::try_from("agent.example").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut server = ServerConnection::new(tls.current()).unwrap();
        while server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut bytes = bytes.as_slice();
            while !bytes.is_empty() {
                server.read_tls(&mut bytes).unwrap();
                server.process_new_packets().map_err(|error| error.to_string())?;
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut bytes = bytes.as_slice();
            while !bytes.is_empty() {
                client.read_tls(&mut bytes).unwrap();
                client.process_new_packets().map_err(|error| format!("the client: {error}"))?;
            }
        }
        Ok(())
    }
}

#[track_caller]
fn refused(found: Result<(), String>, text: &str) {
    let error = found.unwrap_err();
    assert!(error.contains(text), "{error}");
}

#[test]
fn a_certificate_for_servers_only_is_refused() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

    let setting = Setting::new();
    let tls = Tls::from_files(setting.files().require_clients_of(setting.path("ca.pem"))).unwrap();
    for usages in [&[][..], &[ClientAuth], &[ServerAuth, ClientAuth]] {
        setting.handshake(&tls, Some(&leaf(&setting.ca, 2, &["haproxy.example"], usages))).unwrap();
    }
    let servers_only = leaf(&setting.ca, 2, &["haproxy.example"], &[ServerAuth]);
    refused(setting.handshake(&tls, Some(&servers_only)), "does not allow extended key usage for client");
}

#[test]
fn a_client_has_one_of_the_names() {
    let setting = Setting::new();
    let files = setting.files().require_clients_of(setting.path("ca.pem"));
    let named = files.client_names(["haproxy-1.example.com"]).client_names(["192.0.2.1"]);
    let tls = Tls::from_files(named).unwrap();
    for names in [
        &["haproxy-1.example.com"][..],
        &["other.example", "haproxy-1.example.com"],
        &["*.example.com"],
        &["HAProxy-1.example.com"],
        &["192.0.2.1"],
    ] {
        setting.handshake(&tls, Some(&setting.leaf(2, names))).unwrap();
    }
    refused(setting.handshake(&tls, Some(&setting.leaf(2, &["haproxy-2.example"]))), "haproxy-2.example");
    refused(setting.handshake(&tls, Some(&setting.leaf(2, &["192.0.2.2"]))), "not valid for");
    refused(setting.handshake(&tls, Some(&setting.leaf(2, &[]))), "not valid for any names");
    refused(setting.handshake(&tls, None), "peer sent no certificates");
    // The name is no substitute for the CA.
    let foreign = leaf(&ca("others"), 2, &["haproxy-1.example.com"], &[]);
    refused(setting.handshake(&tls, Some(&foreign)), "UnknownIssuer");
    // The common name does not count.
    let files = setting.files().require_clients_of(setting.path("ca.pem")).client_names(["common.example"]);
    let tls = Tls::from_files(files).unwrap();
    refused(setting.handshake(&tls, Some(&setting.leaf(2, &["haproxy-1.example.com"]))), "common.example");
}

#[test]
fn a_client_that_is_asked_only_needs_a_name_if_it_has_a_certificate() {
    let setting = Setting::new();
    let files = setting.files().ask_clients_of(setting.path("ca.pem")).client_names(["haproxy.example"]);
    let tls = Tls::from_files(files).unwrap();
    setting.handshake(&tls, None).unwrap();
    setting.handshake(&tls, Some(&setting.leaf(2, &["haproxy.example"]))).unwrap();
    refused(setting.handshake(&tls, Some(&setting.leaf(2, &["other.example"]))), "not valid for name");
}

#[test]
fn a_revoked_certificate_is_refused() {
    let setting = Setting::new();
    let crl = setting.path("ca.crl");
    let files = setting.files().require_clients_of(setting.path("ca.pem")).client_revocations(&crl);
    setting.revoke(&setting.ca, "ca.crl", &[2], 4000);
    let tls = Tls::from_files(files.clone()).unwrap();
    let [revoked, valid] = [2, 3].map(|serial| setting.leaf(serial, &["haproxy.example"]));
    refused(setting.handshake(&tls, Some(&revoked)), "Revoked");
    setting.handshake(&tls, Some(&valid)).unwrap();

    // A list that was renewed.
    setting.revoke(&setting.ca, "ca.crl", &[2, 3], 4000);
    setting.handshake(&tls, Some(&valid)).unwrap();
    tls.reload().unwrap();
    refused(setting.handshake(&tls, Some(&valid)), "Revoked");

    // One that is past its next update, and one of another CA: nothing is known of the certificate.
    setting.revoke(&setting.ca, "ca.crl", &[2], 2021);
    tls.reload().unwrap();
    refused(setting.handshake(&tls, Some(&valid)), "revocation list expired");
    setting.revoke(&ca("others"), "ca.crl", &[2], 4000);
    tls.reload().unwrap();
    refused(setting.handshake(&tls, Some(&valid)), "UnknownRevocationStatus");

    // Beside the list of the CA it does no harm.
    setting.revoke(&setting.ca, "own.crl", &[2], 4000);
    let tls = Tls::from_files(files.client_revocations(setting.path("own.crl"))).unwrap();
    setting.handshake(&tls, Some(&valid)).unwrap();
    refused(setting.handshake(&tls, Some(&revoked)), "Revoked");
}

#[test]
fn what_cannot_work_is_an_error_that_names_it() {
    let setting = Setting::new();
    let crl = setting.path("ca.crl");
    let error = |files: TlsFiles| Tls::from_files(files).unwrap_err().to_string();
    let required = || setting.files().require_clients_of(setting.path("ca.pem"));

    for files in [setting.files().client_revocations(&crl), setting.files().client_names(["haproxy.example"])]
    {
        assert!(error(files).contains("use require_clients_of"));
    }
    let text = error(required().client_names(["not a name"]));
    assert!(text.contains("\"not a name\" can be in no certificate"), "{text}");
    let text = error(required().client_names([""; 0]));
    assert!(text.contains("no client would be accepted"), "{text}");
    let named = crl.display().to_string();
    assert!(error(required().client_revocations(&crl)).starts_with(&named));
    fs::write(&crl, setting.ca.pem()).unwrap();
    let text = error(required().client_revocations(&crl));
    assert!(text.starts_with(&named) && text.contains("it has no revocation list"), "{text}");
    fs::write(&crl, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
    let text = error(required().client_revocations(&crl));
    assert!(text.starts_with(&named), "{text}");
}
