//! Certificates made at the start: a CA and a leaf, good or wrong in one of the usual ways.

use std::sync::Arc;

use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::ring;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::Error;

/// Whether there is TLS, and what is wrong with its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    /// Plain HTTP.
    #[default]
    Off,
    /// A leaf that the CA of `ca_pem` signed, for `localhost`, `127.0.0.1`, `::1` and the address
    /// listened on.
    Good,
    /// The same, but its time is over.
    Expired,
    /// The same, but its time has not come.
    NotYetValid,
    /// The same, but for `elsewhere.example`.
    WrongHost,
    /// Signed by another CA than the one of `ca_pem`.
    UnknownCa,
    /// Signed by itself; `ca_pem` is some CA.
    SelfSigned,
}

/// What TLS needs at run time.
pub(crate) struct Certificates {
    /// Shakes hands.
    pub acceptor: TlsAcceptor,
    /// What a client has to trust, PEM.
    pub ca_pem: String,
}

/// Makes the certificates; `host` is the address listened on.
pub(crate) fn make(tls: Tls, host: &str) -> Result<Option<Certificates>, Error> {
    if tls == Tls::Off {
        return Ok(None);
    }
    certificates(tls, host).map(Some).map_err(|cause| Error::Tls(cause.to_string()))
}

fn certificates(tls: Tls, host: &str) -> Result<Certificates, Box<dyn std::error::Error>> {
    let trusted = authority("harborforge-monitor test CA")?;
    let other = authority("some other CA")?;
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    if tls == Tls::WrongHost {
        names = vec!["elsewhere.example".to_owned()];
    }
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, "harborforge-monitor");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if tls == Tls::Expired {
        leaf.not_before = date_time_ymd(2020, 1, 1);
        leaf.not_after = date_time_ymd(2021, 1, 1);
    }
    if tls == Tls::NotYetValid {
        leaf.not_before = date_time_ymd(4000, 1, 1);
    }
    let key = KeyPair::generate()?;
    let leaf = match tls {
        Tls::SelfSigned => leaf.self_signed(&key)?,
        Tls::UnknownCa => leaf.signed_by(&key, &other)?,
        Tls::Off | Tls::Good | Tls::Expired | Tls::NotYetValid | Tls::WrongHost => {
            leaf.signed_by(&key, &trusted)?
        }
    };
    let chain: Vec<CertificateDer<'static>> = vec![leaf.into()];
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Certificates { acceptor: Arc::new(config).into(), ca_pem: trusted.pem() })
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}
