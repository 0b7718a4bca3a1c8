//! TLS: whom to trust, and what a failure means.
//!
//! Invariants:
//! - The server's certificate is always verified, for the host that `backend_url` names, against
//!   the system's trust anchors and those of `ca_file`; there is no switch to turn that off.
//! - Trust anchors are read again after a certificate of an unknown issuer was seen (or one whose
//!   issuer has a new key), so that a daemon that runs for years follows the system's changes;
//!   when they cannot be read then, the old ones stay.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_rustls::rustls::client::WebPkiServerVerifier;
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::{CryptoProvider, KeyProvider};
use futures_rustls::rustls::pki_types::pem::PemObject as _;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use futures_rustls::rustls::sign::SigningKey;
use futures_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore,
    SignatureScheme,
};
use futures_rustls::{TlsConnector, client::TlsStream};
use url::Host;

use super::certificate::Certificate;
use super::endpoint::Target;
use super::error::{AnchorFault, Cause, Phase, TlsFault, TransportError};
use crate::runtime::{self, TcpStream};

/// How TLS came out, and with whom.
#[derive(Debug)]
pub struct Examined {
    /// The version agreed on, "1.2" or "1.3", or why there is none.
    pub result: Result<&'static str, TransportError>,
    /// The certificate the server presented, trusted or not, where one came and can be read.
    pub certificate: Option<Certificate>,
}

/// The library's own verifier, which decides; what it was shown is remembered.
#[derive(Debug)]
struct Remembering {
    verifier: Arc<WebPkiServerVerifier>,
    leaf: Mutex<Option<CertificateDer<'static>>>,
}

impl Remembering {
    fn new(ca_file: Option<&Path>) -> Result<Self, TransportError> {
        let verifier =
            WebPkiServerVerifier::builder_with_provider(trust_anchors(ca_file)?, provider())
                .build()
                .map_err(unusable)?;
        Ok(Self { verifier, leaf: Mutex::default() })
    }

    fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.leaf.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = end_entity.clone().into_owned();
        *self.leaf.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaf);
        let verifier = &self.verifier;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// The TLS side of a dialer: one server name, one set of trust anchors.
#[derive(Debug)]
pub(super) struct Tls {
    target: Target,
    name: ServerName<'static>,
    ca_file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<ClientConfig>,
    /// The trust anchors are to be read again before the next handshake.
    stale: bool,
}

impl Tls {
    /// Reads the trust anchors.
    ///
    /// # Errors
    /// `ca_file` cannot be read or holds no certificate, there are no trust anchors at all, or the
    /// host's name is none that a certificate could carry.
    pub(super) fn new(target: Target, ca_file: Option<&Path>) -> Result<Self, TransportError> {
        let name = match &target.host {
            Host::Domain(name) => {
                ServerName::try_from(name.clone()).map_err(|_| TransportError::Request {
                    what: "the host in backend_url is no name a certificate can carry",
                })?
            }
            Host::Ipv4(address) => ServerName::IpAddress((*address).into()),
            Host::Ipv6(address) => ServerName::IpAddress((*address).into()),
        };
        let config = client_config(ca_file)?;
        Ok(Self {
            target,
            name,
            ca_file: ca_file.map(Path::to_path_buf),
            state: Mutex::new(State { config, stale: false }),
        })
    }

    /// Agrees on TLS over a connected socket.
    ///
    /// # Errors
    /// [`TransportError::Tls`] or, when the server hangs up, [`TransportError::Closed`].
    pub(super) async fn wrap(
        &self,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        self.agree(self.config().await, stream).await
    }

    /// The same, telling what the server presented, accepted or not.
    pub(super) async fn examine(&self, stream: TcpStream) -> Examined {
        let remembering = Remembering::new(self.ca_file.as_deref());
        let (seen, result) = match remembering {
            Ok(seen) => {
                let seen = Arc::new(seen);
                let mut config = ClientConfig::clone(&*self.config().await);
                config.dangerous().set_certificate_verifier(seen.clone());
                (Some(seen), self.agree(Arc::new(config), stream).await)
            }
            Err(error) => (None, Err(error)),
        };
        let certificate = seen.and_then(|seen| Certificate::read(&seen.leaf()?));
        let result = result.map(|stream| {
            let version = stream.get_ref().1.protocol_version();
            match version {
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                // The library speaks no other.
                Some(_) | None => "1.3",
            }
        });
        Examined { result, certificate }
    }

    async fn agree(
        &self,
        config: Arc<ClientConfig>,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        let connector = TlsConnector::from(config);
        let error = match connector.connect(self.name.clone(), stream).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let Some(fault) = fault_in(&error) else {
            return Err(TransportError::Closed {
                target: self.target.to_string(),
                phase: Phase::Tls,
                source: Some(Box::new(error)),
            });
        };
        if matches!(fault, TlsFault::UnknownIssuer | TlsFault::BadSignature) {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).stale = true;
        }
        Err(TransportError::Tls {
            host: self.target.host.to_string(),
            fault,
            source: Some(Box::new(error)),
        })
    }

    async fn config(&self) -> Arc<ClientConfig> {
        let (config, stale) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&state.config), std::mem::take(&mut state.stale))
        };
        if !stale {
            return config;
        }
        let ca_file = self.ca_file.clone();
        match runtime::spawn_blocking(move || client_config(ca_file.as_deref())).await {
            Ok(fresh) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.config = Arc::clone(&fresh);
                fresh
            }
            Err(error) => {
                tracing::warn!(%error, "trust anchors cannot be read again; the old ones stay");
                config
            }
        }
    }
}

fn fail(fault: AnchorFault, source: Option<Cause>) -> TransportError {
    TransportError::TrustAnchors { fault, source }
}

/// The system's and the user's trust anchors.
fn trust_anchors(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, TransportError> {
    let mut roots = RootCertStore::empty();
    // A system store has odd certificates now and then; those that can be used are.
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|error| {
            fail(AnchorFault::Unreadable(path.to_path_buf()), Some(Box::new(error) as Cause))
        })?;
        // Here every certificate counts: the user named the file.
        let mut found = 0_usize;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let empty = || AnchorFault::Empty(path.to_path_buf());
            let certificate =
                certificate.map_err(|error| fail(empty(), Some(error.to_string().into())))?;
            roots.add(certificate).map_err(|error| fail(empty(), Some(Box::new(error))))?;
            found += 1;
        }
        if found == 0 {
            return Err(fail(AnchorFault::Empty(path.to_path_buf()), None));
        }
    }
    if roots.is_empty() {
        let source = system.errors.into_iter().next().map(|error| Box::new(error) as Cause);
        return Err(fail(AnchorFault::NoneAtAll, source));
    }
    Ok(Arc::new(roots))
}

fn unusable(error: impl Error + Send + Sync + 'static) -> TransportError {
    fail(AnchorFault::Unusable, Some(Box::new(error) as Cause))
}

/// The cryptography of TLS: all that ring has for a client.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { key_provider: &NoKeys, ..rustls::crypto::ring::default_provider() })
}

/// This side has no certificate to prove itself with: signing with keys of one's own is left out.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("no certificates of clients here".to_owned()))
    }
}

/// A client configuration over the system's and the user's trust anchors.
fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TransportError> {
    let roots = trust_anchors(ca_file)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The TLS fault among an error's causes, if it is one.
pub(super) fn fault_in(error: &(dyn Error + 'static)) -> Option<TlsFault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(classify(error));
        }
        // An io::Error hides what it wraps: its source() is the source of that.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(|error| error.get_ref())
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(error) = wrapped {
            return Some(classify(error));
        }
        next = error.source();
    }
    None
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the library's lists of errors are open; what is not told apart is named as a whole"
)]
fn classify(error: &rustls::Error) -> TlsFault {
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
            CertificateError::BadSignature => TlsFault::BadSignature,
            CertificateError::NotValidForName => TlsFault::WrongHost { presented: Vec::new() },
            CertificateError::NotValidForNameContext { presented, .. } => TlsFault::WrongHost {
                presented: presented.iter().map(|name| plain(name)).collect(),
            },
            CertificateError::Expired => TlsFault::Expired { ended: None },
            CertificateError::ExpiredContext { not_after, .. } => {
                TlsFault::Expired { ended: Some(system_time(*not_after)) }
            }
            CertificateError::NotValidYet => TlsFault::NotYetValid { begins: None },
            CertificateError::NotValidYetContext { not_before, .. } => {
                TlsFault::NotYetValid { begins: Some(system_time(*not_before)) }
            }
            CertificateError::Revoked => TlsFault::Revoked,
            // The verifier's own type is not part of the library's interface, its name is.
            CertificateError::Other(other)
                if format!("{other:?}").contains("CaUsedAsEndEntity") =>
            {
                TlsFault::CaAsServer
            }
            _ => TlsFault::BadCertificate,
        },
        rustls::Error::NoCertificatesPresented => TlsFault::BadCertificate,
        rustls::Error::InvalidMessage(_) => TlsFault::NotTls,
        rustls::Error::AlertReceived(_) => TlsFault::Alert,
        _ => TlsFault::Incompatible,
    }
}

/// A name as the library prints it, `DnsName("monitor.example")`, without what stands around it.
fn plain(name: &str) -> String {
    let inner = name.strip_prefix("DnsName(\"").and_then(|name| name.strip_suffix("\")"));
    inner.unwrap_or(name).to_owned()
}

fn system_time(at: UnixTime) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(at.as_secs())).unwrap_or(UNIX_EPOCH)
}
